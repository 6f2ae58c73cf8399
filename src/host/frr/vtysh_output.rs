//! Pure: what a run of vtysh means. Its exit status alone says little (FRR 8.4.4 and 10.3, measured).

use std::collections::BTreeMap;

/// How much of vtysh's text goes into an error, in characters.
const SHORT: usize = 300;

/// What came out of one run of vtysh.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Output {
    /// Exit status, `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// What a run means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Everything was taken.
    Done,
    /// The daemon does not run.
    Down,
    /// Another configuration session has the lock: try again (FRR 9 and later).
    Locked,
    /// Something was refused.
    Refused {
        /// vtysh's messages about single lines of the script, by number from 1. Empty if there are none.
        lines: BTreeMap<usize, String>,
        /// All of it, shortened.
        summary: String,
    },
}

/// What vtysh says in every run, before it does what it is told: it refuses lines of its own configuration file,
/// vtysh.conf, with the number that they have there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remarks {
    stdout: String,
    stderr: String,
}

impl Remarks {
    /// Those in the output of a run that was told nothing; `None` if the run failed: what it says of a failure or a
    /// lock may not be so in the next.
    pub fn of(empty: Output) -> Option<Remarks> {
        let is_lasting = matches!(judge(&empty), Verdict::Done | Verdict::Refused { .. });
        (empty.status == Some(0) && is_lasting).then_some(Remarks {
            stdout: empty.stdout,
            stderr: empty.stderr,
        })
    }

    /// Takes them out of the output of another run.
    pub fn take_from(&self, output: &mut Output) {
        if output.stdout.starts_with(&self.stdout) {
            output.stdout.drain(..self.stdout.len());
        }
        if output.stderr.starts_with(&self.stderr) {
            output.stderr.drain(..self.stderr.len());
        }
    }

    /// The lines of vtysh.conf that vtysh refuses, by number, with what it says of them.
    pub fn refused(&self) -> BTreeMap<usize, String> {
        let lines = self.stderr.lines().chain(self.stdout.lines());
        let numbered = lines.filter_map(numbered);
        numbered
            .map(|(number, text)| (number, shorten(text)))
            .collect()
    }
}

/// Judges a run. With `-f` a refused line leaves `line N: ...` on standard error and an exit status that
/// is not 0; text with `%` in front is a refusal even with status 0.
pub fn judge(output: &Output) -> Verdict {
    let said = || output.stderr.lines().chain(output.stdout.lines());
    if output.stderr.lines().any(is_down) {
        return Verdict::Down;
    }
    if said().any(is_lock) {
        return Verdict::Locked;
    }
    let mut gone = false;
    let mut lines = BTreeMap::new();
    for line in output.stderr.lines() {
        match numbered(line) {
            // What the order removes is not there; `%` text about it is on standard output.
            Some((_, text)) if is_gone(text) => gone = true,
            Some((number, text)) => {
                lines.entry(number).or_insert_with(|| shorten(text));
            }
            None => {}
        }
    }
    let complaint = said().any(|line| is_complaint(line) && !(gone && is_absence(line)));
    let failed = output.status != Some(0) && !gone;
    if lines.is_empty() && !complaint && !failed {
        return Verdict::Done;
    }
    let summary: Vec<&str> = said()
        .filter(|line| is_complaint(line) || numbered(line).is_some_and(|(_, text)| !is_gone(text)))
        .map(str::trim)
        .collect();
    let summary = match (summary.is_empty(), output.status) {
        (false, _) => shorten(&summary.join("; ")),
        (true, Some(status)) => format!("vtysh ended with status {status}"),
        (true, None) => "vtysh was ended by a signal".to_string(),
    };
    Verdict::Refused { lines, summary }
}

/// vtysh says so on standard error. Standard output may be a configuration, with the operator's words in it: a
/// description, a remark of an access-list.
fn is_down(line: &str) -> bool {
    let mut daemon = line.strip_suffix(" is not running").into_iter();
    line.starts_with("Exiting: failed to connect to any daemons")
        || daemon.any(|daemon| !daemon.is_empty() && !daemon.contains(char::is_whitespace))
}

/// No line of a configuration begins like one of these.
fn is_lock(line: &str) -> bool {
    let is_said = is_complaint(line) || line.starts_with("VTY ");
    let says = |text: &str| line.contains(text);
    is_said && (says("could not lock") || says("is locked by") || says("already locked"))
}

/// `line N: text`.
fn numbered(line: &str) -> Option<(usize, &str)> {
    let (number, text) = line.trim_start().strip_prefix("line ")?.split_once(": ")?;
    Some((number.parse().ok()?, text))
}

/// 13 is CMD_WARNING_CONFIG_FAILED; for `no bgp extcommunity-list` bgpd has no other reason for it than
/// that the list or the line is not there (`community_list_unset` in FRR's bgpd/bgp_clist.c).
fn is_gone(text: &str) -> bool {
    text.contains("[13] to bgpd, line: no bgp extcommunity-list ")
}

fn is_absence(line: &str) -> bool {
    line.contains("Can't find community-list")
}

fn is_complaint(line: &str) -> bool {
    // vtysh's own configuration file is optional; vtysh mentions its absence on every run.
    line.starts_with('%') && !line.contains("Can't open configuration file")
}

fn shorten(text: &str) -> String {
    // It goes into the log: nothing that a terminal would obey.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(SHORT).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(status: i32, stdout: &str, stderr: &str) -> Output {
        Output {
            status: Some(status),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    fn refused(output: &Output) -> (Vec<usize>, String) {
        match judge(output) {
            Verdict::Refused { lines, summary } => (lines.into_keys().collect(), summary),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn silence_is_consent() {
        assert_eq!(judge(&output(0, "", "")), Verdict::Done);
        let remark = "% Can't open configuration file /etc/frr/vtysh.conf due to 'No such file or directory'.\n";
        assert_eq!(judge(&output(0, remark, "")), Verdict::Done);
        let chatter = "The route-map 'filter-vni' does not exist.\n";
        assert_eq!(judge(&output(0, chatter, "")), Verdict::Done);
    }

    #[test]
    fn a_daemon_that_is_down_in_all_words() {
        for stderr in [
            "bgpd is not running\n",
            "Exiting: failed to connect to any daemons.\n",
        ] {
            assert_eq!(judge(&output(1, "", stderr)), Verdict::Down);
        }
    }

    /// Input: FRR 8.4.4's running configuration with an operator's words in a description, in a prefix-list's (which
    /// is not indented) and in a remark, and a refused line of vtysh.conf with such words.
    #[test]
    fn an_operators_words_are_not_those_of_vtysh() {
        let shown = "interface br1\n description bgpd is not running\n\
            ip prefix-list X description ospfd is not running\naccess-list a remark it is locked by me\n\
            banner motd line Exiting: failed to connect to any daemons.\n";
        assert_eq!(judge(&output(0, shown, "")), Verdict::Done);
        let stderr = "line 3: % Unknown command[4]: banner motd line ospfd is not running\n";
        assert_eq!(refused(&output(0, "", stderr)).0, [3]);
    }

    /// Input: what FRR 8.4.4's vtysh says with a vtysh.conf that it refuses in part, told nothing, and told a line
    /// that it refuses, too; and with a daemon that is down. Output: what is left is about what it was told.
    #[test]
    fn remarks_are_not_about_what_vtysh_was_told() {
        let conf = "line 2: % Unknown command[4]: banner motd file /etc/frr/banner\n\
                    line 7: % Command incomplete[4]: user\n\n";
        let remarks = Remarks::of(output(0, "", conf)).expect("remarks");
        assert_eq!(remarks.refused().into_keys().collect::<Vec<_>>(), [2, 7]);
        let left = |status, said: &str| {
            let mut all = output(status, "", &format!("{conf}{said}"));
            remarks.take_from(&mut all);
            judge(&all)
        };
        assert_eq!(left(0, ""), Verdict::Done);
        let Verdict::Refused { lines, .. } = left(2, "line 1: % Unknown command[4]: bla\n") else {
            panic!("it is refused");
        };
        assert_eq!(lines.into_keys().collect::<Vec<_>>(), [1]);
        let down = "Exiting: failed to connect to any daemons.\n";
        assert_eq!(left(1, down), Verdict::Down);
        assert_eq!(Remarks::of(output(1, "", down)), None);
    }

    #[test]
    fn what_goes_into_the_log_is_plain_text() {
        let (_, summary) = refused(&output(0, "% Unknown\x1b[2J\tcommand\n", ""));
        assert_eq!(summary, "% Unknown [2J command");
    }

    #[test]
    fn refused_lines_are_numbered() {
        let stderr = "line 2: % Unknown command[17]: ip ospf cost 70000\nline 9: % Command incomplete[4]: no\n\n";
        let (lines, summary) = refused(&output(2, "", stderr));
        assert_eq!(lines, [2, 9]);
        assert!(summary.contains("ip ospf cost 70000"), "{summary}");
    }

    #[test]
    fn text_with_a_percent_sign_is_refusal_even_with_status_0() {
        let (lines, summary) = refused(&output(0, "% Unknown command.\n", ""));
        assert!(lines.is_empty());
        assert_eq!(summary, "% Unknown command.");
    }

    #[test]
    fn a_removal_of_nothing_is_done() {
        let absent = "% Can't find community-list\n";
        let stderr = "line 1: Failure to communicate[13] to bgpd, line: no bgp extcommunity-list standard wmgwd seq 4 permit rt 65000:4\n\n";
        assert_eq!(judge(&output(13, absent, stderr)), Verdict::Done);
        let two = format!("{stderr}line 2: % Unknown command[4]: bla\n");
        let (lines, _) = refused(&output(2, absent, &two));
        assert_eq!(lines, [2]);
    }

    #[test]
    fn other_ends() {
        assert_eq!(
            judge(&output(
                0,
                "% Configuration failed: could not lock candidate DS\n",
                ""
            )),
            Verdict::Locked
        );
        assert_eq!(refused(&output(11, "", "")).1, "vtysh ended with status 11");
        let killed = Output::default();
        assert_eq!(refused(&killed).1, "vtysh was ended by a signal");
    }
}
