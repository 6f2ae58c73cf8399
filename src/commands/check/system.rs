//! Pure: kernel switches, what this process may do, and who else is at work on this host.

use super::Finding;
use crate::model::purpose::Purpose;
use crate::model::types::Vni;
use std::collections::BTreeMap;

/// The kernel and this process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct System {
    /// `net.ipv4.conf.all.arp_ignore`.
    pub arp_ignore_all: Option<u32>,
    /// `net.ipv4.conf.br<VNI>.arp_ignore` of the bridges of the range.
    pub arp_ignore: BTreeMap<Vni, u32>,
    /// `net.ipv4.ip_forward`.
    pub forwards: Option<u32>,
    /// `net.ipv4.neigh.default.gc_thresh3`: how many neighbours the kernel keeps at most.
    pub neighbours: Option<u32>,
    /// Why `arp_ignore` may not be written.
    pub sysctl: Option<String>,
    /// Why no packet socket can be had.
    pub packets: Option<String>,
    /// Why memory may not be locked.
    pub memory: Option<String>,
    /// Why the kernel cannot hold the lease, and what repairs it.
    pub gate: Option<(String, &'static str)>,
    /// Why the kernel cannot switch the IPv6 gateway addresses that there are.
    pub ipv6: Option<String>,
    /// The names of the nodes that have a guard here, so that a daemon runs or has just died.
    pub guards: Vec<String>,
}

/// What there is to say of them.
pub fn findings(purpose: &Purpose, system: &System) -> Vec<Finding> {
    let mut findings = rights(system);
    findings.extend(other_runs(purpose, system));
    findings.extend(switches(system));
    findings.extend(kernel_lease(purpose, system));
    findings
}

fn rights(system: &System) -> Vec<Finding> {
    const ABOUT: &str = "rights";
    const MEND: &str =
        "run this as the daemon will run: as root, or with CAP_NET_ADMIN and CAP_NET_RAW";
    let mut findings = Vec::new();
    if let Some(reason) = &system.sysctl {
        let text = format!("arp_ignore below /proc/sys may not be written: {reason}");
        findings.push(Finding::fail(ABOUT, text, MEND));
    }
    if let Some(reason) = &system.packets {
        let text = format!("no packet socket for gratuitous ARP: {reason}");
        findings.push(Finding::fail(ABOUT, text, MEND));
    }
    if findings.is_empty() {
        let text = "may switch arp_ignore and send gratuitous ARP";
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

/// What makes the fence independent of daemon, guard and disk.
fn kernel_lease(purpose: &Purpose, system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (_, others) = guards(purpose, system);
    findings.push(match (&system.gate, others.first()) {
        (None, Some(other)) => {
            let text = format!("the kernel can hold one, and holds that of {other}");
            Finding::warn("kernel lease", text, STOP)
        }
        (None, None) => Finding::ok("kernel lease", "nf_tables can silence ARP by itself"),
        (Some((reason, remedy)), _) => {
            let text = format!(
                "if daemon and guard are killed at once, this host goes on answering ARP: {reason}"
            );
            Finding::warn("kernel lease", text, *remedy)
        }
    });
    if let Some(reason) = &system.ipv6 {
        findings.push(Finding::warn(
            "kernel lease",
            format!(
                "IPv6 gateway addresses are not switched, every gateway answers for them at any time: {reason}"
            ),
            "modprobe nf_tables, or on OpenWrt: opkg install kmod-nft-core",
        ));
    }
    if let Some(reason) = &system.memory {
        findings.push(Finding::warn(
            "memory",
            format!("may not be locked, so that a busy disk may delay a fence: {reason}"),
            "set LimitMEMLOCK=infinity in the unit, or run ulimit -l unlimited first",
        ));
    }
    findings
}

/// What ends another node on this host.
const STOP: &str = "stop it: systemctl stop wmgwd";

/// The guards on this host: those of this node, and those of others.
fn guards<'a>(purpose: &Purpose, system: &'a System) -> (Vec<&'a String>, Vec<&'a String>) {
    system.guards.iter().partition(|name| {
        let own = purpose.name.as_ref();
        own.is_none_or(|own| own.as_str() == name.as_str())
    })
}

fn other_runs(purpose: &Purpose, system: &System) -> Vec<Finding> {
    const ABOUT: &str = "other runs";
    let (own, others) = guards(purpose, system);
    if let Some(other) = others.first() {
        let text = format!(
            "a wmgwd named {other} runs on this host, or its guard does: two would switch the same bridges"
        );
        return vec![Finding::fail(ABOUT, text, STOP)];
    }
    let text = match own.first() {
        Some(name) => format!("wmgwd runs here as {name}, or has just ended: its guard is there"),
        None => "no wmgwd runs on this host".to_owned(),
    };
    vec![Finding::ok(ABOUT, text)]
}

/// `net.ipv4.conf.all.arp_ignore`: the kernel uses the greater of it and the bridge's own (ip-sysctl.rst). With up to
/// 7 a bridge answers for its own addresses of scope global, and is silent at 8; at 8 it is always silent, and with
/// more than that it is never (`arp_ignore` in Linux's net/ipv4/arp.c; tests/host/kernel.rs tries each).
pub fn arp_ignore_of_all(value: u32) -> Option<Finding> {
    let effect = match value {
        0..=7 => return None,
        8 => "keeps this gateway from answering ARP for the VNIs that it owns",
        _ => "keeps wmgwd from silencing a bridge, so that two gateways answer for a VNI",
    };
    Some(Finding::fail(
        "arp_ignore",
        format!("net.ipv4.conf.all.arp_ignore={value} {effect}"),
        "sysctl -w net.ipv4.conf.all.arp_ignore=0",
    ))
}

fn switches(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(system.arp_ignore_all.and_then(arp_ignore_of_all));
    // A daemon that runs answers for what it owns; without one, nobody may.
    let loud: Vec<Vni> = system
        .arp_ignore
        .iter()
        .filter(|(_, value)| system.guards.is_empty() && **value != 8)
        .map(|(vni, _)| *vni)
        .collect();
    findings.extend(
        Finding::warn(
            "arp_ignore",
            "br<VNI> answers ARP although no wmgwd runs here, and would after a boot",
            "sysctl -w net.ipv4.conf.br$i.arp_ignore=8",
        )
        .of(&loud),
    );
    if system.arp_ignore_all.is_none() {
        findings.push(Finding::unknown(
            "arp_ignore",
            "net.ipv4.conf.all.arp_ignore cannot be read",
            "mount /proc",
        ));
    }
    if findings.is_empty() {
        let text = match system.guards.is_empty() {
            _ if system.arp_ignore.is_empty() => "below 8 for all; there is no br<VNI> to look at",
            true => "0 for all, 8 (silent) for each br<VNI>",
            false => "0 for all; each br<VNI> is the running wmgwd's to switch",
        };
        findings.push(Finding::ok("arp_ignore", text));
    }
    match system.forwards {
        Some(0) => findings.push(Finding::fail(
            "ip_forward",
            "net.ipv4.ip_forward=0: this host does not route",
            "sysctl -w net.ipv4.ip_forward=1",
        )),
        Some(_) => findings.push(Finding::ok("ip_forward", "on")),
        None => findings.push(Finding::unknown(
            "ip_forward",
            "net.ipv4.ip_forward cannot be read",
            "mount /proc",
        )),
    }
    let vnis = system.arp_ignore.len();
    if let Some(most) = system.neighbours.filter(|most| (*most as usize) < 2 * vnis) {
        findings.push(Finding::warn(
            "neighbours",
            format!(
                "net.ipv4.neigh.default.gc_thresh3={most} leaves less than two stations to each of {vnis} VNIs"
            ),
            format!("sysctl -w net.ipv4.neigh.default.gc_thresh3={}", 8 * vnis),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::tests::{purpose, said, vnis};
    use super::*;

    fn well() -> System {
        System {
            arp_ignore_all: Some(0),
            arp_ignore: vnis(&[1, 2, 3]).into_iter().map(|vni| (vni, 8)).collect(),
            forwards: Some(1),
            neighbours: Some(1024),
            ..System::default()
        }
    }

    #[test]
    fn a_host_that_is_as_it_must_be() {
        assert_eq!(said(&findings(&purpose(1, 3), &well())), []);
    }

    /// A bridge that answers is the running daemon's affair, and a leftover where none runs.
    #[test]
    fn whether_a_daemon_runs_makes_the_difference() {
        let mut system = well();
        system
            .arp_ignore
            .extend(vnis(&[1, 2]).into_iter().map(|vni| (vni, 0)));
        let text =
            "br<VNI> answers ARP although no wmgwd runs here, and would after a boot: VNIs 1-2";
        assert_eq!(
            said(&findings(&purpose(1, 3), &system)),
            [(Level::Warn, text)]
        );
        system.guards = vec!["gw1".into()];
        assert_eq!(said(&findings(&purpose(1, 3), &system)), []);
        system.guards.push("gw2".into());
        let found = findings(&purpose(1, 3), &system);
        let text = "a wmgwd named gw2 runs on this host, or its guard does: two would switch the same bridges";
        let shared = "the kernel can hold one, and holds that of gw2";
        assert_eq!(said(&found), [(Level::Fail, text), (Level::Warn, shared)]);
    }

    #[test]
    fn what_cannot_be_read_or_done() {
        let system = System {
            forwards: None,
            sysctl: Some("Permission denied".into()),
            packets: Some("Operation not permitted".into()),
            gate: Some(("no nf_tables".into(), "modprobe nf_tables")),
            ipv6: Some("no nf_tables".into()),
            memory: Some("RLIMIT_MEMLOCK is 8192 KiB".into()),
            ..well()
        };
        let levels: Vec<Level> = said(&findings(&purpose(1, 3), &system))
            .into_iter()
            .map(|(level, _)| level)
            .collect();
        assert_eq!(
            levels,
            [
                Level::Fail,
                Level::Fail,
                Level::Unknown,
                Level::Warn,
                Level::Warn,
                Level::Warn,
            ]
        );
    }

    #[test]
    fn a_table_with_less_room_than_vnis() {
        let system = System {
            neighbours: Some(5),
            ..well()
        };
        let found = findings(&purpose(1, 3), &system);
        assert_eq!(said(&found).len(), 1);
    }
}
