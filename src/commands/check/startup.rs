//! Pure: what FRR would load at a boot, when no wmgwd runs yet.

use super::Finding;
use crate::host::frr::config::Entry;
use crate::host::frr::inspection::{Inspection, Saved};
use crate::host::frr::script::{CLOSING, LIST, ROUTE_MAP, is_open};
use crate::model::frr::Cost;
use crate::model::purpose::Purpose;
use crate::model::types::Vni;
use std::collections::BTreeSet;

/// What there is to say of the files.
pub fn findings(purpose: &Purpose, frr: &Inspection, bridges: &BTreeSet<Vni>) -> Vec<Finding> {
    const ABOUT: &str = "frr.conf";
    if let Some(path) = &frr.unreadable {
        let text = format!("{} may not be read by this user", path.display());
        let remedy = "run this as root, or as a member of group frr";
        return vec![Finding::warn(ABOUT, text, remedy)];
    }
    let mut findings = Vec::new();
    let mut costs = BTreeSet::new();
    let mut filtered = false;
    for saved in &frr.saved {
        let file = saved.path.display();
        let cheap: Vec<Vni> = saved
            .costs
            .iter()
            .filter(|(vni, cost)| purpose.range.contains(**vni) && **cost < Cost::OTHERS)
            .map(|(vni, _)| *vni)
            .collect();
        costs.extend(saved.costs.keys().copied());
        let entries = saved.bgp.entries.values();
        let entries = entries.filter(|entry| names_a_vni(entry)).count();
        let owned = saved.bgp.list.len() + entries;
        if owned > 0 {
            // A route-map entry must go as a whole: without its match it would let out everything.
            let remedy = match entries {
                0 => format!("sed -i '/^bgp extcommunity-list standard {LIST} /d' {file}"),
                _ => format!("delete from {file} the entries of {ROUTE_MAP} with `match evpn vni`"),
            };
            findings.push(Finding::warn(
                ABOUT,
                format!(
                    "{file} lets {owned} VNIs out, as `write memory` leaves it: at a boot this gateway would \
                     advertise what another owns by then"
                ),
                remedy,
            ));
        }
        findings.extend(
            Finding::warn(
                ABOUT,
                format!("{file} gives br<VNI> a cost below 65535, and draws its traffic at a boot"),
                format!("set `ip ospf cost 65535` for each br<VNI> in {file}"),
            )
            .of(&cheap),
        );
        if !saved.bgp.entries.is_empty() {
            filtered = true;
            if is_open(&saved.bgp) {
                findings.push(Finding::warn(
                    ABOUT,
                    format!(
                        "{ROUTE_MAP} in {file} is not closed by a deny: at a boot this gateway would advertise every VNI"
                    ),
                    format!("add to {file}: route-map {ROUTE_MAP} deny {CLOSING}"),
                ));
            }
        }
    }
    let unsure: Vec<String> = frr.saved.iter().filter_map(unsure).collect();
    if !unsure.is_empty() {
        let text = format!("not understood, and may matter: {}", unsure.join(", "));
        let remedy = "write the line as `vtysh -c 'show running-config'` would";
        findings.push(Finding::unknown(ABOUT, text, remedy));
    }
    let without: Vec<Vni> = bridges.difference(&costs).copied().collect();
    let without = without.as_slice();
    findings.extend(
        Finding::warn(
            ABOUT,
            "no cost for br<VNI>, so that until wmgwd sets it this gateway is better than any owner",
            "append `interface br<VNI>` and ` ip ospf cost 65535` for each, see the end of frr.conf.example",
        )
        .of(if unsure.is_empty() { without } else { &[] }),
    );
    if findings.is_empty() && filtered {
        findings.push(Finding::ok(
            ABOUT,
            "holds nothing that is owned, and costs for each br<VNI>",
        ));
    }
    findings
}

/// Where a file is not understood.
fn unsure(saved: &Saved) -> Option<String> {
    const NAMED: usize = 5;
    let numbers: Vec<String> = saved
        .unsure
        .iter()
        .take(NAMED)
        .map(usize::to_string)
        .collect();
    let more = if saved.unsure.len() > NAMED {
        ",..."
    } else {
        ""
    };
    let file = saved.path.display();
    (!numbers.is_empty()).then(|| format!("{file} line {}{more}", numbers.join(",")))
}

/// Whether an entry lets one VNI out, as `--evpn-filter entries` and the Go program have them.
fn names_a_vni(entry: &Entry) -> bool {
    let of_vni = |line: &String| line.starts_with("match evpn vni ");
    entry.permits && entry.body.iter().any(of_vni)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::tests::{purpose, said, vnis};
    use super::*;

    fn loads(text: &str) -> Vec<(Level, String)> {
        let saved = Saved::read("/etc/frr/frr.conf".into(), text);
        let frr = Inspection {
            saved: vec![saved],
            ..Inspection::default()
        };
        let bridges = BTreeSet::from_iter(vnis(&[1]));
        let findings = findings(&purpose(1, 1), &frr, &bridges);
        let said = said(&findings).into_iter();
        said.map(|(level, text)| (level, text.to_owned())).collect()
    }

    const WELL: &str = "route-map filter-vni permit 3\nroute-map filter-vni deny 65535\ninterface br1\n ip ospf cost 65535\n";

    #[test]
    fn a_file_as_the_example_has_it() {
        assert_eq!(loads(WELL), []);
        // The entry that matches the list lets nothing out while the list is empty.
        let shaped = format!("{WELL}route-map filter-vni permit 10\n match extcommunity wmgwd\n");
        assert_eq!(loads(&shaped), []);
    }

    /// Input: the file with tabs, without indentation, with words cut short; and with words cut too short. Output: the
    /// first are as good as the example, the last cannot be told.
    #[test]
    fn a_file_as_operators_write_it() {
        let tabs = WELL.replace("\n ", "\n\t");
        let bare = WELL.replace("\n ", "\n");
        let short = WELL.replace("interface", "int").replace("ospf", "os");
        for file in [&tabs, &bare, &short] {
            assert_eq!(loads(file), [], "{file}");
        }
        let found = loads(&WELL.replace("interface", "i"));
        let text = "not understood, and may matter: /etc/frr/frr.conf line 3,4";
        assert_eq!(found, [(Level::Unknown, text.to_owned())]);
    }

    #[test]
    fn what_write_memory_leaves() {
        let list = loads(&format!(
            "{WELL}bgp extcommunity-list standard wmgwd seq 1 permit rt 65000:1\n"
        ));
        assert!(
            matches!(&list[..], [(Level::Warn, text)] if text.contains("lets 1 VNIs out")),
            "{list:?}"
        );
        let entry = loads(&format!(
            "{WELL}route-map filter-vni permit 11\n match evpn vni 1\n"
        ));
        assert!(
            matches!(&entry[..], [(Level::Warn, text)] if text.contains("lets 1 VNIs out")),
            "{entry:?}"
        );
        let cost = loads(&WELL.replace("65535\n", "100\n"));
        assert_eq!(cost.len(), 2, "{cost:?}");
        assert_eq!(loads("").len(), 1, "no cost at all");
    }
}
