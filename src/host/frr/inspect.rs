//! One look at FRR for `wmgwd check`: what its daemons answer, and what their configurations say. Changes nothing.

use super::FrrConfig;
use super::carrier::Carriers;
use super::config::{parse_bgp, parse_ospf6_bridges, parse_uplinks};
use super::health;
use super::inspection::{Answer, Inspection, Saved, parse_interfaces, parse_neighbours, says};
use super::run::{Daemon, Vtysh};
use super::targets::parse_targets;
use super::upstream::{parse_protocol_map, parse_upstream};
use crate::host::Error;
use crate::sys::child;
use crate::telemetry::log_text::chain;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Where FRR keeps what it loads at a boot.
const SAVED: &str = "/etc/frr";

/// Asks zebra, bgpd, ospfd and bfdd, and reads what they would load at a boot.
pub(crate) fn inspect(config: &FrrConfig) -> Inspection {
    let vtysh = Vtysh::new(config);
    let mut inspection = Inspection::default();
    // Where no daemon runs vtysh is not asked anything, and would not be missed.
    let here = child::command(&config.vtysh)
        .arg("-h")
        .stdin(Stdio::null())
        .output();
    if let Err(error) = here {
        inspection.vtysh = Some(error.to_string());
        read_saved(&mut inspection);
        return inspection;
    }
    let mut ask = |daemon: Daemon, commands: &[&str]| -> Vec<Option<String>> {
        let mut answer = standing(config, daemon);
        let mut texts = Vec::new();
        for command in commands {
            let text = match answer {
                Answer::Answers => vtysh.show(daemon, command),
                _ => break,
            };
            match text {
                Ok(text) => texts.push(Some(text)),
                // A `show` that this version does not have is no reason to call the daemon silent, but the
                // first one every version has.
                Err(Error::Refused { .. }) if !texts.is_empty() => texts.push(None),
                Err(Error::Spawn { source }) => {
                    inspection.vtysh = Some(source.to_string());
                    inspection.daemons.push((daemon.name(), None));
                    return Vec::new();
                }
                Err(Error::Down { .. }) => answer = Answer::Down,
                Err(error) => answer = Answer::Silent(chain(&error)),
            }
        }
        inspection.daemons.push((daemon.name(), Some(answer)));
        texts
    };
    const CONFIG: &str = "show running-config";
    let zebra = ask(Daemon::Zebra, &["show version", CONFIG]);
    let bgpd = ask(
        Daemon::Bgpd,
        &[
            CONFIG,
            "show bgp l2vpn evpn vni json",
            "show bgp l2vpn evpn summary json",
        ],
    );
    let ospfd = ask(Daemon::Ospfd, &[CONFIG, "show ip ospf interface json"]);
    ask(Daemon::Bfdd, &["show version"]);
    // A host without IPv6 does without.
    let ospf6_config = match standing(config, Daemon::Ospf6d) {
        Answer::Answers => vtysh.show(Daemon::Ospf6d, CONFIG).ok(),
        _ => None,
    };
    inspection.ospf6 = ospf6_config.as_deref().map(parse_ospf6_bridges);
    let text = |texts: &[Option<String>], at: usize| texts.get(at).cloned().flatten();
    if let Some(running) = text(&bgpd, 0) {
        inspection.all_vnis = says(&running, "advertise-all-vni");
        inspection.svi = says(&running, "advertise-svi-ip");
        inspection.default_gw = says(&running, "advertise-default-gw");
        inspection.bgp = Some(parse_bgp(&running));
    }
    // No VNI known yet, or no BGP instance: vtysh then prints no JSON.
    inspection.targets = text(&bgpd, 1).map(|json| parse_targets(&json).unwrap_or_default());
    inspection.neighbours = text(&bgpd, 2).map(|json| parse_neighbours(&json));
    inspection.uplinks = text(&ospfd, 0).map_or_else(Vec::new, |it| parse_uplinks(&it));
    inspection.upstream = text(&ospfd, 0).map_or_else(Default::default, |it| parse_upstream(&it));
    let (bgp_config, ospf_config) = (text(&bgpd, 0), text(&ospfd, 0));
    inspection.carriers = text(&zebra, 1).map(|zebra| {
        let (bgp, ospf) = (bgp_config.as_deref(), ospf_config.as_deref());
        Carriers::read(&zebra, bgp, ospf, ospf6_config.as_deref())
    });
    inspection.kernel_map = text(&zebra, 1).and_then(|it| parse_protocol_map(&it));
    inspection.ospf = text(&ospfd, 1).map(|json| parse_interfaces(&json));
    inspection.remarks = remarks(&vtysh, &inspection);
    read_saved(&mut inspection);
    inspection
}

/// The lines of vtysh.conf that vtysh refuses. It reads that file only if a daemon answers.
fn remarks(vtysh: &Vtysh, inspection: &Inspection) -> BTreeMap<usize, String> {
    let answers = |daemon: &Daemon| {
        let answer = (daemon.name(), Some(Answer::Answers));
        inspection.daemons.contains(&answer)
    };
    let mut daemons = [Daemon::Zebra, Daemon::Bgpd, Daemon::Ospfd].into_iter();
    let remarks = daemons.find(answers).map(|daemon| vtysh.remarks(daemon));
    remarks.map_or_else(BTreeMap::new, |remarks| {
        remarks.unwrap_or_default().refused()
    })
}

/// Whether `daemon` runs, and whether its socket admits this process.
fn standing(config: &FrrConfig, daemon: Daemon) -> Answer {
    if !health::runs(&config.run_dirs, daemon.name()) {
        return Answer::Down;
    }
    let socket = |dir: &PathBuf| dir.join(format!("{}.vty", daemon.name()));
    let denied = |dir: &PathBuf| {
        let connected = UnixStream::connect(socket(dir));
        connected.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    if config.run_dirs.iter().any(denied) {
        return Answer::Denied;
    }
    Answer::Answers
}

/// Reads the one file of all daemons, or the file of each.
fn read_saved(inspection: &mut Inspection) {
    for file in ["frr.conf", "bgpd.conf", "ospfd.conf"] {
        let path = Path::new(SAVED).join(file);
        match fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                inspection.saved.push(Saved::read(path, &text));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => inspection.unreadable = Some(path),
        }
    }
}
