//! The rows of the table: what is done to the lab, and whose VNIs suffer.

use crate::bed::{Alarm, Bed, Shape};
use crate::probe::{Flow, Way};
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

/// The gateway that things happen to; it owns VNI 1 and some more.
const VICTIM: &str = "gw1";

/// How many gateways the lab has, if a row does not say otherwise.
const GATEWAYS: usize = 3;

/// How long a firewall drops beats that lets them through again.
const DROPPED: Duration = Duration::from_secs(10);

/// How long a link that flaps is down, and up.
const FLAP: Duration = Duration::from_secs(3);

pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    /// Options of `lab.sh up`.
    pub lab: &'static [&'static str],
    /// How many gateways there are, and how many of them serve before.
    pub gateways: usize,
    pub serving: usize,
    /// Options of each daemon.
    pub options: &'static [&'static str],
    /// Whether `wmgwd witness` runs on etcd's machine.
    pub witness: bool,
    /// Which way packets go.
    pub ways: &'static [Way],
    act: fn(&mut Bed),
}

/// What a row gave.
pub struct Outcome {
    pub name: &'static str,
    pub title: &'static str,
    /// The flows of the VNIs that were the victim's before, or are after.
    pub hit: Vec<Flow>,
    /// All others.
    pub others: Vec<Flow>,
    /// What the daemons that run at the end counted of early detection.
    pub alarms: Vec<Alarm>,
}

impl Outcome {
    /// All flows.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.hit.iter().chain(&self.others)
    }
}

impl Row {
    /// Builds a lab, lets it happen, and takes the lab away again.
    pub fn measure(&self, shape: &Shape, run: u32) -> Option<Outcome> {
        let mut bed = Bed::up(shape, self)?;
        bed.mark();
        (self.act)(&mut bed);
        bed.watch();
        let flows = bed.end();
        let alarms = bed.alarms();
        bed.keep_logs(&format!("{}-{run}", self.name));
        let after = bed.lab.rows();
        let is_hit = |flow: &Flow| {
            let index = flow.vni as usize - 1;
            bed.before[index] == VICTIM || bed.before[index] != after[index].2
        };
        let (hit, others) = flows.into_iter().partition(is_hit);
        Some(Outcome {
            name: self.name,
            title: self.title,
            hit,
            others,
            alarms,
        })
    }
}

const fn row(name: &'static str, title: &'static str, act: fn(&mut Bed)) -> Row {
    Row {
        name,
        title,
        lab: &[],
        gateways: GATEWAYS,
        serving: GATEWAYS,
        options: &[],
        witness: false,
        ways: &[Way::Up, Way::Down],
        act,
    }
}

pub const ALL: &[Row] = &[
    row("rest", "nothing happens", |bed| bed.pass()),
    row("drain", "drain (SIGTERM)", drain),
    Row {
        serving: 2,
        ..row("join", "a gateway joins", |bed| {
            bed.start("gw3");
            bed.rest();
        })
    },
    row(
        "restart",
        "SIGKILL of wmgwd, started again at once",
        |bed| {
            bed.lab.signal(&bed.daemons[VICTIM], "KILL");
            bed.start(VICTIM);
        },
    ),
    row("stop", "SIGSTOP of wmgwd for 3 s", |bed| {
        bed.lab.signal(&bed.daemons[VICTIM], "STOP");
        sleep(Duration::from_secs(3));
        bed.lab.signal(&bed.daemons[VICTIM], "CONT");
    }),
    row("kill", "SIGKILL of wmgwd", |bed| {
        bed.lab.signal(&bed.daemons[VICTIM], "KILL");
    }),
    Row {
        ways: &[Way::Up],
        ..row("kill-up", "SIGKILL of wmgwd, nothing sent down", |bed| {
            bed.lab.signal(&bed.daemons[VICTIM], "KILL");
        })
    },
    row("power", "power cut, behind a switch", power),
    Row {
        ways: &[Way::Up],
        ..row(
            "power-up",
            "power cut, behind a switch, nothing sent down",
            power,
        )
    },
    Row {
        ways: &[Way::Up],
        options: &["--detect-window", "0.2"],
        ..row("power-up-0.2", "the same, --detect-window 0.2", power)
    },
    Row {
        ways: &[Way::Up],
        options: &["--detect-window", "0"],
        ..row("power-up-off", "the same, --detect-window 0", power)
    },
    Row {
        ways: &[Way::Up],
        lab: &["--etcd", "members", "--etcd-timing", "500,50"],
        ..row(
            "power-leader",
            "power cut of the gateway with etcd's leader, nothing sent down",
            power_of_leader,
        )
    },
    Row {
        ways: &[Way::Up],
        gateways: 4,
        serving: 4,
        ..row(
            "power-two",
            "power cut of two of four gateways at once, nothing sent down",
            |bed| {
                // At the same time: each kill takes a moment.
                let mut other = bed.lab.script(&["kill", "gw2"]).spawn().unwrap();
                power(bed);
                assert!(other.wait().unwrap().success(), "kill");
            },
        )
    },
    Row {
        ways: &[Way::Up],
        gateways: 2,
        serving: 2,
        ..row(
            "power-pair",
            "power cut of one of two gateways, nothing sent down",
            power,
        )
    },
    Row {
        ways: &[Way::Up],
        gateways: 2,
        serving: 2,
        witness: true,
        ..row("power-witness", "the same, with wmgwd witness", power)
    },
    Row {
        lab: &["--cables", "direct"],
        ..row("carrier", "power cut, carrier loss", power)
    },
    row(
        "boot",
        "a gateway boots after a power cut, and joins",
        |bed| {
            bed.lab.verb(&["kill", VICTIM]);
            bed.daemons.remove(VICTIM);
            bed.rest();
            // What the power cut cost is another row.
            bed.flowing();
            bed.mark();
            bed.lab.verb(&["revive", VICTIM]);
            bed.watch();
            bed.start(VICTIM);
            bed.rest();
        },
    ),
    row("bgpd", "SIGKILL of bgpd", |bed| kill(bed, "bgpd")),
    row("ospfd", "SIGKILL of ospfd", |bed| kill(bed, "ospfd")),
    row("zebra", "SIGKILL of zebra", |bed| kill(bed, "zebra")),
    row("frr", "restart of FRR", |bed| {
        bed.lab.verb(&["frr", VICTIM, "restart"]);
    }),
    row("cut-etcd", "the gateway loses etcd", |bed| {
        bed.lab.verb(&["cut", VICTIM, "mgmt"]);
    }),
    row("frr-all", "restart of FRR on all gateways at once", |bed| {
        let restart = |number| {
            let gateway = format!("gw{number}");
            let mut script = bed.lab.script(&["frr", &gateway, "restart"]);
            script.spawn().unwrap()
        };
        let restarts: Vec<Child> = (1..=bed.gateways).map(restart).collect();
        for mut restart in restarts {
            assert!(restart.wait().unwrap().success(), "frr restart");
        }
    }),
    row("cut-fabric", "the fabric is cut behind a switch", |bed| {
        bed.lab.verb(&["cut", VICTIM, "underlay"]);
    }),
    Row {
        lab: &["--fabric-bfd", "off"],
        ..row("cut-fabric-nobfd", "the same, without BFD", |bed| {
            bed.lab.verb(&["cut", VICTIM, "underlay"]);
        })
    },
    row(
        "mute-fabric",
        "the fabric gets nothing from the gateway",
        |bed| {
            bed.lab.verb(&["mute", VICTIM, "underlay"]);
        },
    ),
    row(
        "deaf-fabric",
        "the gateway gets nothing from the fabric",
        |bed| {
            bed.lab.verb(&["deafen", VICTIM, "underlay"]);
        },
    ),
    row("fabric-carrier", "the fabric link loses carrier", |bed| {
        bed.lab.verb(&["unplug", VICTIM, "underlay"]);
    }),
    row(
        "fabric-flaps",
        "the fabric link flaps every 3 s for a minute",
        |bed| {
            for _ in 0..10 {
                bed.lab.verb(&["unplug", VICTIM, "underlay"]);
                sleep(FLAP);
                bed.lab.verb(&["replug", VICTIM, "underlay"]);
                sleep(FLAP);
            }
        },
    ),
    row("cut-uplink", "the uplink is cut behind a switch", |bed| {
        bed.lab.verb(&["cut", VICTIM, "uplink"]);
    }),
    Row {
        lab: &["--upstream-bfd", "off"],
        ..row("cut-uplink-nobfd", "the same, without BFD", |bed| {
            bed.lab.verb(&["cut", VICTIM, "uplink"]);
        })
    },
    row(
        "mute-uplink",
        "the uplink gets nothing from the gateway",
        |bed| {
            bed.lab.verb(&["mute", VICTIM, "uplink"]);
        },
    ),
    row(
        "deaf-uplink",
        "the gateway gets nothing from the uplink",
        |bed| {
            bed.lab.verb(&["deafen", VICTIM, "uplink"]);
        },
    ),
    row("uplink-carrier", "the uplink loses carrier", |bed| {
        bed.lab.verb(&["unplug", VICTIM, "uplink"]);
    }),
    row("deaf", "a firewall drops the beats to the gateway", |bed| {
        drop_datagrams(bed, &["dport"]);
    }),
    row(
        "mute",
        "a firewall drops all beats and acknowledgements of the gateway",
        |bed| {
            drop_datagrams(bed, &["dport", "sport"]);
        },
    ),
    row("mute-10s", "the same for 10 s", |bed| {
        drop_datagrams(bed, &["dport", "sport"]);
        sleep(DROPPED);
        bed.lab.ask(VICTIM, &["nft", "delete table inet drops"]);
    }),
    row("etcd", "restart of etcd", |bed| {
        bed.lab.verb(&["etcd", "etcd1", "restart"]);
    }),
];

fn drain(bed: &mut Bed) {
    let mut daemon = bed.daemons.remove(VICTIM).expect("it serves");
    bed.lab.signal(&daemon, "TERM");
    assert!(daemon.ended(), "the drain ends well: {}", daemon.log());
    bed.rest();
}

/// Has the gateway drop the UDP packets that come in and have the port of beats as one of `ports`.
fn drop_datagrams(bed: &mut Bed, ports: &[&str]) {
    let mut table = "add table inet drops; \
                     add chain inet drops input { type filter hook input priority 0 ; }"
        .to_owned();
    for port in ports {
        table += &format!("; add rule inet drops input udp {port} 14789 drop");
    }
    bed.lab.ask(VICTIM, &["nft", &table]);
}

fn power(bed: &mut Bed) {
    bed.lab.verb(&["kill", VICTIM]);
}

/// etcd's leader moves to the gateway first, and a follower's clients notice nothing of that.
fn power_of_leader(bed: &mut Bed) {
    bed.lead(VICTIM);
    bed.mark();
    power(bed);
}

fn kill(bed: &mut Bed, daemon: &str) {
    bed.lab.verb(&["signal", VICTIM, "KILL", daemon]);
}
