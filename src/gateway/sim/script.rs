//! One script of operations, run against the model and against a real etcd: what they answer and what
//! they then hold must be the same. So the simulation rests on the behaviour of a real etcd.

use super::etcd::ModelEtcd;
use super::rng::Rng;
use crate::etcd::{Client, Compare, Endpoint, Error, Op, OpReply, Txn, TxnReply};
use crate::model::types::{LeaseId, Revision, Time};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough that no lease ends by itself during the script.
const TTL: Duration = Duration::from_secs(600);
const PREFIX: &str = "/script/";

/// One line of the script. Leases are named by number: their identities differ from run to run.
#[derive(Clone, Debug)]
enum Line {
    Txn(Txn),
    Grant,
    Revoke(usize),
}

/// What a line came to, as far as both can be compared.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Txn(Answer),
    LeaseNotFound,
    Lease,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Answer {
    succeeded: bool,
    responses: Vec<Response>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Response {
    Put,
    Delete(u64),
    Range(Vec<Held>),
    Txn(Answer),
}

/// A key as it is held: its lease by number, its revisions counted from the script's first.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Held {
    key: Vec<u8>,
    value: Vec<u8>,
    lease: Option<usize>,
    created: i64,
    modified: i64,
}

/// Either of the two.
trait Store {
    fn txn(&mut self, txn: &Txn) -> Option<TxnReply>;
    fn grant(&mut self) -> LeaseId;
    fn revoke(&mut self, id: LeaseId);
    fn range(&mut self) -> crate::etcd::RangeReply;
}

impl Store for ModelEtcd {
    fn txn(&mut self, txn: &Txn) -> Option<TxnReply> {
        ModelEtcd::txn(self, txn).ok()
    }
    fn grant(&mut self) -> LeaseId {
        ModelEtcd::grant(self, Time::default(), TTL).id
    }
    fn revoke(&mut self, id: LeaseId) {
        ModelEtcd::revoke(self, id);
    }
    fn range(&mut self) -> crate::etcd::RangeReply {
        ModelEtcd::range(self, PREFIX.as_bytes())
    }
}

impl Store for Client {
    fn txn(&mut self, txn: &Txn) -> Option<TxnReply> {
        match Client::txn(self, txn) {
            Ok(reply) => Some(reply),
            Err(Error::LeaseNotFound) => None,
            Err(error) => panic!("etcd refuses {txn:?}: {error}"),
        }
    }
    fn grant(&mut self) -> LeaseId {
        Client::lease_grant(self, TTL).expect("etcd grants").id
    }
    fn revoke(&mut self, id: LeaseId) {
        Client::lease_revoke(self, id).expect("etcd revokes");
    }
    fn range(&mut self) -> crate::etcd::RangeReply {
        Client::range(self, PREFIX.as_bytes()).expect("etcd answers")
    }
}

/// Writes the script as it goes along: a line may name what the lines before it made.
struct Writer {
    rng: Rng,
    leases: usize,
    /// Revisions that the model has seen, so that conditions hit and miss.
    newest: i64,
    used: Vec<Vec<u8>>,
}

impl Writer {
    fn line(&mut self) -> Line {
        match self.rng.below(12) {
            0 => {
                self.leases += 1;
                Line::Grant
            }
            1 if self.leases > 1 => Line::Revoke(self.rng.below(self.leases as u64) as usize),
            _ => {
                self.used.clear();
                Line::Txn(self.txn(2))
            }
        }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("{PREFIX}{}", self.rng.below(8)).into_bytes()
    }

    fn lease(&mut self) -> Option<LeaseId> {
        // By number; `named` puts in the identity.
        let some = self.leases > 0 && self.rng.chance(500);
        some.then(|| LeaseId(self.rng.below(self.leases as u64) as i64))
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let revision = Revision(self.rng.within(0, self.newest as u64 + 1) as i64);
        match self.rng.below(5) {
            0 => Compare::ModRevisionLess {
                key,
                than: revision,
            },
            1 => Compare::ModRevisionIs { key, revision },
            2 => Compare::CreateRevisionIs {
                key,
                revision: if self.rng.chance(500) {
                    Revision(0)
                } else {
                    revision
                },
            },
            3 if self.leases > 0 => Compare::LeaseIs {
                key,
                lease: LeaseId(self.rng.below(self.leases as u64) as i64),
            },
            _ => Compare::ValueIs {
                key,
                value: self.value(),
            },
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.below(4) {
            0 => Vec::new(),
            1 => b"\xff\x00".to_vec(),
            n => n.to_string().into_bytes(),
        }
    }

    fn ops(&mut self, depth: u32) -> Vec<Op> {
        let mut ops = Vec::new();
        for _ in 0..self.rng.below(4) {
            let key = self.key();
            // Etcd takes a key once in a transaction only, in whichever branch; wmgwd writes none twice.
            let fresh = !self.used.contains(&key);
            match self.rng.below(6) {
                0..=2 if fresh => {
                    self.used.push(key.clone());
                    ops.push(Op::Put {
                        key,
                        value: self.value(),
                        lease: self.lease(),
                    });
                }
                3 if fresh => {
                    self.used.push(key.clone());
                    ops.push(Op::Delete { key });
                }
                4 => ops.push(Op::Range { key }),
                5 if depth > 0 => ops.push(Op::Txn(self.txn(depth - 1))),
                _ => {}
            }
        }
        ops
    }

    fn txn(&mut self, depth: u32) -> Txn {
        Txn {
            compares: (0..self.rng.below(3)).map(|_| self.compare()).collect(),
            then: self.ops(depth),
            otherwise: self.ops(depth),
        }
    }
}

/// One run of the script.
struct Run<'a, S> {
    store: &'a mut S,
    leases: Vec<LeaseId>,
    /// The store's revision before the first line.
    origin: i64,
}

impl<S: Store> Run<'_, S> {
    fn line(&mut self, line: &Line) -> Outcome {
        match line {
            Line::Grant => {
                let id = self.store.grant();
                self.leases.push(id);
                Outcome::Lease
            }
            Line::Revoke(number) => {
                self.store.revoke(self.leases[*number]);
                Outcome::Lease
            }
            Line::Txn(txn) => match self.store.txn(&self.named(txn)) {
                Some(reply) => Outcome::Txn(self.answer(&reply)),
                None => Outcome::LeaseNotFound,
            },
        }
    }

    /// Puts this run's leases and revisions into a transaction of the script.
    fn named(&self, txn: &Txn) -> Txn {
        let lease = |number: LeaseId| self.leases[number.0 as usize];
        let shift = |revision: Revision| match revision.0 {
            0 => Revision(0),
            count => Revision(count + self.origin),
        };
        let compares = txn.compares.iter().cloned().map(|compare| match compare {
            Compare::ModRevisionLess { key, than } => Compare::ModRevisionLess {
                key,
                than: shift(than),
            },
            Compare::ModRevisionIs { key, revision } => Compare::ModRevisionIs {
                key,
                revision: shift(revision),
            },
            Compare::CreateRevisionIs { key, revision } => Compare::CreateRevisionIs {
                key,
                revision: shift(revision),
            },
            Compare::LeaseIs { key, lease: number } => Compare::LeaseIs {
                key,
                lease: lease(number),
            },
            Compare::LeaseIsNot { key, lease: number } => Compare::LeaseIsNot {
                key,
                lease: lease(number),
            },
            value @ Compare::ValueIs { .. } => value,
        });
        let ops = |ops: &[Op]| {
            let op = |op: &Op| match op.clone() {
                Op::Put {
                    key,
                    value,
                    lease: number,
                } => Op::Put {
                    key,
                    value,
                    lease: number.map(lease),
                },
                Op::Txn(txn) => Op::Txn(self.named(&txn)),
                other => other,
            };
            ops.iter().map(op).collect()
        };
        Txn {
            compares: compares.collect(),
            then: ops(&txn.then),
            otherwise: ops(&txn.otherwise),
        }
    }

    fn answer(&self, reply: &TxnReply) -> Answer {
        let response = |response: &OpReply| match response {
            OpReply::Put => Response::Put,
            OpReply::Delete { deleted } => Response::Delete(*deleted),
            OpReply::Range(range) => Response::Range(self.held(&range.kvs)),
            OpReply::Txn(inner) => Response::Txn(self.answer(inner)),
        };
        Answer {
            succeeded: reply.succeeded,
            responses: reply.responses.iter().map(response).collect(),
        }
    }

    fn held(&self, kvs: &[crate::etcd::KeyValue]) -> Vec<Held> {
        let number = |id| self.leases.iter().position(|&lease| lease == id);
        kvs.iter()
            .map(|kv| Held {
                key: kv.key.clone(),
                value: kv.value.clone(),
                lease: kv
                    .lease
                    .map(|id| number(id).expect("a lease of the script")),
                created: kv.create_revision.0 - self.origin,
                modified: kv.mod_revision.0 - self.origin,
            })
            .collect()
    }

    /// The revision, and everything that is held.
    fn state(&mut self) -> (i64, Vec<Held>) {
        let range = self.store.range();
        (range.revision.0 - self.origin, self.held(&range.kvs))
    }
}

/// A directory and a process that go away with their owner.
struct Etcd {
    child: Child,
    dir: PathBuf,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Etcd {
    /// One member on free ports, or `None` where there is no etcd on this machine.
    fn start() -> Option<(Etcd, Client)> {
        let held: Vec<TcpListener> = (0..2)
            .map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"))
            .collect();
        let urls: Vec<String> = held
            .iter()
            .map(|listener| listener.local_addr().expect("it is bound").to_string())
            .map(|address| format!("http://{address}"))
            .collect();
        drop(held);
        let dir = std::env::temp_dir().join(format!("wmgwd-script-{}", std::process::id()));
        let program = std::env::var_os("TEST_ETCD").unwrap_or_else(|| "etcd".into());
        let child = Command::new(program)
            .args(["--name", "m0", "--data-dir"])
            .arg(&dir)
            .args(["--listen-client-urls", &urls[0]])
            .args(["--advertise-client-urls", &urls[0]])
            .args(["--listen-peer-urls", &urls[1]])
            .args(["--initial-advertise-peer-urls", &urls[1]])
            .args(["--initial-cluster", &format!("m0={}", urls[1])])
            .args([
                "--logger",
                "zap",
                "--log-level",
                "error",
                "--unsafe-no-fsync",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let etcd = Etcd { child, dir };
        let endpoint: Endpoint = urls[0].parse().expect("a good URL");
        let client = Client::new(vec![endpoint], Duration::from_secs(5));
        let begun = Instant::now();
        while client.get(b"ready").is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "etcd is not ready"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some((etcd, client))
    }
}

/// Input: 400 random lines. Output: the model and etcd answer each the same, and hold the same keys with
/// the same values, leases and revisions after each.
#[test]
fn the_model_is_an_etcd() {
    let Some((_etcd, mut client)) = Etcd::start() else {
        println!("skipped: no etcd in PATH (Debian: apt-get install etcd-server)");
        return;
    };
    for seed in 1..=3 {
        client.txn(&clear()).expect("etcd answers");
        let mut writer = Writer {
            rng: Rng::new(seed),
            leases: 0,
            newest: 0,
            used: Vec::new(),
        };
        let mut model = ModelEtcd::new();
        let origin = client.range(PREFIX.as_bytes()).expect("etcd answers");
        assert_eq!(origin.count, 0);
        let mut real = Run {
            store: &mut client,
            leases: Vec::new(),
            origin: origin.revision.0,
        };
        let mut modelled = Run {
            origin: model.revision().0,
            store: &mut model,
            leases: Vec::new(),
        };
        for number in 0..400 {
            let line = writer.line();
            let (got, expected) = (real.line(&line), modelled.line(&line));
            assert_eq!(got, expected, "seed {seed} line {number}: {line:?}");
            let (got, expected) = (real.state(), modelled.state());
            assert_eq!(got, expected, "seed {seed} after line {number}: {line:?}");
            writer.newest = got.0;
        }
    }
}

/// Deletes what an earlier script left.
fn clear() -> Txn {
    Txn {
        then: (0..8)
            .map(|n| Op::Delete {
                key: format!("{PREFIX}{n}").into_bytes(),
            })
            .collect(),
        ..Txn::default()
    }
}
