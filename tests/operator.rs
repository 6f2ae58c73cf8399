//! What those around a running daemon get to hear: the service manager, Prometheus, a notify command.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::exposition::{self, ask, get, scrape};
use common::node::{Node, TTL, VNIS, share, wmgwd_of};
use common::program;
use common::rows::{table, until_settled, until_settled_without};
use common::{eventually, free_ports};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, Stdio};

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

/// Input: a node under a service manager with a watchdog; it starts while etcd is away, serves once that is there,
/// is told to end. Output: not ready before etcd has answered, but alive; then ready once, before it serves; a
/// status; that it stops. Its guard does not know the address.
#[test]
fn a_service_manager_hears_how_it_goes() {
    let name = format!("wmgwd-operator-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut etcd = Etcd::start();
    etcd.terminate();
    let mut node = Node::new(1, etcd.endpoint())
        .with_variable("NOTIFY_SOCKET", format!("@{name}"))
        .with_variable("WATCHDOG_USEC", 4_000_000);
    node.start();
    let mut heard = Vec::new();
    let signs = |heard: &[String]| heard.iter().filter(|it| *it == "WATCHDOG=1").count();
    eventually("it waits, and is alive", || {
        heard.extend(arrived(&manager));
        let waits = |it: &String| it.starts_with("STATUS=waiting for etcd:");
        (heard.iter().any(waits) && signs(&heard) > 1).then_some(())
    });
    assert!(!heard.iter().any(|it| it == "READY=1"), "{heard:?}");
    etcd.restart();
    until_settled(&etcd.client(), &[&node]);
    let status = format!("STATUS=in sync: serves {VNIS} of {VNIS} VNIs, lease held");
    eventually("it says that it serves", || {
        heard.extend(arrived(&manager));
        heard.contains(&status).then_some(())
    });
    etcd.stop();
    let fenced = format!("s: fenced, serves 0 of {VNIS} VNIs");
    eventually("it says that etcd is away", || {
        heard.extend(arrived(&manager));
        let is_told =
            |it: &String| it.starts_with("STATUS=etcd away for ") && it.ends_with(&fenced);
        heard.iter().any(is_told).then_some(())
    });
    etcd.cont();
    until_settled(&etcd.client(), &[&node]);
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

/// Contract: Prometheus's own reader has nothing to say against the names and units of the metrics.
fn promtool_takes(page: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("promtool_takes: skipped, needs promtool");
        return;
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Waits until `series` has `value`.
fn until(port: u16, series: &str, value: f64) {
    eventually(&format!("{series} becomes {value}"), || {
        (scrape(port).get(series) == value).then_some(())
    });
}

fn until_ready(port: u16) {
    eventually("it is ready", || {
        (get(port, "/readyz")? == ("HTTP/1.1 200 OK".into(), "ok\n".into())).then_some(())
    });
}

/// Input: two nodes; one is killed; etcd is silent for longer than the lease; it answers again. Output: the numbers
/// of the other say exactly that, in the format's strictest reading; it is alive all the time, and ready but
/// while it cannot prove its lease.
#[test]
fn the_numbers_tell_what_happened() {
    let [port] = free_ports(1)[..] else { panic!() };
    let etcd = Etcd::start();
    let client = etcd.client();
    let address = format!("127.0.0.1:{port}");
    let mut nodes = [
        Node::new(1, etcd.endpoint()).with("--metrics", address),
        Node::new(2, etcd.endpoint()),
    ];
    nodes.iter_mut().for_each(Node::start);
    let [one, two] = &mut nodes;
    until_settled(&client, &[one, two]);
    let mine = share(one, &[one, two]).len() as f64;
    let all = f64::from(VNIS);
    until(port, "wmgwd_vnis_served", mine);
    until_ready(port);
    promtool_takes(&get(port, "/metrics").unwrap().1);
    let page = scrape(port);
    let idle = |role: &str| format!("wmgwd_vnis{{state=\"idle\",role=\"{role}\"}}");
    assert_eq!(page.get(&idle("owner")), mine);
    assert_eq!(page.get(&idle("none")), all - mine);
    assert_eq!(page.sum("wmgwd_vnis"), all);
    let taken = page.get("wmgwd_failovers_total{result=\"done\"}");
    assert_eq!(page.get("wmgwd_time_to_serve_seconds_count"), taken);
    let version = env!("CARGO_PKG_VERSION");
    for (series, value) in [
        (&*format!("wmgwd_build_info{{version=\"{version}\"}}"), 1.0),
        ("wmgwd_vnis_without_owner", 0.0),
        ("wmgwd_registered", 1.0),
        ("wmgwd_guard_up", 1.0),
        ("wmgwd_draining", 0.0),
        ("wmgwd_frr_up{daemon=\"bgpd\"}", 1.0),
        ("wmgwd_fencings_total{by=\"daemon\"}", 0.0),
        ("wmgwd_watch_revisions_behind", 0.0),
    ] {
        assert_eq!(page.get(series), value, "{series}");
    }
    for operation in ["range", "txn", "lease_grant", "lease_keepalive", "watch"] {
        let series = format!("wmgwd_etcd_requests_total{{operation=\"{operation}\"}}");
        assert!(page.get(&series) > 0.0, "{series}");
    }
    assert!(page.get("wmgwd_gratuitous_arp_announcements_total") >= mine);
    let left = page.get("wmgwd_lease_remaining_seconds");
    assert!(left > 0.0 && left <= TTL as f64, "{left}");

    two.kill9();
    until_settled_without(&client, &[one], &[two]);
    until(port, "wmgwd_vnis_served", all);
    let page = scrape(port);
    let more = page.get("wmgwd_failovers_total{result=\"done\"}");
    assert_eq!(more, taken + all - mine);
    assert_eq!(page.get("wmgwd_time_to_serve_seconds_count"), more);

    etcd.stop();
    until(port, "wmgwd_fencings_total{by=\"daemon\"}", 1.0);
    until(port, "wmgwd_vnis_served", 0.0);
    assert!(!scrape(port).has("wmgwd_vnis_without_owner"));
    let (status, lacks) = get(port, "/readyz").unwrap();
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(lacks.contains("lease: cannot be proved\n"), "{lacks}");
    assert_eq!(get(port, "/healthz").unwrap().1, "ok\n");
    let page = scrape(port);
    assert_eq!(page.get("wmgwd_fence_remaining_seconds"), 0.0);
    let failed = page.get("wmgwd_etcd_request_errors_total{operation=\"lease_keepalive\"}");
    assert!(failed > 0.0);
    etcd.cont();
    until(port, "wmgwd_vnis_served", all);
    until_ready(port);
    let page = scrape(port);
    assert_eq!(page.get("wmgwd_vnis_without_owner"), 0.0);
    assert_eq!(page.sum("wmgwd_fencings_total"), 1.0, "each time once");

    let fenced = one.logged("fenced: count=");
    one.stop();
    eventually("its guard fences, and its lease ends", || {
        let is_over = !table(&client).has(one);
        (is_over && one.logged("fenced: count=") > fenced).then_some(())
    });
    one.cont();
    until(port, "wmgwd_vnis_served", all);
    until_ready(port);
    let page = scrape(port);
    assert_eq!(page.get("wmgwd_fencings_total{by=\"guard\"}"), 1.0);
    assert_eq!(page.sum("wmgwd_fencings_total"), 2.0, "each time once");
}

/// Input: two hundred clients at once that are slow, silent, rude or greedy, as long as the test takes. Output: a
/// scrape is answered all the same; the node keeps its lease and serves; descriptors and threads stay few.
#[test]
fn hostile_clients_harm_nobody() {
    let [port] = free_ports(1)[..] else { panic!() };
    let etcd = Etcd::start();
    let mut node = Node::new(1, etcd.endpoint()).with("--metrics", format!("127.0.0.1:{port}"));
    node.start();
    until_settled(&etcd.client(), &[&node]);
    let (threads, descriptors) = node.threads_and_descriptors();
    let huge = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(64 << 10));
    let garbage: Vec<u8> = (0..4096_u32).map(|i| (i * 37 % 251) as u8).collect();
    let rude: [&[u8]; 6] = [
        b"G",
        b"",
        b"GET /metrics HTTP/1.1\r\n",
        huge.as_bytes(),
        &garbage,
        b"POST /metrics HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
    ];
    let announced = node.announced(1);
    let mut clients = Vec::new();
    let mut rounds = 0;
    // Until the node has announced its VNIs some seconds long: time in which it could have been hindered.
    eventually("the node goes on as before", || {
        for at in clients.len()..200 {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.set_nonblocking(true).unwrap();
            // What does not fit at once is not waited for, and no answer is read.
            let _ = client.write(rude[at % rude.len()]);
            clients.push(client);
        }
        for client in &mut clients {
            // One byte now and then: the slow ones live from that.
            let _ = client.write(b"X");
        }
        clients.drain(..20);
        rounds += 1;
        exposition::read(&get(port, "/metrics")?.1);
        (rounds >= 20 && node.announced(1) >= announced + 4).then_some(())
    });
    let (more_threads, more_descriptors) = node.threads_and_descriptors();
    assert!(more_threads <= threads + 1, "{more_threads}");
    assert!(more_descriptors <= descriptors + 40, "{more_descriptors}");
    assert_eq!(node.answering(), VNIS as usize);
    let page = scrape(port);
    assert_eq!(page.get("wmgwd_fencings_total{by=\"daemon\"}"), 0.0);
    drop(clients);
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (
            "DELETE / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
        ("\x16\x03\x01", "HTTP/1.1 400 Bad Request"),
        ("HEAD /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK"),
    ] {
        let (given, body) = eventually("it is answered", || ask(port, request));
        assert_eq!(given, status, "{request:?}");
        assert!(!request.starts_with("HEAD") || body.is_empty());
    }
}

/// Input: an address that is taken, and free later. Output: a line that names it; the node serves all the same, and
/// answers there once it is free.
#[test]
fn an_address_that_is_taken_is_waited_for() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let etcd = Etcd::start();
    let mut node = Node::new(1, etcd.endpoint()).with("--metrics", address);
    node.start();
    until_settled(&etcd.client(), &[&node]);
    node.until_logged(&format!(
        "metrics: cannot listen at {address}, trying again: "
    ));
    drop(taken);
    node.until_logged(&format!("metrics: listening at {address}"));
    until_ready(address.port());
    assert_eq!(node.logged("cannot listen at"), 1, "{}", node.log());
}

/// Input: options that name files which are not there or cannot be used. Output: status 2, which the unit does not
/// start again after, and a line that names option and file; no guard, no registration.
#[test]
fn a_file_that_cannot_be_used_is_told_at_the_start() {
    let etcd = Etcd::start();
    let nowhere = "/nowhere/to/be/found";
    let empty = std::env::temp_dir().join(format!("wmgwd-empty-{}", std::process::id()));
    fs::write(&empty, "").unwrap();
    let empty_path = empty.display().to_string();
    for (options, says) in [
        (
            &[("--user", "gw"), ("--password-file", nowhere)][..],
            "cannot read --password-file /nowhere/to/be/found",
        ),
        (
            &[("--user", "gw"), ("--password-file", &empty_path)],
            "--password-file /",
        ),
        (
            &[("--cacert", nowhere)],
            "cannot read --cacert /nowhere/to/be/found",
        ),
        (
            &[("--cert", nowhere), ("--key", nowhere)],
            "cannot read --cert /nowhere/to/be/found",
        ),
    ] {
        let mut node = Node::new(1, etcd.endpoint());
        for (option, value) in options {
            node.set(option, value);
        }
        node.start();
        assert_eq!(
            node.wait_exit().code(),
            Some(2),
            "{options:?}: {}",
            node.log()
        );
        let log = node.log();
        assert_eq!(log.matches("[ERROR]").count(), 1, "{log}");
        assert!(log.contains(says), "{log}");
        assert_eq!(node.guard_pids(), []);
        assert!(!table(&etcd.client()).has(&node));
    }
    fs::remove_file(&empty).unwrap();
}

/// Input: a node whose standard error is the journal, or so it is told. Output: every line, also of its guard, has a
/// priority and a thread and no time; the steps of a VNI are pairs.
#[test]
fn the_journal_gets_priorities() {
    let etcd = Etcd::start();
    let node = Node::new(1, etcd.endpoint()).with("--maxvni", 2);
    let log = fs::File::create(node.host.0.join("log")).unwrap();
    let metadata = log.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    let mut node = node.with_variable("JOURNAL_STREAM", stream);
    node.start();
    node.until_logged("vni=2 from=failover-decided to=idle");
    node.term();
    assert_eq!(node.wait_exit().code(), Some(0));
    let log = node.log();
    for line in log.lines() {
        let (priority, rest) = line.split_once("(").unwrap();
        assert!(["<3>", "<4>", "<6>", "<7>"].contains(&priority), "{line}");
        let (thread, text) = rest.split_once(") ").unwrap();
        let is_name = thread.bytes().all(|byte| byte.is_ascii_lowercase());
        assert!(is_name && !thread.is_empty() && !text.is_empty(), "{line}");
    }
}

/// A program in the directory of a node's host that `body` makes up.
fn program(node: &Node, body: &str) -> PathBuf {
    let path = node.host.0.join("told");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The runs of a program that wrote its arguments, then its input: event and VNIs of each.
fn runs(node: &Node) -> Vec<(String, BTreeSet<u32>)> {
    let text = fs::read_to_string(node.host.0.join("runs")).unwrap_or_default();
    let mut runs: Vec<(String, BTreeSet<u32>)> = Vec::new();
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [event, name, _] => {
                assert_eq!(name, node.name.as_str());
                runs.push((event.to_owned(), BTreeSet::new()));
            }
            [vni] => {
                let (_, vnis) = runs.last_mut().unwrap();
                assert!(vnis.last() < Some(&vni.parse().unwrap()), "ascending");
                vnis.insert(vni.parse().unwrap());
            }
            _ => panic!("{line}"),
        }
    }
    runs
}

/// Input: a node that takes all VNIs, is fenced, gets them back, and drains. Output: a program hears all of it, in
/// few runs, one at a time, without the address of the service manager.
#[test]
fn a_program_is_told_what_changes_hands() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let node = Node::new(1, etcd.endpoint()).with_variable("NOTIFY_SOCKET", "@nobody-listens");
    let told = program(
        &node,
        "cd \"$(dirname \"$0\")\" || exit 1\nmkdir one-at-a-time || exit 2\n\
         [ -z \"$NOTIFY_SOCKET$WMGWD_MOCK_DIR\" ] || exit 3\n{ echo \"$*\"; cat; } >> runs\nrmdir one-at-a-time",
    );
    let mut node = node.with("--notify", told.display());
    node.start();
    until_settled(&client, &[&node]);
    let all: BTreeSet<u32> = (1..=VNIS).collect();
    let heard = |event: &str| -> BTreeSet<u32> {
        let runs = runs(&node);
        let of = runs.iter().filter(|(it, _)| it == event);
        of.flat_map(|(_, vnis)| vnis.clone()).collect()
    };
    eventually("it hears of all VNIs", || {
        (heard("owner") == all).then_some(())
    });
    let before = runs(&node).len();
    etcd.stop();
    eventually("it hears of the fence", || {
        (heard("fenced") == all).then_some(())
    });
    etcd.cont();
    eventually("it hears that they are back", || {
        let runs = runs(&node);
        let fenced = runs.iter().rposition(|(event, _)| event == "fenced")?;
        let back = runs[fenced..].iter().filter(|(event, _)| event == "owner");
        let back: BTreeSet<u32> = back.flat_map(|(_, vnis)| vnis.clone()).collect();
        (back == all).then_some(())
    });
    node.term();
    assert_eq!(node.wait_exit().code(), Some(0));
    let runs = runs(&node);
    assert!(runs.iter().any(|(event, _)| event == "drain"), "{runs:?}");
    let lost = runs.iter().filter(|(event, _)| event == "lost");
    let lost: BTreeSet<u32> = lost.flat_map(|(_, vnis)| vnis.clone()).collect();
    assert_eq!(lost, all, "{runs:?}");
    assert_eq!(runs.last().unwrap().0, "lost", "{runs:?}");
    assert!(before < VNIS as usize && runs.len() < 2 * VNIS as usize);
    assert_eq!(node.logged("notify: event="), 0, "{}", node.log());
}

/// Input: a program that never ends, and one that fails each time. Output: the node serves and ends in time; the
/// program is ended; a failure is logged once.
#[test]
fn a_program_that_hangs_or_fails_hinders_nobody() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let node = Node::new(1, etcd.endpoint());
    let told = program(
        &node,
        "cd \"$(dirname \"$0\")\"\necho $$ >> pids\nsleep 1000 & wait",
    );
    let mut node = node.with("--notify", told.display());
    node.start();
    until_settled(&client, &[&node]);
    eventually("it runs", || {
        let pids = fs::read_to_string(node.host.0.join("pids")).unwrap_or_default();
        (!pids.is_empty()).then_some(())
    });
    node.term();
    assert_eq!(node.wait_exit().code(), Some(0));
    let pids = fs::read_to_string(node.host.0.join("pids")).unwrap();
    for pid in pids.lines() {
        let runs = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|it| !it.is_empty());
        assert!(!runs, "{pid} still runs");
    }

    program(&node, "echo '<no> such \"luck\"' >&2; exit 7");
    node.start();
    until_settled(&client, &[&node]);
    let complaint = "exit status: 7: \"<no> such";
    node.until_logged(complaint);
    node.term();
    assert_eq!(node.wait_exit().code(), Some(0));
    assert_eq!(node.logged(complaint), 1, "{}", node.log());
}

/// `wmgwd status` on this host: its exit status, and both outputs.
fn status(mut command: Command, etcd: &Etcd, options: &[&str]) -> (Option<i32>, String, String) {
    let endpoint = etcd.endpoint().to_string();
    let output = command
        .args(["status", "--etcd", &endpoint])
        .args(options)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (said, complained) = (text(output.stdout), text(output.stderr));
    (output.status.code(), said, complained)
}

/// The guards on this host, as `wmgwd status --json` has them.
fn guards(etcd: &Etcd) -> Vec<serde_json::Value> {
    let (_, said, _) = status(program::wmgwd(), etcd, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    report["guards"].as_array().unwrap().clone()
}

/// Input: status beside two nodes that witness each other; then one daemon is killed, its guard is killed, and etcd is
/// stopped. Output: the proof of each by its own guard, with the other's acknowledgements; the guard without its daemon;
/// none; and the proof that is left, although etcd does not answer.
#[test]
fn status_on_a_gateway_tells_its_proof() {
    let etcd = Etcd::start();
    let mut nodes = [1, 2].map(|i| Node::new(i, etcd.endpoint()).with("--lease-ttl", 60));
    nodes.iter_mut().for_each(Node::start);
    let [one, two] = &mut nodes;
    until_settled(&etcd.client(), &[one, two]);
    let of = |node: &Node, guards: &[serde_json::Value]| {
        let is_it = |it: &&serde_json::Value| it["name"] == node.name.as_str();
        guards.iter().find(is_it).cloned()
    };
    let others = [&two.name, &one.name].map(ToString::to_string);
    eventually("each is proved by the other", || {
        let guards = guards(&etcd);
        assert_eq!(guards.len(), 2, "{guards:?}");
        let is_proved = |(node, other): (&Node, &String)| {
            let guard = of(node, &guards).unwrap();
            assert_eq!(guard["version"], env!("CARGO_PKG_VERSION"), "{guard}");
            assert_eq!(
                (&guard["unknown"], &guard["user"]),
                (&json!(null), &json!(null))
            );
            let witness = &guard["witnesses"][0];
            guard["proof"] == true
                && guard["daemon"] == true
                && witness["name"] == other.as_str()
                && witness["acknowledged"] == guard["age"]
                && guard["age"].is_f64()
        };
        let mut pairs = [&*one, &*two].into_iter().zip(&others);
        pairs.all(is_proved).then_some(())
    });
    let (code, said, _) = status(program::wmgwd(), &etcd, &[]);
    assert_eq!(code, Some(0), "{said}");
    for name in &others {
        let line = format!(
            "guard of {name} on this host ({}): ",
            env!("CARGO_PKG_VERSION")
        );
        assert!(said.contains(&line), "{said}");
    }

    one.kill9();
    eventually("its guard is alone", || {
        let guard = of(one, &guards(&etcd)).unwrap();
        (guard["daemon"] == false).then_some(())
    });
    one.kill_guard();
    eventually("it has no guard", || {
        of(one, &guards(&etcd)).is_none().then_some(())
    });

    etcd.stop();
    let (code, said, complained) = status(program::wmgwd(), &etcd, &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.starts_with(&format!("guard of {} on this host", two.name)),
        "{said}"
    );
    assert!(complained.contains("etcd"), "{complained}");
    let (code, said, _) = status(program::wmgwd(), &etcd, &["--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["all_served"]), (Some(2), &json!(null)));
    assert!(said["error"].as_str().unwrap().contains("etcd"), "{said}");
    assert_eq!(said["guards"][0]["name"], two.name.as_str(), "{said}");
    etcd.cont();
}

/// Input: status beside a node of another user: by root, by that user, and by a third. Output: the proof, with the user
/// where that is another one; the third user is told who may ask, and the guard does not notice.
#[test]
fn status_by_another_user_tells_who_may_ask() {
    const USER: u32 = 54_323;
    if !nix::unistd::geteuid().is_root() {
        common::skipped("status of another user", "needs root to be another user");
        return;
    }
    let etcd = Etcd::start();
    let mut node = Node::new(1, etcd.endpoint()).with_user(USER);
    node.start();
    until_settled(&etcd.client(), &[&node]);
    let said_by = |command: Command| {
        let (_, said, complained) = status(command, &etcd, &[]);
        let line = said.lines().find(|line| line.starts_with("guard of"));
        line.unwrap_or_else(|| panic!("{said}{complained}"))
            .to_owned()
    };
    let version = env!("CARGO_PKG_VERSION");
    let line = said_by(program::wmgwd());
    assert!(
        line.contains(&format!("({version}, user {USER}): proof held")),
        "{line}"
    );
    let line = said_by(wmgwd_of(USER));
    assert!(line.contains(&format!("({version}): proof held")), "{line}");
    let line = said_by(wmgwd_of(USER + 1));
    let refused = "(not known): it tells only root and the user that it runs as";
    assert!(line.ends_with(refused), "{line}");
    assert_eq!(node.logged("refused a connection"), 0, "{}", node.log());
}
