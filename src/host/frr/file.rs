//! Pure: a configuration file as vtysh reads it, put into the form of `show running-config`.
//!
//! vtysh takes white space as it comes and words that are cut short (`command_match` in FRR's lib/command_match.c),
//! and looks for a command in the node it is in, then in those above (`vtysh_config_from_file` in vtysh/vtysh.c).

/// What a file says, as far as wmgwd reads it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Canonical {
    /// In the form of `show running-config`.
    pub text: String,
    /// Numbers of lines that may mean something here and are not understood, from 1.
    pub unsure: Vec<usize>,
}

/// The words of lines that matter in a configuration, each with the fewest letters that no other command of FRR 8.4
/// begins with; a `*` matches any word.
const LINES: &[&[(&str, usize)]] = &[
    &[("ip", 2), ("ospf", 1), ("cost", 2), ("*", 0)],
    &[("ospf", 2), ("cost", 2), ("*", 0)],
    &[("match", 2), ("evpn", 1), ("route-type", 7), ("*", 0)],
    &[("match", 2), ("evpn", 1), ("vni", 1), ("*", 0)],
    &[("match", 2), ("extcommunity", 1), ("*", 0)],
    &[("on-match", 2), ("goto", 1), ("*", 0)],
];

/// Commands that begin a part of their own, wherever they are.
const PARTS: &[&[(&str, usize)]] = &[
    &[("interface", 3), ("*", 0)],
    &[("route-map", 7), ("*", 0), ("permit", 1), ("*", 0)],
    &[("route-map", 7), ("*", 0), ("deny", 1), ("*", 0)],
    &[("router", 6), ("*", 0)],
    &[("vrf", 3), ("*", 0)],
];

/// Commands of the top level that are one line.
const SINGLE: &[&[(&str, usize)]] = &[&[
    ("bgp", 2),
    ("extcommunity-list", 3),
    ("standard", 1),
    ("*", 0),
    ("seq", 2),
    ("*", 0),
    ("permit", 1),
]];

/// What lines of an interface or of a route-map begin with.
const OF_PARTS: &[&str] = &[
    "ip",
    "no",
    "description",
    "match",
    "set",
    "call",
    "continue",
    "on-match",
];

/// Where the lines of a file belong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    /// To no part.
    Top,
    /// To the part that was begun last.
    Part,
    /// To that part, unless a line in between was a command of the top level.
    Perhaps,
}

/// Reads a file.
pub fn canonical(file: &str) -> Canonical {
    let mut read = Canonical::default();
    let mut node = Node::Top;
    for (number, line) in file.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(first) = words.first().filter(|it| !it.starts_with(['!', '#'])) else {
            continue;
        };
        let is_of = |form: &&&[(&str, usize)]| fits(&words, form);
        if let Some(form) = PARTS.iter().find(is_of) {
            node = Node::Part;
            push(&mut read.text, "", &words, form);
        } else if let Some(form) = SINGLE.iter().find(is_of) {
            node = Node::Top;
            push(&mut read.text, "", &words, form);
        } else if is_short_for(first, "exit", 2) || is_short_for(first, "end", 2) {
            node = Node::Top;
        } else if let Some(form) = LINES.iter().find(is_of) {
            // `ospf cost` is an older name of `ip ospf cost`.
            if words[0].starts_with('o') && !words[0].starts_with("on") {
                read.text.push_str(" ip");
            }
            push(&mut read.text, " ", &words, form);
            if node != Node::Part {
                read.unsure.push(number + 1);
            }
        } else {
            if [PARTS, LINES, SINGLE]
                .concat()
                .iter()
                .any(|form| may_fit(&words, form))
            {
                read.unsure.push(number + 1);
            }
            let is_indented = line.starts_with(char::is_whitespace);
            let is_of_part = node != Node::Top && (is_indented || OF_PARTS.contains(first));
            // Without indentation `ip forwarding` and `ip address` look alike.
            if node == Node::Part && !is_indented && (!is_of_part || *first == "ip") {
                node = Node::Perhaps;
            }
            if is_of_part {
                read.text.push(' ');
            }
            read.text.push_str(&words.join(" "));
            read.text.push('\n');
        }
    }
    read
}

fn push(text: &mut String, indent: &str, words: &[&str], form: &[(&str, usize)]) {
    let whole = words
        .iter()
        .enumerate()
        .map(|(at, word)| match form.get(at) {
            Some(("*", _)) | None => *word,
            Some((whole, _)) => whole,
        });
    text.push_str(indent);
    text.push_str(&whole.collect::<Vec<_>>().join(" "));
    text.push('\n');
}

/// Whether these words are a command of this form.
fn fits(words: &[&str], form: &[(&str, usize)]) -> bool {
    words.len() >= form.len()
        && form
            .iter()
            .zip(words)
            .all(|((whole, least), word)| is_short_for(word, whole, *least))
}

/// Whether they may be meant for it, with words that are shorter than those which are certain.
fn may_fit(words: &[&str], form: &[(&str, usize)]) -> bool {
    words.len() >= form.len()
        && form
            .iter()
            .zip(words)
            .all(|((whole, _), word)| is_short_for(word, whole, 1))
}

fn is_short_for(word: &str, whole: &str, least: usize) -> bool {
    whole == "*" || word.len() >= least && whole.starts_with(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = "interface br5\n ip ospf cost 65535\nroute-map filter-vni permit 1\n match evpn route-type 2\n \
                        on-match goto 4\nbgp extcommunity-list standard wmgwd seq 5 permit rt 65000:5\n";

    fn reads(file: &str) -> (String, Vec<usize>) {
        let read = canonical(file);
        (read.text, read.unsure)
    }

    /// Input: the same configuration in the ways that vtysh takes it. Output: the same text, with nothing unsure.
    #[test]
    fn what_vtysh_takes_is_read_as_it_reads_it() {
        let bare: String = WELL
            .lines()
            .map(|line| format!("{}\n", line.trim()))
            .collect();
        let short = "int br5\n ip o co 65535\n!\nroute-m filter-vni p 1\n  ma e route-t 2\n  on-m g 4\n\
                     bg extc s wmgwd se 5 p rt 65000:5\n";
        for file in [
            WELL,
            &bare,
            &WELL.replace('\n', "\r\n"),
            &WELL.replace("\n ", "\n\t"),
            &WELL.replace(' ', "  "),
            &WELL.replace("\ninter", "\n! interface br7\n# x\ninter"),
            &WELL.replace("ip ospf cost", "ospf cost"),
            short,
        ] {
            assert_eq!(reads(file), (WELL.to_owned(), vec![]), "{file}");
        }
    }

    /// Input: words that are too short to be certain, a cost outside of any interface, and one after a command of
    /// the top level. Output: the lines are named.
    #[test]
    fn what_is_unsure_is_named() {
        assert_eq!(reads("i br5\n ip ospf cost 5\n").1, [1, 2]);
        assert_eq!(reads("interface br5\n ip ospf c 5\n").1, [2]);
        assert_eq!(reads("interface br5\nexit\nip ospf cost 5\n").1, [3]);
        assert_eq!(
            reads("interface br5\nip forwarding\nip ospf cost 5\n").1,
            [3]
        );
        // What follows a part belongs to it only if it can.
        let deny = "route-map filter-vni deny 65535\n";
        assert_eq!(
            reads(&format!("{deny}!\nline vty\n")).0,
            format!("{deny}line vty\n")
        );
        assert_eq!(
            reads(&format!("{deny}match x\nexit\nset x\n")).0,
            format!("{deny} match x\nset x\n")
        );
        // Indentation says what the operator means; vtysh would find the same.
        assert!(
            reads("interface br5\n description x\n ip ospf cost 5\n")
                .1
                .is_empty()
        );
        assert!(
            reads("hostname gw1\nlog syslog\nip route 10.0.0.0/8 Null0\n")
                .1
                .is_empty()
        );
    }
}
