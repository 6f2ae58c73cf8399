//! Pure: whether the bridges and VXLAN interfaces of the range are there and as they must be.

use super::{Finding, SHOWN, absent};
use crate::host::address::{Address, DAD_FAILED, NO_DAD, Origin};
use crate::host::interfaces::{Interface, Port, Vlans};
use crate::model::purpose::Purpose;
use crate::model::types::{Vni, VniRange};
use crate::telemetry::log_text::{run_text, spans};
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

/// What VXLAN over IPv4 puts around a frame, in bytes (RFC 7348 section 4.3: outer Ethernet header left out,
/// inner one counted).
const AROUND: u32 = 50;

/// VXLAN's port by IANA; Linux uses another one unless it is told (`dstport`).
const PORT: u16 = 4789;
/// Kinds of interfaces that hear what arrives at the one below them, with switches for ARP of their own. The kernel
/// answers there for any address of the host.
const EARS: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

/// The interfaces of this host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Links {
    /// All of them, or why the kernel did not tell.
    pub interfaces: Vec<Interface>,
    /// Why the kernel did not tell.
    pub refused: Option<String>,
    /// The addresses of each interface.
    pub addresses: Vec<(String, IpAddr)>,
    /// The IPv6 addresses, with what the kernel tells of them, by the interface's index.
    pub ipv6: BTreeMap<u32, Vec<Address>>,
    /// The interfaces that keep their IPv6 addresses while they are down, `keep_addr_on_down`.
    pub keepers: BTreeSet<String>,
    /// The VLANs of bridges and ports, by index; asked for only where a bridge filters by them.
    pub vlans: BTreeMap<u32, Vlans>,
}

impl Links {
    /// The VNIs of `range` that have a bridge.
    pub fn bridges(&self, range: VniRange) -> BTreeSet<Vni> {
        self.numbered("br", range).into_keys().collect()
    }

    /// The VNIs of `range` whose bridges have IPv6 gateway addresses.
    pub fn with_ipv6(&self, range: VniRange) -> Vec<Vni> {
        let has = |bridge: &Interface| {
            let all = self.ipv6.get(&bridge.index).into_iter().flatten();
            all.into_iter().any(|it| it.origin == Origin::Given)
        };
        let bridges = self.numbered("br", range).into_iter();
        bridges
            .filter(|(_, bridge)| has(bridge))
            .map(|(vni, _)| vni)
            .collect()
    }

    /// The interfaces `<prefix><VNI>` of `range`.
    fn numbered(&self, prefix: &str, range: VniRange) -> BTreeMap<Vni, &Interface> {
        let vni = |it: &Interface| it.name.strip_prefix(prefix)?.parse::<Vni>().ok();
        self.interfaces
            .iter()
            .filter_map(|it| Some((vni(it)?, it)))
            .filter(|(vni, _)| range.contains(*vni))
            .collect()
    }

    /// The addresses of the bridges of `range`.
    fn gateway_addresses(&self, range: VniRange) -> BTreeMap<Vni, Vec<IpAddr>> {
        let mut addresses: BTreeMap<Vni, Vec<IpAddr>> = BTreeMap::new();
        for (name, address) in &self.addresses {
            if let Some(vni) = Vni::of_bridge(name).filter(|vni| range.contains(*vni)) {
                addresses.entry(vni).or_default().push(*address);
            }
        }
        addresses
    }
}

/// What there is to say of the interfaces.
pub fn findings(purpose: &Purpose, links: &Links) -> Vec<Finding> {
    if let Some(reason) = &links.refused {
        let remedy = "see whether `ip link` works";
        let text = format!("the kernel does not tell of its interfaces: {reason}");
        return vec![Finding::unknown("interfaces", text, remedy)];
    }
    let bridges = links.numbered("br", purpose.range);
    let vxlans = links.numbered("vxlan", purpose.range);
    let mut findings = presence(purpose.range, &bridges, &vxlans);
    findings.extend(shape(&bridges, &vxlans));
    findings.extend(flooding(&vxlans));
    findings.extend(crossing(links, &bridges, &vxlans));
    findings.extend(ears(links, &bridges));
    findings.extend(addresses(purpose.range, links, &bridges));
    findings.extend(underlay(links, &vxlans));
    findings
}

type Numbered<'a> = BTreeMap<Vni, &'a Interface>;

fn presence(range: VniRange, bridges: &Numbered, vxlans: &Numbered) -> Vec<Finding> {
    const ABOUT: &str = "interfaces";
    let both: BTreeSet<Vni> = bridges.keys().chain(vxlans.keys()).copied().collect();
    if both.is_empty() {
        let text = format!(
            "no br<VNI> and no vxlan<VNI> exists for VNIs {}-{}",
            range.first(),
            range.last()
        );
        let remedy = "make them as README.md says, or give other --minvni and --maxvni";
        return vec![Finding::fail(ABOUT, text, remedy)];
    }
    let mut findings = Vec::new();
    let neither = absent(range, &both);
    if !neither.is_empty() {
        let shown: Vec<String> = neither.iter().take(SHOWN).map(run_text).collect();
        let count: u64 = neither
            .iter()
            .map(|(first, last)| u64::from(last - first) + 1)
            .sum();
        let more = if neither.len() > SHOWN { ",..." } else { "" };
        findings.push(Finding::warn(
            ABOUT,
            format!(
                "{count} VNIs of the range have neither bridge nor VXLAN interface: {}{more}; \
                 a failover to here would leave them unserved",
                shown.join(",")
            ),
            "narrow --minvni and --maxvni, or make them as README.md says",
        ));
    }
    let lacks = |here: &Numbered, there: &Numbered| -> Vec<Vni> {
        let missing = here.keys().filter(|vni| !there.contains_key(vni));
        missing.copied().collect()
    };
    let no_bridge = lacks(vxlans, bridges);
    findings.extend(
        Finding::fail(
            ABOUT,
            "vxlan<VNI> is there and br<VNI> is not",
            "ip link add br$i type bridge && ip link set vxlan$i master br$i && ip link set br$i up",
        )
        .of(&no_bridge),
    );
    let no_vxlan = lacks(bridges, vxlans);
    findings.extend(
        Finding::fail(
            ABOUT,
            "br<VNI> is there and vxlan<VNI> is not",
            "ip link add vxlan$i type vxlan id $i local ADDRESS dstport 4789 nolearning && \
             ip link set vxlan$i master br$i up",
        )
        .of(&no_vxlan),
    );
    findings
}

/// Kind, VNI, joined, up.
fn shape(bridges: &Numbered, vxlans: &Numbered) -> Vec<Finding> {
    const ABOUT: &str = "interfaces";
    let mut findings = Vec::new();
    let mut fail = |vnis: Vec<Vni>, what: &str, command: &str| {
        findings.extend(Finding::fail(ABOUT, what, command).of(&vnis));
    };
    let which = |interfaces: &Numbered, wrong: &dyn Fn(Vni, &Interface) -> bool| -> Vec<Vni> {
        let wrong = interfaces.iter().filter(|(vni, it)| wrong(**vni, it));
        wrong.map(|(vni, _)| *vni).collect()
    };
    let no_bridge = which(bridges, &|_, it| it.kind != "bridge");
    fail(no_bridge, "br<VNI> is no bridge", "ip -d link show br$i");
    let wrong_id = which(vxlans, &|vni, it| {
        it.vxlan.is_none_or(|vxlan| vxlan.id != vni.get())
    });
    fail(
        wrong_id,
        "vxlan<VNI> carries another VNI, or is no VXLAN interface",
        "ip link delete vxlan$i && ip link add vxlan$i type vxlan id $i local ADDRESS dstport 4789 nolearning && \
         ip link set vxlan$i master br$i up",
    );
    let apart = which(vxlans, &|vni, it| {
        let bridge = bridges.get(&vni);
        bridge.is_some_and(|bridge| it.master != Some(bridge.index))
    });
    fail(
        apart,
        "vxlan<VNI> is not in br<VNI>",
        "ip link set vxlan$i master br$i",
    );
    let down = |it: &Interface| !it.up;
    fail(
        which(bridges, &|_, it| down(it)),
        "br<VNI> is down",
        "ip link set br$i up",
    );
    fail(
        which(vxlans, &|_, it| down(it)),
        "vxlan<VNI> is down",
        "ip link set vxlan$i up",
    );
    if findings.is_empty() && !bridges.is_empty() && bridges.len() == vxlans.len() {
        let vnis: Vec<Vni> = bridges.keys().copied().collect();
        let text = "br<VNI> and vxlan<VNI> are there, joined and up";
        findings.extend(Finding::ok(ABOUT, text).of(&vnis));
    }
    findings
}

/// What keeps gratuitous ARP from the stations of some VNIs of `range`.
pub fn neigh_suppress(range: VniRange, links: &Links) -> Option<Finding> {
    let suppresses = |it: &Interface| it.port.is_some_and(|port| port.neigh_suppress);
    let suppressed: Vec<Vni> = links
        .numbered("vxlan", range)
        .into_iter()
        .filter(|(_, it)| suppresses(it))
        .map(|(vni, _)| vni)
        .collect();
    suppression(&suppressed)
}

fn suppression(suppressed: &[Vni]) -> Option<Finding> {
    Finding::fail(
        "neigh_suppress",
        "on at vxlan<VNI>, so that gratuitous ARP does not reach the stations and they go on using a dead gateway",
        "bridge link set dev vxlan$i neigh_suppress off",
    )
    .of(suppressed)
}

/// What keeps gratuitous ARP in, or makes addresses move without EVPN.
fn flooding(vxlans: &Numbered) -> Vec<Finding> {
    let ports = |wrong: &dyn Fn(&Port) -> bool| -> Vec<Vni> {
        let wrong = vxlans
            .iter()
            .filter(|(_, it)| it.port.as_ref().is_some_and(wrong));
        wrong.map(|(vni, _)| *vni).collect()
    };
    let mut findings = Vec::new();
    findings.extend(suppression(&ports(&|port| port.neigh_suppress)));
    let learning = ports(&|port| port.learning);
    findings.extend(
        Finding::warn(
            "learning",
            "the bridge learns at vxlan<VNI>, against what EVPN says",
            "bridge link set dev vxlan$i learning off",
        )
        .of(&learning),
    );
    let of = |wrong: &dyn Fn(&Interface) -> bool| -> Vec<Vni> {
        let wrong = vxlans.iter().filter(|(_, it)| wrong(it));
        wrong.map(|(vni, _)| *vni).collect()
    };
    const PORTS: &str = "interfaces";
    findings.extend(
        Finding::fail(
            PORTS,
            "br<VNI> lets no frames through vxlan<VNI> (spanning tree)",
            "ip link set br$i type bridge stp_state 0",
        )
        .of(&of(&|it| it.up && it.blocked)),
    );
    findings.extend(
        Finding::fail(
            PORTS,
            "broadcasts do not leave by vxlan<VNI>, so that gratuitous ARP does not reach the stations",
            "bridge link set dev vxlan$i bcast_flood on",
        )
        .of(&of(&|it| it.keeps_broadcasts)),
    );
    findings.extend(
        Finding::fail(
            PORTS,
            "vxlan<VNI> answers ARP itself (proxy), so that gratuitous ARP does not reach the stations",
            "make vxlan<VNI> again, without `proxy`",
        )
        .of(&of(&|it| it.vxlan.is_some_and(|vxlan| vxlan.proxy))),
    );
    findings.extend(
        Finding::warn(
            PORTS,
            format!("vxlan<VNI> does not use UDP port {PORT}, as the access points do by default"),
            format!("make vxlan<VNI> again, with dstport {PORT}"),
        )
        .of(&of(&|it| it.vxlan.is_some_and(|vxlan| vxlan.port != PORT))),
    );
    let device: Vec<Vni> = vxlans
        .iter()
        .filter(|(_, it)| it.vxlan.is_some_and(|vxlan| vxlan.learning))
        .map(|(vni, _)| *vni)
        .collect();
    findings.extend(
        Finding::warn(
            "learning",
            "vxlan<VNI> itself learns, against what EVPN says",
            "ip link set vxlan$i type vxlan nolearning",
        )
        .of(&device),
    );
    if findings.is_empty() && !vxlans.is_empty() {
        findings.push(Finding::ok(
            "neigh_suppress",
            "off at vxlan<VNI>, and learning is",
        ));
    }
    findings
}

/// What keeps frames from crossing between a bridge and its ports.
fn crossing(links: &Links, bridges: &Numbered, vxlans: &Numbered) -> Vec<Finding> {
    const ABOUT: &str = "interfaces";
    let mut findings = Vec::new();
    let locked: Vec<Vni> = vxlans
        .iter()
        .filter(|(_, it)| it.locked)
        .map(|(vni, _)| *vni)
        .collect();
    findings.extend(
        Finding::fail(
            ABOUT,
            "vxlan<VNI> is locked, so that br<VNI> drops what stations send until EVPN has told of them",
            "bridge link set dev vxlan$i locked off",
        )
        .of(&locked),
    );
    let mut isolated: BTreeMap<u32, usize> = BTreeMap::new();
    for master in links
        .interfaces
        .iter()
        .filter(|it| it.isolated)
        .filter_map(|it| it.master)
    {
        *isolated.entry(master).or_default() += 1;
    }
    let apart: Vec<Vni> = bridges
        .iter()
        .filter(|(_, bridge)| isolated.get(&bridge.index) > Some(&1))
        .map(|(vni, _)| *vni)
        .collect();
    findings.extend(
        Finding::warn(
            ABOUT,
            "several ports of br<VNI> are isolated: no frame crosses between the stations behind them",
            "bridge link set dev PORT isolated off",
        )
        .of(&apart),
    );
    let none = Vlans::default();
    let of = |it: &Interface| links.vlans.get(&it.index).unwrap_or(&none);
    let passes =
        |it: &Interface, vlan: u16| of(it).pvid == Some(vlan) && of(it).untagged.contains(&vlan);
    let filters = || bridges.iter().filter(|(_, bridge)| bridge.filters_vlans);
    let cut: Vec<Vni> = filters()
        .filter(|(vni, bridge)| {
            let (own, vxlan) = (of(bridge).pvid, vxlans.get(vni));
            own.is_none_or(|vlan| {
                !passes(bridge, vlan) || vxlan.is_some_and(|it| !passes(it, vlan))
            })
        })
        .map(|(vni, _)| *vni)
        .collect();
    findings.extend(
        Finding::fail(
            ABOUT,
            "br<VNI> filters by VLAN, and frames without a tag do not cross between it and vxlan<VNI> (one pvid, untagged)",
            "ip link set br$i type bridge vlan_filtering 0",
        )
        .of(&cut),
    );
    let others: Vec<Vni> = filters()
        .filter(|(vni, bridge)| {
            let mut ports = links
                .interfaces
                .iter()
                .filter(|it| it.master == Some(bridge.index));
            !cut.contains(vni) && ports.any(|it| of(it).pvid.is_none())
        })
        .map(|(vni, _)| *vni)
        .collect();
    findings.extend(
        Finding::warn(
            ABOUT,
            "br<VNI> filters by VLAN, and has a port without a pvid, which drops frames without a tag",
            "bridge vlan show",
        )
        .of(&others),
    );
    findings
}

/// What answers ARP for a gateway address although the bridge is silent.
fn ears(links: &Links, bridges: &Numbered) -> Vec<Finding> {
    let on = |it: &Interface| {
        bridges
            .iter()
            .find(|(_, bridge)| it.lower == Some(bridge.index))
    };
    let is_ear = |it: &&Interface| EARS.contains(&it.kind.as_str()) && it.arp_ignore != Some(8);
    let mut findings = Vec::new();
    for it in links.interfaces.iter().filter(is_ear) {
        let Some((vni, _)) = on(it) else { continue };
        let Interface { name, kind, .. } = it;
        findings.push(Finding::fail(
            "arp_ignore",
            format!("{name} ({kind} on br{vni}) answers ARP for the gateway address while br{vni} is silent"),
            format!("sysctl -w net.ipv4.conf.{name}.arp_ignore=8"),
        ));
    }
    findings
}

fn addresses(range: VniRange, links: &Links, bridges: &Numbered) -> Vec<Finding> {
    const ABOUT: &str = "addresses";
    let of = links.gateway_addresses(range);
    let v4 = |vni: &Vni| -> Vec<IpAddr> {
        let all = of.get(vni).into_iter().flatten();
        all.filter(|ip| ip.is_ipv4()).copied().collect()
    };
    let mut findings = Vec::new();
    let bare: Vec<Vni> = bridges
        .keys()
        .filter(|vni| v4(vni).is_empty())
        .copied()
        .collect();
    findings.extend(
        Finding::fail(
            ABOUT,
            "br<VNI> has no IPv4 address",
            "ip address add GATEWAY/LENGTH dev br$i",
        )
        .of(&bare),
    );
    let mut owners: BTreeMap<IpAddr, Vec<Vni>> = BTreeMap::new();
    for vni in bridges.keys() {
        for address in v4(vni) {
            owners.entry(address).or_default().push(*vni);
        }
    }
    let shared: Vec<(IpAddr, Vec<Vni>)> = owners
        .into_iter()
        .filter(|(_, vnis)| vnis.len() > 1)
        .collect();
    if let Some((address, vnis)) = shared.first() {
        let more = match shared.len() {
            1 => String::new(),
            more => format!(" ({} more such addresses)", more - 1),
        };
        findings.push(Finding::fail(
            ABOUT,
            format!(
                "{address} is on the bridges of several VNIs: {}{more}",
                spans(vnis)
            ),
            format!("ip address show to {address}"),
        ));
    }
    findings.extend(ipv6_addresses(links, bridges));
    if findings.is_empty() && !bridges.is_empty() {
        let text = "each br<VNI> has an IPv4 address of its own (whether it is the other gateways' too cannot be seen from here)";
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

/// What keeps a gateway from having its IPv6 gateway addresses when it becomes the owner.
fn ipv6_addresses(links: &Links, bridges: &Numbered) -> Vec<Finding> {
    const ABOUT: &str = "addresses";
    let with = |is: &dyn Fn(&Interface, &Address) -> bool| -> Vec<Vni> {
        let has = |bridge: &Interface| {
            let of = links.ipv6.get(&bridge.index);
            of.is_some_and(|all| all.iter().any(|it| is(bridge, it)))
        };
        let found = bridges.iter().filter(|(_, bridge)| has(bridge));
        found.map(|(vni, _)| *vni).collect()
    };
    let is_shared = |it: &Address| it.origin == Origin::Given;
    let lost = with(&|_, it| is_shared(it) && it.flags & DAD_FAILED != 0);
    let detected = with(&|_, it| is_shared(it) && it.flags & (NO_DAD | DAD_FAILED) == 0);
    let flushed = with(&|bridge, it| is_shared(it) && !links.keepers.contains(&bridge.name));
    let own = with(&|_, it| it.origin == Origin::Kernel);
    let bare: Vec<Vni> = with(&|_, it| is_shared(it))
        .into_iter()
        .filter(|vni| !own.contains(vni))
        .collect();
    let found = [
        Finding::fail(
            ABOUT,
            "br<VNI> has an IPv6 gateway address that the kernel does not use, as another gateway had it (dadfailed)",
            "ip address del ADDRESS dev br$i; ip address add ADDRESS dev br$i nodad",
        )
        .of(&lost),
        Finding::warn(
            ABOUT,
            "br<VNI> has an IPv6 gateway address without nodad: started beside the owner, this gateway loses it",
            "ip address change ADDRESS dev br$i nodad",
        )
        .of(&detected),
        Finding::warn(
            ABOUT,
            "br<VNI> loses its IPv6 gateway addresses when it goes down",
            "sysctl -w net.ipv6.conf.br$i.keep_addr_on_down=1",
        )
        .of(&flushed),
        Finding::warn(
            ABOUT,
            "br<VNI> has IPv6 gateway addresses and no link-local address of its own: while it is not the owner it asks \
             for stations as if it were",
            "ip link set br$i addrgenmode eui64",
        )
        .of(&bare),
    ];
    found.into_iter().flatten().collect()
}

/// Where the packets of the overlays leave.
fn underlay(links: &Links, vxlans: &Numbered) -> Vec<Finding> {
    const ABOUT: &str = "underlay";
    let mut findings = Vec::new();
    let mut nowhere: Vec<Vni> = Vec::new();
    let mut tight: Vec<(Vni, u32, &str, u32)> = Vec::new();
    let mut idle: BTreeMap<&str, (&Interface, Vec<Vni>)> = BTreeMap::new();
    for (vni, it) in vxlans {
        let Some(local) = it.vxlan.and_then(|vxlan| vxlan.local) else {
            continue;
        };
        let holds = |(_, address): &&(String, IpAddr)| *address == IpAddr::V4(local);
        let Some((holder, _)) = links.addresses.iter().find(holds) else {
            nowhere.push(*vni);
            continue;
        };
        // A loopback address says nothing about the interface that packets leave through.
        let under = links.interfaces.iter().find(|it| it.name == *holder);
        let under = under.filter(|under| under.name != "lo" && under.kind != "dummy");
        if let Some(under) = under.filter(|under| !under.up || !under.running) {
            idle.entry(&under.name)
                .or_insert((under, Vec::new()))
                .1
                .push(*vni);
        }
        if let Some(under) = under.filter(|under| it.mtu + AROUND > under.mtu) {
            tight.push((*vni, it.mtu, &under.name, under.mtu));
        }
    }
    findings.extend(
        Finding::fail(
            ABOUT,
            "the local address of vxlan<VNI> is no address of this host",
            "ip -d link show vxlan$i",
        )
        .of(&nowhere),
    );
    for (name, (under, vnis)) in idle {
        let (what, remedy) = match under.up {
            false => ("is down", format!("ip link set {name} up")),
            true => (
                "has no carrier",
                format!("look at its cable and at the other end: ip link show {name}"),
            ),
        };
        let text = format!("{name}, which carries vxlan<VNI>, {what}");
        findings.extend(Finding::fail(ABOUT, text, remedy).of(&vnis));
    }
    if let Some((_, mtu, under, has)) = tight.first() {
        let vnis: Vec<Vni> = tight.iter().map(|(vni, ..)| *vni).collect();
        findings.extend(
            Finding::warn(
                ABOUT,
                format!(
                    "packets of {mtu} bytes on vxlan<VNI> do not fit through {under} (MTU {has}) with the {AROUND} \
                     bytes of VXLAN around them"
                ),
                format!("ip link set {under} mtu {}", mtu + AROUND),
            )
            .of(&vnis),
        );
    }
    if findings.is_empty() && !vxlans.is_empty() {
        let text =
            "the local addresses of vxlan<VNI> are this host's, and the MTU has room for VXLAN";
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Level;
    use super::super::tests::{purpose, said};
    use super::*;
    use crate::host::address::{Address, DAD_FAILED, NO_DAD, Origin};
    use crate::host::interfaces::Vxlan;
    use core::net::Ipv4Addr;

    const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);

    /// A host whose VNIs are as the README has them.
    fn host(vnis: std::ops::RangeInclusive<u32>) -> Links {
        let mut links = Links::default();
        links.interfaces.push(Interface {
            name: "underlay".into(),
            index: 1,
            up: true,
            running: true,
            mtu: 1600,
            ..Interface::default()
        });
        links.addresses.push(("underlay".into(), LOCAL.into()));
        for i in vnis {
            links.interfaces.push(Interface {
                name: format!("br{i}"),
                index: 2 * i,
                up: true,
                mtu: 1500,
                kind: "bridge".into(),
                ..Interface::default()
            });
            links.interfaces.push(Interface {
                running: true,
                name: format!("vxlan{i}"),
                index: 2 * i + 1,
                up: true,
                mtu: 1500,
                master: Some(2 * i),
                kind: "vxlan".into(),
                vxlan: Some(Vxlan {
                    id: i,
                    local: Some(LOCAL),
                    port: PORT,
                    ..Vxlan::default()
                }),
                port: Some(Port::default()),
                ..Interface::default()
            });
            let address = Ipv4Addr::from(0x0a40_0001 + (i << 8));
            links.addresses.push((format!("br{i}"), address.into()));
        }
        links
    }

    #[test]
    fn a_host_that_is_as_it_must_be() {
        let findings = findings(&purpose(1, 1000), &host(1..=1000));
        assert_eq!(said(&findings), []);
        let longest = findings.iter().map(|it| it.text.len()).max();
        assert!(longest < Some(200), "{findings:?}");
    }

    /// Input: each second of a thousand ports suppresses. Output: one finding, of bounded length.
    #[test]
    fn many_vnis_make_one_short_line() {
        let mut links = host(1..=1000);
        for it in links.interfaces.iter_mut() {
            if let Some(port) = it.port.as_mut() {
                port.neigh_suppress = it.index % 4 == 1;
            }
        }
        let findings = findings(&purpose(1, 1000), &links);
        let bad: Vec<&Finding> = findings
            .iter()
            .filter(|it| it.level == Level::Fail)
            .collect();
        assert_eq!(bad.len(), 1);
        assert!(
            bad[0].text.ends_with("VNIs 2,4,6,8,10,12,14,16,+492"),
            "{bad:?}"
        );
        assert_eq!(
            bad[0].remedy.as_deref(),
            Some(
                "for i in 2 4 6 8 10 12 14 16; do bridge link set dev vxlan$i neigh_suppress off; done"
            )
        );
    }

    #[test]
    fn what_the_range_lacks() {
        let nothing = findings(&purpose(1, 16777215), &Links::default());
        assert_eq!(
            said(&nothing),
            [(
                Level::Fail,
                "no br<VNI> and no vxlan<VNI> exists for VNIs 1-16777215"
            )]
        );
        let some = findings(&purpose(1, 16777215), &host(3..=4));
        let text = "16777213 VNIs of the range have neither bridge nor VXLAN interface: 1-2,5-16777215; \
                    a failover to here would leave them unserved";
        assert_eq!(said(&some), [(Level::Warn, text)]);
        let silent = Links {
            refused: Some("no netlink".into()),
            ..Links::default()
        };
        assert_eq!(
            said(&findings(&purpose(1, 2), &silent))[0].0,
            Level::Unknown
        );
    }

    /// Input: one setting after the other that keeps frames in, or answers past the switch. Output: each is named.
    #[test]
    fn what_keeps_frames_in_or_answers_all_the_same() {
        let vxlan = |links: &mut Links| -> usize {
            let at = links.interfaces.iter().position(|it| it.name == "vxlan2");
            at.unwrap()
        };
        type Change = (fn(&mut Interface), &'static str);
        let changes: [Change; 4] = [
            (|it| it.blocked = true, "lets no frames through vxlan<VNI>"),
            (|it| it.keeps_broadcasts = true, "broadcasts do not leave"),
            (
                |it| it.vxlan.as_mut().unwrap().proxy = true,
                "answers ARP itself",
            ),
            (|it| it.vxlan.as_mut().unwrap().port = 8472, "UDP port 4789"),
        ];
        for (change, text) in changes {
            let mut links = host(1..=2);
            let at = vxlan(&mut links);
            change(&mut links.interfaces[at]);
            let found = findings(&purpose(1, 2), &links);
            let said = said(&found);
            assert!(
                said.len() == 1 && said[0].1.contains(text) && said[0].1.ends_with("VNIs 2"),
                "{said:?}"
            );
        }
        let mut links = host(1..=2);
        links.interfaces.push(Interface {
            name: "mv1".into(),
            kind: "macvlan".into(),
            lower: Some(2),
            arp_ignore: Some(0),
            ..Interface::default()
        });
        let text = "mv1 (macvlan on br1) answers ARP for the gateway address while br1 is silent";
        assert_eq!(
            said(&findings(&purpose(1, 2), &links)),
            [(Level::Fail, text)]
        );
        if let Some(it) = links.interfaces.last_mut() {
            it.arp_ignore = Some(8);
        }
        assert_eq!(said(&findings(&purpose(1, 2), &links)), []);
    }

    /// Input: ports that are locked, and isolated from each other; a bridge that filters by VLAN, with ports in its own
    /// VLAN, in another, in none. Output: what keeps frames from crossing is named.
    #[test]
    fn what_keeps_frames_from_crossing() {
        let with = |change: &dyn Fn(&mut Links)| {
            let mut links = host(1..=2);
            links.interfaces.push(Interface {
                name: "port2".into(),
                index: 99,
                master: Some(4),
                up: true,
                ..Interface::default()
            });
            change(&mut links);
            let found = findings(&purpose(1, 2), &links);
            said(&found)
                .iter()
                .map(|(level, text)| (*level, (*text).to_owned()))
                .collect::<Vec<_>>()
        };
        let is = |found: &[(Level, String)], level: Level, text: &str| {
            let [(said, words)] = found else { return false };
            *said == level && words.contains(text) && words.ends_with(": VNIs 2")
        };
        let at = |links: &Links, name: &str| {
            links
                .interfaces
                .iter()
                .position(|it| it.name == name)
                .unwrap()
        };
        let port = |name: &'static str, change: fn(&mut Interface)| {
            move |links: &mut Links| {
                let at = at(links, name);
                change(&mut links.interfaces[at]);
            }
        };
        let found = with(&port("vxlan2", |it| it.locked = true));
        assert!(is(&found, Level::Fail, "is locked"), "{found:?}");
        let isolate = port("vxlan2", |it| it.isolated = true);
        assert_eq!(with(&isolate), [], "it is isolated from no other");
        let found = with(&|links| {
            isolate(links);
            port("port2", |it| it.isolated = true)(links);
        });
        assert!(is(&found, Level::Warn, "are isolated"), "{found:?}");
        let vlans = |pvid: Option<u16>| Vlans {
            pvid,
            untagged: pvid.into_iter().collect(),
        };
        let filtering = |own: Option<u16>, vxlan: Option<u16>, other: Option<u16>| {
            with(&|links: &mut Links| {
                port("br2", |it| it.filters_vlans = true)(links);
                links.vlans = [(4, own), (5, vxlan), (99, other)]
                    .map(|(at, it)| (at, vlans(it)))
                    .into();
            })
        };
        assert_eq!(filtering(Some(1), Some(1), Some(1)), []);
        for (own, vxlan) in [(None, Some(1)), (Some(1), None), (Some(1), Some(7))] {
            let found = filtering(own, vxlan, Some(1));
            assert!(is(&found, Level::Fail, "do not cross"), "{found:?}");
        }
        let found = filtering(Some(1), Some(1), None);
        assert!(is(&found, Level::Warn, "without a pvid"), "{found:?}");
    }

    #[test]
    fn an_underlay_without_carrier() {
        let mut links = host(1..=2);
        links.interfaces[0].running = false;
        let text = "underlay, which carries vxlan<VNI>, has no carrier: VNIs 1-2";
        let expected = [(Level::Fail, text)];
        assert_eq!(said(&findings(&purpose(1, 2), &links)), expected);
    }

    #[test]
    fn a_local_address_of_another_host() {
        let mut links = host(1..=2);
        links.addresses.remove(0);
        let text = "the local address of vxlan<VNI> is no address of this host: VNIs 1-2";
        assert_eq!(
            said(&findings(&purpose(1, 2), &links)),
            [(Level::Fail, text)]
        );
    }

    /// Input: an IPv6 gateway address that another gateway had first, one that would look for that, and one on a bridge
    /// that loses it and has no other. Output: each is named; none of a bridge that is as it must be, or has none.
    #[test]
    fn ipv6_addresses_that_get_lost() {
        let mut links = host(1..=5);
        let index = |vni: u32| {
            let name = format!("br{vni}");
            links
                .interfaces
                .iter()
                .find(|it| it.name == name)
                .unwrap()
                .index
        };
        let indices: Vec<u32> = (1..=5).map(index).collect();
        let address = |vni: usize, ip: &str, origin, flags| Address {
            index: indices[vni - 1],
            ip: ip.parse().unwrap(),
            prefix: 64,
            origin,
            flags,
            message: Vec::new(),
        };
        let own = |vni| address(vni, &format!("fe80::{vni}:2"), Origin::Kernel, 0);
        let given = [
            address(1, "2001:db8:1::1", Origin::Given, NO_DAD),
            address(2, "2001:db8:2::1", Origin::Given, NO_DAD | DAD_FAILED),
            address(3, "fe80::1", Origin::Given, 0),
            address(4, "2001:db8:4::1", Origin::Given, NO_DAD),
        ];
        for it in [1, 2, 3].map(own).into_iter().chain(given) {
            links.ipv6.entry(it.index).or_default().push(it);
        }
        links.keepers = ["br1", "br2", "br3"].map(str::to_owned).into();
        let bridges = links.numbered("br", VniRange::new(Vni::MIN, Vni::MAX).unwrap());
        let found: Vec<(Level, String)> = ipv6_addresses(&links, &bridges)
            .into_iter()
            .map(|it| (it.level, it.text))
            .collect();
        let expected = [
            (Level::Fail, "dadfailed): VNIs 2"),
            (Level::Warn, "loses it: VNIs 3"),
            (Level::Warn, "goes down: VNIs 4"),
            (Level::Warn, "as if it were: VNIs 4"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((level, text), (expected, end)) in found.iter().zip(expected) {
            assert!(*level == expected && text.ends_with(end), "{text}");
        }
    }
}
