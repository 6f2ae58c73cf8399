//! Pure: what becomes of a route in the outbound route-map, and what in the operator's part of it wmgwd cannot
//! work with.

use super::config::{BgpConfig, Entry};
use super::script::{CLOSING, LIST, ROUTE_MAP};

/// How a route of a VNI that this node does not own fares in the route-map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is advertised.
    Out,
    /// It is not.
    Held,
    /// An entry has a condition that is not understood.
    Unclear,
}

/// Walks the route-map as bgpd does (`route_map_apply_ext` in FRR's lib/routemap.c): the first entry that
/// matches decides, unless it goes on elsewhere; past the last entry a route is held, but permitted if it was
/// sent there by a `goto` (measured).
pub fn outcome(config: &BgpConfig, route_types: &[&str]) -> Outcome {
    let mut from = 0;
    let mut sent = false;
    loop {
        let matching = config.entries.range(from..).find_map(|(seq, entry)| {
            match_of(entry, route_types).map(|certain| (*seq, entry, certain))
        });
        let Some((seq, entry, certain)) = matching else {
            return if sent { Outcome::Out } else { Outcome::Held };
        };
        if !certain {
            return Outcome::Unclear;
        }
        if !entry.permits {
            return Outcome::Held;
        }
        let next = entry.body.iter().find_map(|line| {
            let target = line.strip_prefix("on-match ")?;
            match target.strip_prefix("goto ") {
                Some(number) => number.parse().ok(),
                None => Some(seq + 1),
            }
        });
        match next {
            Some(next) if next > seq => {
                from = next;
                sent = true;
            }
            _ => return Outcome::Out,
        }
    }
}

/// Whether an entry matches: `None` if it does not, `Some(false)` if that cannot be told.
fn match_of(entry: &Entry, route_types: &[&str]) -> Option<bool> {
    let mut certain = true;
    for line in entry.body.iter().filter_map(|it| it.strip_prefix("match ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["evpn", "route-type", kind] if route_types.contains(&kind) => {}
            ["evpn", "route-type" | "vni", _] => return None,
            ["extcommunity", list] if list == LIST => return None,
            _ => certain = false,
        }
    }
    Some(certain)
}

/// Something in the operator's part of the configuration that is not as wmgwd needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Whether it is one for sure.
    pub is_certain: bool,
    /// What it is, said of the route-map, and what follows from it.
    pub text: String,
    /// What repairs it.
    pub remedy: String,
}

/// What is wrong with the route-map, apart from what wmgwd itself writes there: the deny that closes it is taken
/// to be there.
pub fn faults(config: &BgpConfig) -> Vec<Fault> {
    const EXAMPLE: &str = "take the route-map from frr.conf.example";
    let fault = |text: &str, remedy: &str| Fault {
        is_certain: true,
        text: text.to_owned(),
        remedy: remedy.to_owned(),
    };
    if config.entries.is_empty() {
        let text = "bgpd has no such route-map: every VNI would be advertised";
        return vec![fault(text, EXAMPLE)];
    }
    let mut faults = Vec::new();
    if let Some(instance) = &config.foreign_instance {
        faults.push(fault(
            &format!("does nothing for `{instance}`, which has advertise-all-vni: wmgwd works with the default BGP instance only"),
            "move `advertise-all-vni` and the EVPN neighbours to `router bgp AS` without a VRF",
        ));
    }
    if config.activated == 0 {
        faults.push(fault(
            "filters no neighbour, as none is activated in address-family l2vpn evpn: no VNI is advertised",
            "activate the neighbours there, as in frr.conf.example",
        ));
    }
    if let Some(at) = &config.filter_at {
        let asn = config.asn.map_or("AS".to_owned(), |asn| asn.to_string());
        faults.push(fault(
            &format!(
                "is not the outbound filter of {}: this gateway advertises every VNI there",
                config.unfiltered.join(", ")
            ),
            &format!(
                "vtysh -c 'configure terminal' -c 'router bgp {asn}' -c 'address-family l2vpn evpn' \
                 -c 'neighbor {at} route-map {ROUTE_MAP} out'"
            ),
        ));
    }
    let mut closed = config.clone();
    closed.entries.entry(CLOSING).or_insert(Entry {
        permits: false,
        body: Vec::new(),
    });
    let held = [
        ("type-2", &["2", "macip"][..]),
        ("type-5", &["5", "prefix"]),
    ];
    for (what, names) in held {
        match outcome(&closed, names) {
            Outcome::Held => {}
            Outcome::Out => faults.push(fault(
                &format!("lets {what} routes out whatever the VNI: no entry sends them past entry 3"),
                EXAMPLE,
            )),
            Outcome::Unclear => faults.push(Fault {
                is_certain: false,
                ..fault(
                    &format!("whether it holds {what} routes of other gateways' VNIs cannot be told from its conditions"),
                    EXAMPLE,
                )
            }),
        }
    }
    if outcome(&closed, &["3", "multicast"]) == Outcome::Held {
        faults.push(fault(
            "holds type-3 routes back, so that broadcasts of the VNIs do not reach this gateway",
            &format!("vtysh -c 'configure terminal' -c 'route-map {ROUTE_MAP} permit 3'"),
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::frr::config::parse_bgp;

    const ROUTER: &str = "router bgp 65000\n address-family l2vpn evpn\n  neighbor fabric activate\n  neighbor fabric route-map filter-vni out\n";
    const MAP: &str = "route-map filter-vni permit 1\n match evpn route-type macip\n on-match goto 4\n\
        route-map filter-vni permit 2\n match evpn route-type prefix\n on-match goto 4\n\
        route-map filter-vni permit 3\n";
    const DENY: &str = "route-map filter-vni deny 65535\n";

    /// Whether each fault is certain, and how its text begins.
    fn found(text: &str) -> Vec<(bool, String)> {
        let faults = faults(&parse_bgp(text));
        let begins = |text: &str| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
        faults
            .iter()
            .map(|fault| (fault.is_certain, begins(&fault.text)))
            .collect()
    }

    fn certain(texts: &[&str]) -> Vec<(bool, String)> {
        texts.iter().map(|text| (true, text.to_string())).collect()
    }

    /// Input: route-maps as operators may have them. Output: what each lets out and holds back.
    #[test]
    fn a_route_map_is_walked_as_bgpd_walks_it() {
        let of = |map: &str| found(&format!("{ROUTER}{map}"));
        assert_eq!(of(&format!("{MAP}{DENY}")), []);
        let owned = "route-map filter-vni permit 10\n match extcommunity wmgwd\nroute-map filter-vni permit 12\n match evpn vni 2\n";
        assert_eq!(of(&format!("{MAP}{owned}{DENY}")), []);
        // As the original documents it: wmgwd closes it at its start.
        assert_eq!(of(MAP), []);
        // `next` instead of `goto`: entry 3 lets everything out.
        assert_eq!(
            of(&format!("{}{DENY}", MAP.replace("goto 4", "next"))),
            certain(&["lets type-2", "lets type-5"])
        );
        let no_third = MAP.replace("route-map filter-vni permit 3\n", "");
        assert_eq!(of(&format!("{no_third}{DENY}")), certain(&["holds type-3"]));
        let peer = MAP.replace("match evpn route-type macip", "match peer 10.0.0.1");
        let unclear = (false, "whether it".to_owned());
        assert_eq!(of(&format!("{peer}{DENY}")), [unclear.clone(), unclear]);
        assert_eq!(of(""), certain(&["bgpd has"]));
        assert_eq!(found(MAP), certain(&["filters no"]));
        let open = ROUTER.replace("filter-vni out", "other out");
        assert_eq!(found(&format!("{open}{MAP}{DENY}")), certain(&["is not"]));
        let vrf = ROUTER.replace("65000", "65000 vrf und") + "  advertise-all-vni\n";
        assert_eq!(
            found(&format!("{vrf}{MAP}{DENY}")),
            certain(&["does nothing"])
        );
    }

    #[test]
    fn past_the_last_entry_a_route_that_was_sent_there_goes_out() {
        let config = parse_bgp(MAP);
        assert_eq!(outcome(&config, &["2", "macip"]), Outcome::Out);
        assert_eq!(outcome(&config, &["1"]), Outcome::Out);
        let closed = parse_bgp(&format!("{MAP}{DENY}"));
        assert_eq!(outcome(&closed, &["2", "macip"]), Outcome::Held);
        // A jump backwards ends the walk instead of repeating it.
        let back = parse_bgp("route-map filter-vni permit 7\n on-match goto 3\n");
        assert_eq!(outcome(&back, &["2"]), Outcome::Out);
    }
}
