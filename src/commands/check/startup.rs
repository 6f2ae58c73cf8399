//! Pure: what FRR would load at a boot, when no wmgwd runs yet.

use super::Finding;
use crate::host::frr::config::Entry;
use crate::host::frr::inspection::Inspection;
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
        let mend = "run this as root, or as a member of group frr";
        return vec![Finding::warn(ABOUT, text, mend)];
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
            let mend = match entries {
                0 => format!("sed -i '/^bgp extcommunity-list standard {LIST} /d' {file}"),
                _ => format!("delete from {file} the entries of {ROUTE_MAP} with `match evpn vni`"),
            };
            findings.push(Finding::warn(
                ABOUT,
                format!(
                    "{file} lets {owned} VNIs out, as `write memory` leaves it: at a boot this gateway would \
                     advertise what another owns by then"
                ),
                mend,
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
    let without: Vec<Vni> = bridges.difference(&costs).copied().collect();
    findings.extend(
        Finding::warn(
            ABOUT,
            "no cost for br<VNI>, so that until wmgwd sets it this gateway is better than any owner",
            "append `interface br<VNI>` and ` ip ospf cost 65535` for each, see the end of frr.conf.example",
        )
        .of(&without),
    );
    if findings.is_empty() && filtered {
        findings.push(Finding::ok(
            ABOUT,
            "holds nothing that is owned, and costs for each br<VNI>",
        ));
    }
    findings
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
    use crate::host::frr::config::{parse_bgp, parse_ospf};
    use crate::host::frr::inspection::Saved;

    fn loads(text: &str) -> Vec<(Level, String)> {
        let saved = Saved {
            path: "/etc/frr/frr.conf".into(),
            bgp: parse_bgp(text),
            costs: parse_ospf(text),
        };
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
