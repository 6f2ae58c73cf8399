//! ARP requests that a station sends for a test, and whose answers are looked at one by one.

use crate::network::Lab;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// ARP requests from a station, 50 a second: the number of the gateway that answered is noted for each.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u8>>,
}

impl Prober {
    /// Asks for the gateway address of VNI `vni` from its station.
    pub fn start(lab: &Lab, vni: u8) -> Prober {
        let namespace = lab.namespace(&format!("st{vni}"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || probe(&namespace, vni, &stopped));
        Prober { stop, thread }
    }

    /// Ends it; who answered, in order.
    pub fn end(self) -> Vec<u8> {
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

fn probe(namespace: &std::path::Path, vni: u8, stop: &AtomicBool) -> Vec<u8> {
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
    let request = request(
        &link,
        Ipv4Addr::new(10, 64, vni, 10),
        Ipv4Addr::new(10, 64, vni, 1),
    );
    let mut answers = Vec::new();
    let mut asked: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        if asked.is_none_or(|asked| asked.elapsed() >= Duration::from_millis(20)) {
            asked = Some(Instant::now());
            let _ = sendto(socket.as_raw_fd(), &request, &link, MsgFlags::empty());
        }
        let mut frame = [0; 128];
        let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) else {
            continue;
        };
        let frame = &frame[..length];
        // A reply (operation 2) to our own address; gratuitous ones go to everybody and are no answers.
        let is_answer = length >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
        if is_answer && Some(&frame[0..6]) == link.addr().as_ref().map(|mac| &mac[..]) {
            answers.push(frame[24]);
        }
    }
    answers
}

fn request(link: &LinkAddr, from: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mac = link.addr().expect("an Ethernet address");
    // Ethernet header; hardware and protocol types and lengths; operation 1 (RFC 826).
    let kind = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    let parts: [&[u8]; 7] = [
        &[0xff; 6],
        &mac,
        &kind,
        &mac,
        &from.octets(),
        &[0; 6],
        &target.octets(),
    ];
    parts.concat()
}
