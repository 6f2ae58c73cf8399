//! The etcd client against etcd and networks that fail.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::{Etcd, EtcdCluster};
use common::proxy::Proxy;
use common::{LONG, endpoint, eventually, free_ports, loopback, put, then};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wmgwd::etcd::{Access, Client, Error, Login, Password};
use wmgwd::model::types::{LeaseId, Revision};

// Input: etcd ends, in order or not, or its connection is cut, while it is watched.
// Output: an error (never a clean end), and the same client goes on when etcd is back.
#[test]
fn the_end_of_etcd_is_no_end_of_the_watch() {
    let mut etcd = Etcd::start();
    let client = etcd.client();
    let mut revision = client.txn(&then(vec![put("k", "")])).unwrap().revision;
    let proxy = Proxy::start(loopback(etcd.port()));
    let through = Client::new(vec![endpoint(proxy.addr())], Duration::from_secs(5));
    for round in 0..3 {
        let mut watch = through.watch(b"k", revision.next(), LONG).unwrap();
        match round {
            0 => etcd.terminate(),
            1 => etcd.kill(),
            _ => proxy.cut(),
        }
        let end = watch.next().expect("no clean end").unwrap_err();
        // A stopping etcd may say so in a line before its EOF.
        assert!(
            matches!(end, Error::Disconnected | Error::Rejected { .. }),
            "round {round}: {end:?}"
        );
        assert!(watch.next().is_none());
        if round < 2 {
            assert!(matches!(client.get(b"k"), Err(Error::Transport { .. })));
            etcd.restart();
        }
        revision = client.txn(&then(vec![put("k", "")])).unwrap().revision;
    }
}

// Input: a writer that does not stop, and a reader whose watches are bounded to a moment.
// Output: each watch ends cleanly at its bound; reopened after its last revision, nothing is missing
// and nothing comes twice.
#[test]
fn a_bounded_watch_reopened_loses_nothing() {
    const WRITES: i64 = 400;
    let etcd = Etcd::start();
    let client = etcd.client();
    let first = client.txn(&then(vec![put("k", "0")])).unwrap().revision;
    let writer = {
        let client = client.clone();
        thread::spawn(move || {
            for i in 1..WRITES {
                client.txn(&then(vec![put("k", i.to_string())])).unwrap();
            }
        })
    };
    let (mut seen, mut next, mut watches) = (Vec::new(), first, 0);
    let begun = Instant::now();
    while (seen.len() as i64) < WRITES {
        assert!(begun.elapsed() < 4 * LONG, "{} events", seen.len());
        watches += 1;
        for batch in client.watch(b"k", next, Duration::from_millis(50)).unwrap() {
            let batch = batch.unwrap();
            next = batch.revision.next();
            seen.extend(
                batch
                    .events
                    .into_iter()
                    .map(|event| event.kv.mod_revision.0),
            );
        }
    }
    writer.join().unwrap();
    let expected: Vec<i64> = (first.0..first.0 + WRITES).collect();
    assert_eq!(seen, expected);
    assert!(watches > 1);
}

// Input: a watch without changes, of a bound.
// Output: it ends after the bound, not before, without an error.
#[test]
fn a_quiet_watch_ends_at_its_bound() {
    let etcd = Etcd::start();
    let bound = Duration::from_millis(300);
    let begun = Instant::now();
    let mut watch = etcd.client().watch(b"k", Revision(1), bound).unwrap();
    assert!(watch.next().is_none());
    assert!(begun.elapsed() >= bound);
    assert!(watch.next().is_none());
}

// Input: first endpoints that refuse, that swallow everything, and that are a stopped etcd.
// Output: the answer of the next endpoint, within the deadlines; later calls go there at once.
#[test]
fn calls_fail_over_to_the_next_endpoint() {
    let etcd = Etcd::start();
    let stopped = Etcd::start();
    let hole = Proxy::start(loopback(etcd.port()));
    hole.blackhole();
    stopped.stop();
    let refusing = endpoint(loopback(free_ports(1)[0]));
    let timeout = Duration::from_secs(2);
    type Call = fn(&Client) -> Result<(), Error>;
    let calls: [Call; 7] = [
        |client| client.range(b"k").map(drop),
        |client| client.get(b"k").map(drop),
        |client| client.newest(b"k").map(drop),
        |client| client.txn(&then(vec![put("k", "")])).map(drop),
        |client| client.lease_grant(LONG).map(drop),
        |client| client.lease_keepalive(LeaseId(1)).map(drop),
        |client| client.watch(b"k", Revision(1), LONG).map(drop),
    ];
    for bad in [refusing, endpoint(hole.addr()), stopped.endpoint()] {
        thread::scope(|scope| {
            for call in calls {
                let client = Client::new(vec![bad.clone(), etcd.endpoint()], timeout);
                let bad = &bad;
                scope.spawn(move || {
                    call(&client).unwrap();
                    let begun = Instant::now();
                    call(&client.clone()).unwrap();
                    assert!(begun.elapsed() < timeout, "{bad} was tried again");
                });
            }
        });
        let only = Client::new(vec![bad.clone(), bad.clone()], timeout);
        let begun = Instant::now();
        let error = only.lease_keepalive(LeaseId(1)).unwrap_err();
        assert!(begun.elapsed() < 2 * timeout + Duration::from_secs(2));
        assert!(error.to_string().contains(&bad.to_string()), "{error}");
        match error {
            Error::TimedOut { after, .. } => assert_eq!(after, timeout),
            Error::Transport { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

// Input: a cluster of three that loses its majority, and gets it back.
// Output: the watch ends with etcd's own "no leader" instead of silence; calls fail, then work again.
#[test]
fn a_member_without_a_leader_ends_the_watch() {
    let mut cluster = EtcdCluster::start(3);
    let client = Client::new(vec![cluster.endpoint(0)], Duration::from_secs(5));
    let mut watch = client.watch(b"k", Revision(1), 2 * LONG).unwrap();
    cluster.kill(1);
    cluster.kill(2);
    match watch.next() {
        Some(Err(Error::Rejected { code: 14, message })) => {
            assert!(message.contains("no leader"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(client.txn(&then(vec![put("k", "")])).is_err());
    assert!(client.watch(b"k", Revision(1), LONG).is_err());
    cluster.spawn(1);
    cluster.spawn(2);
    eventually("a leader again", || {
        client.txn(&then(vec![put("k", "")])).ok()
    });
    let mut watch = client.watch(b"k", Revision(1), LONG).unwrap();
    assert!(watch.next().unwrap().is_ok());
}

// Input: a cluster of three whose members are stopped one at a time.
// Output: a client of all three always has an answer.
#[test]
fn a_cluster_outlives_any_one_member() {
    let cluster = EtcdCluster::start(3);
    let client = Client::new(cluster.endpoints(), Duration::from_secs(1));
    for member in 0..3 {
        cluster.stop(member);
        eventually("an answer", || client.txn(&then(vec![put("k", "")])).ok());
        cluster.cont(member);
        eventually("it is back", || {
            let only = Client::new(vec![cluster.endpoint(member)], Duration::from_secs(1));
            only.get(b"k").ok()
        });
    }
}

// Input: a connection that goes silent while it is watched, and one that answers late.
// Output: a clean end at the bound (never a hang); a timeout, and an answer when it is fast again.
#[test]
fn a_black_hole_and_delay_cost_no_more_than_the_deadline() {
    let etcd = Etcd::start();
    let proxy = Proxy::start(loopback(etcd.port()));
    let timeout = Duration::from_secs(2);
    let client = Client::new(vec![endpoint(proxy.addr())], timeout);
    let bound = Duration::from_secs(1);
    let mut watch = client.watch(b"k", Revision(1), bound).unwrap();
    proxy.blackhole();
    etcd.client().txn(&then(vec![put("k", "")])).unwrap();
    assert!(watch.next().is_none());
    proxy.pass();
    proxy.delay(timeout);
    assert!(matches!(client.get(b"k"), Err(Error::TimedOut { .. })));
    proxy.pass();
    eventually("an answer", || client.get(b"k").ok());
}

// Input: calls one after the other.
// Output: they share one connection, so that a fast series leaves no heap of closed ones.
#[test]
fn connections_are_used_again() {
    let etcd = Etcd::start();
    let proxy = Proxy::start(loopback(etcd.port()));
    let client = Client::new(vec![endpoint(proxy.addr())], LONG);
    for _ in 0..20 {
        client.get(b"k").unwrap();
        client.txn(&then(vec![put("k", "")])).unwrap();
    }
    assert_eq!(proxy.accepted(), 1);
}

// Input: something that is no etcd.
// Output: an error that says so and what to look at.
#[test]
fn another_server_is_told_from_etcd() {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(vec![endpoint(listener.local_addr().unwrap())], LONG);
    thread::spawn(move || {
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot found",
            "HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{}",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                request.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            request.read_exact(&mut vec![0; length]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    assert!(matches!(
        client.get(b"k"),
        Err(Error::Http { status: 404, .. })
    ));
    assert!(matches!(
        client.get(b"k"),
        Err(Error::Http { status: 302, .. })
    ));
    assert!(matches!(client.get(b"k"), Err(Error::Malformed(_))));
    assert!(matches!(client.get(b"k"), Err(Error::Transport { .. })));
}

/// A server that takes one request a connection: `answer` has its head and body, and says what to reply; `None` closes
/// the connection. Ends with the test's process.
fn server(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            // What these tests send fits into a packet or two; its head names the length of its body.
            let text = loop {
                let length = stream.read(&mut part).unwrap_or(0);
                request.extend(&part[..length]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                    let head = head.to_ascii_lowercase();
                    let length = head.split_once("content-length:").map(|(_, rest)| rest);
                    let length = length.and_then(|rest| rest.lines().next()?.trim().parse().ok());
                    body.len() >= length.unwrap_or(0)
                });
                if is_whole || length == 0 {
                    break text;
                }
            };
            if let Some(reply) = answer(&text) {
                let _ = stream.write_all(reply.as_bytes());
            }
        }
    });
    addr
}

fn reply(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Input: the first endpoint refuses each call for a reason of its own: it is busy, or a learner, or no etcd, or what
/// stands before it spoils its answers. Output: the other answers each kind of call, and is asked first from then on.
#[test]
fn a_member_that_refuses_for_itself_is_left_for_another() {
    let etcd = Etcd::start();
    let refusal = |code, message| {
        let body = format!(r#"{{"error":"{message}","message":"{message}","code":{code}}}"#);
        reply("429 Too Many Requests", &body)
    };
    let page = "<!DOCTYPE html><title>Welcome</title>";
    type Call = fn(&Client) -> Result<(), Error>;
    let calls: [Call; 5] = [
        |client| client.get(b"k").map(drop),
        |client| client.txn(&then(vec![put("k", "")])).map(drop),
        |client| client.lease_grant(LONG).map(drop),
        |client| client.lease_keepalive(LeaseId(1)).map(drop),
        |client| client.watch(b"k", Revision(1), LONG).map(drop),
    ];
    for answer in [
        refusal(8, "etcdserver: too many requests"),
        refusal(9, "etcdserver: rpc not supported for learner"),
        reply("200 OK", "{}"),
        reply("200 OK", page),
        reply("200 OK", &format!("{page}\n")),
    ] {
        for call in calls {
            let asked = Arc::new(AtomicUsize::new(0));
            let (count, answer) = (asked.clone(), answer.clone());
            let first = server(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Some(answer.clone())
            });
            let endpoints = vec![endpoint(first), etcd.endpoint()];
            let client = Client::new(endpoints, Duration::from_secs(5));
            call(&client).unwrap();
            let grant = client.lease_grant(LONG).unwrap();
            client.lease_renew(grant.id, b"k").unwrap();
            client.watch(b"k", Revision(1), LONG).unwrap();
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }
}

/// Input: the first endpoint confirms each watch; then what it sends is none of etcd's, or an error, or ends. Output:
/// the watch ends with an error, the next one is opened at the other endpoint, and brings what happened.
#[test]
fn an_endpoint_that_spoils_a_watch_is_left_for_another() {
    let etcd = Etcd::start();
    let revision = etcd
        .client()
        .txn(&then(vec![put("k", "")]))
        .unwrap()
        .revision;
    let confirmed = r#"{"result":{"header":{"revision":"1"},"created":true}}"#;
    for rest in [
        "<!DOCTYPE html><title>Welcome</title>\n",
        "{\"error\":{\"grpc_code\":14,\"message\":\"transport is closing\"}}\n",
        "",
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let first = server(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Some(reply("200 OK", &format!("{confirmed}\n{rest}")))
        });
        let endpoints = vec![endpoint(first), etcd.endpoint()];
        let client = Client::new(endpoints, Duration::from_secs(5));
        let mut watch = client.watch(b"k", revision, LONG).unwrap();
        watch.next().expect("no clean end").unwrap_err();
        let mut watch = client.watch(b"k", revision, LONG).unwrap();
        assert_eq!(watch.next().unwrap().unwrap().revision, revision);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "{rest}");
    }
}

/// Input: a member that closes the connection where it would refuse a token that has expired, of a read and of a watch.
/// Output: one new login, and the call is answered; with a member that closes each connection, an error.
#[test]
fn a_closed_connection_while_a_token_is_held_leads_to_one_login() {
    type Call = fn(&Client, &[u8]) -> Result<(), Error>;
    let calls: [Call; 2] = [
        |client, key| client.get(key).map(drop),
        |client, key| client.watch(key, Revision(1), LONG).map(drop),
    ];
    calls.into_iter().for_each(expires);
}

fn expires(call: fn(&Client, &[u8]) -> Result<(), Error>) {
    let logins = Arc::new(AtomicUsize::new(0));
    let count = logins.clone();
    let strict = server(move |request| {
        let header = r#""header":{"revision":"7","raft_term":"2"}"#;
        if request.contains("/v3/auth/authenticate") {
            let login = count.fetch_add(1, Ordering::Relaxed) + 1;
            return Some(reply(
                "200 OK",
                &format!(r#"{{{header},"token":"t{login}"}}"#),
            ));
        }
        // The first token has expired by the time of its second use; the second serves for good; from the third on
        // none does.
        let (first, second) = (request.contains("t1\r\n"), request.contains("t2\r\n"));
        let is_good = match request.contains("ZW5k") {
            true => false,
            false => second || first && !request.contains("c2Vjb25k"),
        };
        let line = match request.contains("/v3/watch") {
            true => format!("{{\"result\":{{{header},\"created\":true}}}}\n"),
            false => format!("{{{header}}}"),
        };
        is_good.then(|| reply("200 OK", &line))
    });
    let access = Access {
        login: Some(Login {
            name: "gw1".into(),
            password: Password::Argument("secret".into()),
        }),
        ..Access::plain(vec![endpoint(strict)])
    };
    let client = Client::open(&access, Duration::from_secs(5)).unwrap();
    call(&client, b"first").unwrap();
    assert_eq!(logins.load(Ordering::Relaxed), 1);
    call(&client, b"second").unwrap();
    call(&client, b"second").unwrap();
    assert_eq!(logins.load(Ordering::Relaxed), 2);
    let error = call(&client, b"end").unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    assert_eq!(logins.load(Ordering::Relaxed), 3);
}

/// An etcd that is started with options which keep wmgwd out; ended with its owner.
struct Closed(std::process::Child);

impl Drop for Closed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Input: real members without the JSON gateway, with a list of hosts, and with the certificate that they make for
/// themselves. Output: what is said names the option of etcd that is the cause.
#[test]
fn options_of_etcd_that_keep_us_out_are_named() {
    let plain = &[
        ("http", "--enable-grpc-gateway=false", "HTTP status 404"),
        ("http", "--host-whitelist=elsewhere", "HTTP status 421"),
    ][..];
    let tls = &[("https", "--auto-tls", "P-521")][..];
    let all = [plain, if cfg!(feature = "tls") { tls } else { &[] }].concat();
    for (scheme, option, part) in all {
        let [port, peer] = free_ports(2)[..] else {
            panic!("two ports");
        };
        let dir = std::env::temp_dir().join(format!("wmgwd-closed-{}-{port}", std::process::id()));
        let (url, peer) = (
            format!("{scheme}://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let child = std::process::Command::new(common::etcd::program())
            .arg(option)
            .args([
                "--log-level",
                "error",
                "--logger",
                "zap",
                "--unsafe-no-fsync",
            ])
            .args(["--data-dir", &dir.display().to_string()])
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Closed(child);
        let access = Access::plain(vec![url.parse().unwrap()]);
        let client = Client::open(&access, Duration::from_secs(5)).unwrap();
        let said = eventually(option, || match client.get(b"x").unwrap_err() {
            Error::Transport { .. } | Error::TimedOut { .. } => None,
            error => Some(error.to_string()),
        });
        drop(etcd);
        let _ = std::fs::remove_dir_all(&dir);
        let name = option.split('=').next().unwrap();
        assert!(
            said.contains(part) && said.contains(name),
            "{option}: {said}"
        );
    }
}
