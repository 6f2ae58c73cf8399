//! The guard's end of early detection: a [`Prover`] and the socket that it beats through.
//!
//! Answers come back to this socket, not to the daemon's: a daemon that is killed, stopped or started again costs no
//! beat. Nothing here blocks or logs, but for a socket that cannot be had.

use crate::model::types::Time;
use crate::sys::clock;
use crate::telemetry::log_text::Complaint;
use crate::witness::datagram::LENGTH;
use crate::witness::message::{Order, Proof, Report, Traffic};
use crate::witness::prover::Prover;
use log::{info, warn};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::sockopt::RxqOvfl;
use nix::sys::socket::{CmsgIterator, ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use std::hash::{BuildHasher, RandomState};
use std::io::IoSliceMut;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// How many datagrams are read in a row: a flood must not delay what else is due.
const GULP: usize = 256;

/// How long after it has sent beats the guard reads the answers, unless all is well: most of them have come by then.
const TOGETHER: Duration = Duration::from_millis(4);

/// The proof, and the way to the witnesses.
pub struct Beats {
    pub prover: Prover,
    from: Option<IpAddr>,
    socket: Option<UdpSocket>,
    /// Answers to the last beats are read then, together: each wake-up costs CPU time. An answer counts from when its
    /// beat was sent, whenever it is read.
    read_at: Time,
    traffic: Traffic,
    /// How many datagrams this socket had dropped, as the kernel said last. It counts up to 2^32.
    socket_dropped: u32,
    complaint: Complaint,
}

impl Beats {
    /// One that knows no lease. A lease counts up to `margin` before its end.
    pub fn new(margin: Duration) -> Beats {
        // The hasher's keys come from the system's source of randomness.
        let seed = RandomState::new().hash_one(());
        Beats {
            prover: Prover::new(margin, seed),
            from: None,
            socket: None,
            read_at: Time::default(),
            traffic: Traffic::default(),
            socket_dropped: 0,
            complaint: Complaint::default(),
        }
    }

    /// Sends from this address from now on.
    pub fn send_from(&mut self, address: IpAddr) {
        if self.from == Some(address) && self.socket.is_some() {
            return;
        }
        self.from = Some(address);
        let bound = UdpSocket::bind((address, 0)).and_then(|socket| {
            socket.set_nonblocking(true)?;
            // All kernels since 2.6.33 know it. Without it nothing is counted.
            let _ = setsockopt(&socket, RxqOvfl, &1);
            Ok(socket)
        });
        match bound {
            Ok(socket) => {
                self.socket = Some(socket);
                self.socket_dropped = 0;
                if self.complaint.settle() {
                    info!("beats can be sent from {address}");
                }
            }
            Err(error) => {
                self.socket = None;
                if self.complaint.raise(&error.to_string()) {
                    warn!("cannot send beats from {address}: {error}; the lease alone decides");
                }
            }
        }
    }

    /// Does what the daemon says about the proof; returns what to answer.
    pub fn order(&mut self, now: Time, order: Order) -> Vec<Report> {
        let reports = self.prover.order(now, order);
        let traffic = self.traffic;
        let complete = |report| complete(report, traffic);
        reports.into_iter().map(complete).collect()
    }

    /// How the proof is, if the daemon has to be told that.
    pub fn news(&mut self, now: Time) -> Option<Report> {
        let news = self.prover.news(now)?;
        Some(complete(news, self.traffic))
    }

    /// What becomes readable when an answer has come, unless it is not to be read yet.
    pub fn fd(&self, now: Time) -> Option<PollFd<'_>> {
        let socket = self.socket.as_ref().filter(|_| now >= self.read_at)?;
        Some(PollFd::new(socket.as_fd(), PollFlags::POLLIN))
    }

    /// When [`Beats::receive`] or [`Beats::beat`] is to be called next.
    pub fn next(&self, now: Time) -> Option<Time> {
        let tick = self.socket.as_ref().map(|_| self.prover.next_tick());
        let read = (now < self.read_at).then_some(self.read_at);
        tick.into_iter().chain(read).min()
    }

    /// Counts the answers that have come.
    pub fn receive(&mut self) {
        let Some(socket) = &self.socket else {
            return;
        };
        // One byte more than a datagram has: what is longer is none.
        let mut bytes = [0; LENGTH + 1];
        let mut control = cmsg_space!(u32);
        for _ in 0..GULP {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
            let (length, dropped) = match recvmsg::<()>(fd, &mut parts, Some(&mut control), flags) {
                Ok(received) => (received.bytes, dropped(received.cmsgs())),
                Err(Errno::EAGAIN) => return,
                // That of an earlier datagram, which was refused on its way (udp(7)).
                Err(_) => continue,
            };
            if let Some(dropped) = dropped {
                let more = dropped.wrapping_sub(self.socket_dropped);
                self.traffic.dropped += u64::from(more);
                self.socket_dropped = dropped;
            }
            let is_answer = self.prover.receive(clock::now(), &bytes[..length]);
            self.traffic.answers += u64::from(is_answer);
        }
    }

    /// Sends what is due.
    pub fn beat(&mut self) {
        let Some(socket) = &self.socket else {
            return;
        };
        let now = clock::now();
        let is_answered = self.prover.is_answered();
        let datagrams = self.prover.tick(now);
        if !datagrams.is_empty() {
            // What proves the node lasts for two more beats: before the next is early enough, and costs no wake-up.
            self.read_at = match is_answered {
                true => self.prover.next_tick(),
                false => now + TOGETHER,
            };
        }
        for (address, datagram) in datagrams {
            // One that is lost is followed by the next.
            let is_sent = socket.send_to(&datagram, address).is_ok();
            self.traffic.sent += u64::from(is_sent);
        }
    }
}

/// A report with what was sent and received until now.
fn complete(report: Report, traffic: Traffic) -> Report {
    match report {
        Report::Proof(proof) => Report::Proof(Proof { traffic, ..proof }),
        report @ Report::Noted(_) => report,
    }
}

/// How many datagrams the kernel has dropped since the socket was made, as it says with one that it has not; `None` if
/// it has dropped none.
fn dropped(messages: nix::Result<CmsgIterator<'_>>) -> Option<u32> {
    messages.ok()?.find_map(|message| match message {
        ControlMessageOwned::RxqOvfl(dropped) => Some(dropped),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::types::{Lease, LeaseId};
    use crate::witness::Run;
    use crate::witness::datagram::Sealed;
    use crate::witness::message::Peer;
    use crate::witness::siphash::Key;
    use nix::poll::{PollTimeout, poll};
    use std::thread::sleep;

    const LINK: Key = Key([5; 16]);
    /// How long a test waits for what must happen.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// Receives until the traffic is as it shall be.
    fn until(beats: &mut Beats, what: &str, is_so: impl Fn(Traffic) -> bool) {
        let begun = clock::now();
        while !is_so(beats.traffic) {
            beats.receive();
            assert!(
                clock::now().since(begun) < DEADLINE,
                "{what}: {:?}",
                beats.traffic
            );
            sleep(Duration::from_millis(1));
        }
    }

    /// Input: a node that answers a trial, and then sends more than the socket holds, twice, each time to a new socket;
    /// the guard reads only later. Output: what was sent, what was answered, and what the kernel dropped is counted, and
    /// told with the news.
    #[test]
    fn what_is_sent_received_and_dropped_is_counted() {
        let node = UdpSocket::bind("127.0.0.1:0").unwrap();
        node.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut beats = Beats::new(Duration::ZERO);
        beats.send_from("127.0.0.1".parse().unwrap());
        let now = clock::now();
        let lease = Lease {
            id: LeaseId(1),
            valid_until: now + DEADLINE,
        };
        let peer = Peer {
            lease: LeaseId(2),
            run: Run(3),
            link: LINK,
            address: node.local_addr().unwrap(),
            trial: true,
        };
        beats.order(now, Order::Renewed(lease));
        beats.order(now, Order::Peers(vec![peer]));
        beats.beat();
        let mut bytes = [0; LENGTH];
        let (length, from) = node.recv_from(&mut bytes).unwrap();
        let trial = Sealed::read(&bytes[..length]).unwrap().open(&LINK).unwrap();
        node.send_to(&trial.answer().unwrap().seal(&LINK), from)
            .unwrap();
        until(&mut beats, "it is answered", |traffic| traffic.answers == 1);
        let mut dropped = 0;
        for address in ["127.0.0.2", "127.0.0.3"] {
            beats.send_from(address.parse().unwrap());
            let socket = beats.socket.as_ref().unwrap().local_addr().unwrap();
            for _ in 0..2_000 {
                node.send_to(&[0; LENGTH], socket).unwrap();
            }
            beats.receive();
            // The kernel says it with what comes next.
            while beats.fd(clock::now() + DEADLINE).is_some_and(is_ready) {
                beats.receive();
            }
            node.send_to(&[0; LENGTH], socket).unwrap();
            until(&mut beats, "it is dropped", |traffic| {
                traffic.dropped > dropped + 500
            });
            dropped = beats.traffic.dropped;
        }
        assert!(dropped < 4_000, "{dropped}");
        let traffic = Traffic {
            sent: 1,
            answers: 1,
            dropped,
        };
        assert!(matches!(
            beats.news(clock::now()),
            Some(Report::Proof(proof)) if proof.traffic == traffic
        ));
    }

    fn is_ready(fd: PollFd<'_>) -> bool {
        poll(&mut [fd], PollTimeout::ZERO).unwrap() > 0
    }
}
