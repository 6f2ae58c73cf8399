//! Real-time priority for the threads that must not be late: a busy machine would cost a node its proof.

use nix::libc::{SCHED_RESET_ON_FORK, SCHED_RR, sched_param, sched_setscheduler};
use std::io;

/// The least that there is (sched(7)): ahead of all ordinary threads, and behind those that others have raised.
const PRIORITY: i32 = 1;

/// Raises the calling thread. Threads and processes that it starts later are ordinary ones.
///
/// # Errors
/// That is not allowed here: there is neither RLIMIT_RTPRIO nor CAP_SYS_NICE, or a filter of system calls.
#[allow(unsafe_code)]
pub fn raise() -> io::Result<()> {
    let parameters = sched_param {
        sched_priority: PRIORITY,
    };
    let policy = SCHED_RR | SCHED_RESET_ON_FORK;
    // SAFETY: `parameters` lives until the call returns, and 0 is the calling thread.
    match unsafe { sched_setscheduler(0, policy, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, unsafe_code)]
    use super::*;
    use nix::libc::sched_getscheduler;
    use std::thread::spawn;

    fn policy() -> i32 {
        // SAFETY: it takes and changes nothing, and 0 is the calling thread.
        unsafe { sched_getscheduler(0) }
    }

    /// Input: a thread is raised, where that is allowed, and starts another. Output: it runs as SCHED_RR, the other as
    /// an ordinary one.
    #[test]
    fn a_raised_thread_starts_ordinary_ones() {
        spawn(|| {
            if let Err(error) = raise() {
                return println!("not allowed here: {error}");
            }
            assert_eq!(policy(), SCHED_RR | SCHED_RESET_ON_FORK);
            spawn(|| assert_eq!(policy(), 0, "SCHED_OTHER"))
                .join()
                .unwrap();
        })
        .join()
        .unwrap();
    }
}
