//! Confirms what this host knows of the stations at some of its bridges, so that it does not ask them.
//!
//! An ARP request has the shared gateway address as its sender, and the station that is asked takes the gateway that
//! asks for its gateway (RFC 826, "merge"). The kernel asks for a station that it knows 5 s after a packet for it
//! (`delay_first_probe_time`), thus also when the VNI is another gateway's by then. It does not ask for one that has
//! answered within the last half minute (`base_reachable_time_ms`).
//!
//! Taking the entries away would do harm: the next packet for a station would make the kernel ask for it at once.

use super::links::{dump_each, route_socket};
use super::neighbour::{Neighbour, RTM_NEWNEIGH, read, request};
use super::netlink::{DATAGRAM, NLMSG_ERROR, messages};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

/// So many requests go in one datagram: the refusals of all of them have room in the socket.
const BATCH: usize = 128;

/// Confirms the entries of all neighbours at the interfaces of these indices that the kernel keeps by asking them.
/// Returns how many. One list of the kernel's entries, whatever the number of interfaces.
///
/// # Errors
/// The kernel refused.
pub fn confirm(indices: &BTreeSet<u32>) -> io::Result<usize> {
    let mut known: Vec<Neighbour> = Vec::new();
    if indices.is_empty() {
        return Ok(0);
    }
    dump_each(&request(), RTM_NEWNEIGH, &mut |message| {
        known.extend(read(message).filter(|it| indices.contains(&it.index)));
    })?;
    let socket = route_socket()?;
    let mut datagram = vec![0; DATAGRAM];
    let mut refused = 0;
    for batch in known.chunks(BATCH) {
        let requests: Vec<Vec<u8>> = batch.iter().map(Neighbour::confirmation).collect();
        send(socket.as_raw_fd(), &requests.concat(), MsgFlags::empty())?;
        // The kernel has done them by now, and told of those that it could not do: entries that are gone.
        loop {
            match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let errors = messages(&datagram[..length]).filter(|it| it.0 == NLMSG_ERROR);
                    refused += errors.count();
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(known.len().saturating_sub(refused))
}
