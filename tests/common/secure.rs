//! A real etcd that wants client certificates, and passwords if told so.

use super::authority::{Authority, Files};
use super::{eventually, free_ports, loopback};
use std::fs::{self, File};
use std::net::TcpStream;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wmgwd::etcd::{Access, Client, Identity};

/// The user who may do everything, once there are passwords.
const ROOT: &str = "root:rootpw";

/// How it is secured.
pub struct Security {
    /// The days, counted from today, on which the server's certificate is valid.
    pub days: Range<i64>,
    /// What its tokens are, as `--auth-token` says it; KEY stands for a file of random bytes.
    pub tokens: &'static str,
}

impl Default for Security {
    fn default() -> Security {
        Security {
            days: -1..10,
            tokens: "simple",
        }
    }
}

/// The process, and the files of it and its clients.
pub struct Secure {
    child: Child,
    args: Vec<String>,
    port: u16,
    metrics: u16,
    cacert: PathBuf,
    client: Files,
    dir: PathBuf,
}

impl Secure {
    /// Starts it, until it listens.
    pub fn start(authority: &Authority, security: Security) -> Secure {
        let [port, peer, metrics] = free_ports(3)[..] else {
            panic!("three ports");
        };
        let server = authority.issue("server", security.days);
        let dir = server.key.with_extension("etcd");
        fs::create_dir(&dir).unwrap();
        // A user who can read it can make tokens: only our own may.
        let key = dir.join("token-key");
        fs::write(&key, format!("{:?}", std::time::Instant::now())).unwrap();
        let tokens = security.tokens.replace("KEY", &key.display().to_string());
        let url = format!("https://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let args: Vec<String> = [
            ("--data-dir", dir.join("data").display().to_string()),
            ("--listen-client-urls", url.clone()),
            ("--advertise-client-urls", url),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer.clone()),
            ("--initial-cluster", format!("default={peer}")),
            (
                "--listen-metrics-urls",
                format!("http://127.0.0.1:{metrics}"),
            ),
            ("--cert-file", server.cert.display().to_string()),
            ("--key-file", server.key.display().to_string()),
            (
                "--trusted-ca-file",
                authority.cacert().display().to_string(),
            ),
            ("--client-cert-auth", "true".into()),
            ("--auth-token", tokens),
            ("--auth-token-ttl", "2".into()),
            // A password costs little here: it is not bcrypt that is tested.
            ("--bcrypt-cost", "4".into()),
            ("--logger", "zap".into()),
            ("--unsafe-no-fsync", "true".into()),
        ]
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
        let child = spawn(&args, &dir);
        let secure = Secure {
            child,
            args,
            port,
            metrics,
            cacert: authority.cacert(),
            client: authority.issue("client", -1..10),
            dir,
        };
        secure.until_it_listens();
        secure
    }

    fn until_it_listens(&self) {
        eventually("etcd listens", || {
            TcpStream::connect(loopback(self.port)).ok()
        });
    }

    /// The way to it, with all certificates that it wants, and without a user.
    pub fn access(&self) -> Access {
        let url = format!("https://127.0.0.1:{}", self.port);
        Access {
            cacert: Some(self.cacert.clone()),
            identity: Some(Identity {
                cert: self.client.cert.clone(),
                key: self.client.key.clone(),
            }),
            ..Access::plain(vec![url.parse().unwrap()])
        }
    }

    /// Its client port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A directory that goes away with the authority.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// etcdctl as the user who may do everything, where there are users.
    pub fn ctl(&self, arguments: &[&str]) {
        let output = eventually("etcdctl is answered", || {
            let output = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .arg(format!("--endpoints=https://127.0.0.1:{}", self.port))
                .arg(format!("--cacert={}", self.cacert.display()))
                .arg(format!("--cert={}", self.client.cert.display()))
                .arg(format!("--key={}", self.client.key.display()))
                .arg(format!("--user={ROOT}"))
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            output.status.success().then_some(output)
        });
        assert!(output.status.success(), "{arguments:?}");
    }

    /// Switches passwords on, with one user who has the role that contrib/etcd/README.md names: the least that a
    /// node needs.
    pub fn with_user(&self, name: &str, password: &str) {
        for arguments in [
            &["user", "add", ROOT][..],
            &["user", "grant-role", "root", "root"],
            &["role", "add", "wmgwd"],
            &[
                "role",
                "grant-permission",
                "wmgwd",
                "--prefix=true",
                "readwrite",
                "/wmgwd/",
            ],
            &["user", "add", &format!("{name}:{password}")],
            &["user", "grant-role", name, "wmgwd"],
            &["auth", "enable"],
        ] {
            self.ctl(arguments);
        }
    }

    /// How many tokens it has given.
    pub fn tokens(&self) -> u64 {
        const COUNT: &str =
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Authenticate\"";
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let mut reply = ureq::get(url).call().unwrap();
        let text = reply.body_mut().read_to_string().unwrap();
        let line = text.lines().find(|line| line.starts_with(COUNT));
        line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    /// Waits until a token that is younger than any of before has ended, and so they have, too (if their time
    /// does not grow with their use).
    pub fn until_tokens_ended(&self, access: &Access) {
        let probe = Client::open(access, Duration::from_secs(5)).unwrap();
        probe.get(b"/wmgwd/x").unwrap();
        let given = self.tokens();
        eventually("the probe needs another token", || {
            probe.get(b"/wmgwd/x").unwrap();
            (self.tokens() > given).then_some(())
        });
    }

    /// Ends it and starts it on its data.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.args, &self.dir);
        self.until_it_listens();
    }
}

fn spawn(args: &[String], dir: &Path) -> Child {
    let log = File::create(dir.join("log")).unwrap();
    Command::new("etcd")
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("etcd (Debian: etcd-server) is in PATH")
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
