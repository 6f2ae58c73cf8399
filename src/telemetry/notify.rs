//! Runs a command of the operator's when this node's VNIs change hands: thread `notify`.
//!
//! The worker only puts events into a [`Queue`]; no thread of the daemon waits for the command. One process runs at a
//! time, and what happens meanwhile is drawn together: of each VNI only the last event is kept, so the queue never
//! holds more than the range, and 10 000 VNIs are one run, not 10 000. The command is a program, never a line for a
//! shell: it gets the event, the node's name and the number of VNIs as arguments, and the VNIs on standard input.

use crate::model::types::{NodeName, Time, Vni};
use crate::sys::child;
use crate::sys::clock;
use crate::sys::memfd;
use crate::telemetry::counters::OwnershipEvent;
use crate::telemetry::log_text::Complaint;
use crate::telemetry::metrics::Metrics;
use log::{debug, info, warn};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How long one run may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the end of the daemon waits for what is left to be told.
const LAST: Duration = Duration::from_secs(3);
/// Time between two looks at a running command.
const STEP: Duration = Duration::from_millis(10);
/// How much of its error output is kept, and what makes an end of it, in bytes.
const KEPT: usize = 512;
const TOO_MUCH: u64 = 1 << 20;

/// Events that the command has not been told yet. Pure.
#[derive(Debug, Default)]
pub struct Queue {
    /// The last event of each VNI.
    vnis: BTreeMap<Vni, OwnershipEvent>,
    drains: bool,
}

impl Queue {
    /// Something happened to `vnis`.
    pub fn push(&mut self, event: OwnershipEvent, vnis: &[Vni]) {
        if event == OwnershipEvent::Drain {
            self.drains = true;
        }
        self.vnis.extend(vnis.iter().map(|&vni| (vni, event)));
    }

    /// What to tell next, with its VNIs in order: what ends comes before what begins.
    pub fn take(&mut self) -> Option<(OwnershipEvent, Vec<Vni>)> {
        const ORDER: [OwnershipEvent; 3] = [
            OwnershipEvent::Fenced,
            OwnershipEvent::Lost,
            OwnershipEvent::Owner,
        ];
        if std::mem::take(&mut self.drains) {
            return Some((OwnershipEvent::Drain, Vec::new()));
        }
        let next = ORDER
            .into_iter()
            .find(|event| self.vnis.values().any(|it| it == event))?;
        let (told, left) = std::mem::take(&mut self.vnis)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, event)| *event == next);
        self.vnis = left;
        Some((next, told.into_keys().collect()))
    }

    fn is_empty(&self) -> bool {
        self.vnis.is_empty() && !self.drains
    }
}

/// The word for the command.
fn word(event: OwnershipEvent) -> &'static str {
    match event {
        OwnershipEvent::Owner => "owner",
        OwnershipEvent::Lost => "lost",
        OwnershipEvent::Fenced => "fenced",
        OwnershipEvent::Drain => "drain",
    }
}

#[derive(Default)]
struct State {
    queue: Queue,
    is_running: bool,
    /// Nothing runs after this.
    until: Option<Time>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// The line to the thread; one that leads nowhere without a command.
#[derive(Clone, Default)]
pub struct Notifier {
    shared: Option<Arc<Shared>>,
}

impl Notifier {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(program: &Path, node: &NodeName, metrics: Arc<Metrics>) -> io::Result<Notifier> {
        let shared: Arc<Shared> = Arc::default();
        let runner = Runner {
            program: program.to_owned(),
            node: node.clone(),
            shared: shared.clone(),
            metrics,
            complaint: Complaint::default(),
        };
        Builder::new()
            .name("notify".to_owned())
            .spawn(move || runner.run())?;
        Ok(Notifier {
            shared: Some(shared),
        })
    }

    /// Has the command told; never waits for it.
    pub fn tell(&self, event: OwnershipEvent, vnis: &[Vni]) {
        if let Some(shared) = &self.shared {
            shared.state().queue.push(event, vnis);
            shared.changed.notify_all();
        }
    }

    /// Waits until everything is told, but not for long; nothing runs afterwards.
    pub fn finish(&self) {
        let Some(shared) = &self.shared else { return };
        let until = clock::now() + LAST;
        shared.state().until = Some(until);
        // A moment more, in which a run that is late is ended.
        while clock::now() < until + Duration::from_secs(1) {
            let state = shared.state();
            if !state.is_running && (state.queue.is_empty() || clock::now() >= until) {
                return;
            }
            drop(state);
            sleep(STEP);
        }
    }
}

/// The thread.
struct Runner {
    program: PathBuf,
    node: NodeName,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    complaint: Complaint,
}

impl Runner {
    fn run(mut self) {
        loop {
            let (event, vnis) = self.next();
            let begun = clock::now();
            let outcome = self.tell(event, &vnis);
            let took = clock::now().since(begun);
            self.shared.state().is_running = false;
            self.metrics.notified(took, outcome.is_err());
            match outcome {
                Ok(()) => {
                    debug!(
                        "notify: event={} count={} took={took:?}",
                        word(event),
                        vnis.len()
                    );
                    if self.complaint.settle() {
                        info!("notify: the command works again");
                    }
                }
                Err(reason) if self.complaint.raise(&reason) => {
                    warn!(
                        "notify: event={} {}: {reason}",
                        word(event),
                        self.program.display()
                    );
                }
                Err(reason) => debug!("notify: event={}: {reason}", word(event)),
            }
        }
    }

    fn next(&self) -> (OwnershipEvent, Vec<Vni>) {
        let mut state = self.shared.state();
        loop {
            let is_over = state.until.is_some_and(|until| clock::now() >= until);
            if !is_over && let Some(next) = state.queue.take() {
                state.is_running = true;
                return next;
            }
            state = self
                .shared
                .changed
                .wait(state)
                .expect("no holder of this lock panics");
        }
    }

    fn tell(&self, event: OwnershipEvent, vnis: &[Vni]) -> Result<(), String> {
        let cannot_run = |error: io::Error| format!("cannot be run: {error}");
        let mut list = String::with_capacity(8 * vnis.len());
        for vni in vnis {
            let _ = writeln!(list, "{vni}");
        }
        let mut stdin = memfd::create().map_err(cannot_run)?;
        stdin.write_all(list.as_bytes()).map_err(cannot_run)?;
        stdin.rewind().map_err(cannot_run)?;
        let stderr = memfd::create().map_err(cannot_run)?;
        let mut command = child::command(&self.program);
        hide_options(&mut command);
        let mut child = command
            .args([word(event), self.node.as_str(), &vnis.len().to_string()])
            .current_dir("/")
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().map_err(cannot_run)?)
            // A group of its own: its end reaches whatever it started.
            .process_group(0)
            .spawn()
            .map_err(cannot_run)?;
        let status = match self.wait(&mut child, &stderr) {
            Ok(status) => status,
            Err(reason) => {
                end(&mut child);
                return Err(reason);
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(format!("{status}: {:?}", beginning(&stderr)))
    }

    fn wait(&self, child: &mut Child, stderr: &File) -> Result<ExitStatus, String> {
        let deadline = clock::now() + DEADLINE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(format!("cannot be waited for: {error}")),
            }
            if clock::now() >= self.shared.state().until.unwrap_or(deadline).min(deadline) {
                return Err(format!(
                    "did not end within {DEADLINE:?}, or before the daemon, and was ended"
                ));
            }
            if stderr.metadata().is_ok_and(|it| it.len() > TOO_MUCH) {
                return Err("wrote too much and was ended".to_owned());
            }
            sleep(STEP);
        }
    }
}

/// Options that came from the environment may be secrets, and are none of the command's.
fn hide_options(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"WMGWD_") {
            command.env_remove(name);
        }
    }
}

/// Ends `child` with all that it started.
fn end(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It leads its group as long as it has not been waited for, so no other process has the number.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    // Killed, it ends; one that the kernel holds on to must not hold this thread.
    let deadline = clock::now() + Duration::from_secs(1);
    while let Ok(None) = child.try_wait() {
        if clock::now() >= deadline {
            return;
        }
        sleep(STEP);
    }
}

/// The first bytes that were written.
fn beginning(file: &File) -> String {
    let mut bytes = [0; KEPT];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length])
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn vnis(numbers: &[u32]) -> Vec<Vni> {
        numbers.iter().map(|&n| Vni::new(n).unwrap()).collect()
    }

    /// Input: 10 000 VNIs taken one by one, some lost and taken again. Output: one batch for each kind of event, of
    /// each VNI the last, what ends first.
    #[test]
    fn news_are_drawn_together_and_the_last_counts() {
        let mut queue = Queue::default();
        for number in 1..=10_000 {
            queue.push(OwnershipEvent::Owner, &vnis(&[number]));
        }
        queue.push(OwnershipEvent::Fenced, &vnis(&[9, 3, 5]));
        queue.push(OwnershipEvent::Lost, &vnis(&[7, 3]));
        queue.push(OwnershipEvent::Owner, &vnis(&[5]));
        queue.push(OwnershipEvent::Drain, &[]);
        assert_eq!(queue.take(), Some((OwnershipEvent::Drain, vec![])));
        assert_eq!(queue.take(), Some((OwnershipEvent::Fenced, vnis(&[9]))));
        assert_eq!(queue.take(), Some((OwnershipEvent::Lost, vnis(&[3, 7]))));
        let (event, owned) = queue.take().unwrap();
        assert_eq!((event, owned.len()), (OwnershipEvent::Owner, 9_997));
        assert!(queue.is_empty());
        assert_eq!(queue.take(), None);
    }

    fn runner(program: &str) -> Runner {
        Runner {
            program: program.into(),
            node: "gw 1;$(id)".parse().unwrap(),
            shared: Arc::default(),
            metrics: Arc::default(),
            complaint: Complaint::default(),
        }
    }

    #[test]
    fn what_a_command_comes_to_is_said() {
        let tell = |program| runner(program).tell(OwnershipEvent::Owner, &vnis(&[1, 2]));
        assert_eq!(tell("/bin/true"), Ok(()));
        assert_eq!(tell("/bin/false"), Err("exit status: 1: \"\"".to_owned()));
        let reason = tell("/nowhere/to/be/found").unwrap_err();
        assert!(reason.starts_with("cannot be run: "), "{reason}");
        // The event is no option of cat's, nor a file.
        let reason = tell("/bin/cat").unwrap_err();
        assert!(
            reason.contains("owner") && reason.contains("gw 1;$(id)"),
            "{reason}"
        );
    }

    /// Input: a command that does not end, and a daemon that does. Output: the command is ended.
    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let runner = runner("/usr/bin/yes");
        runner.shared.state().until = Some(clock::now() + Duration::from_millis(50));
        let reason = runner.tell(OwnershipEvent::Owner, &vnis(&[1])).unwrap_err();
        assert!(reason.contains("was ended"), "{reason}");
    }
}
