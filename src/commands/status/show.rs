//! Pure: a report as lines for people.

use super::{Guard, Health, Node, Report, VniReport, VniState};
use crate::guard::view::{Acknowledgement, View};
use crate::model::types::{Vni, VniRange};
use crate::schema::KernelHold;
use crate::telemetry::log_text::{self, spans};
use std::collections::BTreeMap;
use std::time::Duration;

/// More nodes, warnings or single VNIs than this are counted, not shown.
const SHOWN: usize = 64;

/// One line of text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its text: printable, without control characters.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
    /// Whether it is a sentence, which goes on in the next line of a screen too narrow for it; a row of a table
    /// is cut.
    pub prose: bool,
}

/// How a line is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// As it is.
    Plain,
    /// The head of a table.
    Head,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Something is not served.
    Bad,
}

fn line(tone: Tone, text: impl Into<String>) -> Line {
    // Names come from etcd, and may hold what a terminal obeys or hides.
    let text: String = text.into();
    let text = match text.contains(is_unsafe) {
        true => text.replace(is_unsafe, "?"),
        false => text,
    };
    Line {
        text,
        tone,
        prose: false,
    }
}

fn prose(tone: Tone, text: impl Into<String>) -> Line {
    Line {
        prose: true,
        ..line(tone, text)
    }
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Why there is no report.
pub fn complaint(reason: &str) -> Line {
    prose(Tone::Bad, format!("wmgwd: {reason}"))
}

/// The whole report.
pub fn lines(report: &Report) -> Vec<Line> {
    let mut lines = vec![summary(report)];
    if !report.nodes.is_empty() {
        lines.push(line(Tone::Plain, ""));
        lines.extend(nodes(report));
    }
    if !report.guards.is_empty() {
        lines.push(line(Tone::Plain, ""));
        lines.extend(guards(&report.guards));
    }
    if !report.vnis.is_empty() {
        lines.push(line(Tone::Plain, ""));
        lines.extend(states(&report.vnis));
    }
    if !report.warnings.is_empty() {
        lines.push(line(Tone::Plain, ""));
        let shown = report.warnings.iter().take(SHOWN);
        lines.extend(shown.map(|text| prose(Tone::Warn, format!("warning: {text}"))));
        lines.extend(more(report.warnings.len(), "warnings"));
    }
    lines
}

fn summary(report: &Report) -> Line {
    let unserved: Vec<Vni> = report
        .vnis
        .iter()
        .filter(|vni| !vni.state.is_served())
        .map(|vni| vni.vni)
        .collect();
    let (tone, served) = match report.all_served() {
        None => (
            Tone::Bad,
            "it is unknown which VNIs should be served".to_owned(),
        ),
        Some(true) => (Tone::Good, "all served".to_owned()),
        Some(false) => (
            Tone::Bad,
            format!("{} NOT SERVED ({})", unserved.len(), spans(&unserved)),
        ),
    };
    let nodes = counted(report.nodes.len(), "node");
    let vnis = counted(report.vnis.len(), "VNI");
    let revision = report.revision;
    let text = format!("{nodes}, {vnis}: {served}   (revision {revision})");
    line(tone, text)
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn nodes(report: &Report) -> Vec<Line> {
    let of_all = |count: usize| match report.vnis.len() {
        0 => "0%".to_owned(),
        all => format!("{}%", (100 * count + all / 2) / all),
    };
    let row = |node: &Node| {
        let cells = [
            node.name.to_string(),
            node.health.word().to_owned(),
            node.version.clone().unwrap_or_else(|| "Go".to_owned()),
            node.range.map_or("-".to_owned(), range),
            node.points.to_string(),
            of_all(node.share),
            node.lease.map_or("-".to_owned(), seconds),
            node.kernel.as_ref().map_or("-", kernel_hold).to_owned(),
            node.owns.to_string(),
            node.gains.to_string(),
            node.loses.to_string(),
            witnesses(node),
        ];
        let tone = match node.health {
            Health::Unfit | Health::NoLease => Tone::Bad,
            Health::Draining | Health::NoPoints | Health::NoUplink => Tone::Warn,
            _ if matches!(node.kernel, Some(KernelHold::Missing(_))) => Tone::Warn,
            Health::Ok | Health::Drained => Tone::Plain,
        };
        (tone, cells)
    };
    let head = [
        "NODE",
        "STATE",
        "VERSION",
        "VNIS",
        "POINTS",
        "SHARE",
        "LEASE",
        "KERNEL",
        "OWNS",
        "GAINS",
        "LOSES",
        "WITNESSES",
    ];
    // Numbers are aligned to the right, so that their digits are below each other.
    let right = [
        false, false, false, false, true, true, true, false, true, true, true, false,
    ];
    let rows: Vec<_> = report.nodes.iter().take(SHOWN).map(row).collect();
    let mut lines = table(head, right, &rows);
    lines.extend(more(report.nodes.len(), "nodes"));
    lines.extend(ipv6(&report.nodes).map(|text| line(Tone::Plain, text)));
    if !report.witnesses.is_empty() {
        let names: Vec<&str> = report.witnesses.iter().map(|it| it.as_str()).collect();
        let names = log_text::names(&names);
        lines.push(line(
            Tone::Plain,
            format!("serving nothing, as a witness: {names}"),
        ));
    }
    lines
}

/// How many bridges of each node have IPv6 gateway addresses, if any has.
fn ipv6(nodes: &[Node]) -> Option<String> {
    let mut of_count: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        if let Some(hold) = &node.ipv6 {
            of_count
                .entry(hold.bridges)
                .or_default()
                .push(node.name.as_str());
        }
    }
    of_count.keys().max().filter(|most| **most > 0)?;
    let counts = of_count.iter().rev();
    let texts: Vec<String> = counts
        .map(|(count, names)| format!("{count} on {}", log_text::names(names)))
        .collect();
    Some(format!(
        "bridges with IPv6 gateway addresses: {}",
        texts.join(", ")
    ))
}

/// Who proves a node beside its lease, and for how long each of its beats does.
fn witnesses(node: &Node) -> String {
    match &node.proof {
        None => "-".to_owned(),
        Some((names, _)) if names.is_empty() => "none".to_owned(),
        Some((names, window)) => {
            let names: Vec<&str> = names.iter().map(|it| it.as_str()).collect();
            format!("{} ({}s)", names.join(","), window.as_secs_f64())
        }
    }
}

/// What the guards on this host say, one sentence each.
pub fn guards(guards: &[Guard]) -> Vec<Line> {
    let mut lines: Vec<Line> = guards.iter().take(SHOWN).map(guard).collect();
    lines.extend(more(guards.len(), "guards"));
    lines
}

fn guard(guard: &Guard) -> Line {
    let user = guard.user.map(|user| format!(", user {user}"));
    let (tone, version, text) = match &guard.view {
        Ok(view) => (tone_of(view), &*view.version, proof(view)),
        Err(why) => (Tone::Plain, "not known", why.clone()),
    };
    let (name, user) = (&guard.node, user.unwrap_or_default());
    prose(
        tone,
        format!("guard of {name} on this host ({version}{user}): {text}"),
    )
}

fn tone_of(view: &View) -> Tone {
    match view {
        _ if view.lease.is_some() && !view.has_proof() => Tone::Bad,
        _ if view.lease.is_none() || !view.has_daemon => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// Whether a guard holds the proof, for how long, and by whom.
fn proof(view: &View) -> String {
    let Some(lease) = view.lease else {
        return "it knows no lease yet".to_owned();
    };
    let left = milliseconds(view.left());
    let mut text = match (view.has_proof(), view.age()) {
        (true, Some(age)) => format!("proof held, {} old, {left} left", milliseconds(age)),
        (true, None) => format!("proof held by the lease alone, {left} left"),
        (false, Some(age)) => format!("NO PROOF, the last is {} old", milliseconds(age)),
        (false, None) => "NO PROOF".to_owned(),
    };
    let (named, asked): (Vec<_>, Vec<_>) = view.acknowledgements().partition(|it| it.is_in_place);
    for (witnesses, what) in [
        (named, "acknowledged by"),
        (asked, "in an epoch that etcd has not answered, by"),
    ] {
        if !witnesses.is_empty() {
            let witnesses: Vec<String> = witnesses.iter().map(acknowledgement).collect();
            text.push_str(&format!("; {what} {}", witnesses.join(", ")));
        }
    }
    let lease = lease.valid_until.since(view.now);
    text.push_str(&format!("; lease {}", milliseconds(lease)));
    let not = if view.has_proof() { "" } else { "not " };
    let vnis = counted(view.answering, "VNI");
    text.push_str(&format!("; ARP is {not}answered for {vnis}"));
    if !view.has_daemon {
        text.push_str("; its daemon is gone");
    }
    text
}

fn acknowledgement(it: &Acknowledgement) -> String {
    match it.ago {
        Some(ago) => format!("{} ({} ago)", it.name, milliseconds(ago)),
        None => format!("{} (never)", it.name),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn kernel_hold(hold: &KernelHold) -> &'static str {
    match hold {
        KernelHold::Held => "held",
        KernelHold::Missing(_) => "NO",
    }
}

fn range(range: VniRange) -> String {
    format!("{}-{}", range.first(), range.last())
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

/// One line a state: how many VNIs are in it, the longest time, and which they are.
fn states(vnis: &[VniReport]) -> Vec<Line> {
    let mut rows = Vec::new();
    for state in VniState::ALL {
        let in_state: Vec<&VniReport> = vnis.iter().filter(|vni| vni.state == state).collect();
        if in_state.is_empty() {
            continue;
        }
        let oldest = in_state.iter().filter_map(|vni| vni.since).max();
        // That a VNI has been served for long is no news.
        let oldest = oldest.filter(|_| state < VniState::Away);
        let which: Vec<Vni> = in_state.iter().map(|vni| vni.vni).collect();
        let cells = [
            state.word().to_owned(),
            in_state.len().to_string(),
            oldest.map_or("-".to_owned(), |since| since.text()),
            spans(&which),
        ];
        rows.push((tone(state), cells));
    }
    let head = ["STATE", "VNIS", "LONGEST", "WHICH"];
    table(head, [false, true, true, false], &rows)
}

fn tone(state: VniState) -> Tone {
    match state {
        VniState::Orphaned | VniState::FailingOver | VniState::FailoverStuck => Tone::Bad,
        VniState::Moving | VniState::MoveStuck => Tone::Warn,
        VniState::Away | VniState::Served => Tone::Plain,
    }
}

/// Single VNIs, one line each.
pub fn rows(vnis: &[VniReport]) -> Vec<Line> {
    let row = |vni: &VniReport| {
        let name = |name: &Option<_>| {
            name.as_ref()
                .map_or("-".to_owned(), |name: &crate::model::types::NodeName| {
                    name.to_string()
                })
        };
        let cells = [
            vni.vni.to_string(),
            vni.state.word().to_owned(),
            name(&vni.owner),
            name(&vni.successor),
            name(&vni.ring_owner),
            vni.since.map_or("-".to_owned(), |since| since.text()),
            vni.row.to_owned(),
        ];
        (tone(vni.state), cells)
    };
    let head = ["VNI", "STATE", "OWNER", "SUCCESSOR", "RING", "SINCE", "ROW"];
    let rows: Vec<_> = vnis.iter().map(row).collect();
    table(head, [true, false, false, false, false, true, false], &rows)
}

fn more(count: usize, what: &str) -> Option<Line> {
    let left_out = count.checked_sub(SHOWN).filter(|left| *left > 0)?;
    Some(line(Tone::Plain, format!("and {left_out} more {what}")))
}

/// Aligned columns, two spaces between them, none at the end of a line.
fn table<const N: usize>(
    head: [&str; N],
    right: [bool; N],
    rows: &[(Tone, [String; N])],
) -> Vec<Line> {
    let mut widths = head.map(str::len);
    for (_, cells) in rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let draw = |tone, cells: [&str; N]| {
        let mut text = String::new();
        for ((cell, width), right) in cells.into_iter().zip(widths).zip(right) {
            if !text.is_empty() {
                text.push_str("  ");
            }
            text.push_str(&match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            });
        }
        line(tone, text.trim_end())
    };
    let mut lines = vec![draw(Tone::Head, head)];
    for (tone, cells) in rows {
        lines.push(draw(*tone, cells.each_ref().map(String::as_str)));
    }
    lines
}

/// The size of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Screen {
    /// How many lines it has.
    pub rows: usize,
    /// How many characters a line has.
    pub columns: usize,
}

/// As much of `lines` as fits on a screen; the last line says how much does not.
pub fn clip(lines: Vec<Line>, screen: Screen) -> Vec<Line> {
    let (rows, columns) = (screen.rows.max(2), screen.columns.max(1));
    let mut lines: Vec<Line> = lines.into_iter().flat_map(|it| wrap(it, columns)).collect();
    if lines.len() > rows {
        let left_out = lines.len() - (rows - 1);
        lines.truncate(rows - 1);
        lines.push(line(Tone::Plain, format!("... {left_out} more lines")));
    }
    for line in &mut lines {
        if let Some((end, _)) = line.text.char_indices().nth(columns) {
            line.text.truncate(end);
        }
    }
    lines
}

/// A sentence as lines that fit; every other line as it is.
fn wrap(line: Line, columns: usize) -> Vec<Line> {
    let letters: Vec<char> = line.text.chars().collect();
    if !line.prose || letters.len() <= columns {
        return vec![line];
    }
    let part = |part: &[char]| Line {
        text: part.iter().collect(),
        ..line
    };
    letters.chunks(columns).map(part).collect()
}

/// The lines as text; in colour (control sequences of ECMA-48) with `colour`.
pub fn paint(lines: &[Line], colour: bool) -> String {
    let mut text = String::new();
    for line in lines {
        let on = match line.tone {
            _ if !colour => "",
            Tone::Plain => "",
            Tone::Head => "\x1b[1m",
            Tone::Good => "\x1b[32m",
            Tone::Warn => "\x1b[33m",
            Tone::Bad => "\x1b[31m",
        };
        text.push_str(on);
        text.push_str(&line.text);
        text.push_str(if on.is_empty() { "" } else { "\x1b[0m" });
        text.push('\n');
    }
    text
}
