//! Numbered packets through the lab, each way by itself: every station sends to the host behind the upstream
//! router (up), and that host to every station (down), a UDP packet each 10 ms, in each family that is asked for.
//!
//! No host answers a packet, so that a fault of one direction cannot be taken for one of the other. Arrivals
//! carry the kernel's timestamp: a receiver that gets the CPU late changes nothing. One thread sends for all
//! flows, one receives for all; the sockets were made inside the nodes' namespaces and stay there.

use crate::network::Lab;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use std::fmt;
use std::fs::File;
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time between two packets of a flow.
pub const EVERY: Duration = Duration::from_millis(10);
/// A packet that has not come after this time is lost: a kernel keeps one that waits for ARP for 3 s.
const LATE: Duration = Duration::from_millis(3500);
/// Where probes are sent to.
const PORT: u16 = 4790;

/// Which addresses a flow has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, in a lab with `--ipv6 on`.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

impl Family {
    /// The host behind the upstream router.
    fn host(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::new(10, 0, 9, 2).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2).into(),
        }
    }

    /// The station of a VNI.
    fn station(self, vni: u32) -> IpAddr {
        let [_, _, high, low] = vni.to_be_bytes();
        match self {
            Family::V4 => Ipv4Addr::new(10, 64 + high, low, 10).into(),
            // (The lab has fewer VNIs than that.)
            Family::V6 => Ipv6Addr::new(0xfd64, 0, 0, vni as u16, 0, 0, 0, 0x10).into(),
        }
    }
}

/// Which way a flow goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the station through its gateway to the host.
    Up,
    /// From the host to the station.
    Down,
}

impl fmt::Display for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Way::Up => "up",
            Way::Down => "down",
        })
    }
}

/// How a flow went.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Whose station.
    pub vni: u32,
    /// In which direction.
    pub way: Way,
    /// In which family.
    pub family: Family,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came more than once.
    pub twice: u64,
    /// The longest time without an arrival; about [`EVERY`] if there was no outage.
    pub gap: Duration,
    /// When that began, in time since the probe's mark.
    pub from: Duration,
    /// Whether packets came again after it.
    pub restored: bool,
}

/// A probe that runs.
pub struct Probe {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
    log: Arc<Mutex<Log>>,
}

struct Log {
    flows: Vec<Track>,
    mark: Duration,
}

struct Track {
    vni: u32,
    way: Way,
    family: Family,
    /// When each packet was sent, and when it first came: time since the epoch.
    packets: Vec<(Duration, Option<Duration>)>,
    twice: u64,
    /// The first packet that counts.
    first: usize,
}

impl Probe {
    /// Starts to probe the stations of VNIs 1 to `stations`.
    pub fn start(lab: &Lab, stations: u32, ways: &[Way], families: &[Family]) -> Probe {
        let mut log = Log {
            mark: now(),
            flows: Vec::new(),
        };
        let mut routes = Vec::new();
        let mut sockets = Vec::new();
        for family in families {
            let host = sockets.len();
            sockets.push(socket(&lab.namespace("h1"), family.host()));
            for vni in 1..=stations {
                let station = sockets.len();
                let namespace = lab.namespace(&format!("st{vni}"));
                sockets.push(socket(&namespace, family.station(vni)));
                for way in ways {
                    let (from, to) = match way {
                        Way::Up => (station, family.host()),
                        Way::Down => (host, family.station(vni)),
                    };
                    routes.push((from, SocketAddr::new(to, PORT)));
                    log.flows.push(Track {
                        vni,
                        way: *way,
                        family: *family,
                        packets: Vec::new(),
                        twice: 0,
                        first: 0,
                    });
                }
            }
        }
        let sockets = Arc::new(sockets);
        let log = Arc::new(Mutex::new(log));
        let stop = Arc::new(AtomicBool::new(false));
        Probe {
            sender: spawn({
                let (sockets, log, stop) = (sockets.clone(), log.clone(), stop.clone());
                move || send(&sockets, &routes, &log, &stop)
            }),
            receiver: spawn({
                let (log, stop) = (log.clone(), stop.clone());
                move || receive(&sockets, &log, &stop)
            }),
            stop,
            log,
        }
    }

    /// Whether every flow's packets arrive: each of the last half second.
    pub fn flows(&self) -> bool {
        let log = self.log.lock().unwrap();
        let settled = now().saturating_sub(EVERY * 10);
        log.flows.iter().all(|flow| {
            let of_age = flow.packets.iter().rev().skip_while(|p| p.0 > settled);
            let mut last = of_age.take(50).peekable();
            last.peek().is_some() && last.all(|packet| packet.1.is_some())
        })
    }

    /// Forgets what was: from here on it counts.
    pub fn mark(&self) {
        let mut log = self.log.lock().unwrap();
        log.mark = now();
        for flow in &mut log.flows {
            flow.first = flow.packets.len();
            flow.twice = 0;
        }
    }

    /// Ends it, and says how each flow went.
    pub fn end(self) -> Vec<Flow> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().unwrap();
        self.receiver.join().unwrap();
        let log = self.log.lock().unwrap();
        log.flows
            .iter()
            .map(|flow| flow.summary(log.mark))
            .collect()
    }
}

impl Track {
    fn summary(&self, mark: Duration) -> Flow {
        let packets = &self.packets[self.first..];
        let lost = packets.iter().filter(|(_, came)| came.is_none()).count();
        let mut arrivals: Vec<Duration> = packets.iter().filter_map(|packet| packet.1).collect();
        arrivals.sort();
        // Packets flowed before the mark.
        arrivals.insert(0, mark);
        let gaps = arrivals.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
        let longest = gaps.max().unwrap_or_default();
        let last = arrivals[arrivals.len() - 1];
        let end = packets.last().map_or(last, |packet| packet.0);
        let open = end.saturating_sub(last);
        let restored = open < EVERY * 10;
        let (gap, from) = if restored { longest } else { (open, last) };
        Flow {
            vni: self.vni,
            way: self.way,
            family: self.family,
            sent: packets.len() as u64,
            lost: lost as u64,
            twice: self.twice,
            gap,
            from: from.saturating_sub(mark),
            restored,
        }
    }
}

/// A socket inside a namespace. Only the thread that makes it moves there (setns(2)).
fn socket(namespace: &Path, address: IpAddr) -> UdpSocket {
    let namespace = File::open(namespace).unwrap();
    let made = spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind(SocketAddr::new(address, PORT)).unwrap()
    });
    let socket = made.join().unwrap();
    socket.set_nonblocking(true).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).unwrap();
    setsockopt(&socket, sockopt::RcvBuf, &(4 << 20)).unwrap();
    socket
}

/// Sends for all flows: `routes` has the socket and the destination of each.
fn send(
    sockets: &[UdpSocket],
    routes: &[(usize, SocketAddr)],
    log: &Mutex<Log>,
    stop: &AtomicBool,
) {
    let mut next = now();
    while !stop.load(Ordering::Relaxed) {
        next += EVERY;
        match next.checked_sub(now()) {
            Some(wait) => sleep(wait),
            // Late: no burst makes up for it.
            None => next = now(),
        }
        for (flow, (from, to)) in routes.iter().enumerate() {
            let number = {
                let packets = &mut log.lock().unwrap().flows[flow].packets;
                packets.push((now(), None));
                packets.len() as u32 - 1
            };
            let mut packet = [0; 8];
            packet[..4].copy_from_slice(&(flow as u32).to_be_bytes());
            packet[4..].copy_from_slice(&number.to_be_bytes());
            // One that cannot be sent does not arrive.
            let _ = sockets[*from].send_to(&packet, to);
        }
    }
}

fn receive(sockets: &[UdpSocket], log: &Mutex<Log>, stop: &AtomicBool) {
    let mut until = None;
    while until.is_none_or(|until| now() < until) {
        if until.is_none() && stop.load(Ordering::Relaxed) {
            until = Some(now() + LATE);
        }
        let mut fds: Vec<PollFd> = sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut fds, PollTimeout::from(20u8));
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            while let Some((flow, number, came)) = take(socket) {
                let mut log = log.lock().unwrap();
                let track = &mut log.flows[flow as usize];
                match &mut track.packets[number as usize].1 {
                    Some(_) => track.twice += 1,
                    none => *none = Some(came),
                }
            }
        }
    }
}

/// The next packet that waits in a socket: its flow, its number, and when the kernel got it.
fn take(socket: &UdpSocket) -> Option<(u32, u32, Duration)> {
    let mut packet = [0; 8];
    let mut space = nix::cmsg_space!(TimeSpec);
    let came = {
        let mut slices = [IoSliceMut::new(&mut packet)];
        let message = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_DONTWAIT,
        )
        .ok()?;
        let stamps = message.cmsgs().ok()?;
        stamps.into_iter().find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        })?
    };
    let half = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| packet[at + byte]));
    Some((half(0), half(4), came))
}

/// Time since the epoch: the clock of the kernel's timestamps.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is after 1970")
}
