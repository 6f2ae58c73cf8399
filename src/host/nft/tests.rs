//! The table against a kernel that answers as it is told.
#![allow(clippy::unwrap_used)]
use super::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread::sleep;

/// Answers to batches, in order; after them all are accepted.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Option<Errno>>>>,
    sent: Arc<Mutex<Vec<usize>>>,
    /// The process is held up after each batch.
    stall: Duration,
    /// It is held up after these batches alone, if there are such; and the time from the first element of each, if it
    /// ends the lease.
    stalled: Arc<Mutex<Vec<usize>>>,
    revoked: Arc<Mutex<usize>>,
}

impl Script {
    fn lease(&self) -> KernelLease {
        KernelLease::through(Box::new(self.clone()))
    }

    fn answering(answers: &[Option<Errno>]) -> Script {
        let script = Script::default();
        script.answers.lock().unwrap().extend(answers);
        script
    }

    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }
}

impl Channel for Script {
    fn transact(&mut self, batch: Batch) -> io::Result<()> {
        let bytes = batch.finish(1).0;
        let has = |what: &[u8]| bytes.windows(what.len()).any(|it| it == what);
        let mut sent = self.sent.lock().unwrap();
        let is_stalled = self.stalled.lock().unwrap().contains(&sent.len());
        sent.push(bytes.len());
        *self.revoked.lock().unwrap() += usize::from(has(b"lease") && !has(b"token"));
        drop(sent);
        sleep(if is_stalled { TOKEN * 2 } else { self.stall });
        match self.answers.lock().unwrap().pop_front().flatten() {
            Some(errno) => Err(errno.into()),
            None => Ok(()),
        }
    }

    fn ask(&mut self, _: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        Err(Errno::ENOENT.into())
    }
}

fn soon() -> Time {
    clock::now() + Duration::from_secs(5)
}

/// Input: hosts on which something of nf_tables is missing. Output: each is told apart from a refusal.
#[test]
fn what_a_kernel_lacks_is_told() {
    for (errno, expected) in [
        (Errno::EPROTONOSUPPORT, "no nf_tables"),
        (Errno::EOPNOTSUPP, "no nf_tables"),
        (Errno::ENOENT, "no nf_tables"),
        (Errno::EPERM, "cannot make the table"),
        (Errno::EEXIST, "did not make"),
        (Errno::ENFILE, "is full"),
    ] {
        // A kernel that has nothing of IPv6 is asked for ARP alone.
        let error = Script::answering(&[Some(errno), Some(errno)])
            .lease()
            .make(&Found::Absent, &[], &Ipv6::default())
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{errno}: {error}");
    }
    let script = Script::default();
    assert_eq!(script.lease().find().unwrap(), Found::Absent);
    assert!(matches!(
        script.lease().make(&Found::Foreign, &[], &Ipv6::default()),
        Err(Error::Foreign)
    ));
    assert!(!script.lease().remove_own().unwrap());
    assert!(!script.lease().remove().unwrap());
    assert_eq!(script.sent(), 0, "nothing is touched");
}

/// Input: tokens that run out; a table that is gone. Output: the first are tried again, a few times.
#[test]
fn a_token_that_ran_out_is_followed_by_another() {
    let late = Some(Errno::ENOENT);
    let script = Script::answering(&[None, late, None, late]);
    assert_eq!(script.lease().grant(soon()).unwrap(), 2);
    assert_eq!(script.sent(), 6);
    let script = Script::answering(&[None, late, None, late, None, late]);
    assert!(matches!(script.lease().grant(soon()), Err(Error::Late)));
    let script = Script::answering(&[late]);
    assert!(matches!(script.lease().grant(soon()), Err(Error::Lost)));
    assert_eq!(script.sent(), 1);
}

/// Input: no time left; none left once the token is there. Output: nothing is granted, least of all for ever.
#[test]
fn nothing_is_granted_when_the_time_is_over() {
    let script = Script::default();
    for end in [Time::default(), clock::now(), clock::now() + SHORT_TOKEN] {
        assert!(matches!(script.lease().grant(end), Err(Error::Over)));
    }
    let script = Script {
        stall: Duration::from_millis(50),
        ..Script::default()
    };
    let end = clock::now() + SHORT_TOKEN + Duration::from_millis(50);
    assert!(matches!(script.lease().grant(end), Err(Error::Over)));
    assert_eq!(script.sent(), 1);
}

/// Input: a socket that takes no large batch. Output: the names in parts.
#[test]
fn names_go_in_parts_where_they_must() {
    let names: Vec<String> = (0..10).map(|i| format!("br{i}")).collect();
    let large = Some(Errno::EMSGSIZE);
    let script = Script::answering(&[large, None, large, None, None]);
    script.lease().add_names(&names).unwrap();
    let sent = script.sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 5);
    assert!(sent[1] < sent[0] && sent[3] < sent[2]);
    let script = Script::answering(&[large]);
    assert!(script.lease().add_names(&names[..1]).is_err());
    assert_eq!(script.sent(), 1);
    Script::default().lease().add_names(&[]).unwrap();
}

/// Input: two processes that grant. Output: their tokens differ, and none comes twice in a row.
#[test]
fn tokens_are_fresh() {
    let mut lease = Script::default().lease();
    let tokens: BTreeSet<u32> = (0..1024).map(|_| lease.next_token()).collect();
    assert_eq!(tokens.len(), 1024);
    assert!(tokens.iter().all(|it| it >> 10 == std::process::id()));
}

#[test]
fn names_that_are_no_bridge_of_the_range_are_told_apart() {
    let range = VniRange::new(Vni::MIN, Vni::new(50).unwrap()).unwrap();
    let names = ["br7", "br07", "br51", "lan7", "br"].map(str::to_owned);
    let (vnis, others) = vnis_of(&names, range);
    assert_eq!(vnis, [Vni::new(7).unwrap()].into());
    assert_eq!(others, &names[1..]);
}

/// Input: grants that the kernel is held up with, once and always. Output: what it may have granted for too long is
/// replaced by a grant that was quick, or else taken back.
#[test]
fn a_grant_that_was_held_up_in_the_kernel_does_not_last() {
    let script = Script::default();
    *script.stalled.lock().unwrap() = vec![1];
    assert_eq!(script.lease().grant(soon()).unwrap(), 1);
    assert_eq!((script.sent(), *script.revoked.lock().unwrap()), (4, 0));
    let script = Script::default();
    *script.stalled.lock().unwrap() = vec![1, 3, 5];
    assert!(matches!(script.lease().grant(soon()), Err(Error::Late)));
    assert_eq!((script.sent(), *script.revoked.lock().unwrap()), (7, 1));
    // The time is over meanwhile.
    let script = Script::default();
    *script.stalled.lock().unwrap() = vec![1];
    let end = clock::now() + TOKEN * 2;
    assert!(matches!(script.lease().grant(end), Err(Error::Over)));
    assert_eq!(*script.revoked.lock().unwrap(), 1);
}

/// Input: kernels that lack something, and one that lacks nothing. Output: told apart, by what is refused first.
#[test]
fn a_kernel_is_tried() {
    let with = |errno| {
        Script::answering(&[Some(errno)])
            .lease()
            .try_to_make(Family::Arp)
    };
    assert!(with(Errno::EEXIST).is_ok());
    for errno in [Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT] {
        assert!(matches!(with(errno), Err(Error::Unsupported(_))), "{errno}");
    }
    assert!(matches!(with(Errno::EPERM), Err(Error::Refused { .. })));
}
