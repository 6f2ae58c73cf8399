//! Speaks to FRR's daemons: runs vtysh, with a deadline, for what changes something; asks over their vty sockets for
//! what only shows something, without a process and without what PAM logs of each run of vtysh by a user.
//!
//! Owns the child process while it runs. Script and output go through anonymous memory.

use super::FrrConfig;
use super::vty::Vty;
use super::vtysh_output::{Output, Remarks, Verdict, judge};
use crate::host::Error;
use crate::model::types::Time;
use crate::sys::child;
use crate::sys::clock;
use crate::sys::memfd;
use crate::telemetry::metrics::Metrics;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid, getppid};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// Longest time between two looks at a running child, so also how long it goes on without permission. A short
/// run takes 25 ms, and many wait for its end.
const STEP: Duration = Duration::from_millis(5);
/// How long a killed child may take to be gone; after that it is left to the kernel.
const KILL: Duration = Duration::from_millis(500);
/// Waits before another try when another configuration session has the lock.
const LOCK_WAITS: [u64; 5] = [50, 100, 200, 400, 800];
/// How old the known remarks of vtysh may get before it is asked for them again.
const REMARKS_AGE: Duration = Duration::from_secs(30);
/// How much output of a script is kept, in bytes.
const SCRIPT_OUTPUT: usize = 1 << 20;
/// How much output of a `show` is kept, in bytes: 10 000 VNIs with both kinds of entries take about 2 MB.
const SHOW_OUTPUT: usize = 32 << 20;
/// Output beyond this ends the run.
const TOO_MUCH: u64 = 64 << 20;

/// An FRR daemon that vtysh is told to speak to (and to no other: faster, and one that is stopped does not
/// block what is meant for the other).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Daemon {
    /// BGP.
    Bgpd,
    /// OSPF.
    Ospfd,
    /// OSPF for IPv6.
    Ospf6d,
    /// The kernel's side of EVPN.
    Zebra,
    /// BFD.
    Bfdd,
}

impl Daemon {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Daemon::Bgpd => "bgpd",
            Daemon::Ospfd => "ospfd",
            Daemon::Ospf6d => "ospf6d",
            Daemon::Zebra => "zebra",
            Daemon::Bfdd => "bfdd",
        }
    }
}

/// One run of vtysh.
struct Run<'a> {
    /// Whom it speaks to.
    daemon: Daemon,
    arguments: &'a [&'a str],
    stdin: &'a str,
    /// Its deadline.
    after: Duration,
    /// How much of its output is kept, in bytes.
    keep: usize,
    /// Asked right before it and while it goes on; `None` if it needs no permission.
    permit: Option<&'a dyn Fn() -> bool>,
}

impl Run<'_> {
    fn is_forbidden(&self) -> bool {
        self.permit.is_some_and(|permit| !permit())
    }
}

/// What was printed, unless it is a refusal of `command`.
fn said(daemon: Daemon, command: &str, verdict: Verdict, output: Output) -> Result<String, Error> {
    match verdict {
        Verdict::Refused { summary, .. } => Err(Error::Refused {
            daemon: daemon.name(),
            output: format!("{command}: {summary}"),
        }),
        _ => Ok(output.stdout),
    }
}

/// How FRR's daemons are spoken to.
#[derive(Debug)]
pub struct Vtysh {
    /// The program; looked up in `PATH` if it has no slash.
    program: PathBuf,
    /// Deadline of a run.
    timeout: Duration,
    /// What each line of a script adds to it.
    timeout_per_line: Duration,
    /// Where its runs are counted.
    metrics: Arc<Metrics>,
    /// What it says in every run.
    remarks: RefCell<Remarks>,
    /// When it was asked for that.
    remarks_read: Cell<Option<Time>>,
    /// Where the daemons' sockets may stand.
    run_dirs: Vec<PathBuf>,
    /// The ways to the daemons that were asked something.
    vtys: RefCell<Vec<(Daemon, Vty)>>,
}

impl Vtysh {
    /// As `config` says.
    pub fn new(config: &FrrConfig) -> Vtysh {
        Vtysh {
            program: config.vtysh.clone(),
            timeout: config.timeout,
            timeout_per_line: config.timeout_per_line,
            metrics: config.metrics.clone(),
            remarks: RefCell::default(),
            remarks_read: Cell::new(None),
            run_dirs: config.run_dirs.clone(),
            vtys: RefCell::default(),
        }
    }

    /// Asks vtysh, by a run that is told nothing, what it says in every run.
    ///
    /// # Errors
    /// As of [`Vtysh::feed`].
    pub fn remarks(&self, daemon: Daemon) -> Result<Remarks, Error> {
        let remarks = self.read_remarks(daemon, None)?;
        Ok(remarks.unwrap_or_default())
    }

    /// Has the next refusal ask for the remarks, as after a while.
    #[cfg(test)]
    pub fn age_remarks(&self) {
        self.remarks_read.set(None);
    }

    fn read_remarks(
        &self,
        daemon: Daemon,
        permit: Option<&dyn Fn() -> bool>,
    ) -> Result<Option<Remarks>, Error> {
        let output = self.run_counted(&Run {
            daemon,
            arguments: &["-c", ""],
            stdin: "",
            after: self.timeout,
            keep: SCRIPT_OUTPUT,
            permit,
        })?;
        Ok(Remarks::of(output))
    }

    /// Feeds `script` (of `lines` lines) to `daemon` as configuration. `permit` is asked before and while
    /// it runs; `None` if the script needs no permission.
    ///
    /// # Errors
    /// Everything but a refusal, which is in the verdict ([`Verdict::Done`] or [`Verdict::Refused`]).
    pub fn feed(
        &self,
        daemon: Daemon,
        script: &str,
        lines: usize,
        permit: Option<&dyn Fn() -> bool>,
    ) -> Result<Verdict, Error> {
        self.until_unlocked(&Run {
            daemon,
            // Opened by vtysh as a file: with -f it numbers refused lines, which it does not from a pipe.
            arguments: &["-f", "/dev/stdin"],
            stdin: script,
            after: self.deadline(lines),
            keep: SCRIPT_OUTPUT,
            permit,
        })
        .map(|(verdict, _)| verdict)
    }

    /// Runs one command that is neither configuration nor a `show`.
    ///
    /// # Errors
    /// As of [`Vtysh::feed`], and [`Error::Refused`].
    pub fn command(
        &self,
        daemon: Daemon,
        command: &str,
        permit: Option<&dyn Fn() -> bool>,
    ) -> Result<(), Error> {
        let (verdict, output) = self.run_command(daemon, command, permit)?;
        said(daemon, command, verdict, output).map(drop)
    }

    /// What `daemon` answers to a command that only shows something.
    ///
    /// # Errors
    /// As of [`Vtysh::command`].
    pub fn show(&self, daemon: Daemon, command: &str) -> Result<String, Error> {
        let (verdict, output) = match self.ask(daemon, command, self.timeout)? {
            Some(output) => (judge(&output), output),
            None => self.run_command(daemon, command, None)?,
        };
        said(daemon, command, verdict, output)
    }

    /// Asks `commands` that only show something and returns what comes back, one after the other; a `%` remark is an
    /// answer like any other.
    ///
    /// # Errors
    /// As of [`Vtysh::feed`].
    pub fn questions(&self, daemon: Daemon, commands: &[String]) -> Result<String, Error> {
        let deadline = clock::now() + self.deadline(commands.len());
        let mut answers = String::new();
        for command in commands {
            match self.ask(daemon, command, deadline.since(clock::now()))? {
                Some(output) => answers += &output.stdout,
                None => return self.questions_by_vtysh(daemon, commands),
            }
        }
        Ok(answers)
    }

    fn questions_by_vtysh(&self, daemon: Daemon, commands: &[String]) -> Result<String, Error> {
        let mut arguments = Vec::with_capacity(2 * commands.len());
        for command in commands {
            arguments.extend(["-c", command]);
        }
        let output = self.run(&Run {
            daemon,
            arguments: &arguments,
            stdin: "",
            after: self.deadline(commands.len()),
            keep: SHOW_OUTPUT,
            permit: None,
        })?;
        match judge(&output) {
            Verdict::Down => Err(Error::Down {
                daemon: daemon.name(),
            }),
            _ => Ok(output.stdout),
        }
    }

    /// What `daemon` answers over its socket, as vtysh would print it. `None` if there is no socket that lets this
    /// process in: vtysh knows where its FRR has it, or says what is wrong.
    fn ask(
        &self,
        daemon: Daemon,
        command: &str,
        patience: Duration,
    ) -> Result<Option<Output>, Error> {
        let mut vtys = self.vtys.borrow_mut();
        if !vtys.iter().any(|(of, _)| *of == daemon) {
            vtys.push((daemon, Vty::new(self.run_dirs.clone(), daemon.name())));
        }
        let Some((_, vty)) = vtys.iter_mut().find(|(of, _)| *of == daemon) else {
            return Ok(None);
        };
        let daemon = daemon.name();
        match vty.ask(command, patience) {
            Ok(answer) => Ok(Some(Output {
                status: Some(i32::from(answer.status)),
                stdout: answer.text,
                stderr: String::new(),
            })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotConnected => Ok(None),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    let after = patience;
                    Err(Error::TimedOut { daemon, after })
                }
                // It ended while it was asked.
                _ => Err(Error::Down { daemon }),
            },
        }
    }

    /// Runs one command.
    fn run_command(
        &self,
        daemon: Daemon,
        command: &str,
        permit: Option<&dyn Fn() -> bool>,
    ) -> Result<(Verdict, Output), Error> {
        self.until_unlocked(&Run {
            daemon,
            arguments: &["-c", command],
            stdin: "",
            after: self.timeout,
            keep: SHOW_OUTPUT,
            permit,
        })
    }

    /// The deadline of a run of `lines` lines.
    fn deadline(&self, lines: usize) -> Duration {
        self.timeout + self.timeout_per_line * u32::try_from(lines).unwrap_or(u32::MAX)
    }

    fn until_unlocked(&self, run: &Run) -> Result<(Verdict, Output), Error> {
        let daemon = run.daemon.name();
        let mut waits = LOCK_WAITS.iter();
        loop {
            let output = self.run(run)?;
            match judge(&output) {
                Verdict::Down => return Err(Error::Down { daemon }),
                Verdict::Locked => match waits.next() {
                    Some(wait) => sleep(Duration::from_millis(*wait)),
                    None => {
                        let output = "another configuration session keeps it locked".to_string();
                        return Err(Error::Refused { daemon, output });
                    }
                },
                verdict => return Ok((verdict, output)),
            }
            if run.is_forbidden() {
                return Err(Error::NotPermitted);
            }
        }
    }

    /// One run. What vtysh says in every run is taken out of what it says of this one.
    fn run(&self, run: &Run) -> Result<Output, Error> {
        let mut output = self.run_counted(run)?;
        if matches!(judge(&output), Verdict::Done | Verdict::Down) {
            return Ok(output);
        }
        let now = clock::now();
        let read = self.remarks_read.get();
        if read.is_none_or(|read| now.since(read) > REMARKS_AGE) {
            // Those that are known are more likely than none. Without an answer they are asked for in the next run.
            if let Ok(Some(remarks)) = self.read_remarks(run.daemon, run.permit) {
                self.remarks_read.set(Some(now));
                self.remarks.replace(remarks);
            }
        }
        self.remarks.borrow().take_from(&mut output);
        Ok(output)
    }

    /// One run, counted.
    fn run_counted(&self, run: &Run) -> Result<Output, Error> {
        let begun = clock::now();
        let result = self.run_uncounted(run);
        // What the lease did not permit is no fault of vtysh's.
        let is_error = match &result {
            Ok(output) => matches!(judge(output), Verdict::Down),
            Err(error) => !matches!(error, Error::NotPermitted),
        };
        let took = clock::now().since(begun);
        self.metrics.vtysh_run(run.daemon.name(), took, is_error);
        result
    }

    fn run_uncounted(&self, run: &Run) -> Result<Output, Error> {
        let daemon = run.daemon.name();
        let spawn = |source: io::Error| Error::Spawn { source };
        let mut script = memfd::create().map_err(spawn)?;
        script.write_all(run.stdin.as_bytes()).map_err(spawn)?;
        script.rewind().map_err(spawn)?;
        let (stdout, stderr) = (
            memfd::create().map_err(spawn)?,
            memfd::create().map_err(spawn)?,
        );
        let mut command = child::command(&self.program);
        command
            .args(["-d", daemon])
            .args(run.arguments)
            // Neither a pager nor a history file: vtysh works for a program here.
            .env("VTYSH_PAGER", "cat")
            .env("VTYSH_HISTFILE", "/dev/null")
            .stdin(script)
            .stdout(stdout.try_clone().map_err(spawn)?)
            .stderr(stderr.try_clone().map_err(spawn)?)
            // A group of its own: a kill reaches whatever it started, and a ^C at the terminal does not.
            .process_group(0);
        // The last moment: nothing that claims may start after the lease.
        if run.is_forbidden() {
            return Err(Error::NotPermitted);
        }
        die_with_us(&mut command);
        let mut child = command.spawn().map_err(spawn)?;
        let written = || size(&stdout) + size(&stderr);
        match wait(&mut child, run, &written) {
            Ok(Some(status)) => Ok(Output {
                status: status.code(),
                stdout: text(&stdout, run.keep).map_err(spawn)?,
                stderr: text(&stderr, SCRIPT_OUTPUT).map_err(spawn)?,
            }),
            Ok(None) => {
                kill(&mut child);
                let after = run.after;
                Err(Error::TimedOut { daemon, after })
            }
            Err(error) => {
                kill(&mut child);
                Err(error)
            }
        }
    }
}

/// Waits for the end of `child`; `None` if that takes too long.
fn wait(
    child: &mut Child,
    run: &Run,
    written: &dyn Fn() -> u64,
) -> Result<Option<ExitStatus>, Error> {
    let deadline = clock::now() + run.after;
    let mut step = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().map_err(|source| Error::Spawn { source })? {
            return Ok(Some(status));
        }
        if run.is_forbidden() {
            return Err(Error::NotPermitted);
        }
        if written() > TOO_MUCH {
            let source = io::Error::other("it does not stop writing");
            return Err(Error::Spawn { source });
        }
        if clock::now() >= deadline {
            return Ok(None);
        }
        sleep(step);
        step = (step * 3 / 2).min(STEP);
    }
}

/// Ends `child` with all that it started.
fn kill(child: &mut Child) {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    if let Ok(group) = group {
        // It leads its group as long as it has not been waited for, so no other process has the number.
        match killpg(group, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => log::warn!("cannot end vtysh: {errno}"),
        }
    }
    let deadline = clock::now() + KILL;
    while let Ok(None) = child.try_wait() {
        if clock::now() >= deadline {
            log::warn!("vtysh (process {}) does not end, left behind", child.id());
            return;
        }
        sleep(Duration::from_millis(1));
    }
}

fn size(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// The first `keep` bytes of `file` as text.
fn text(file: &File, keep: usize) -> io::Result<String> {
    let length = usize::try_from(size(file)).unwrap_or(usize::MAX).min(keep);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes the child end with the thread that starts it: a vtysh that outlived its daemon could claim after the
/// next run has withdrawn everything.
#[allow(unsafe_code)]
fn die_with_us(command: &mut Command) {
    let parent = getpid();
    let tie = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // Ended between fork and here: then the kernel has sent that signal already.
        if getppid() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe functions may be called (fork(2)). `tie` makes two
    // system calls, prctl and getppid, allocates nothing and takes no lock; its error holds no allocation.
    unsafe { command.pre_exec(tie) };
}
