//! What a station asks its gateways, in both families, and what they announce to it: frame by frame.

use crate::flood::request;
use crate::network::Lab;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where an Ethernet frame's payload begins, and that of an IPv6 packet without extension headers in it.
const PAYLOAD: usize = 14;
const IPV6_PAYLOAD: usize = PAYLOAD + 40;
/// Of ICMPv6 (RFC 4861 section 4).
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

/// What a station asks for.
#[derive(Clone, Copy)]
pub enum Question {
    /// The gateway's IPv4 address, by ARP.
    Arp,
    /// The gateway's IPv6 address in the network of the VNI, by a neighbour solicitation.
    Neighbor,
    /// fe80::1, which the station has as its router.
    Router,
}

/// Questions from a station, 50 a second: the number of the gateway that answered is noted for each.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u8>>,
}

impl Prober {
    /// Asks for the gateway address of VNI `vni` from its station.
    pub fn start(lab: &Lab, vni: u8) -> Prober {
        Prober::ask(lab, vni, Question::Arp)
    }

    /// Asks for an address of VNI `vni` from its station.
    pub fn ask(lab: &Lab, vni: u8, question: Question) -> Prober {
        let namespace = station(lab, vni);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || probe(&namespace, vni, question, &stopped));
        Prober { stop, thread }
    }

    /// Ends it; who answered, in order.
    pub fn end(self) -> Vec<u8> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Listens for router advertisements at a station.
pub struct Ear {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Advertisement>>,
}

/// A router advertisement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// The number of the gateway that sent it.
    pub gateway: u8,
    /// For how long it offers itself as a router, in seconds; 0: no longer.
    pub lifetime: u16,
}

impl Ear {
    /// Listens at the station of a VNI.
    pub fn start(lab: &Lab, vni: u8) -> Ear {
        let namespace = station(lab, vni);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (socket, _) = eth0(&namespace);
            let mut heard = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let Some(frame) = frame(&socket) else {
                    continue;
                };
                if icmpv6(&frame) == Some(ROUTER_ADVERTISEMENT) {
                    let at = IPV6_PAYLOAD + 6;
                    heard.push(Advertisement {
                        gateway: gateway(&frame),
                        lifetime: u16::from_be_bytes([frame[at], frame[at + 1]]),
                    });
                }
            }
            heard
        });
        Ear { stop, thread }
    }

    /// Ends it; what came, in order.
    pub fn end(self) -> Vec<Advertisement> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The gateways in the order in which they answered. A gateway that stands in it twice answered while
/// another did.
pub fn turns(answers: &[u8]) -> Vec<u8> {
    let mut turns = answers.to_vec();
    turns.dedup();
    turns
}

fn station(lab: &Lab, vni: u8) -> PathBuf {
    lab.namespace(&format!("st{vni}"))
}

/// A socket for the frames of eth0 in a namespace, and the interface's address. The calling thread stays there.
fn eth0(namespace: &Path) -> (OwnedFd, LinkAddr) {
    // Only this thread moves (setns(2)): it ends with the probe.
    setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let link = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|entry| entry.interface_name == "eth0")
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .expect("a station has eth0");
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .unwrap();
    bind(socket.as_raw_fd(), &link).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(1)).unwrap();
    (socket, link)
}

/// The next frame, if one comes within a millisecond; at least as long as the longest that is looked into.
fn frame(socket: &OwnedFd) -> Option<[u8; 128]> {
    let mut frame = [0; 128];
    recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()).ok()?;
    Some(frame)
}

/// The number of the gateway whose frame this is: the third byte of the bridge's MAC address.
fn gateway(frame: &[u8]) -> u8 {
    frame[8]
}

/// The type of the ICMPv6 message in a frame.
fn icmpv6(frame: &[u8]) -> Option<u8> {
    const ICMPV6: u8 = 58;
    let has = frame[12..14] == [0x86, 0xdd] && frame[PAYLOAD + 6] == ICMPV6;
    has.then(|| frame[IPV6_PAYLOAD])
}

fn probe(namespace: &Path, vni: u8, question: Question, stop: &AtomicBool) -> Vec<u8> {
    let (socket, link) = eth0(namespace);
    let network = |host| Ipv6Addr::new(0xfd64, 0, 0, vni.into(), 0, 0, 0, host);
    let target = match question {
        Question::Arp | Question::Neighbor => network(1),
        Question::Router => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    };
    let own = link.addr().expect("an Ethernet address");
    let (from, asked): (IpAddr, IpAddr) = match question {
        Question::Arp => ([10, 64, vni, 10].into(), [10, 64, vni, 1].into()),
        Question::Neighbor | Question::Router => (network(0x10).into(), target.into()),
    };
    let request = request(&own, &own, from, asked);
    let is_answer = |frame: &[u8]| match question {
        // A reply (operation 2).
        Question::Arp => frame[12..14] == [8, 6] && frame[20..22] == [0, 2],
        Question::Neighbor | Question::Router => {
            icmpv6(frame) == Some(NEIGHBOR_ADVERTISEMENT)
                && frame[IPV6_PAYLOAD + 8..IPV6_PAYLOAD + 24] == target.octets()
        }
    };
    let mut answers = Vec::new();
    let mut asked: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        if asked.is_none_or(|asked| asked.elapsed() >= Duration::from_millis(20)) {
            asked = Some(Instant::now());
            let _ = sendto(socket.as_raw_fd(), &request, &link, MsgFlags::empty());
        }
        // Sent to our own address: what goes to all is an announcement and no answer.
        if let Some(frame) = frame(&socket)
            && frame[..6] == own
            && is_answer(&frame)
        {
            answers.push(gateway(&frame));
        }
    }
    answers
}
