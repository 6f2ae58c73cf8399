//! Far more than any network has: what many VNIs on many gateways do to etcd and to one daemon.
//!
//! One daemon is real. The others are registrations, leases and rows that this program writes for them; they
//! never act, so that what is measured is the one daemon and etcd.

use crate::common::etcd::Etcd;
use crate::common::node::{Node, peak_memory, scatter};
use crate::common::{put, put_leased, then};
use crate::idle;
use crate::observe::{Observer, Stuck};
use crate::report::Figure;
use crate::requests::Requests;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wmgwd::etcd::{Client, Op};
use wmgwd::model::ring::{Member, Ring};
use wmgwd::model::types::{LeaseId, NodeName, Vni};

/// Gateways, the real one among them.
const GATEWAYS: u64 = 20;
/// As many points as a daemon draws by itself.
const POINTS: u64 = 100;
/// VNIs that are written at once.
const BATCH: usize = 125;
/// Longer than this takes.
const LEASE: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(180);

/// A gateway that exists only as keys in etcd.
struct Extra {
    name: NodeName,
    points: Vec<u64>,
    lease: LeaseId,
}

/// Measures `vnis` on [`GATEWAYS`].
///
/// # Errors
/// It does not come to an end.
pub fn measure(figures: &mut Vec<Figure>, vnis: u32) -> Result<(), Stuck> {
    let etcd = Etcd::start_in_memory();
    let client = Client::new(vec![etcd.endpoint()], Duration::from_secs(60));
    let extras: Vec<Extra> = (2..=GATEWAYS).map(|it| register(&client, it)).collect();
    eprintln!("{vnis} VNIs on {GATEWAYS} gateways: writing the rows");
    fill(&client, &extras, vnis);
    let mut add = |what: &str, measured: f64, unit, note: String| {
        eprintln!("{vnis} VNIs on {GATEWAYS} gateways: {what}: {measured:.2} {unit}");
        figures.push(Figure {
            what: format!("{vnis} VNIs on {GATEWAYS} gateways: {what}"),
            measured: Some(measured),
            unit,
            note,
            ..Figure::default()
        });
    };
    let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
    let gauge = |name: &str| etcd.figure(name).unwrap_or(0.0);
    let size = gauge("etcd_mvcc_db_total_size_in_bytes");
    add("etcd's database", mebibytes(size), "MiB", String::new());
    let memory = gauge("process_resident_memory_bytes");
    add("etcd's memory", mebibytes(memory), "MiB", String::new());

    let points: Vec<u64> = (0..POINTS).map(|i| scatter(1000 + i)).collect();
    let mut node = Node::new(1, etcd.endpoint())
        .unmirrored()
        .with_points(points)
        .with("--maxvni", vnis)
        .with("--join-hold", 3600)
        .with("--lease-ttl", 5);
    let name = node.name.clone();
    let observer = Observer::start(&etcd.endpoint(), std::slice::from_ref(&name), vnis);
    let begun = Instant::now();
    node.start();
    let registered = observer.until("the daemon registers", PATIENCE, |view| {
        view.registered.get(name.as_str()).copied()
    })?;
    let time = (registered - begun).as_secs_f64();
    add(
        "a daemon's start until it is registered",
        time,
        "s",
        String::new(),
    );
    thread::sleep(Duration::from_secs(5));
    let quiet = idle::measure(&etcd, &[vec![node.pid()]], Duration::from_secs(15));
    add("idle: CPU of a daemon", quiet.cpu, "%", String::new());
    let note = quiet.which.to_string();
    add(
        "idle: etcd requests of a daemon",
        quiet.requests,
        "/s",
        note,
    );

    // A gateway dies.
    let dead = &extras[0];
    let ring = ring(&extras[1..], Some(&node));
    let before = ring_owned(&self::ring(&extras, None), vnis, &dead.name);
    let share = before.iter().filter(|&&it| ring.owner(it) == Some(&name));
    let share = share.count();
    let (asked, bytes) = (Requests::of(&etcd), observer.look(|view| view.bytes));
    let spent = idle::cpu_time(node.pid());
    client.lease_revoke(dead.lease).unwrap();
    let end = observer.until("its share", PATIENCE, |view| {
        let gone = *view.gone.get(dead.name.as_str())?;
        (view.idle_at(0) == share).then(|| view.at - gone)
    })?;
    let which = &Requests::of(&etcd) - &asked;
    let bytes = observer.look(|view| view.bytes) - bytes;
    let cpu = (idle::cpu_time(node.pid()) - spent).as_secs_f64();
    let note = format!("{share} of {} VNIs; requests: {which}", before.len());
    add("failover: the daemon's share", end.as_secs_f64(), "s", note);
    add("failover: CPU time of the daemon", cpu, "s", String::new());
    // The others would write their shares, too, and everybody would see that.
    let note = "the end of the lease, and the rows that this daemon took".to_owned();
    add(
        "failover: bytes to each watcher",
        mebibytes(bytes as f64),
        "MiB",
        note,
    );
    let memory = peak_memory(node.pid()) as f64 / 1024.0;
    add("peak memory of a daemon", memory, "MiB", String::new());
    Ok(())
}

fn register(client: &Client, number: u64) -> Extra {
    let extra = Extra {
        name: format!("extra{number}").parse().unwrap(),
        points: (0..POINTS).map(|i| scatter(number * 1000 + i)).collect(),
        lease: client.lease_grant(LEASE).unwrap().id,
    };
    let key = format!("/wmgwd/node/{}", extra.name);
    let points = format!("{:?}", extra.points);
    let registration = put_leased(key, points, Some(extra.lease));
    client.txn(&then(vec![registration])).unwrap();
    extra
}

fn ring(extras: &[Extra], node: Option<&Node>) -> Ring {
    let extras = extras.iter().map(|extra| (&extra.name, &extra.points));
    let all = extras.chain(node.map(|node| (&node.name, &node.points)));
    Ring::new(all.map(|(name, points)| Member {
        name,
        points,
        range: None,
        unable: None,
        rank: None,
    }))
}

fn ring_owned(ring: &Ring, vnis: u32, name: &NodeName) -> Vec<Vni> {
    let all = (1..=vnis).filter_map(Vni::new);
    all.filter(|vni| ring.owner(*vni) == Some(name)).collect()
}

/// Every VNI idle at its owner on the ring of `extras`.
fn fill(client: &Client, extras: &[Extra], vnis: u32) {
    let ring = ring(extras, None);
    let all: Vec<Vni> = (1..=vnis).filter_map(Vni::new).collect();
    let batches: Vec<&[Vni]> = all.chunks(BATCH).collect();
    let row = |vni: &Vni| {
        let owner = ring.owner(*vni).unwrap();
        let lease = extras.iter().find(|it| it.name == *owner).unwrap().lease;
        let key = |part| format!("/wmgwd/vni/{vni}/{part}");
        Op::Txn(then(vec![
            put(key("type"), "1"),
            put_leased(key("current"), owner.as_str(), Some(lease)),
            put(key("next"), ""),
        ]))
    };
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let client = client.clone();
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    client.txn(&then(batch.iter().map(row).collect())).unwrap();
                }
            });
        }
    });
}
