//! Gratuitous ARP and unsolicited Neighbor Advertisements: tell the stations of a VNI that the gateway's addresses now
//! sit behind this bridge.
//!
//! Owns one AF_PACKET socket, opened at first use and kept. It asks for no protocol, so that it never
//! receives anything. A frame is a pure function of (MAC, address, form).
//!
//! Not every station and not every access point lets each form through, see [`Form`]. At a takeover each address is
//! announced in all of them; later, to refresh, in one after the other, so that this costs no more than one.

use super::Error;
use super::address::{Origin, is_made_of_mac};
use super::addresses::{self, Watch};
use crate::model::types::{Time, Vni};
use crate::sys::clock;
use fnv::FnvHashMap;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Length of an ARP frame in bytes, without padding (the driver pads to the minimum of Ethernet).
const FRAME: usize = 42;

/// Length of a Neighbor Advertisement in bytes, from the Ethernet header on.
const ADVERTISEMENT: usize = 14 + 40 + 32;

/// How long a dump of the interfaces is used whatever has changed since: paced announcements share one (65 ms with 2 000
/// interfaces), and a bridge whose MAC address changes with its ports is announced with the old one no longer than this.
const DUMP_AGE: Duration = Duration::from_secs(1);
/// The same while the kernel tells of no change: a gateway with 1000 VNIs would otherwise spend 2 % of a core on dumps,
/// as some VNIs are refreshed each second.
const QUIET_DUMP_AGE: Duration = Duration::from_secs(60);

/// A VNI that was not announced for so long is one that was taken over: the others are refreshed every 10 s.
const TAKEOVER: Duration = Duration::from_secs(15);
/// So many announcements after a takeover use every form: those of its first 10 s, one each second.
const THOROUGH: u32 = 12;

/// In what form an address is announced. Measured with Linux 6.18 as a station:
///
/// | | plain station | `drop_gratuitous_arp` | access point drops gratuitous replies | ... all gratuitous ARP |
/// |---|---|---|---|---|
/// | request about itself | at once | never | at once | never |
/// | reply about itself | at once | never | never | never |
/// | request for another address | (1 s) | (1 s) | (1 s) | (1 s) |
///
/// (1 s): at once, but a station keeps what it learned less than a second ago (LOCKTIME in net/ipv4/arp.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// A request for the address itself: the ARP Announcement of RFC 5227 section 3.
    Request,
    /// A reply that says where the address is (RFC 5944 section 4.6): passes access points that answer requests
    /// themselves.
    Reply,
    /// A request for an address that no host has, the broadcast address of the subnet: it is not gratuitous, so it
    /// passes where requests of the gateway for its stations do. A station takes the sender of any packet in, if it
    /// knows that already (RFC 826, "merge").
    Inquiry(Ipv4Addr),
}

/// Sends gratuitous ARP on bridges.
#[derive(Debug, Default)]
pub struct Announcer {
    socket: Option<OwnedFd>,
    /// When each VNI was announced last, and how often since it was taken over.
    rounds: FnvHashMap<Vni, (Time, u32)>,
    /// Hears of what makes a dump stale.
    changes: Option<Watch>,
    dump: Option<Dump>,
    dumps: u64,
}

/// The bridges as they were once.
#[derive(Debug)]
struct Dump {
    taken: Time,
    /// Something has changed since.
    is_stale: bool,
    bridges: BTreeMap<Vni, Bridge>,
}

impl Dump {
    fn is_usable(&self, now: Time) -> bool {
        let age = match self.is_stale {
            true => DUMP_AGE,
            false => QUIET_DUMP_AGE,
        };
        now.since(self.taken) < age
    }
}

/// What an announcement needs to know of a bridge.
#[derive(Debug, Default)]
struct Bridge {
    link: Option<LinkAddr>,
    addresses: Vec<Address>,
    /// Its IPv6 gateway addresses.
    ipv6: Vec<Ipv6Addr>,
}

/// An address of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Address {
    address: Ipv4Addr,
    /// One that no host in its subnet has.
    unused: Option<Ipv4Addr>,
}

impl Address {
    fn new(address: Ipv4Addr, mask: Option<Ipv4Addr>) -> Address {
        let unused = mask.map(|mask| Ipv4Addr::from(u32::from(address) | !u32::from(mask)));
        // With a prefix of 31 or 32 bits there is no such address.
        let is_subnet = |mask: Ipv4Addr| u32::from(mask).count_zeros() >= 2;
        Address {
            address,
            unused: unused.filter(|it| *it != address && mask.is_some_and(is_subnet)),
        }
    }

    /// The forms that it can be announced in.
    fn forms(self) -> impl Iterator<Item = Form> {
        let both = [Form::Request, Form::Reply].into_iter();
        both.chain(self.unused.map(Form::Inquiry))
    }
}

/// The forms of announcement number `round` after a takeover.
fn forms_of(address: Address, round: u32) -> Vec<Form> {
    let forms: Vec<Form> = address.forms().collect();
    if round < THOROUGH {
        return forms;
    }
    let turn = usize::try_from(round).unwrap_or_default() % forms.len();
    vec![forms[turn]]
}

impl Announcer {
    /// Sends frames for each address (secondary ones too) of each VNI's bridge to all stations, and asks
    /// `permit` before each VNI. Returns the VNIs for which not every frame was sent.
    pub fn announce(&mut self, vnis: &[Vni], permit: &dyn Fn() -> bool) -> Vec<(Vni, Error)> {
        if vnis.is_empty() {
            return Vec::new();
        }
        let dump = match self.dump(vnis) {
            Ok(dump) => dump,
            Err(source) => return all_failed(vnis, source),
        };
        let failures: Vec<(Vni, Error)> = vnis
            .iter()
            .filter_map(|vni| {
                let sent = if permit() {
                    self.announce_one(*vni, dump.bridges.get(vni))
                } else {
                    Err(Error::NotPermitted)
                };
                Some((*vni, sent.err()?))
            })
            .collect();
        // A failure may come from what changed since: look anew next time.
        self.dump = failures.is_empty().then_some(dump);
        failures
    }

    /// A dump that can be used for these VNIs: the last one, or a new one.
    fn dump(&mut self, vnis: &[Vni]) -> Result<Dump, Errno> {
        let (now, has_changed) = (clock::now(), self.has_changed());
        let last = self.dump.take().map(|last| Dump {
            is_stale: last.is_stale || has_changed,
            ..last
        });
        let has_all = |last: &Dump| vnis.iter().all(|vni| last.bridges.contains_key(vni));
        match last.filter(|last| last.is_usable(now) && has_all(last)) {
            Some(last) => Ok(last),
            None => {
                self.dumps += 1;
                Ok(Dump {
                    taken: clock::now(),
                    is_stale: false,
                    bridges: bridges()?,
                })
            }
        }
    }

    /// How often the kernel was asked for all interfaces and addresses.
    pub fn dumps(&self) -> u64 {
        self.dumps
    }

    /// Whether an interface or an address has changed since the last look, or may have.
    fn has_changed(&mut self) -> bool {
        match self.changes.as_mut().map(Watch::look) {
            Some(Ok(changed)) => changed,
            Some(Err(_)) | None => {
                // What changes from now on is heard; without it, a dump is used for a moment only.
                self.changes = Watch::open_for_all().ok();
                true
            }
        }
    }

    fn announce_one(&mut self, vni: Vni, bridge: Option<&Bridge>) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Announce {
            bridge: vni.bridge(),
            source,
        };
        let (bridge, link) = bridge
            .and_then(|bridge| Some((bridge, bridge.link?)))
            .ok_or_else(|| Error::NoInterface {
                bridge: vni.bridge(),
            })?;
        let mac = link
            .addr()
            .filter(|_| link.halen() == 6)
            .ok_or_else(|| failed(io::Error::other("it has no Ethernet address")))?;
        if bridge.addresses.is_empty() && bridge.ipv6.is_empty() {
            return Err(failed(io::Error::other("it has no gateway address")));
        }
        let round = self.round(vni);
        for address in &bridge.ipv6 {
            self.send(&advertisement(mac, *address), &link)
                .map_err(|errno| failed(errno.into()))?;
        }
        for address in &bridge.addresses {
            for form in forms_of(*address, round) {
                self.send(&frame(mac, address.address, form), &link)
                    .map_err(|errno| failed(errno.into()))?;
            }
        }
        Ok(())
    }

    /// The number of this announcement of a VNI since it was taken over, from 0.
    fn round(&mut self, vni: Vni) -> u32 {
        let now = clock::now();
        let known = self.rounds.get(&vni).copied();
        let round = known
            .filter(|(last, _)| now.since(*last) < TAKEOVER)
            .map_or(0, |(_, round)| round.wrapping_add(1).max(1));
        self.rounds.insert(vni, (now, round));
        round
    }

    fn send(&mut self, frame: &[u8], link: &LinkAddr) -> Result<(), Errno> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(packet_socket()?),
        };
        // The protocol in `link` is 0: for a raw socket the kernel then takes the ethertype of the frame
        // (packet_parse_headers in Linux's net/packet/af_packet.c).
        sendto(socket.as_raw_fd(), frame, link, MsgFlags::empty()).map(drop)
    }
}

/// A packet socket that receives nothing. Needs CAP_NET_RAW.
///
/// # Errors
/// The kernel's refusal.
pub fn packet_socket() -> Result<OwnedFd, Errno> {
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None::<SockProtocol>,
    )
}

fn all_failed(vnis: &[Vni], source: Errno) -> Vec<(Vni, Error)> {
    vnis.iter()
        .map(|vni| {
            let error = Error::Announce {
                bridge: vni.bridge(),
                source: source.into(),
            };
            (*vni, error)
        })
        .collect()
}

/// Links and addresses of all bridges that are named `br<VNI>`, from one dump of the kernel's tables.
fn bridges() -> Result<BTreeMap<Vni, Bridge>, Errno> {
    let mut bridges: BTreeMap<Vni, Bridge> = BTreeMap::new();
    let mut vnis = BTreeMap::new();
    let mut has_ipv6 = false;
    for entry in getifaddrs()? {
        // A label (`br7:1`) takes the place of the name of the interface of a labelled address.
        let name = entry.interface_name.split(':').next();
        let vni = name.and_then(Vni::of_bridge);
        let (Some(vni), Some(address)) = (vni, entry.address) else {
            continue;
        };
        let bridge = bridges.entry(vni).or_default();
        if let Some(link) = address.as_link_addr() {
            bridge.link = Some(*link);
            vnis.insert(link.ifindex(), vni);
        } else if let Some(address) = address.as_sockaddr_in() {
            let mask = entry.netmask;
            let mask = mask.and_then(|mask| Some(mask.as_sockaddr_in()?.ip()));
            bridge.addresses.push(Address::new(address.ip(), mask));
        } else if let Some(address) = address.as_sockaddr_in6() {
            has_ipv6 |= !is_made_of_mac(address.ip());
        }
    }
    if has_ipv6 {
        // That of the bridge itself is not the gateway's.
        let all = addresses::dump().map_err(errno)?;
        for address in all.iter().filter(|it| it.origin == Origin::Given) {
            let vni = usize::try_from(address.index)
                .ok()
                .and_then(|index| vnis.get(&index));
            if let (Some(vni), IpAddr::V6(ip)) = (vni, address.ip)
                && let Some(bridge) = bridges.get_mut(vni)
            {
                bridge.ipv6.push(ip);
            }
        }
    }
    Ok(bridges)
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// A broadcast ARP packet that tells that `address` is at `mac`, from the Ethernet header on.
fn frame(mac: [u8; 6], address: Ipv4Addr, form: Form) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    // A station takes a reply for gratuitous only if it names the sender as its target in both ways
    // (arp_is_garp in Linux's net/ipv4/arp.c; RFC 5944 section 4.6). A request does not know the target.
    let (operation, target, about) = match form {
        Form::Request => (1, [0; 6], address),
        Form::Reply => (2, mac, address),
        Form::Inquiry(other) => (1, [0; 6], other),
    };
    let parts: [&[u8]; 11] = [
        &[0xff; 6],        // to everyone
        &mac,              // from the bridge
        &[0x08, 0x06],     // ethertype: ARP
        &[0, 1],           // hardware: Ethernet
        &[0x08, 0x00],     // protocol: IPv4
        &[6, 4],           // lengths of their addresses
        &[0, operation],   // operation
        &mac,              // sender
        &address.octets(), // sender
        &target,           // target
        &about.octets(),   // target
    ];
    let mut at = 0;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    frame
}

/// An unsolicited Neighbor Advertisement to all nodes (RFC 4861 section 7.2.6), from the Ethernet header on: `address`
/// is at `mac`. It overrides what a station knows, and says that this is a router: a station that hears otherwise gives
/// its default router up (section 7.2.5).
fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> [u8; ADVERTISEMENT] {
    const ROUTER_AND_OVERRIDE: u8 = 0x80 | 0x20;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = [0; 32];
    message[0] = 136;
    message[4] = ROUTER_AND_OVERRIDE;
    message[8..24].copy_from_slice(&address.octets());
    // Option: the link-layer address of the target, in units of 8 bytes.
    message[24..26].copy_from_slice(&[2, 1]);
    message[26..].copy_from_slice(&mac);
    let pseudo_header = [
        &address.octets()[..],
        &all_nodes.octets(),
        &[0, 0, 0, 32, 0, 0, 0, 58],
    ];
    let sum = checksum(&[&pseudo_header.concat()[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let parts: [&[u8]; 7] = [
        &[0x33, 0x33, 0, 0, 0, 1],        // to all nodes (RFC 2464 section 7)
        &mac,                             // from the bridge
        &[0x86, 0xdd],                    // ethertype: IPv6
        &[0x60, 0, 0, 0, 0, 32, 58, 255], // version, length, ICMPv6, hop limit
        &address.octets(),                // source
        &all_nodes.octets(),              // destination
        &message,
    ];
    let mut frame = [0; ADVERTISEMENT];
    let mut at = 0;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    frame
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|it| match it {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high, ..] => u32::from(*high) << 8,
        [] => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_are_broadcast_in_each_form() {
        let (mac, address) = ([2, 0, 0, 0, 0, 7], Ipv4Addr::new(10, 1, 2, 3));
        #[rustfmt::skip]
        let expected = |operation, target: [u8; 10]| {
            let head = [
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 0x08, 0x06,
                0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, operation,
                2, 0, 0, 0, 0, 7, 10, 1, 2, 3,
            ];
            [&head[..], &target].concat()
        };
        let inquiry = Form::Inquiry(Ipv4Addr::new(10, 1, 2, 255));
        for (form, operation, target) in [
            (Form::Request, 1, [0, 0, 0, 0, 0, 0, 10, 1, 2, 3]),
            (Form::Reply, 2, [2, 0, 0, 0, 0, 7, 10, 1, 2, 3]),
            (inquiry, 1, [0, 0, 0, 0, 0, 0, 10, 1, 2, 255]),
        ] {
            assert_eq!(frame(mac, address, form)[..], expected(operation, target));
        }
    }

    #[test]
    fn an_advertisement_overrides_and_says_that_this_is_a_router() {
        let address = "2001:db8:7::1".parse().unwrap();
        #[rustfmt::skip]
        let expected = [
            0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd,
            0x60, 0, 0, 0, 0, 32, 58, 255,
            0x20, 0x01, 0x0d, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            136, 0, 0, 0, 0xa0, 0, 0, 0,
            0x20, 0x01, 0x0d, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            2, 1, 2, 0, 0, 0, 0, 7,
        ];
        let mut frame = advertisement([2, 0, 0, 0, 0, 7], address);
        // The sum over the pseudo header (RFC 8200 section 8.1) and the message with its checksum is 0.
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&pseudo[..], &frame[54..]].concat()), 0);
        assert_ne!(frame[56..58], [0, 0]);
        frame[56..58].fill(0);
        assert_eq!(frame[..], expected);
    }

    /// Input: prefixes, and announcements after a takeover. Output: all forms that there are at first, then each in
    /// turn.
    #[test]
    fn every_form_is_used_at_a_takeover_and_then_one_at_a_time() {
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let forms =
            |mask: &str, round| forms_of(Address::new(ip("10.1.2.3"), Some(ip(mask))), round);
        let inquiry = Form::Inquiry(ip("10.1.2.255"));
        let all = [Form::Request, Form::Reply, inquiry];
        for round in 0..THOROUGH {
            assert_eq!(forms("255.255.255.0", round), all);
        }
        let turns: Vec<Form> = (THOROUGH..THOROUGH + 3)
            .flat_map(|round| forms("255.255.255.0", round))
            .collect();
        assert!(all.iter().all(|form| turns.contains(form)), "{turns:?}");
        assert_eq!(turns.len(), 3);
        for mask in ["255.255.255.254", "255.255.255.255"] {
            assert_eq!(forms(mask, 0), all[..2]);
        }
        let unknown = Address::new(ip("10.1.2.3"), None);
        assert_eq!(forms_of(unknown, 0), all[..2]);
    }

    #[test]
    fn a_bridge_that_does_not_exist_is_an_error() {
        let failures = Announcer::default().announce(&[Vni::MAX], &|| true);
        assert!(
            matches!(failures[..], [(Vni::MAX, Error::NoInterface { .. })]),
            "{failures:?}"
        );
    }
}
