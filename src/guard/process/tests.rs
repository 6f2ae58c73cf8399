//! The guard in a thread, on a mock host.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::guard::supervisor::GuardSupervisor;
use crate::host::mock::Mock;
use crate::host::{Health, RouteChange, RouteFailure};
use crate::model::types::{LeaseId, VniRange};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{JoinHandle, spawn};

/// A guard that runs in a thread, on a host that answers for VNI 3.
struct Scene {
    address: Address,
    mock: Mock,
    guard: JoinHandle<()>,
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn scene(name: &str) -> Scene {
    scene_with(name, None)
}

fn scene_with(name: &str, router: Option<Box<dyn Router>>) -> Scene {
    let name = format!("{name}-{}", std::process::id()).parse().unwrap();
    let address = Address::new(&name, Some("unit-test"));
    let mut mock = Mock::new(VniRange::new(vni(1), vni(9)).unwrap()).unwrap();
    mock.set_arp(vni(3), true).unwrap();
    let kernel = Box::new(mock.clone());
    let router = router.unwrap_or_else(|| Box::new(mock.clone()));
    let guard = Process::bind(&address, Duration::from_millis(100), kernel, router).unwrap();
    Scene {
        address,
        mock,
        guard: spawn(|| guard.run()),
    }
}

fn connect(scene: &Scene) -> (UnixStream, Option<Greeting>) {
    let (stream, answer) = ask(scene, Order::Hello);
    (stream, Greeting::read(&answer))
}

fn ask(scene: &Scene, question: Order) -> (UnixStream, String) {
    let mut stream = scene.address.connect().unwrap();
    stream.set_nonblocking(false).unwrap();
    say(&mut stream, &[question]);
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    (stream, line)
}

fn lease(left: Duration) -> Lease {
    Lease {
        id: LeaseId(7),
        valid_until: clock::now() + left,
    }
}

fn say(stream: &mut UnixStream, orders: &[Order]) {
    let lines: String = orders.iter().map(Order::line).collect();
    stream.write_all(lines.as_bytes()).unwrap();
}

/// Input: a daemon that says what it serves and is gone in the same moment. Output: the guard holds on, and
/// silences what was said last before the lease ends.
#[test]
fn the_last_words_of_a_daemon_count() {
    let scene = scene("last-words");
    let (mut stream, greeting) = connect(&scene);
    assert_eq!(greeting, Some(Greeting::Fresh));
    let lease = lease(Duration::from_millis(600));
    say(
        &mut stream,
        &[Order::Lease(lease), Order::Serves(vec![(vni(3), 3)])],
    );
    drop(stream);
    scene.guard.join().unwrap();
    assert!(!scene.mock.exposure(vni(3)).arp);
    assert!(clock::now() >= lease.valid_until - Duration::from_millis(100));
}

/// Input: a daemon that dismisses its guard and ends. Output: the guard ends at once, touching nothing.
#[test]
fn a_dismissed_guard_ends_at_once() {
    let scene = scene("dismissed");
    let (mut stream, _) = connect(&scene);
    let lease = lease(Duration::from_secs(600));
    say(&mut stream, &[Order::Lease(lease), Order::Bye]);
    drop(stream);
    scene.guard.join().unwrap();
    assert!(scene.mock.exposure(vni(3)).arp, "not its business any more");
}

/// A host whose FRR refuses, and counts how often.
struct Refusing(Arc<AtomicU32>);

impl Router for Refusing {
    fn withdraw(
        &mut self,
        _: FrrDaemons,
        _: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), host::Error> {
        if !permit() {
            return Err(host::Error::NotPermitted);
        }
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(host::Error::Down { daemon: "bgpd" })
    }

    fn apply(&mut self, _: &[RouteChange], _: &dyn Fn() -> bool) -> Vec<RouteFailure> {
        Vec::new()
    }

    fn health(&mut self) -> Health {
        Health::default()
    }
}

/// Input: a guard that is to retire, with an FRR that refuses. Output: it silences its VNIs, tries FRR once, and ends.
#[test]
fn a_guard_that_retires_tries_once() {
    let tries = Arc::new(AtomicU32::new(0));
    let scene = scene_with("retires", Some(Box::new(Refusing(tries.clone()))));
    let (mut stream, _) = connect(&scene);
    let serves = Order::Serves(vec![(vni(3), 3)]);
    let long = lease(Duration::from_secs(600));
    say(&mut stream, &[Order::Lease(long), serves]);
    let over = Lease {
        valid_until: Time::default(),
        ..long
    };
    say(&mut stream, &[Order::Retire, Order::Lease(over)]);
    drop(stream);
    scene.guard.join().unwrap();
    assert!(!scene.mock.exposure(vni(3)).arp);
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

/// Input: a second daemon beside a living one; then one after its death. Output: busy; then the lease.
#[test]
fn a_guard_has_one_daemon_at_a_time() {
    let scene = scene("one-daemon");
    let (mut first, _) = connect(&scene);
    let lease = lease(Duration::from_secs(600));
    say(&mut first, &[Order::Lease(lease)]);
    assert_eq!(connect(&scene).1, Some(Greeting::Busy));
    drop(first);
    let mut second = loop {
        match connect(&scene) {
            (stream, Some(Greeting::Orphan(found, None))) => {
                assert_eq!(found, lease);
                break stream;
            }
            (_, greeting) => assert_eq!(greeting, Some(Greeting::Busy)),
        }
        sleep(Duration::from_millis(5));
    };
    say(&mut second, &[Order::Bye]);
    scene.guard.join().unwrap();
}

/// Input: a daemon that starts beside the guard of a dead one under another name, whose lease has ten minutes left, and
/// beside the guard of a living one. Output: the first silences and withdraws at once, and its lease is named, so that
/// it can be revoked; the second is left alone.
#[test]
fn a_guard_of_another_name_withdraws_before_the_next_daemon_shows_anything() {
    let (dead, living) = (scene("other-name"), scene("other-living"));
    let held = lease(Duration::from_secs(600));
    let serve = |scene: &Scene| {
        let (mut stream, _) = connect(scene);
        let orders = [Order::Lease(held), Order::Serves(vec![(vni(3), 3)])];
        say(&mut stream, &orders);
        stream
    };
    drop(serve(&dead));
    let mut daemon = serve(&living);
    let others = vec![dead.address.clone(), living.address.clone()];
    assert_eq!(GuardSupervisor::retire_others(others), [held]);
    dead.guard.join().unwrap();
    assert!(!dead.mock.exposure(vni(3)).arp);
    assert!(living.mock.exposure(vni(3)).arp);
    say(&mut daemon, &[Order::Bye]);
    living.guard.join().unwrap();
}

/// Input: no word from a living daemon. Output: silenced before the lease ends, and withdrawn from FRR.
#[test]
fn a_late_daemon_is_silenced() {
    let scene = scene("late");
    let (mut stream, _) = connect(&scene);
    say(
        &mut stream,
        &[
            Order::Lease(lease(Duration::from_millis(300))),
            Order::Serves(vec![(vni(3), 3)]),
        ],
    );
    while scene.mock.exposure(vni(3)).arp {
        sleep(Duration::from_millis(5));
    }
    // A new word, and it holds again.
    say(
        &mut stream,
        &[Order::Lease(lease(Duration::from_secs(600))), Order::Bye],
    );
    scene.guard.join().unwrap();
}

/// The guard's answer to who looks.
fn look(scene: &Scene) -> View {
    View::read(&ask(scene, Order::Look).1).unwrap()
}

/// Input: looks at a guard without a lease, with a daemon, and after its death. Output: each sees the lease, the daemon
/// and what answers, as they are; none takes the daemon's place, and the guard does not end on its account.
#[test]
fn a_look_sees_the_guard_as_it_is() {
    let scene = scene("looks");
    let view = look(&scene);
    assert_eq!((view.lease, view.has_daemon), (None, false));
    assert!(!view.has_proof());
    let (mut stream, greeting) = connect(&scene);
    assert_eq!(greeting, Some(Greeting::Fresh));
    let held = lease(Duration::from_secs(600));
    say(
        &mut stream,
        &[Order::Lease(held), Order::Serves(vec![(vni(3), 3)])],
    );
    let view = loop {
        let view = look(&scene);
        if view.answering > 0 {
            break view;
        }
    };
    assert_eq!((view.lease, view.has_daemon), (Some(held), true));
    assert_eq!(view.until, held.valid_until - Duration::from_millis(100));
    assert!(view.has_proof() && view.age().is_none() && view.epochs.is_empty());
    assert_eq!(view.version, env!("CARGO_PKG_VERSION"));
    drop(stream);
    while look(&scene).has_daemon {}
    assert_eq!(look(&scene).lease, Some(held));
    let (mut next, greeting) = connect(&scene);
    assert_eq!(greeting, Some(Greeting::Orphan(held, None)));
    say(&mut next, &[Order::Bye]);
    scene.guard.join().unwrap();
    assert!(scene.mock.exposure(vni(3)).arp);
}
