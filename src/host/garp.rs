//! Gratuitous ARP: tells the stations of a VNI that the gateway's address now sits behind this bridge.
//!
//! Owns one AF_PACKET socket, opened at first use and kept. It asks for no protocol, so that it never
//! receives anything. The frame is a pure function of (MAC, address).

use super::Error;
use crate::model::types::{Time, Vni};
use crate::sys::clock;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Length of an ARP frame in bytes, without padding (the driver pads to the minimum of Ethernet).
const FRAME: usize = 42;

/// How long a dump of the interfaces is used: paced announcements share one (65 ms with 2 000 interfaces),
/// and a bridge whose MAC address changes with its ports is announced with the old one no longer than this.
const DUMP_AGE: Duration = Duration::from_secs(1);

/// Sends gratuitous ARP on bridges.
#[derive(Debug, Default)]
pub struct Announcer {
    socket: Option<OwnedFd>,
    dump: Option<(Time, BTreeMap<Vni, Bridge>)>,
}

/// What an announcement needs to know of a bridge.
#[derive(Debug, Default)]
struct Bridge {
    link: Option<LinkAddr>,
    addresses: Vec<Ipv4Addr>,
}

impl Announcer {
    /// Broadcasts one frame for each IPv4 address (secondary ones too) of each VNI's bridge, and asks
    /// `permit` before each VNI. Returns the VNIs for which not every frame was sent.
    pub fn announce(&mut self, vnis: &[Vni], permit: &dyn Fn() -> bool) -> Vec<(Vni, Error)> {
        if vnis.is_empty() {
            return Vec::new();
        }
        let usable = |(taken, bridges): &(Time, BTreeMap<Vni, Bridge>)| {
            clock::now().since(*taken) < DUMP_AGE
                && vnis.iter().all(|vni| bridges.contains_key(vni))
        };
        let (taken, known) = match self.dump.take().filter(usable) {
            Some(recent) => recent,
            None => match bridges() {
                Ok(bridges) => (clock::now(), bridges),
                Err(source) => return all_failed(vnis, source),
            },
        };
        let failures: Vec<(Vni, Error)> = vnis
            .iter()
            .filter_map(|vni| {
                let sent = if permit() {
                    self.announce_one(*vni, known.get(vni))
                } else {
                    Err(Error::NotPermitted)
                };
                Some((*vni, sent.err()?))
            })
            .collect();
        // A failure may come from what changed since: look anew next time.
        self.dump = failures.is_empty().then_some((taken, known));
        failures
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
        if bridge.addresses.is_empty() {
            return Err(failed(io::Error::other("it has no IPv4 address")));
        }
        for address in &bridge.addresses {
            self.send(&frame(mac, *address), &link)
                .map_err(|errno| failed(errno.into()))?;
        }
        Ok(())
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

/// Links and addresses of all bridges that are named like ours, from one dump of the kernel's tables.
fn bridges() -> Result<BTreeMap<Vni, Bridge>, Errno> {
    let mut bridges: BTreeMap<Vni, Bridge> = BTreeMap::new();
    for entry in getifaddrs()? {
        // A label (`br7:1`) stands in for the name of the interface of a labelled address.
        let name = entry.interface_name.split(':').next();
        let vni = name.and_then(|name| name.strip_prefix("br")?.parse().ok());
        let (Some(vni), Some(address)) = (vni, entry.address) else {
            continue;
        };
        let bridge = bridges.entry(vni).or_default();
        if let Some(link) = address.as_link_addr() {
            bridge.link = Some(*link);
        } else if let Some(address) = address.as_sockaddr_in() {
            bridge.addresses.push(address.ip());
        }
    }
    Ok(bridges)
}

/// A gratuitous ARP reply for `address` at `mac`, from the Ethernet header on.
///
/// The reply form (RFC 5944 section 4.6), broadcast: sender and target address are both the announced
/// one, as in RFC 826's update of known senders. RFC 5227 section 3 prefers requests for announcements,
/// but both forms update a neighbour's table, and access points that proxy ARP pass a broadcast reply on
/// where they would answer a request themselves.
fn frame(mac: [u8; 6], address: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let parts: [&[u8]; 11] = [
        &[0xff; 6],        // to everyone
        &mac,              // from the bridge
        &[0x08, 0x06],     // ethertype: ARP
        &[0, 1],           // hardware: Ethernet
        &[0x08, 0x00],     // protocol: IPv4
        &[6, 4],           // lengths of their addresses
        &[0, 2],           // operation: reply
        &mac,              // sender
        &address.octets(), // sender
        &[0xff; 6],        // target
        &address.octets(), // target
    ];
    let mut at = 0;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_is_a_broadcast_reply_about_itself() {
        let frame = frame([2, 0, 0, 0, 0, 7], Ipv4Addr::new(10, 1, 2, 3));
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 0x08, 0x06,
            0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x02,
            2, 0, 0, 0, 0, 7, 10, 1, 2, 3,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 10, 1, 2, 3,
        ];
        assert_eq!(frame, expected);
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
