//! Asks the kernel, and nft, what becomes of the packets of stations.

use super::links::Links;
use super::passage::{Passage, Path, Rules};
use super::ruleset::Ruleset;
use crate::host::filters;
use crate::host::frr::inspection::Inspection;
use crate::host::interfaces::Interface;
use crate::host::netfilter::has_tables;
use crate::host::route::{Routes, Way};
use crate::model::purpose::Purpose;
use crate::model::types::Vni;
use crate::sys::child;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::process::Stdio;

/// Of more bridges than this, as many are tried: rules name interfaces by pattern.
const TRIED: usize = 256;
/// An address that no network has (TEST-NET-2, RFC 5737): the default route leads there.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Looks at what the kernel does with packets that are not for it.
pub fn look_at_passage(purpose: &Purpose, links: &Links, frr: &Inspection) -> Passage {
    let bridges: Vec<Vni> = links.bridges(purpose.range).into_iter().collect();
    let by_name: BTreeMap<&str, &Interface> = links
        .interfaces
        .iter()
        .map(|it| (it.name.as_str(), it))
        .collect();
    let is_uplink =
        |name: &str| name != "lo" && Vni::of_bridge(name).is_none() && by_name.contains_key(name);
    let uplinks: Vec<&str> = frr
        .ospf
        .iter()
        .flatten()
        .filter(|it| !it.passive && is_uplink(&it.name))
        .map(|it| it.name.as_str())
        .collect();
    let names = bridges.iter().map(|vni| vni.bridge());
    let names = names.chain(uplinks.iter().map(|name| (*name).to_owned()));
    let forwards = fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
    let is_closed = |name: &String| setting(name, "forwarding") == Some(0);
    // One finding if the host does not forward at all.
    let all_closed = forwards.is_ok_and(|it| it.trim() == "0");
    let closed = names
        .filter(|name| !all_closed && is_closed(name))
        .collect();
    let all_proxy = setting("all", "proxy_arp").is_some_and(|it| it != 0);
    let proxies =
        |vni: &&Vni| all_proxy || setting(&vni.bridge(), "proxy_arp").is_some_and(|it| it != 0);
    let strict = |name: &&&str| {
        let own = setting(name, "rp_filter").max(setting("all", "rp_filter"));
        uplinks.len() > 1 && own == Some(1)
    };
    let (programs, programs_unseen) = programs(&bridges, &uplinks, links, &by_name);
    let mut passage = Passage {
        programs,
        programs_unseen,
        strict: uplinks
            .iter()
            .filter(strict)
            .map(|it| (*it).to_owned())
            .collect(),
        closed,
        proxies: bridges.iter().filter(proxies).copied().collect(),
        fabric: fabric(links),
        rules: rules(),
        legacy: legacy(),
        crossed: crossed(&bridges, links, &by_name),
        ..Passage::default()
    };
    if !all_closed && let Ok(routes) = Routes::open() {
        let step = bridges.len().div_ceil(TRIED).max(1);
        let tried: Vec<Vni> = bridges.iter().copied().step_by(step).collect();
        try_ways(&mut passage, &routes, &tried, &uplinks, &by_name);
    }
    passage
}

fn try_ways(
    passage: &mut Passage,
    routes: &Routes,
    bridges: &[Vni],
    uplinks: &[&str],
    by_name: &BTreeMap<&str, &Interface>,
) {
    let neighbours = neighbours();
    let index = |name: &str| by_name.get(name).map(|it| it.index);
    for vni in bridges {
        let name = vni.bridge();
        let (Some(at), Some(station)) = (index(&name), neighbours.get(&name)) else {
            continue;
        };
        let elsewhere = routes.way(*station, ELSEWHERE, at);
        let code = elsewhere.as_ref().err().and_then(io::Error::raw_os_error);
        let is_nowhere = matches!(
            code.map(Errno::from_raw),
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH)
        );
        passage.is_confined |= is_nowhere && !uplinks.is_empty();
        if let Ok(Way::Out(out)) = elsewhere
            && let Some(leaves) = by_name.values().find(|it| it.index == out)
            && !uplinks.is_empty()
            && !uplinks.contains(&leaves.name.as_str())
        {
            passage.astray = Some(leaves.name.clone());
        }
        for uplink in uplinks {
            let (Some(from), Some(beyond)) = (index(uplink), neighbours.get(*uplink)) else {
                continue;
            };
            let out = routes.way(*station, *beyond, at);
            let back = routes.way(*beyond, *station, from);
            passage.paths.push(Path {
                vni: *vni,
                uplink: (*uplink).to_owned(),
                station: *station,
                beyond: *beyond,
                out: out.err().map(|error| reason(&error)),
                back: back.err().map(|error| reason(&error)),
            });
        }
    }
}

/// Why the kernel refuses a packet (`ip_route_input_rcu` in Linux's net/ipv4/route.c).
fn reason(error: &io::Error) -> String {
    let code = error.raw_os_error().map(Errno::from_raw);
    let why = match code {
        Some(Errno::EXDEV | Errno::EINVAL) => "its sender is not expected there (rp_filter)",
        Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH) => "no route",
        Some(Errno::EACCES) => "a rule or route prohibits it",
        _ => return error.to_string(),
    };
    format!("{why}: {error}")
}

/// A setting of an interface below /proc/sys.
fn setting(interface: &str, name: &str) -> Option<u32> {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/{name}");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// For each interface an address in its network that is not its own.
fn neighbours() -> BTreeMap<String, Ipv4Addr> {
    let mut neighbours = BTreeMap::new();
    for entry in getifaddrs().into_iter().flatten() {
        let ip =
            |it: Option<nix::sys::socket::SockaddrStorage>| it?.as_sockaddr_in().map(|it| it.ip());
        let (Some(own), Some(mask)) = (ip(entry.address), ip(entry.netmask)) else {
            continue;
        };
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        if let Some(other) = neighbour(own, mask) {
            neighbours.entry(name.to_owned()).or_insert(other);
        }
    }
    neighbours
}

/// An address in the network of `own` that is neither `own`, nor the network's, nor its broadcast address.
fn neighbour(own: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    let (own, mask) = (u32::from(own), u32::from(mask));
    let other = match !mask {
        0 => return None,
        // RFC 3021: both addresses are for hosts.
        1 => own ^ 1,
        hosts => match own & hosts {
            host if host + 1 < hosts => own + 1,
            _ => own - 1,
        },
    };
    Some(Ipv4Addr::from(other))
}

/// The interfaces that the local addresses of VXLAN interfaces are on.
fn fabric(links: &Links) -> Vec<String> {
    let locals = links.interfaces.iter().filter_map(|it| it.vxlan?.local);
    let mut names: Vec<String> = locals
        .filter_map(|local| links.addresses.iter().find(|(_, it)| *it == local))
        .map(|(name, _)| name.clone())
        // On loopback it says nothing about where packets come in.
        .filter(|name| name != "lo")
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The bridges whose frames pass the rules for packets, where frames cross the bridge at all.
fn crossed(bridges: &[Vni], links: &Links, by_name: &BTreeMap<&str, &Interface>) -> Vec<Vni> {
    let calls = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if calls.map_or(true, |it| it.trim() == "0") {
        return Vec::new();
    }
    let mut ports: BTreeMap<u32, usize> = BTreeMap::new();
    for master in links.interfaces.iter().filter_map(|it| it.master) {
        *ports.entry(master).or_default() += 1;
    }
    let is_crossed = |vni: &&Vni| {
        let bridge = by_name.get(vni.bridge().as_str());
        bridge.is_some_and(|it| ports.get(&it.index).is_some_and(|ports| *ports > 1))
    };
    bridges.iter().filter(is_crossed).copied().collect()
}

/// The interfaces on the way of stations' packets at which programs look at packets; and why these cannot be seen.
fn programs(
    bridges: &[Vni],
    uplinks: &[&str],
    links: &Links,
    by_name: &BTreeMap<&str, &Interface>,
) -> (Vec<String>, Option<String>) {
    let mut names: BTreeSet<String> = fabric(links).into_iter().collect();
    names.extend(uplinks.iter().map(|name| (*name).to_owned()));
    names.extend(bridges.iter().map(|vni| vni.bridge()));
    let masters: BTreeSet<u32> = bridges
        .iter()
        .filter_map(|vni| by_name.get(vni.bridge().as_str()).map(|it| it.index))
        .collect();
    let is_on_the_way = |it: &&Interface| {
        names.contains(&it.name) || it.master.is_some_and(|master| masters.contains(&master))
    };
    let way: Vec<&Interface> = links.interfaces.iter().filter(is_on_the_way).collect();
    let (filtered, unseen) = match filters::filtered(&way.iter().map(|it| it.index).collect()) {
        Ok(filtered) => (filtered, None),
        Err(error) => (BTreeSet::new(), Some(error.to_string())),
    };
    let has = |it: &&&Interface| it.has_xdp || filtered.contains(&it.index);
    let found = way.iter().filter(has).map(|it| it.name.clone());
    (found.collect(), unseen)
}

/// The rules of nftables. nft is run only where there are some.
fn rules() -> Rules {
    match has_tables() {
        Ok(false) => return Rules::None,
        Ok(true) => {}
        Err(error) => {
            let text = format!("whether nftables has rules cannot be seen: {error}");
            return Rules::Unread(
                text,
                "run this as the daemon will run: as root, or with CAP_NET_ADMIN",
            );
        }
    }
    let run = |program: &str| {
        let mut command = child::command(program);
        command
            .args(["-j", "list", "ruleset"])
            .stdin(Stdio::null())
            .output()
    };
    // A user's PATH often lacks the directory.
    let output = run("nft").or_else(|_| run("/usr/sbin/nft"));
    let text = match output {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Rules::Unread(
                format!("nftables has rules, and nft cannot read them: {said}"),
                SEE,
            );
        }
        Err(error) => {
            let text =
                format!("nftables has rules, and nft, which reads them, cannot be run: {error}");
            return Rules::Unread(text, "install nftables");
        }
    };
    match Ruleset::read(&String::from_utf8_lossy(&text)) {
        Some(rules) => Rules::Read(rules),
        None => Rules::Unread(
            "nftables has rules, and what nft says of them is not understood".to_owned(),
            SEE,
        ),
    }
}

const SEE: &str = "nft -j list ruleset";

/// The tables of the older iptables in this network namespace that can drop packets.
fn legacy() -> Vec<String> {
    let names = |file: &str| -> Vec<String> {
        match fs::read_to_string(format!("/proc/net/{file}")) {
            Ok(names) => names.lines().map(str::to_owned).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            // Only root may read it; a module that is loaded may have rules.
            Err(_) => modules(if file.starts_with("arp") {
                "arptable_"
            } else {
                "iptable_"
            }),
        }
    };
    let mut tables = names("ip_tables_names");
    tables.extend(
        names("arp_tables_names")
            .iter()
            .map(|it| format!("arp {it}")),
    );
    tables.extend(modules("ebtable_"));
    tables
}

/// The loaded modules whose names begin so.
fn modules(begin: &str) -> Vec<String> {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let names = modules.lines().filter_map(|line| line.split(' ').next());
    names
        .filter(|name| name.starts_with(begin))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_next_to_ours() {
        let of = |own: [u8; 4], length: u32| {
            let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - length).unwrap_or(0));
            neighbour(own.into(), mask).map(|it| it.octets())
        };
        assert_eq!(of([10, 0, 0, 1], 24), Some([10, 0, 0, 2]));
        assert_eq!(of([10, 0, 0, 254], 24), Some([10, 0, 0, 253]));
        assert_eq!(of([10, 0, 0, 1], 30), Some([10, 0, 0, 2]));
        assert_eq!(of([10, 0, 0, 2], 30), Some([10, 0, 0, 1]));
        assert_eq!(of([10, 0, 0, 0], 31), Some([10, 0, 0, 1]));
        assert_eq!(of([10, 0, 0, 255], 32), None);
        assert_eq!(of([10, 0, 0, 1], 0), Some([10, 0, 0, 2]));
    }
}
