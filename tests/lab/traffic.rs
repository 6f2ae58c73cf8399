//! Packets that a station or a host sends for a test: pings, and ARP requests whose answers are looked at
//! one by one.

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
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A ping that runs until it is asked how it went.
pub struct Ping {
    child: Child,
    output: PathBuf,
}

/// How a ping went.
#[derive(Debug)]
pub struct Pinged {
    /// How many requests were answered.
    pub answered: usize,
    /// The longest time between two answers.
    pub longest_gap: Duration,
    /// How many requests between the first and the last answer were not.
    pub lost: u64,
}

impl Ping {
    /// Pings 50 times a second.
    pub fn start(lab: &Lab, node: &str, target: &str) -> Ping {
        let name = format!("ping-{target}");
        let command = ["ping", "-D", "-n", "-i", "0.02", "-W", "1", target];
        let (child, output) = lab.background(node, &name, &command);
        let ping = Ping { child, output };
        crate::network::eventually("the first answers to a ping", || ping.look().answered > 10);
        ping
    }

    /// How it went so far.
    pub fn look(&self) -> Pinged {
        let printed = std::fs::read_to_string(&self.output).unwrap_or_default();
        let answer = |line: &str| -> Option<(f64, u64)> {
            let time = line.strip_prefix('[')?.split(']').next()?.parse().ok()?;
            let number = line.split("icmp_seq=").nth(1)?;
            // An error that a router sends back has a number, too, but no time.
            line.contains(" time=")
                .then_some((time, number.split(' ').next()?.parse().ok()?))
        };
        let answers: Vec<(f64, u64)> = printed.lines().filter_map(answer).collect();
        let gaps = answers.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let span = answers
            .first()
            .zip(answers.last())
            .map_or(0, |(first, last)| last.1 - first.1 + 1);
        Pinged {
            answered: answers.len(),
            longest_gap: Duration::from_secs_f64(gaps.fold(0.0, f64::max)),
            lost: span.saturating_sub(answers.len() as u64),
        }
    }

    /// Waits until 50 more requests have been answered.
    pub fn goes_on(&self) {
        let before = self.look().answered;
        crate::network::eventually("a ping goes on", || self.look().answered >= before + 50);
    }

    /// Ends it, and says how it went.
    pub fn end(mut self) -> Pinged {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.look()
    }
}

/// ARP requests from a station, 50 a second, each answer noted.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Answer>>,
}

/// An answer to an ARP request.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// When it came.
    pub at: Instant,
    /// Number of the gateway that sent it.
    pub gateway: u8,
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

    /// Ends it; all answers.
    pub fn end(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The gateways in the order in which they answered. A gateway that stands in it twice answered while
/// another did.
pub fn turns(answers: &[Answer]) -> Vec<u8> {
    let mut turns: Vec<u8> = answers.iter().map(|answer| answer.gateway).collect();
    turns.dedup();
    turns
}

fn probe(namespace: &std::path::Path, vni: u8, stop: &AtomicBool) -> Vec<Answer> {
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
            answers.push(Answer {
                at: Instant::now(),
                gateway: frame[24],
            });
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
