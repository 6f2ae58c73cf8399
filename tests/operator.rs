//! What those around a running daemon get to hear: the service manager, Prometheus, a notify command.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::eventually;
use common::node::{Node, VNIS};
use common::rows::until_settled;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Everything that has arrived at a socket.
fn arrived(socket: &UnixDatagram) -> Vec<String> {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 512];
    std::iter::from_fn(|| {
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
    .collect()
}

/// Input: a node under a service manager with a watchdog; it starts, serves, is told to end. Output: ready once,
/// after the VNIs can be served; signs of life; a status; that it stops. Its guard does not know the address.
#[test]
fn a_service_manager_hears_how_it_goes() {
    let name = format!("wmgwd-operator-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let etcd = Etcd::start();
    let mut node = Node::new(1, etcd.endpoint())
        .with_variable("NOTIFY_SOCKET", format!("@{name}"))
        .with_variable("WATCHDOG_USEC", 4_000_000);
    node.start();
    until_settled(&etcd.client(), &[&node]);
    let mut heard = Vec::new();
    let status = format!("STATUS=in sync: serves {VNIS} VNIs, lease held");
    eventually("it says that it serves", || {
        heard.extend(arrived(&manager));
        heard.contains(&status).then_some(())
    });
    let signs = |heard: &[String]| heard.iter().filter(|it| *it == "WATCHDOG=1").count();
    let before = signs(&heard);
    eventually("it shows signs of life", || {
        heard.extend(arrived(&manager));
        (signs(&heard) > before + 1).then_some(())
    });
    let guard = node.guard_pid();
    let environment = fs::read(format!("/proc/{guard}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("WMGWD_MOCK_DIR"), "it can be read");
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG_USEC"));

    node.term();
    assert_eq!(node.wait_exit().code(), Some(0));
    heard.extend(arrived(&manager));
    for once in ["READY=1", "STOPPING=1"] {
        let count = heard.iter().filter(|it| *it == once).count();
        assert_eq!(count, 1, "{once}: {heard:?}");
    }
    let ready = heard.iter().position(|it| it == "READY=1");
    assert!(
        ready < heard.iter().position(|it| *it == status),
        "{heard:?}"
    );
}
