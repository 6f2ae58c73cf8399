//! What FRR's configurations say of `--announce routes`: which protocol carries the kernel's routes upstream, through
//! which route-maps, and whom it tells. Pure.

use super::upstream::parse_area;
use crate::host::routes::Prefix;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

/// A `redistribute kernel` of one protocol.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Carrier {
    /// The protocol, as FRR names it: `ospf`, `ospf6` or `bgp`.
    pub protocol: &'static str,
    /// The route-map that the routes pass on their way out.
    pub map: Option<String>,
    /// The lists and route-maps of the daemon.
    pub lists: Lists,
}

/// What is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Carriers {
    /// The protocols that carry the kernel's routes.
    pub carriers: Vec<Carrier>,
    /// Those that carry the kernel's IPv6 routes.
    pub carriers6: Vec<Carrier>,
    /// The areas that take no external routes.
    pub stubs: BTreeSet<u32>,
    /// Neighbours of bgpd for IPv4 routes that BFD does not watch.
    pub without_bfd: Vec<String>,
    /// By protocol, the route-map between its routes and the kernel.
    pub kernel_maps: BTreeMap<String, String>,
    /// The same of IPv6 routes.
    pub kernel_maps6: BTreeMap<String, String>,
    /// The lists and route-maps of zebra.
    pub zebra: Lists,
    /// The first two numbers of FRR's version.
    pub version: Option<(u32, u32)>,
}

impl Carriers {
    /// Reads the running configurations of zebra, bgpd, ospfd and ospf6d, as far as they run.
    pub fn read(
        zebra: &str,
        bgpd: Option<&str>,
        ospfd: Option<&str>,
        ospf6d: Option<&str>,
    ) -> Carriers {
        let mut read = Carriers {
            zebra: Lists::read(zebra),
            version: zebra.lines().find_map(parse_version),
            ..Carriers::default()
        };
        for line in zebra.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let maps = match words.first() {
                Some(&"ipv6") => &mut read.kernel_maps6,
                _ => &mut read.kernel_maps,
            };
            if let ["ip" | "ipv6", "protocol", protocol, "route-map", map] = words[..] {
                maps.insert(protocol.to_owned(), map.to_owned());
            }
        }
        let carriers = |all: [(&'static str, Option<&str>); 2], family: &str| {
            let all = all.into_iter();
            all.filter_map(|(protocol, text)| carrier(protocol, text?, family))
                .collect()
        };
        read.carriers = carriers([("ospf", ospfd), ("bgp", bgpd)], "ipv4");
        read.carriers6 = carriers([("ospf6", ospf6d), ("bgp", bgpd)], "ipv6");
        read.stubs = ospfd.map(stub_areas).unwrap_or_default();
        read.without_bfd = bgpd.map(without_bfd).unwrap_or_default();
        read
    }

    /// The route-map between a protocol's routes and the kernel.
    pub fn kernel_map(&self, protocol: &str, is_ipv6: bool) -> Option<&str> {
        let maps = match is_ipv6 {
            true => &self.kernel_maps6,
            false => &self.kernel_maps,
        };
        let of = |protocol: &str| maps.get(protocol).map(String::as_str);
        of(protocol).or_else(|| of("any"))
    }
}

/// `frr version 10.3-1~deb13u1`
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let version = line.strip_prefix("frr version ")?;
    let mut numbers = version.split(|it: char| !it.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The lines of the default instance of `router ospf` or `router bgp`, with the address family that each is in.
fn router_lines<'a>(protocol: &str, text: &'a str) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut is_router = false;
    let mut family = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            is_router = matches!(words[..], ["router", found, ref rest @ ..] if found == protocol && !rest.contains(&"vrf"));
            family = "";
            continue;
        }
        match words[..] {
            _ if !is_router => {}
            ["address-family", "ipv4", "unicast"] => family = "ipv4",
            ["address-family", "ipv6", "unicast"] => family = "ipv6",
            ["address-family", ..] => family = "other",
            ["exit-address-family"] => family = "",
            _ => lines.push((family, words)),
        }
    }
    lines
}

/// `wanted` is the family. What stands in no family is of IPv6 in ospf6d, and of IPv4 elsewhere.
fn carrier(protocol: &'static str, text: &str, wanted: &str) -> Option<Carrier> {
    let lines = router_lines(protocol, text);
    let default = if protocol == "ospf6" { "ipv6" } else { "ipv4" };
    let words = lines.iter().find_map(|(family, words)| match words[..] {
        ["redistribute", "kernel", ..] => {
            let family = if family.is_empty() { default } else { family };
            (family == wanted).then_some(words)
        }
        _ => None,
    })?;
    let map = words.iter().position(|word| *word == "route-map");
    Some(Carrier {
        protocol,
        map: map
            .and_then(|at| words.get(at + 1))
            .map(|it| (*it).to_owned()),
        lists: Lists::read(text),
    })
}

fn stub_areas(text: &str) -> BTreeSet<u32> {
    let lines = router_lines("ospf", text);
    let stub = |(_, words): &(&str, Vec<&str>)| match words[..] {
        ["area", area, "stub", ..] => parse_area(area),
        _ => None,
    };
    lines.iter().filter_map(stub).collect()
}

/// The neighbours that are activated for IPv4 unicast and have no `bfd` of their own or of their group.
fn without_bfd(text: &str) -> Vec<String> {
    let lines = router_lines("bgp", text);
    let mut groups: BTreeMap<&str, &str> = BTreeMap::new();
    let mut neighbours: BTreeSet<&str> = BTreeSet::new();
    let mut watched: BTreeSet<&str> = BTreeSet::new();
    let mut activated: BTreeMap<&str, bool> = BTreeMap::new();
    let mut by_default = true;
    for (family, words) in &lines {
        match (*family, &words[..]) {
            ("", ["no", "bgp", "default", "ipv4-unicast"]) => by_default = false,
            ("", ["neighbor", name, "peer-group", group])
            | ("", ["neighbor", name, "interface", "peer-group", group])
            | ("", ["neighbor", name, "interface", "v6only", "peer-group", group]) => {
                groups.insert(name, group);
                neighbours.insert(name);
            }
            ("", ["neighbor", name, "bfd", ..]) => {
                watched.insert(name);
            }
            ("", ["neighbor", name, "remote-as", ..])
            | ("", ["neighbor", name, "interface", "remote-as", ..])
            | ("", ["neighbor", name, "interface", "v6only", "remote-as", ..]) => {
                neighbours.insert(name);
            }
            ("ipv4", ["neighbor", name, "activate"]) => {
                activated.insert(name, true);
            }
            ("ipv4", ["no", "neighbor", name, "activate"]) => {
                activated.insert(name, false);
            }
            _ => {}
        }
    }
    let is_group = |name: &&str| groups.values().any(|group| group == name);
    // A neighbour without a group is its own.
    let of_group = |name: &str| groups.get(name).copied();
    let is_activated = |name: &&&str| {
        let own = activated.get(**name);
        let own = own.or_else(|| activated.get(of_group(name)?));
        own.copied().unwrap_or(by_default)
    };
    neighbours
        .iter()
        .filter(|name| !is_group(name))
        .filter(is_activated)
        .filter(|name| !watched.contains(**name))
        .filter(|name| of_group(name).is_none_or(|group| !watched.contains(group)))
        .map(|name| (*name).to_owned())
        .collect()
}

/// Prefix-lists, and route-maps that match by them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lists {
    /// By name, and by whether they are of IPv6.
    prefix_lists: BTreeMap<(String, bool), BTreeMap<u32, Entry>>,
    maps: BTreeMap<String, BTreeMap<u32, MapEntry>>,
}

/// `ip prefix-list NAME seq N permit P ge A le B`
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    permits: bool,
    within: Prefix,
    lengths: (u8, u8),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct MapEntry {
    permits: bool,
    /// The prefix-lists that a route must be in, and whether they are of IPv6.
    lists: Vec<(String, bool)>,
    /// It has other conditions, or does not end the map.
    is_unsure: bool,
}

impl Lists {
    fn read(text: &str) -> Lists {
        let mut lists = Lists::default();
        let mut open: Option<(String, u32)> = None;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if !line.starts_with(' ') {
                open = None;
            }
            match words[..] {
                [
                    family @ ("ip" | "ipv6"),
                    "prefix-list",
                    name,
                    "seq",
                    number,
                    ref rest @ ..,
                ] => {
                    let is_ipv6 = family == "ipv6";
                    if let (Ok(number), Some(entry)) = (number.parse(), parse_entry(rest, is_ipv6))
                    {
                        let key = (name.to_owned(), is_ipv6);
                        let list = lists.prefix_lists.entry(key).or_default();
                        list.insert(number, entry);
                    }
                }
                ["route-map", name, action, number] if !line.starts_with(' ') => {
                    let Ok(number) = number.parse() else { continue };
                    let map = lists.maps.entry(name.to_owned()).or_default();
                    let entry = map.entry(number).or_default();
                    entry.permits = action == "permit";
                    open = Some((name.to_owned(), number));
                }
                ["match" | "call" | "on-match", ..] => {
                    let Some((name, number)) = &open else {
                        continue;
                    };
                    let map = lists.maps.get_mut(name);
                    let Some(entry) = map.and_then(|map| map.get_mut(number)) else {
                        continue;
                    };
                    match words[..] {
                        [
                            "match",
                            family @ ("ip" | "ipv6"),
                            "address",
                            "prefix-list",
                            list,
                        ] => {
                            entry.lists.push((list.to_owned(), family == "ipv6"));
                        }
                        _ => entry.is_unsure = true,
                    }
                }
                _ => {}
            }
        }
        lists
    }

    /// Whether a route-map lets a route pass; `None` where that depends on more than prefix-lists. A map that is not
    /// there lets nothing pass (FRR's `route_map_apply` in lib/routemap.c).
    pub fn permits(&self, map: &str, prefix: Prefix) -> Option<bool> {
        for entry in self.maps.get(map).into_iter().flat_map(BTreeMap::values) {
            let is_in = entry.lists.iter().all(|list| self.contains(list, prefix));
            match (is_in, entry.is_unsure) {
                (true, true) => return None,
                (true, false) => return Some(entry.permits),
                (false, _) => {}
            }
        }
        Some(false)
    }

    /// Whether a list permits a prefix. One of the other family does not.
    fn contains(&self, list: &(String, bool), prefix: Prefix) -> bool {
        let list = Some(list).filter(|(_, is_ipv6)| *is_ipv6 == prefix.is_ipv6());
        let entries = list
            .and_then(|list| self.prefix_lists.get(list))
            .into_iter();
        let mut entries = entries.flat_map(BTreeMap::values);
        let matching = entries.find(|entry| {
            let (least, most) = entry.lengths;
            let is_long = (least..=most).contains(&prefix.length());
            is_long && entry.within.contains(prefix)
        });
        matching.is_some_and(|entry| entry.permits)
    }
}

fn parse_entry(words: &[&str], is_ipv6: bool) -> Option<Entry> {
    let (any, bits): (IpAddr, u8) = match is_ipv6 {
        true => (Ipv6Addr::UNSPECIFIED.into(), 128),
        false => (Ipv4Addr::UNSPECIFIED.into(), 32),
    };
    let [action, network, limits @ ..] = words else {
        return None;
    };
    let within = match *network {
        "any" => Prefix::new(any, 0)?,
        _ => {
            let (address, length) = network.split_once('/')?;
            Prefix::new(address.parse().ok()?, length.parse().ok()?)?
        }
    };
    let limit = |name: &str| {
        let at = limits.iter().position(|word| *word == name)?;
        limits.get(at + 1)?.parse::<u8>().ok()
    };
    let lengths = match (limit("ge"), limit("le")) {
        _ if *network == "any" => (0, bits),
        (None, None) => (within.length(), within.length()),
        (least, most) => (least.unwrap_or(within.length()), most.unwrap_or(bits)),
    };
    Some(Entry {
        permits: *action == "permit",
        within,
        lengths,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap()
    }

    /// Running configurations as FRR 8.4.4 prints them with frr.conf.example, shortened.
    const LISTS: &str = "\
ip prefix-list halves seq 5 permit 10.64.0.0/10 ge 25 le 25
ip prefix-list vnis seq 5 permit 10.64.0.0/10 le 32
route-map own permit 10
 match ip address prefix-list halves
exit
route-map fib deny 10
 match ip address prefix-list vnis
exit
route-map fib permit 20
exit
";

    #[test]
    fn route_maps_are_followed() {
        let lists = Lists::read(LISTS);
        assert_eq!(lists.permits("own", prefix("10.64.7.128/25")), Some(true));
        assert_eq!(lists.permits("own", prefix("10.64.7.0/24")), Some(false));
        assert_eq!(lists.permits("own", prefix("10.128.7.0/25")), Some(false));
        assert_eq!(lists.permits("fib", prefix("10.64.7.0/25")), Some(false));
        assert_eq!(lists.permits("fib", prefix("0.0.0.0/0")), Some(true));
        assert_eq!(lists.permits("absent", prefix("0.0.0.0/0")), Some(false));
        let unsure = LISTS.replace(
            " match ip address prefix-list vnis",
            " match ip address prefix-list vnis\n match tag 7",
        );
        let lists = Lists::read(&unsure);
        assert_eq!(lists.permits("fib", prefix("10.64.7.0/25")), None);
        assert_eq!(lists.permits("fib", prefix("0.0.0.0/0")), Some(true));
        let any = Lists::read(
            "ip prefix-list a seq 5 deny 10.0.0.0/8\nip prefix-list a seq 9 permit any\nroute-map m permit 1\n match \
             ip address prefix-list a\n",
        );
        assert_eq!(any.permits("m", prefix("10.0.0.0/8")), Some(false));
        assert_eq!(any.permits("m", prefix("10.0.0.0/9")), Some(true));
    }

    #[test]
    fn carriers_and_whom_they_tell() {
        let zebra = format!("frr version 10.3-1~deb13u1\n{LISTS}ip protocol ospf route-map fib\n");
        let ospfd = format!(
            "{LISTS}router ospf\n redistribute kernel metric-type 1 route-map own\n area 0.0.0.3 stub no-summary\n \
             area 4 nssa\n"
        );
        let bgpd = "\
router bgp 65000
 no bgp default ipv4-unicast
 neighbor fabric peer-group
 neighbor fabric remote-as 65000
 neighbor ups peer-group
 neighbor ups bfd
 neighbor 10.0.1.17 peer-group fabric
 neighbor 10.0.2.1 remote-as 65100
 neighbor 10.0.2.2 peer-group ups
 !
 address-family ipv4 unicast
  redistribute kernel
  neighbor 10.0.2.1 activate
  neighbor ups activate
 exit-address-family
 !
 address-family l2vpn evpn
  neighbor fabric activate
 exit-address-family
";
        let read = Carriers::read(&zebra, Some(bgpd), Some(&ospfd), None);
        assert_eq!(read.version, Some((10, 3)));
        assert_eq!(read.kernel_map("ospf", false), Some("fib"));
        assert_eq!(read.kernel_map("ospf", true), None);
        assert_eq!(read.kernel_map("bgp", false), None);
        let carriers: Vec<(&str, Option<&str>)> = read
            .carriers
            .iter()
            .map(|it| (it.protocol, it.map.as_deref()))
            .collect();
        assert_eq!(carriers, [("ospf", Some("own")), ("bgp", None)]);
        assert_eq!(read.stubs, BTreeSet::from([3]));
        assert_eq!(read.without_bfd, ["10.0.2.1"]);
        let default = bgpd.replace(" no bgp default ipv4-unicast\n", "");
        let read = Carriers::read("", Some(&default), None, None);
        assert_eq!(read.without_bfd, ["10.0.1.17", "10.0.2.1"]);
        let unnumbered = "router bgp 1\n neighbor up interface remote-as external\n \
                          neighbor down interface v6only peer-group G\n neighbor G peer-group\n neighbor G bfd\n";
        let read = Carriers::read("", Some(unnumbered), None, None);
        assert_eq!(read.without_bfd, ["up"]);
        let without = Carriers::read("", Some("router bgp 1\n"), Some("router ospf\n"), None);
        assert!(without.carriers.is_empty());
    }

    /// Input: configurations of both families, as FRR 8.4.4 prints them, shortened. Output: each by itself.
    #[test]
    fn families_are_told_apart() {
        let lists = "\
ipv6 prefix-list halves seq 5 permit fd64::/48 ge 65 le 65
route-map own permit 10
 match ipv6 address prefix-list halves
exit
";
        let ospf6d = format!(
            "{lists}router ospf6\n ospf6 router-id 1.1.1.1\n redistribute kernel metric-type 1 route-map own\nexit\n"
        );
        let bgpd = "\
router bgp 65000
 address-family ipv6 unicast
  redistribute kernel route-map own
 exit-address-family
";
        let zebra = "ipv6 protocol ospf6 route-map fib\n";
        let read = Carriers::read(zebra, Some(bgpd), None, Some(&ospf6d));
        assert!(read.carriers.is_empty());
        let protocols: Vec<&str> = read.carriers6.iter().map(|it| it.protocol).collect();
        assert_eq!(protocols, ["ospf6", "bgp"]);
        assert_eq!(read.kernel_map("ospf6", true), Some("fib"));
        assert_eq!(read.kernel_map("ospf6", false), None);
        let lists = &read.carriers6[0].lists;
        assert_eq!(
            lists.permits("own", prefix("fd64:0:0:7:8000::/65")),
            Some(true)
        );
        assert_eq!(lists.permits("own", prefix("fd64:0:0:7::/64")), Some(false));
        assert_eq!(lists.permits("own", prefix("10.64.7.0/25")), Some(false));
        let other = Lists::read(LISTS);
        assert_eq!(other.permits("own", prefix("fd64:0:0:7::/65")), Some(false));
        assert_eq!(other.permits("fib", prefix("fd64:0:0:7::/65")), Some(true));
    }
}
