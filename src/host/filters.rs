//! What is attached to interfaces beside netfilter: filters of tc, which may drop any packet, and the VLANs of bridges
//! that filter by VLAN. Asked for by `wmgwd check` alone.

use super::interfaces::Vlans;
use super::links::dump_each;
use super::netlink::{
    DUMP, IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_IFNAME, INFO, RTM_GETLINK, RTM_NEWLINK, attribute,
    attributes, message, number, text,
};
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Message types, from Linux's include/uapi/linux/rtnetlink.h.
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// The length in bytes of a tcmsg, and the attribute that holds the kind (rtnetlink.h).
const TC: usize = 20;
const TCA_KIND: u16 = 1;
/// The parents of the filters for what comes in, and for what leaves (`TC_H_CLSACT` with `TC_H_MIN_INGRESS` and
/// `TC_H_MIN_EGRESS`, include/uapi/linux/pkt_sched.h).
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// In IFLA_EXT_MASK: with VLANs, from rtnetlink.h.
const RTEXT_FILTER_BRVLAN: u32 = 2;
const AF_BRIDGE: u8 = 7;
/// Inside IFLA_AF_SPEC of AF_BRIDGE, and its flags (include/uapi/linux/if_bridge.h).
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 2;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 4;

/// The interfaces of `wanted`, by index, that filters of tc, or a discipline that loses packets on purpose, are at.
///
/// # Errors
/// The kernel refused.
pub fn filtered(wanted: &BTreeSet<u32>) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut hooks = Vec::new();
    let asked = dump_each(
        &tc_request(RTM_GETQDISC, 0, 0),
        RTM_NEWQDISC,
        &mut |message| {
            let Some((index, kind)) = read_qdisc(message).filter(|it| wanted.contains(&it.0))
            else {
                return;
            };
            match kind {
                "clsact" => hooks.extend([(index, INGRESS), (index, EGRESS)]),
                "ingress" => hooks.push((index, INGRESS)),
                "netem" => drop(found.insert(index)),
                _ => {}
            }
        },
    );
    match asked {
        // A kernel without traffic control.
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(found),
        asked => asked?,
    }
    for (index, parent) in hooks {
        let request = tc_request(RTM_GETTFILTER, index, parent);
        dump_each(&request, RTM_NEWTFILTER, &mut |_| {
            found.insert(index);
        })?;
    }
    Ok(found)
}

fn tc_request(kind: u16, index: u32, parent: u32) -> Vec<u8> {
    let mut about = [0; TC];
    about[4..8].copy_from_slice(&index.to_ne_bytes());
    about[12..16].copy_from_slice(&parent.to_ne_bytes());
    message(kind, DUMP, &about)
}

/// The index of an interface and the kind of one of its queueing disciplines.
fn read_qdisc(message: &[u8]) -> Option<(u32, &str)> {
    let index = u32::from_ne_bytes(number(message, 4)?);
    let mut attributes = attributes(message.get(TC..)?);
    let (_, kind) = attributes.find(|(kind, _)| *kind == TCA_KIND)?;
    Some((index, text(kind)?))
}

/// The VLANs of all bridges and their ports, by the index of the interface.
///
/// # Errors
/// The kernel refused.
pub fn vlans() -> io::Result<BTreeMap<u32, Vlans>> {
    let mut vlans = BTreeMap::new();
    dump_each(&vlan_request(), RTM_NEWLINK, &mut |message| {
        vlans.extend(read_vlans(message));
    })?;
    Ok(vlans)
}

fn vlan_request() -> Vec<u8> {
    let mut body = vec![0; INFO];
    body[0] = AF_BRIDGE;
    body.extend(attribute(IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN.to_ne_bytes()));
    message(RTM_GETLINK, DUMP, &body)
}

fn read_vlans(message: &[u8]) -> Option<(u32, Vlans)> {
    let index = u32::from_ne_bytes(number(message, 4)?);
    let mut vlans = Vlans::default();
    let parts = attributes(message.get(INFO..)?);
    let mut is_named = false;
    for (kind, value) in parts {
        is_named |= kind == IFLA_IFNAME;
        if kind != IFLA_AF_SPEC {
            continue;
        }
        for (_, info) in attributes(value).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO) {
            let flags = u16::from_ne_bytes(number(info, 0)?);
            let vid = u16::from_ne_bytes(number(info, 2)?);
            if flags & BRIDGE_VLAN_INFO_PVID != 0 {
                vlans.pvid = Some(vid);
            }
            if flags & BRIDGE_VLAN_INFO_UNTAGGED != 0 {
                vlans.untagged.insert(vid);
            }
        }
    }
    is_named.then_some((index, vlans))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: a port in VLAN 1, which is its own and leaves without a tag, and in VLAN 7 with one. Output: the same.
    #[test]
    fn vlans_of_a_port_are_read() {
        let info = |flags: u16, vid: u16| {
            attribute(
                IFLA_BRIDGE_VLAN_INFO,
                &[flags.to_ne_bytes(), vid.to_ne_bytes()].concat(),
            )
        };
        let all = [info(6, 1), info(0, 7)].concat();
        let mut message = vec![0; INFO];
        message[4] = 9;
        assert_eq!(read_vlans(&message), None);
        message.extend(attribute(IFLA_IFNAME, b"vxlan7\0"));
        message.extend(attribute(IFLA_AF_SPEC | 0x8000, &all));
        let vlans = Vlans {
            pvid: Some(1),
            untagged: BTreeSet::from([1]),
        };
        assert_eq!(read_vlans(&message), Some((9_u32.to_le(), vlans)));
        for end in 0..message.len() {
            read_vlans(&message[..end]);
        }
    }

    #[test]
    fn a_discipline_is_read() {
        let mut message = vec![0; TC];
        message[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(read_qdisc(&message), None);
        message.extend(attribute(TCA_KIND, b"clsact\0"));
        assert_eq!(read_qdisc(&message), Some((7, "clsact")));
        assert_eq!(read_qdisc(&message[..TC + 3]), None);
    }

    /// This machine has no filter at loopback, and its kernel takes the questions.
    #[test]
    fn this_kernel_takes_the_questions() {
        assert_eq!(filtered(&BTreeSet::new()).ok(), Some(BTreeSet::new()));
        assert!(vlans().is_ok());
    }
}
