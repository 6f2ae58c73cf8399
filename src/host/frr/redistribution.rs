//! `--announce routes`: what of FRR it depends on. ospfd or bgpd must redistribute the kernel's routes, zebra must have
//! heard of each, and a bridge that ospfd announces all the same must be as expensive as one of `--announce costs`.

use super::config::of_bridges;
use super::inspection::json;
use super::run::{Daemon, Vtysh};
use crate::host::Error;
use crate::host::routes::{Prefix, Routes};
use crate::model::types::Vni;
use log::info;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a running configuration has a protocol carry the kernel's routes: ospfd's `router ospf`, or the family
/// ipv4 unicast of bgpd's `router bgp`.
pub fn redistributes_kernel(config: &str) -> bool {
    let mut is_router = false;
    let mut is_family = true;
    for line in config.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            is_router = matches!(words[..], ["router", "ospf" | "bgp", ref rest @ ..] if !rest.contains(&"vrf"));
            is_family = true;
            continue;
        }
        match words[..] {
            ["address-family", ref family @ ..] => is_family = family == ["ipv4", "unicast"],
            ["exit-address-family"] => is_family = true,
            ["redistribute", "kernel", ..] if is_router && is_family => return true,
            _ => {}
        }
    }
    false
}

/// The bridges that ospfd announces by itself, also those that are yet to come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Enabled {
    networks: Vec<Prefix>,
    bridges: BTreeSet<Vni>,
}

impl Enabled {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.bridges.is_empty()
    }

    /// Whether the bridge of `vni`, which has the prefix `subnet`, is one of them.
    pub fn has(&self, vni: Vni, subnet: Prefix) -> bool {
        self.bridges.contains(&vni) || self.networks.iter().any(|it| it.contains(subnet))
    }
}

/// Reads from ospfd's running configuration what it announces: `network` of `router ospf`, and `ip ospf area` of bridges.
pub fn parse_enabled(config: &str) -> Enabled {
    let mut is_router = false;
    let mut networks = Vec::new();
    for line in config.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            is_router =
                matches!(words[..], ["router", "ospf", ref rest @ ..] if !rest.contains(&"vrf"));
        } else if let ["network", prefix, ..] = words[..]
            && is_router
        {
            networks.extend(parse_prefix(prefix));
        }
    }
    let is_in_area =
        |words: &[&str]| matches!(words, ["ip", "ospf", rest @ ..] if rest.contains(&"area"));
    let bridges = of_bridges(config).filter(|(_, words)| is_in_area(words));
    let bridges = bridges.map(|(vni, _)| vni).collect();
    Enabled { networks, bridges }
}

/// Reads `show ip route kernel json`: the prefixes, and the interfaces that they lead through without a router. (A route
/// by way of a router is the operator's.)
pub fn parse_kernel_routes(text: &str) -> BTreeMap<Prefix, Vec<String>> {
    let json = json(text);
    let routes = json.as_object().into_iter().flatten();
    let mut read = BTreeMap::new();
    for (prefix, entries) in routes {
        let Some(prefix) = parse_prefix(prefix) else {
            continue;
        };
        let entries = entries.as_array().into_iter().flatten();
        let hops = entries.filter_map(|entry| entry.get("nexthops")?.as_array());
        let is_direct = |hop: &&Value| hop.get("ip").is_none();
        let interface = |hop: &Value| Some(hop.get("interfaceName")?.as_str()?.to_owned());
        let hops = hops.flatten().filter(is_direct);
        read.insert(prefix, hops.filter_map(interface).collect());
    }
    read
}

fn parse_prefix(text: &str) -> Option<Prefix> {
    let (address, length) = text.split_once('/')?;
    Prefix::new(address.parse().ok()?, length.parse().ok()?)
}

/// Reads `show ip route summary json`: how many routes of the kernel's zebra has.
fn parse_summary(text: &str) -> Option<u64> {
    let json = json(text);
    let types = json.get("routes")?.as_array()?;
    let is_kernel = |it: &&Value| it.get("type").and_then(Value::as_str) == Some("kernel");
    match types.iter().find(is_kernel) {
        Some(kernel) => kernel.get("rib")?.as_u64(),
        None => Some(0),
    }
}

/// Compares zebra's routes with those that were made. Its list takes zebra long (0.7 s and 14.6 MB for 20 000, FRR
/// 8.4), so it is read only if something changed since it was as it should be.
#[derive(Debug, Default)]
pub struct ZebraCheck {
    /// By family, the number of kernel routes in zebra, and the announced prefixes, at the last look that found nothing.
    agreed: [Option<(u64, BTreeSet<Prefix>)>; 2],
    /// IPv6 routes were announced once.
    had_ipv6: bool,
}

impl ZebraCheck {
    /// Looks, and has zebra told again what it missed.
    ///
    /// # Errors
    /// zebra or the kernel did not answer.
    pub fn look(
        &mut self,
        vtysh: &Vtysh,
        routes: &mut Routes,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.look_at("ip", vtysh, routes, permit)?;
        self.had_ipv6 |= routes.announced().iter().any(|it| it.prefix.is_ipv6());
        match self.had_ipv6 {
            true => self.look_at("ipv6", vtysh, routes, permit),
            false => Ok(()),
        }
    }

    /// The part of one family, as zebra names it.
    fn look_at(
        &mut self,
        family: &str,
        vtysh: &Vtysh,
        routes: &mut Routes,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let is_ipv6 = family == "ipv6";
        let agreed = &mut self.agreed[usize::from(is_ipv6)];
        let mut announced = routes.announced();
        announced.retain(|it| it.prefix.is_ipv6() == is_ipv6);
        let prefixes: BTreeSet<Prefix> = announced.iter().map(|route| route.prefix).collect();
        let summary = vtysh.show(Daemon::Zebra, &format!("show {family} route summary json"))?;
        let now = parse_summary(&summary).map(|count| (count, prefixes));
        if now.is_some() && now == *agreed {
            return Ok(());
        }
        *agreed = None;
        let list = vtysh.show(Daemon::Zebra, &format!("show {family} route kernel json"))?;
        let known = parse_kernel_routes(&list);
        let missed: Vec<_> = announced
            .into_iter()
            .filter(|route| !known.contains_key(&route.prefix))
            .collect();
        let is_wanted = |prefix: &Prefix| now.as_ref().is_some_and(|(_, it)| it.contains(prefix));
        let extra: Vec<(Prefix, String)> = known
            .into_iter()
            .filter(|(prefix, _)| !is_wanted(prefix))
            .flat_map(|(prefix, names)| names.into_iter().map(move |name| (prefix, name)))
            .collect();
        let forgotten = routes.forget(&extra)?;
        if !missed.is_empty() {
            info!(
                "FRR: zebra missed {} routes of VNIs served here: told again",
                missed.len()
            );
            routes.renew(&missed, permit)?;
        }
        if forgotten > 0 {
            info!("FRR: zebra had {forgotten} routes of VNIs that the kernel has no more: told");
        }
        if missed.is_empty() && forgotten == 0 {
            *agreed = now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Running configurations as FRR 8.4.4 prints them, shortened.
    #[test]
    fn who_redistributes_is_read() {
        let ospf = "router ospf\n ospf router-id 10.0.0.1\n redistribute kernel metric-type 1 route-map own\nexit\n";
        assert!(redistributes_kernel(ospf));
        assert!(!redistributes_kernel(&ospf.replace("kernel", "static")));
        assert!(!redistributes_kernel(
            &ospf.replace("router ospf", "router ospf vrf und")
        ));
        let bgp = |family: &str| {
            format!(
                "router bgp 65000\n neighbor 10.0.0.2 remote-as 65000\n !\n address-family {family}\n  redistribute \
                 kernel route-map own\n exit-address-family\nexit\n"
            )
        };
        assert!(redistributes_kernel(&bgp("ipv4 unicast")));
        assert!(!redistributes_kernel(&bgp("ipv4 multicast")));
        assert!(!redistributes_kernel(
            "route-map own permit 10\n redistribute kernel\n"
        ));
    }

    /// A running configuration as FRR 8.4.4 prints it, shortened.
    #[test]
    fn what_ospfd_announces_is_read() {
        let config = "interface br7\n ip ospf area 0.0.0.0\nexit\n!\ninterface br8\n ip ospf cost 65535\nexit\n!\n\
                      interface up\n ip ospf area 0.0.0.0\nexit\n!\nrouter ospf\n network 10.64.0.0/10 area 0.0.0.0\nexit\n\
                      router ospf vrf und\n network 10.0.0.0/8 area 0.0.0.0\nexit\n";
        let enabled = parse_enabled(config);
        let (seven, eight) = (Vni::new(7).unwrap(), Vni::new(8).unwrap());
        let has = |vni, subnet| enabled.has(vni, parse_prefix(subnet).unwrap());
        assert!(has(seven, "192.0.2.0/24") && !has(eight, "192.0.2.0/24"));
        assert!(has(eight, "10.64.8.0/24") && !has(eight, "10.9.8.0/24"));
        assert!(!enabled.is_empty() && parse_enabled("router ospf\nexit\n").is_empty());
    }

    /// FRR 8.4.4, shortened.
    #[test]
    fn zebras_routes_are_read() {
        let list = r#"{"10.64.7.0/25":[{"prefix":"10.64.7.0/25","protocol":"kernel","selected":true,
            "nexthops":[{"flags":3,"fib":true,"directlyConnected":true,"interfaceIndex":4,"interfaceName":"br7"}]}],
            "0.0.0.0/0":[{"protocol":"kernel","nexthops":[{"ip":"10.0.0.9","interfaceName":"up"}]}]}"#;
        let read = parse_kernel_routes(list);
        let half = parse_prefix("10.64.7.0/25").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[&half], ["br7"]);
        assert!(read[&parse_prefix("0.0.0.0/0").unwrap()].is_empty());
        assert!(parse_kernel_routes("").is_empty());
        let summary = r#"{"routes":[{"fib":3,"rib":3,"type":"connected"},{"fib":2,"rib":4,"type":"kernel"}]}"#;
        assert_eq!(parse_summary(summary), Some(4));
        assert_eq!(parse_summary(r#"{"routes":[]}"#), Some(0));
        assert_eq!(parse_summary("% error"), None);
    }
}
