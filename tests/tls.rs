//! etcd over TLS and with passwords, as an operator secures it: certificates made here, a real etcd that
//! wants them, and what the error says when something does not fit.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used)]

mod common;

use common::authority::{Authority, Files};
use common::node::{Node, refs};
use common::proxy::Proxy;
use common::rows::{until_settled, until_settled_without};
use common::secure::{Secure, Security};
use common::{eventually, loopback};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use wmgwd::etcd::{Access, Client, Error, Identity, Login, Op, Password, Txn};
use wmgwd::telemetry::log_text::chain;

const TIMEOUT: Duration = Duration::from_secs(5);
const USER: &str = "wmgwd";
const PASSWORD: &str = "s3cret:with a colon";

fn put(key: &[u8]) -> Txn {
    Txn {
        compares: Vec::new(),
        then: vec![Op::Put {
            key: key.to_vec(),
            value: b"x".to_vec(),
            lease: None,
        }],
        otherwise: Vec::new(),
    }
}

fn client(access: &Access) -> Client {
    Client::open(access, TIMEOUT).unwrap()
}

/// What a call says that must fail.
fn refusal(access: &Access) -> String {
    let error = client(access).get(b"/wmgwd/x").unwrap_err();
    chain(&error)
}

fn with_password(mut access: Access, name: &str, password: &str) -> Access {
    access.login = Some(Login {
        name: name.to_owned(),
        password: Password::Variable(password.to_owned()),
    });
    access
}

/// Input: an etcd that wants client certificates. Output: every kind of call works, on one connection for
/// each client; without the right files the error says what is wrong.
#[test]
fn certificates_are_wanted_shown_and_looked_at() {
    let authority = Authority::new();
    let etcd = Secure::start(&authority, Security::default());
    let access = etcd.access();
    let proxy = Proxy::start(loopback(etcd.port()));
    let through = Access {
        endpoints: vec![format!("https://{}", proxy.addr()).parse().unwrap()],
        ..access.clone()
    };
    let one = client(&through);
    assert!(one.txn(&put(b"/wmgwd/x")).unwrap().succeeded);
    let lease = one.lease_grant(Duration::from_secs(30)).unwrap().id;
    for _ in 0..10 {
        assert!(one.lease_keepalive(lease).unwrap().ttl.is_some());
        assert_eq!(one.get(b"/wmgwd/x").unwrap().kvs.len(), 1);
    }
    assert_eq!(proxy.accepted(), 1, "a handshake for each call");
    let from = one.get(b"/wmgwd/x").unwrap().revision;
    let mut watch = one
        .watch(
            b"/wmgwd/",
            wmgwd::model::types::Revision(from.0 + 1),
            common::LONG,
        )
        .unwrap();
    one.txn(&put(b"/wmgwd/y")).unwrap();
    assert_eq!(watch.next().unwrap().unwrap().events.len(), 1);
    one.lease_revoke(lease).unwrap();

    let other = Authority::new();
    let files = |authority: &Authority, days| authority.issue("client", days);
    let identity = |files: &Files| {
        Some(Identity {
            cert: files.cert.clone(),
            key: files.key.clone(),
        })
    };
    let told = |access: Access, parts: &[&str]| {
        let text = refusal(&access);
        let told = parts.iter().any(|part| text.contains(part));
        assert!(told, "{text:?} has none of {parts:?}");
        assert!(!text.contains('\n'), "{text:?}");
    };
    told(
        Access {
            cacert: Some(other.cacert()),
            ..access.clone()
        },
        &["not signed by an authority in --cacert"],
    );
    // It may cut the connection before its reason is read.
    let wants = ["wants a certificate", "or wants one", "no connection"];
    told(
        Access {
            identity: None,
            ..access.clone()
        },
        &wants,
    );
    let stranger = files(&other, 1..10);
    told(
        Access {
            identity: identity(&stranger),
            ..access.clone()
        },
        &wants,
    );
    let expired = files(&authority, -10..-1);
    let mut reasons = wants.to_vec();
    reasons.push("has expired or was revoked");
    told(
        Access {
            identity: identity(&expired),
            ..access.clone()
        },
        &reasons,
    );
    let url = |scheme: &str, host: &str| {
        vec![
            format!("{scheme}://{host}:{}", etcd.port())
                .parse()
                .unwrap(),
        ]
    };
    told(
        Access {
            endpoints: url("https", "localhost"),
            ..access.clone()
        },
        &["is for other names"],
    );
    told(
        Access {
            endpoints: url("http", "127.0.0.1"),
            ..access.clone()
        },
        &["no connection", "HTTP status"],
    );
    let plain = common::etcd::Etcd::start();
    let wrong = format!("https://127.0.0.1:{}", plain.port());
    told(
        Access {
            endpoints: vec![wrong.parse().unwrap()],
            ..access.clone()
        },
        &["does not speak TLS: is it http://", "does it speak TLS"],
    );
}

/// Input: members whose certificate has expired or is not valid yet; then files that are renewed under a
/// client. Output: the first is logged; the second is taken without a new client.
#[test]
fn certificates_end_and_are_renewed() {
    let authority = Authority::new();
    let old = Secure::start(
        &authority,
        Security {
            days: -10..-1,
            ..Security::default()
        },
    );
    let text = refusal(&old.access());
    assert!(
        text.contains("has expired: renew it, or set the clock"),
        "{text}"
    );
    let young = Secure::start(
        &authority,
        Security {
            days: 5..10,
            ..Security::default()
        },
    );
    let text = refusal(&young.access());
    assert!(text.contains("not valid yet: set the clock"), "{text}");

    let etcd = Secure::start(&authority, Security::default());
    let other = Authority::new();
    let cacert = etcd.dir().join("renewed.pem");
    fs::copy(other.cacert(), &cacert).unwrap();
    let access = Access {
        cacert: Some(cacert.clone()),
        ..etcd.access()
    };
    let client = client(&access);
    assert!(matches!(client.get(b"x"), Err(Error::Tls { .. })));
    fs::copy(authority.cacert(), &cacert).unwrap();
    eventually("the new authority is taken", || client.get(b"x").ok());
}

/// Input: files that are not there, hold something else, do not go together. Output: an error that names
/// the option and the file, before any connection.
#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let (one, two) = (
        authority.issue("one", -1..10),
        authority.issue("two", -1..10),
    );
    let none = Access {
        cacert: Some(authority.cacert()),
        ..Access::plain(vec!["https://127.0.0.1:1".parse().unwrap()])
    };
    let identity = |cert: &Files, key: &Files| {
        Some(Identity {
            cert: cert.cert.clone(),
            key: key.key.clone(),
        })
    };
    let swapped = Some(Identity {
        cert: one.key.clone(),
        key: one.cert.clone(),
    });
    let password = |path: &std::path::Path| {
        Some(Login {
            name: "u".into(),
            password: Password::File(path.to_owned()),
        })
    };
    let empty = one.key.with_extension("empty");
    fs::write(&empty, "\nsecond line\n").unwrap();
    for (access, parts) in [
        (
            Access {
                cacert: Some("/nowhere".into()),
                ..none.clone()
            },
            ["cannot read --cacert", "/nowhere"],
        ),
        (
            Access {
                cacert: Some(one.key.clone()),
                ..none.clone()
            },
            ["--cacert", "no certificate in PEM"],
        ),
        (
            Access {
                identity: swapped,
                ..none.clone()
            },
            ["--cert", "no certificate in PEM"],
        ),
        (
            Access {
                identity: identity(&one, &two),
                ..none.clone()
            },
            ["cannot be used together", "--key"],
        ),
        (
            Access {
                login: password("/nowhere".as_ref()),
                ..none.clone()
            },
            ["cannot read --password-file", "/nowhere"],
        ),
        (
            Access {
                login: password(&empty),
                ..none.clone()
            },
            ["--password-file", "first line is empty"],
        ),
    ] {
        let text = match Client::open(&access, TIMEOUT) {
            Err(error) => chain(&error),
            Ok(_) => panic!("{parts:?}"),
        };
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }
    assert!(Client::open(&none, TIMEOUT).is_ok());
}

/// Input: what is allowed and hardly meant. Output: a warning.
#[test]
fn secrets_that_others_can_read_are_warned_of() {
    let authority = Authority::new();
    let files = authority.issue("one", -1..10);
    let access = |url: &str| Access {
        identity: Some(Identity {
            cert: files.cert.clone(),
            key: files.key.clone(),
        }),
        ..Access::plain(vec![url.parse().unwrap()])
    };
    let mode = |mode| fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
    let tls = access("https://10.0.0.1");
    for (bits, warned) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o660, 1)] {
        mode(bits);
        assert_eq!(tls.warnings().len(), warned, "{bits:o}");
    }
    mode(0o600);
    assert!(access("http://10.0.0.1").warnings()[0].contains("no TLS to http://10.0.0.1:2379"));
    let login = |url: &str, password| Access {
        login: Some(Login {
            name: "u".into(),
            password,
        }),
        ..Access::plain(vec![url.parse().unwrap()])
    };
    let secret = || Password::Variable(PASSWORD.into());
    assert!(login("http://127.0.0.1", secret()).warnings().is_empty());
    assert!(login("http://10.0.0.1", secret()).warnings()[0].contains("in clear"));
    let shown = login("https://10.0.0.1", Password::Argument(PASSWORD.into())).warnings();
    assert!(shown[0].contains("on the command line") && !shown[0].contains("s3cret"));
}

/// Input: an etcd with passwords, whose tokens last two seconds, and a user with the least role. Output: all
/// that a node does works, also after the token's end and during a watch; what the role does not allow and
/// a wrong password are said, without the password; a revoked role shows, and its return is enough.
#[test]
fn tokens_end_and_are_renewed_with_the_least_role() {
    let authority = Authority::new();
    // Their time does not grow with their use.
    let tokens = "jwt,priv-key=KEY,sign-method=HS256,ttl=2s";
    let etcd = Secure::start(
        &authority,
        Security {
            tokens,
            ..Security::default()
        },
    );
    etcd.with_user(USER, PASSWORD);
    let access = with_password(etcd.access(), USER, PASSWORD);
    let one = client(&access);
    one.txn(&put(b"/wmgwd/x")).unwrap();
    let lease = one.lease_grant(Duration::from_secs(60)).unwrap().id;
    let from = one.get(b"/wmgwd/x").unwrap().revision;
    let next = wmgwd::model::types::Revision(from.0 + 1);
    let mut watch = one.watch(b"/wmgwd/", next, common::LONG).unwrap();

    // Its token is never used again by anyone else: it ends while the watch stands.
    let stale = one.clone();
    etcd.until_tokens_ended(&access);
    assert!(stale.lease_keepalive(lease).unwrap().ttl.is_some());
    assert!(one.txn(&put(b"/wmgwd/y")).unwrap().succeeded);
    let mut seen = 0;
    while seen == 0 {
        match watch.next() {
            Some(Ok(batch)) => seen += batch.events.len(),
            // A later etcd may end it together with its token: opened again it loses nothing.
            _ => watch = one.watch(b"/wmgwd/", next, common::LONG).unwrap(),
        }
    }
    etcd.until_tokens_ended(&access);
    drop(one.watch(b"/wmgwd/", next, common::LONG).unwrap());
    one.lease_revoke(lease).unwrap();
    let given = etcd.tokens();
    let many = client(&access);
    (0..20).for_each(|_| drop(many.clone().get(b"/wmgwd/x").unwrap()));
    assert!(etcd.tokens() - given < 10, "a token for each call");

    let denied = chain(&one.txn(&put(b"/other")).unwrap_err());
    assert!(
        denied.contains("a role that may read and write the prefix /wmgwd/"),
        "{denied}"
    );
    let wrong = refusal(&with_password(etcd.access(), USER, "s3cret wrong"));
    assert!(
        wrong.contains("does not let \"wmgwd\" in") && wrong.contains("--password-file"),
        "{wrong}"
    );
    assert!(!wrong.contains("s3cret"), "{wrong}");
    let nobody = refusal(&etcd.access());
    assert!(nobody.contains("give --user"), "{nobody}");

    etcd.ctl(&["user", "revoke-role", USER, "wmgwd"]);
    let revoked = chain(&one.txn(&put(b"/wmgwd/x")).unwrap_err());
    assert!(revoked.contains("permission denied"), "{revoked}");
    assert!(one.watch(b"/wmgwd/", next, common::LONG).is_err());
    etcd.ctl(&["user", "grant-role", USER, "wmgwd"]);
    one.txn(&put(b"/wmgwd/x")).unwrap();
    drop(one.watch(b"/wmgwd/", next, common::LONG).unwrap());
    etcd.ctl(&["auth", "disable"]);
    client(&access).txn(&put(b"/wmgwd/x")).unwrap();
}

/// Input: two daemons with TLS, a password file and the least role; one killed, then etcd started again.
/// Output: they share, fail over, and go on; no log, no child's environment and no command line has the
/// password.
#[test]
fn daemons_serve_over_tls_with_a_password() {
    let authority = Authority::new();
    let mut etcd = Secure::start(&authority, Security::default());
    etcd.with_user(USER, PASSWORD);
    let access = with_password(etcd.access(), USER, PASSWORD);
    let client = client(&access);
    let identity = access.identity.as_ref().unwrap();
    let password = etcd.dir().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let mut nodes: Vec<Node> = (1..=2)
        .map(|i| {
            Node::new(i, &access.endpoints[0])
                .with("--cacert", access.cacert.as_ref().unwrap().display())
                .with("--cert", identity.cert.display())
                .with("--key", identity.key.display())
                .with("--user", USER)
                .with("--password-file", password.display())
        })
        .collect();
    // The one from a file, the other from the environment.
    let other = nodes
        .pop()
        .unwrap()
        .with("--password-file", "")
        .with("--user", "");
    nodes.push(other.with_variable("WMGWD_USER", format!("{USER}:{PASSWORD}")));
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    let guard = nodes[1].guard_pid();
    for (pid, what) in [
        (nodes[1].pid(), "cmdline"),
        (guard, "cmdline"),
        (guard, "environ"),
    ] {
        let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap();
        assert!(!bytes.is_empty());
        assert!(
            !String::from_utf8_lossy(&bytes).contains("s3cret"),
            "{what}"
        );
    }
    nodes[0].kill9();
    until_settled_without(&client, &[&nodes[1]], &[&nodes[0]]);
    etcd.restart();
    nodes[0].start();
    until_settled(&client, &refs(&nodes));
    for node in &nodes {
        let log = fs::read_to_string(node.host.0.join("log")).unwrap();
        assert!(!log.contains("s3cret"), "{log}");
    }
}
