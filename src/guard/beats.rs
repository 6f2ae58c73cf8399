//! The guard's end of early detection: a [`Prover`] and the socket that it beats through.
//!
//! Answers come back to this socket, not to the daemon's: a daemon that is killed, stopped or started again costs no
//! beat. Nothing here blocks or logs, but for a socket that cannot be had.

use crate::model::types::Time;
use crate::sys::clock;
use crate::telemetry::log_text::Complaint;
use crate::witness::datagram::LENGTH;
use crate::witness::message::{Order, Report};
use crate::witness::prover::Prover;
use log::{info, warn};
use nix::poll::{PollFd, PollFlags};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
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
            Ok(socket)
        });
        match bound {
            Ok(socket) => {
                self.socket = Some(socket);
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
        self.prover.order(now, order)
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
        for _ in 0..GULP {
            // An error is that of an earlier datagram, which was refused on its way (udp(7)).
            match socket.recv(&mut bytes) {
                Ok(length) => drop(self.prover.receive(clock::now(), &bytes[..length])),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
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
            let _ = socket.send_to(&datagram, address);
        }
    }
}
