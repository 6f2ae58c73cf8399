//! Asks a gateway for its address in every VNI, as a station behind an access point would, and sees who is
//! answered.
//!
//! The requests are made by hand and sent as VXLAN (RFC 7348) from the access point, which so needs no bridge
//! of each VNI. The answers are seen where the gateway sends them: on its bridges.

use crate::network::Lab;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often each VNI that was not answered yet is asked for.
const AGAIN: Duration = Duration::from_millis(50);
/// The station's MAC address.
const STATION: [u8; 6] = [0x02, 0xaa, 0, 0, 0, 1];

/// Asks until it is ended.
pub struct Asker {
    first_answers: Arc<Mutex<BTreeMap<u32, Instant>>>,
    stop: Arc<AtomicBool>,
}

impl Asker {
    /// Asks from node `from` for VNIs 1 to `vnis` of the gateway `of`, which is gw2.
    pub fn start(lab: &Lab, from: &str, of: &str, vnis: u32) -> Asker {
        let asker = Asker {
            first_answers: Arc::default(),
            stop: Arc::default(),
        };
        let (from, of) = (lab.namespace(from), lab.namespace(of));
        let (answers, stop) = (asker.first_answers.clone(), asker.stop.clone());
        thread::spawn(move || listen(&of, &answers, &stop));
        let (answers, stop) = (asker.first_answers.clone(), asker.stop.clone());
        thread::spawn(move || ask(&from, vnis, &answers, &stop));
        asker
    }

    /// The VNIs that were answered for, and when first.
    pub fn answered(&self) -> BTreeMap<u32, Instant> {
        self.first_answers.lock().unwrap().clone()
    }

    /// Ends it; when each VNI was answered for first.
    pub fn end(self) -> Vec<Instant> {
        self.stop.store(true, Ordering::Relaxed);
        self.answered().into_values().collect()
    }
}

fn ask(namespace: &PathBuf, vnis: u32, answers: &Mutex<BTreeMap<u32, Instant>>, stop: &AtomicBool) {
    // Only this thread moves (setns(2)).
    setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let socket = UdpSocket::bind(("10.0.1.17", 0)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let round = Instant::now();
        let answered = answers.lock().unwrap().clone();
        for vni in (1..=vnis).filter(|vni| !answered.contains_key(vni)) {
            // A full queue is asked again in the next round.
            let _ = socket.send_to(&request(vni), ("10.0.1.12", 4789));
        }
        thread::sleep(AGAIN.saturating_sub(round.elapsed()));
    }
}

fn listen(namespace: &Path, answers: &Mutex<BTreeMap<u32, Instant>>, stop: &AtomicBool) {
    setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .unwrap();
    // Room for a burst of answers, each seen on the bridge and on its port.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20));
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let mut frame = [0; 128];
        let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) else {
            continue;
        };
        let frame = &frame[..length];
        // An ARP reply (operation 2) to the station; its sender is the gateway address of the VNI.
        if length >= 42 && frame[..6] == STATION && frame[12..14] == [8, 6] && frame[21] == 2 {
            let vni = (u32::from(frame[29]) - 64) * 256 + u32::from(frame[30]);
            let mut answers = answers.lock().unwrap();
            answers.entry(vni).or_insert_with(Instant::now);
        }
    }
}

/// VXLAN header, Ethernet header, ARP request (RFC 826) for the gateway address of `vni`, as a probe (RFC 5227): of a
/// sender with an address the kernel would make a neighbour of each VNI, and not answer once it has 1024 of them
/// (`gc_thresh3`, one number for all namespaces).
fn request(vni: u32) -> Vec<u8> {
    let [_, high, middle, low] = vni.to_be_bytes();
    let net = [10, u8::try_from(64 + vni / 256).unwrap(), low];
    let parts: [&[u8]; 9] = [
        &[8, 0, 0, 0, high, middle, low, 0],
        &[0xff; 6],
        &STATION,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &STATION,
        &[0; 4],
        &[0; 6],
        &net,
        &[1],
    ];
    parts.concat()
}
