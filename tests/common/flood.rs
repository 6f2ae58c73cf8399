//! ARP requests or Neighbor Solicitations of a station, numbered, about one each millisecond, and what became of each.

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use wmgwd::model::types::Time;
use wmgwd::sys::clock;

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// When it was about to be sent: never later than the kernel sees it.
    pub sent: Time,
    /// Whether it was answered.
    pub answered: bool,
}

/// What became of requests around ends of a lease.
#[derive(Default)]
pub struct Tally {
    /// How many requests were sent.
    pub asked: usize,
    /// How many of them were answered.
    pub answered: usize,
    /// How many were answered although they were sent after the end.
    pub late: usize,
    /// How many were answered after a request that was not, since the kill.
    pub again: usize,
    /// How long before the end each round's last answered request was sent, in milliseconds.
    pub last: Vec<u128>,
}

impl Tally {
    /// Adds one round, in which the processes were `killed` and the lease had its `end`.
    pub fn add(&mut self, requests: &[Request], killed: Time, end: Time) {
        let answered = |it: &&Request| it.answered;
        self.asked += requests.len();
        self.answered += requests.iter().filter(answered).count();
        let late = requests.iter().filter(|it| it.sent >= end);
        self.late += late.filter(answered).count();
        let after = requests.iter().filter(|it| it.sent >= killed);
        self.again += after.skip_while(answered).filter(answered).count();
        let newest = requests.iter().rfind(answered).expect("an answer");
        self.last.push(end.since(newest.sent).as_millis());
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.last.clone();
        last.sort_unstable();
        write!(
            f,
            "{} requests, {} answered, {} late, {} after one that was not; the last answered ones were sent so many ms \
             before the end: {last:?}",
            self.asked, self.answered, self.late, self.again
        )
    }
}

/// Requests from the station, about one each millisecond.
pub struct Flood {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Request>>,
}

impl Flood {
    /// From eth0 of the network namespace at `station`, which has the address `from`, for the address `asked` of the
    /// same family.
    pub fn start(station: &Path, from: impl Into<IpAddr>, asked: impl Into<IpAddr>) -> Flood {
        let (from, asked) = (from.into(), asked.into());
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let (stopped, counted, station) = (stop.clone(), count.clone(), station.to_owned());
        let thread = spawn(move || flood(&stopped, &counted, &station, from, asked));
        let flood = Flood {
            stop,
            count,
            thread,
        };
        flood.until_sent(100);
        flood
    }

    /// Waits until so many more requests were sent: on a busy machine that takes as long as it takes.
    fn until_sent(&self, more: usize) {
        let enough = self.count.load(Ordering::Relaxed) + more;
        let begun = Instant::now();
        while self.count.load(Ordering::Relaxed) < enough {
            assert!(begun.elapsed() < Duration::from_secs(60), "it goes on");
            sleep(Duration::from_millis(1));
        }
    }

    /// Ends it after a hundred more; every request, in order.
    pub fn end(self) -> Vec<Request> {
        self.until_sent(100);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn flood(
    stop: &AtomicBool,
    count: &AtomicUsize,
    station: &Path,
    from: IpAddr,
    asked: IpAddr,
) -> Vec<Request> {
    // Only this thread moves (setns(2)).
    setns(File::open(station).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let link: LinkAddr = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|entry| entry.interface_name == "eth0")
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .unwrap();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        flags,
        SockProtocol::EthAll,
    )
    .unwrap();
    bind(socket.as_raw_fd(), &link).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).unwrap();
    // Several floods hear each other's answers.
    static FLOODS: AtomicU8 = AtomicU8::new(0xaa);
    let mark = FLOODS.fetch_add(1, Ordering::Relaxed);
    let mut requests: Vec<Request> = Vec::new();
    let mut idle = 0;
    while idle < 20 {
        if stop.load(Ordering::Relaxed) {
            idle += 1;
        } else {
            // The number is the sender's hardware address in the request, which the answer goes to.
            let number = u32::try_from(requests.len()).unwrap().to_be_bytes();
            let sender = [&[2, mark], &number[..]].concat();
            let frame = request(&link.addr().unwrap(), &sender, from, asked);
            let sent = clock::now();
            if sendto(socket.as_raw_fd(), &frame, &link, MsgFlags::empty()).is_ok() {
                let answered = false;
                requests.push(Request { sent, answered });
                count.store(requests.len(), Ordering::Relaxed);
            }
        }
        sleep(Duration::from_millis(1));
        let mut frame = [0; 128];
        while let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            let is_reply = length >= 42
                && match frame[12..14] {
                    [8, 6] => frame[20..22] == [0, 2],
                    // A Neighbor Advertisement.
                    [0x86, 0xdd] => length >= 78 && frame[20] == 58 && frame[54] == 136,
                    _ => false,
                };
            if is_reply && frame[..2] == [2, mark] {
                let number = u32::from_be_bytes(frame[2..6].try_into().unwrap()) as usize;
                requests[number].answered = true;
            }
        }
    }
    requests
}

/// An ARP request (RFC 826) or a Neighbor Solicitation (RFC 4861 section 4.3), from the Ethernet header on. `sender` is the
/// link-layer address that it gives for `from`.
pub fn request(mac: &[u8], sender: &[u8], from: IpAddr, asked: IpAddr) -> Vec<u8> {
    match (from, asked) {
        (IpAddr::V4(from), IpAddr::V4(asked)) => [
            &[0xff; 6],
            mac,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            sender,
            &from.octets(),
            &[0; 6],
            &asked.octets(),
        ]
        .concat(),
        (IpAddr::V6(from), IpAddr::V6(asked)) => {
            let (from, asked) = (from.octets(), asked.octets());
            let end = &asked[13..];
            // The solicited-node multicast address (RFC 4291 section 2.7.1).
            let group = [&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff], end].concat();
            let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0], &asked[..], &[1, 1], sender].concat();
            let pseudo = [&from[..], &group, &[0, 0, 0, 32, 0, 0, 0, 58], &message].concat();
            let words = pseudo
                .chunks(2)
                .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
            let mut sum: u32 = words.sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            message[2..4].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
            let head = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255];
            [
                &[0x33, 0x33, 0xff],
                end,
                mac,
                &head,
                &from,
                &group,
                &message,
            ]
            .concat()
        }
        _ => panic!("{from} and {asked} are not of one family"),
    }
}

/// Keeps both cores of a small machine busy.
pub struct Load(Vec<Child>);

impl Load {
    /// Until it is dropped.
    pub fn start() -> Load {
        let busy = || {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
                .unwrap()
        };
        Load((0..4).map(|_| busy()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
