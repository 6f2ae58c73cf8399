//! What ospfd and zebra are configured to do with routes between this gateway and the upstream router, as far as it
//! hides bridges or draws traffic. Pure.

use core::net::Ipv4Addr;

/// What a route-map does with routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapAction {
    /// It lets all of them through.
    Passes,
    /// It lets none through.
    Held,
    /// It depends on lists that are not read here.
    Unsure,
}

/// One `area A range P`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AreaRange {
    /// The area.
    pub area: u32,
    /// The network.
    pub network: Ipv4Addr,
    /// The length of its prefix.
    pub length: u8,
    /// Whether it is announced to no other area at all.
    pub is_hidden: bool,
    /// The line.
    pub line: String,
}

impl AreaRange {
    /// Whether an address is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.length.min(32)))
            .unwrap_or(0);
        u32::from(self.network) & mask == u32::from(address) & mask
    }
}

/// What is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Upstream {
    /// Networks that summarise their parts towards other areas.
    pub ranges: Vec<AreaRange>,
    /// Lines that filter between areas, by lists that are not read here.
    pub filters: Vec<String>,
    /// The line by which connected networks are announced as external routes.
    pub connected: Option<String>,
    /// The line by which a default route is announced.
    pub default: Option<String>,
}

/// Reads ospfd's running configuration.
pub fn parse_upstream(text: &str) -> Upstream {
    let mut upstream = Upstream::default();
    let mut is_router = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            is_router = matches!(words[..], ["router", "ospf", ..]);
            continue;
        }
        let own = || Some(words.join(" "));
        match words[..] {
            _ if !is_router => {}
            ["area", area, "range", network, ref rest @ ..] => {
                if let Some(range) = parse_range(area, network, rest.contains(&"not-advertise")) {
                    let line = words.join(" ");
                    upstream.ranges.push(AreaRange { line, ..range });
                }
            }
            ["area", _, "filter-list" | "export-list" | "import-list", ..] => {
                upstream.filters.extend(own());
            }
            ["redistribute", "connected", ..] => upstream.connected = own(),
            ["default-information", "originate", ..] => upstream.default = own(),
            _ => {}
        }
    }
    upstream
}

fn parse_range(area: &str, network: &str, is_hidden: bool) -> Option<AreaRange> {
    let (network, length) = network.split_once('/')?;
    Some(AreaRange {
        area: parse_area(area)?,
        network: network.parse().ok()?,
        length: length.parse().ok()?,
        is_hidden,
        line: String::new(),
    })
}

/// An area as a number or as an address, with what `show ip ospf interface` may put behind it (`0.0.0.1 [Stub]`).
pub(super) fn parse_area(text: &str) -> Option<u32> {
    let text = text.split_whitespace().next()?;
    let address = text.parse::<Ipv4Addr>().map(u32::from);
    address.or_else(|_| text.parse()).ok()
}

/// Reads zebra's running configuration: the route-map between OSPF's routes and the kernel, and what it does.
pub(super) fn parse_protocol_map(text: &str) -> Option<(String, MapAction)> {
    let line = |wanted: &str| {
        let lines = text.lines().filter(|line| !line.starts_with(' '));
        let mut found = lines.filter_map(|line| {
            line.trim_end()
                .strip_prefix(&format!("ip protocol {wanted} route-map "))
        });
        found.next()
    };
    let name = line("ospf").or_else(|| line("any"))?;
    // (permits, has a condition) of each entry.
    let mut entries: Vec<(bool, bool)> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (line.starts_with(' '), &words[..]) {
            (false, ["route-map", map, action, _]) => {
                is_open = *map == name;
                if is_open {
                    entries.push((*action == "permit", false));
                }
            }
            (false, _) => is_open = false,
            (true, ["match" | "call" | "on-match", ..]) if is_open => {
                if let Some((_, has_condition)) = entries.last_mut() {
                    *has_condition = true;
                }
            }
            (true, _) => {}
        }
    }
    let fate = match &entries[..] {
        [(true, false), ..] => MapAction::Passes,
        _ if entries.iter().all(|(permits, _)| !permits) => MapAction::Held,
        _ => MapAction::Unsure,
    };
    Some((name.to_owned(), fate))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FRR 8.4.4, `vtysh -d ospfd -c 'show running-config'`, shortened.
    #[test]
    fn what_ospfd_does_with_routes() {
        let text = "\
interface uplink
 area 9 range 10.0.0.0/8
exit
router ospf
 redistribute connected metric 5
 area 0.0.0.1 range 10.64.0.0/10 not-advertise
 area 2 range 10.9.0.0/16 cost 7
 area 0.0.0.1 filter-list prefix x out
 default-information originate always
exit
";
        let upstream = parse_upstream(text);
        let shown: Vec<(u32, bool, &str)> = upstream
            .ranges
            .iter()
            .map(|it| (it.area, it.is_hidden, it.line.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (1, true, "area 0.0.0.1 range 10.64.0.0/10 not-advertise"),
                (2, false, "area 2 range 10.9.0.0/16 cost 7"),
            ]
        );
        assert!(upstream.ranges[0].contains([10, 65, 3, 1].into()));
        assert!(!upstream.ranges[0].contains([10, 128, 0, 1].into()));
        assert_eq!(upstream.filters, ["area 0.0.0.1 filter-list prefix x out"]);
        assert_eq!(
            upstream.connected.as_deref(),
            Some("redistribute connected metric 5")
        );
        assert_eq!(
            upstream.default.as_deref(),
            Some("default-information originate always")
        );
        assert_eq!(parse_area("0.0.0.3 [NSSA]"), Some(3));
        assert_eq!(
            parse_upstream("router bgp 1\n redistribute connected\n"),
            Upstream::default()
        );
    }

    #[test]
    fn what_zebra_keeps_from_the_kernel() {
        let of = |map: &str| parse_protocol_map(&format!("ip protocol ospf route-map m\n{map}"));
        let fate = |map: &str| of(map).map(|(_, fate)| fate);
        assert_eq!(parse_protocol_map("ip protocol bgp route-map m\n"), None);
        assert_eq!(
            parse_protocol_map("ip protocol any route-map m\n"),
            Some(("m".to_owned(), MapAction::Held))
        );
        assert_eq!(
            fate("route-map m permit 1\n set src 10.0.0.1\n"),
            Some(MapAction::Passes)
        );
        assert_eq!(
            fate("route-map m deny 1\nroute-map n permit 1\n"),
            Some(MapAction::Held)
        );
        assert_eq!(
            fate("route-map m deny 1\n match ip address x\nroute-map m permit 2\n"),
            Some(MapAction::Unsure)
        );
    }
}
