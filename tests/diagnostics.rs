//! The section DIAGNOSTICS of `man/wmgwd.8` has every warning and error that the program logs, and no other.
//!
//! The texts are read from the source, wherever they stand in it. A format string that carries a text made elsewhere
//! (`warn!("{warning}")`) is named in [`CARRIERS`], with the function that makes the text.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the texts of a carrier come from. Functions and types are found by name: a move changes nothing.
enum From {
    /// The literals of at least `words` words in a function, or in an `impl` whose head begins so.
    All { within: &'static str, words: usize },
    /// The literals in argument `index` of the calls of `callee` in a function (`None`: anywhere).
    Argument {
        within: Option<&'static str>,
        callee: &'static str,
        index: usize,
    },
    /// The literals that a variable gets in a function.
    Let {
        within: &'static str,
        name: &'static str,
    },
}

const fn all(within: &'static str) -> From {
    From::All { within, words: 4 }
}

/// A format string, the message as the man page has it (`@` is the text), and where the text comes from.
const CARRIERS: &[(&str, &str, From)] = &[
    ("{warning}", "@", all("fn warnings of impl Access")),
    ("{warning}", "@", all("fn open_to_others")),
    ("{text}", "@", all("fn of_no_option")),
    ("{foreign}", "@", all("impl fmt::Display for Foreign")),
    (
        "FRR: {warning}",
        "FRR: filter-vni: @; remedy: {remedy}",
        From::Argument {
            within: Some("fn faults"),
            callee: "fault",
            index: 0,
        },
    ),
    (
        "FRR: {warning}",
        "FRR: filter-vni: @; remedy: {remedy}",
        From::Let {
            within: "fn faults",
            name: "text",
        },
    ),
    (
        "{}: {}; remedy: {remedy}",
        "arp_ignore: net.ipv4.conf.all.arp_ignore={value} @; remedy: {remedy}",
        all("fn arp_ignore_of_all"),
    ),
    (
        "{}: {}; remedy: {remedy}",
        "neigh_suppress: @: VNIs {vnis}; remedy: {remedy}",
        From::Argument {
            within: Some("fn suppression"),
            callee: "fail",
            index: 1,
        },
    ),
    (
        "{} vnis={}: {reason}",
        "@ vnis={}: {reason}",
        From::Argument {
            within: None,
            callee: "Complaints::new",
            index: 0,
        },
    ),
    (
        "cannot {what}: {reason}",
        "cannot @: {reason}",
        From::Argument {
            within: None,
            callee: "complain_of_etcd",
            index: 0,
        },
    ),
    (
        "cannot {what}: {reason}",
        "cannot @: {reason}",
        From::Let {
            within: "fn run of impl Renewer",
            name: "what",
        },
    ),
    ("{}", "@", reason("impl fmt::Display for NameTaken")),
    ("{}", "@", reason("impl fmt::Display for Unfinished")),
    ("{}", "@", reason("impl fmt::Display for AccessError")),
    ("{}", "@", reason("fn advice")),
    ("{}", "@", reason("fn of_its_certificate")),
    ("{}", "@", reason("fn of_an_alert")),
    // Of etcd, of the host, of the guard and of the metrics: each of them ends the program, or is the reason in
    // another message.
    ("{}", "@", reason("impl fmt::Display for Error")),
];

const fn reason(within: &'static str) -> From {
    From::All { within, words: 3 }
}

/// Not logged: what the command line is refused with.
const APART: &[&str] = &["cli"];

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    /// An identifier or a number.
    Word(String),
    /// A string literal, as the program has it.
    Text(String),
    /// Any other character.
    Sign(char),
}

/// A token, and its line.
type Tokens = Vec<(Token, usize)>;

/// The tokens of a Rust file, without comments.
fn tokens(source: &str) -> Tokens {
    let chars: Vec<char> = source.chars().collect();
    let (mut at, mut line) = (0, 1);
    let mut tokens = Tokens::new();
    let starts = |at: usize, text: &str| {
        text.chars()
            .enumerate()
            .all(|(i, c)| chars.get(at + i) == Some(&c))
    };
    while let Some(&c) = chars.get(at) {
        let begin = (at, line);
        if starts(at, "//") {
            while chars.get(at).is_some_and(|it| *it != '\n') {
                at += 1;
            }
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                if starts(at, "/*") {
                    (depth, at) = (depth + 1, at + 2);
                } else if starts(at, "*/") {
                    (depth, at) = (depth - 1, at + 2);
                } else {
                    at += 1;
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if let Some((text, end)) = literal(&chars, at) {
            at = end;
            tokens.push((Token::Text(text), line));
        } else if c == '\'' {
            // A character, or else a lifetime.
            at += match (chars.get(at + 1), chars.get(at + 2)) {
                (Some('\\'), _) => {
                    let close = chars[at + 3..].iter().position(|it| *it == '\'');
                    4 + close.unwrap_or(0)
                }
                (Some(_), Some('\'')) => 3,
                _ => 1,
            };
        } else if c.is_alphanumeric() || c == '_' {
            while chars
                .get(at)
                .is_some_and(|it| it.is_alphanumeric() || *it == '_')
            {
                at += 1;
            }
            tokens.push((Token::Word(chars[begin.0..at].iter().collect()), line));
        } else {
            if !c.is_whitespace() {
                tokens.push((Token::Sign(c), line));
            }
            at += 1;
        }
        let passed = &chars[begin.0..at.min(chars.len())];
        line += passed.iter().filter(|it| **it == '\n').count();
    }
    tokens
}

/// The string literal that begins at `at`, and where it ends.
fn literal(chars: &[char], mut at: usize) -> Option<(String, usize)> {
    if matches!(chars.get(at), Some('b' | 'c')) && matches!(chars.get(at + 1), Some('"' | 'r')) {
        at += 1;
    }
    if chars.get(at) == Some(&'r') {
        let hashes = chars[at + 1..].iter().take_while(|it| **it == '#').count();
        let begin = at + 1 + hashes;
        if chars.get(begin) != Some(&'"') {
            return None;
        }
        let close: String = std::iter::once('"')
            .chain((0..hashes).map(|_| '#'))
            .collect();
        let rest: String = chars[begin + 1..].iter().collect();
        let text = rest.split(&close).next()?.to_owned();
        let end = begin + 1 + text.chars().count() + close.len();
        return Some((text, end));
    }
    if chars.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    let mut text = String::new();
    loop {
        match chars.get(at)? {
            '"' => return Some((text, at + 1)),
            '\\' => {
                at += 1;
                match chars.get(at)? {
                    '\n' => {
                        while chars.get(at + 1).is_some_and(|it| it.is_whitespace()) {
                            at += 1;
                        }
                    }
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other => text.push(*other),
                }
            }
            other => text.push(*other),
        }
        at += 1;
    }
}

fn is_sign(token: Option<&(Token, usize)>, sign: char) -> bool {
    token.is_some_and(|(token, _)| *token == Token::Sign(sign))
}

fn is_word(token: Option<&(Token, usize)>, word: &str) -> bool {
    matches!(token, Some((Token::Word(it), _)) if it == word)
}

/// The index behind the bracket that closes the one at `open`.
fn closing(tokens: &[(Token, usize)], open: usize) -> usize {
    let mut depth = 0_i32;
    for (index, (token, _)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// Without the items that are for tests.
fn without_tests(tokens: Tokens) -> Tokens {
    let mut kept = Tokens::new();
    let mut at = 0;
    while at < tokens.len() {
        let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
        let is_test = attribute
            .iter()
            .enumerate()
            .all(|(i, part)| match tokens.get(at + i) {
                Some((Token::Word(word), _)) => word == part,
                Some((Token::Sign(sign), _)) => sign.to_string() == *part,
                _ => false,
            });
        if !is_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += attribute.len();
        while at < tokens.len() {
            if is_sign(tokens.get(at), ';') {
                at += 1;
                break;
            }
            if is_sign(tokens.get(at), '{') {
                at = closing(&tokens, at);
                break;
            }
            at = match is_sign(tokens.get(at), '[') || is_sign(tokens.get(at), '(') {
                true => closing(&tokens, at),
                false => at + 1,
            };
        }
    }
    kept
}

/// A file of the program, without what is for tests.
struct File {
    path: PathBuf,
    tokens: Tokens,
}

fn files(directory: &Path, into: &mut Vec<File>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if ["sim", "fuzzing"].contains(&name.as_str()) || name.ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let tokens = without_tests(tokens(&source));
            into.push(File { path, tokens });
        }
    }
}

/// A message as it is written: literal text with `{}` where something is filled in. And where it stands.
#[derive(Clone, Debug)]
struct Message {
    text: String,
    at: String,
}

/// The format strings of `warn!`, `error!` and `log!`.
fn logged(files: &[File]) -> Vec<Message> {
    let mut found = Vec::new();
    for file in files {
        for (index, (token, line)) in file.tokens.iter().enumerate() {
            let Token::Word(name) = token else { continue };
            let is_macro = ["warn", "error", "log"].contains(&name.as_str())
                && is_sign(file.tokens.get(index + 1), '!')
                && is_sign(file.tokens.get(index + 2), '(');
            if !is_macro {
                continue;
            }
            let end = closing(&file.tokens, index + 2);
            let at = format!("{}:{line}", file.path.display());
            let format = file.tokens[index + 3..end]
                .iter()
                .find_map(|(token, _)| match token {
                    Token::Text(text) => Some(text.clone()),
                    _ => None,
                });
            let text =
                format.unwrap_or_else(|| panic!("{at}: write the format string as a literal"));
            found.push(Message { text, at });
        }
    }
    found
}

/// The tokens of what `name` names, in every file: `fn f`, `fn f of impl T`, or the head of an `impl`.
fn bodies<'a>(files: &'a [File], name: &str) -> Vec<(&'a File, &'a [(Token, usize)])> {
    let (name, outer) = match name.split_once(" of ") {
        Some((inner, outer)) => (inner, Some(outer)),
        None => (name, None),
    };
    let inside = |slices: Vec<(&'a File, &'a [(Token, usize)])>| {
        let wanted: Vec<Token> = tokens(name).into_iter().map(|(token, _)| token).collect();
        let mut found = Vec::new();
        for (file, slice) in slices {
            for index in 0..slice.len() {
                let head = slice[index..]
                    .iter()
                    .take(wanted.len())
                    .map(|(token, _)| token);
                if !head.eq(wanted.iter()) {
                    continue;
                }
                let from = index + wanted.len();
                // `fault` is not `faults`, nor `Error` the beginning of a longer path.
                let Some(open) = slice[from..]
                    .iter()
                    .position(|(token, _)| *token == Token::Sign('{'))
                else {
                    continue;
                };
                found.push((file, &slice[from + open..closing(slice, from + open)]));
            }
        }
        found
    };
    let whole = files
        .iter()
        .filter(|file| {
            !file
                .path
                .components()
                .any(|it| APART.iter().any(|apart| it.as_os_str() == *apart))
        })
        .map(|file| (file, &file.tokens[..]))
        .collect();
    match outer {
        None => inside(whole),
        Some(outer) => inside(bodies(files, outer)),
    }
}

/// The literals in `slice` outside of `warn!` and its like, with their lines.
fn literals(slice: &[(Token, usize)]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut index = 0;
    while index < slice.len() {
        let is_log = ["warn", "error", "log", "info", "debug"]
            .iter()
            .any(|name| is_word(slice.get(index), name))
            && is_sign(slice.get(index + 1), '!');
        if is_log {
            index = closing(slice, index + 2);
            continue;
        }
        // What a text is searched for is not one.
        let is_sought = index >= 2 && is_word(slice.get(index - 2), "contains");
        if let (Token::Text(text), line) = &slice[index]
            && !is_sought
        {
            found.push((text.clone(), *line));
        }
        index += 1;
    }
    found
}

/// The texts that `from` makes. Panics if nothing of that name is there any more.
fn made(files: &[File], from: &From) -> Vec<Message> {
    let mut found = Vec::new();
    let mut keep = |file: &File, texts: Vec<(String, usize)>, words: usize| {
        for (text, line) in texts {
            let is_text = text.chars().any(char::is_alphabetic);
            if is_text && text.split_whitespace().count() >= words {
                let at = format!("{}:{line}", file.path.display());
                found.push(Message { text, at });
            }
        }
    };
    let named = match from {
        From::All { within, words } => {
            for (file, slice) in bodies(files, within) {
                keep(file, literals(slice), *words);
            }
            (*within).to_owned()
        }
        From::Argument {
            within,
            callee,
            index,
        } => {
            let slices = match within {
                Some(within) => bodies(files, within),
                None => files.iter().map(|file| (file, &file.tokens[..])).collect(),
            };
            let callee_tokens: Vec<Token> = tokens(callee).into_iter().map(|(it, _)| it).collect();
            for (file, slice) in slices {
                for start in 0..slice.len() {
                    let head = slice[start..].iter().take(callee_tokens.len());
                    let open = start + callee_tokens.len();
                    let is_call = head.map(|(it, _)| it).eq(callee_tokens.iter())
                        && is_sign(slice.get(open), '(');
                    if is_call {
                        let arguments = &slice[open + 1..closing(slice, open) - 1];
                        if let Some(argument) = arguments_of(arguments).get(*index) {
                            keep(file, literals(argument), 1);
                        }
                    }
                }
            }
            format!("a call of {callee} with a literal")
        }
        From::Let { within, name } => {
            for (file, slice) in bodies(files, within) {
                for start in 0..slice.len() {
                    if is_word(slice.get(start), "let")
                        && is_word(slice.get(start + 1), name)
                        && is_sign(slice.get(start + 2), '=')
                    {
                        let end = statement_end(slice, start);
                        keep(file, literals(&slice[start..end]), 1);
                    }
                }
            }
            format!("let {name} in {within}")
        }
    };
    assert!(
        !found.is_empty(),
        "tests/diagnostics.rs, CARRIERS: no text is found in {named}; was it renamed?"
    );
    found
}

fn arguments_of(tokens: &[(Token, usize)]) -> Vec<&[(Token, usize)]> {
    let mut arguments = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while at < tokens.len() {
        match &tokens[at].0 {
            Token::Sign('(' | '[' | '{') => at = closing(tokens, at),
            Token::Sign(',') => {
                arguments.push(&tokens[begin..at]);
                at += 1;
                begin = at;
            }
            _ => at += 1,
        }
    }
    arguments.push(&tokens[begin..]);
    arguments
}

fn statement_end(tokens: &[(Token, usize)], mut at: usize) -> usize {
    while at < tokens.len() && !is_sign(tokens.get(at), ';') {
        at = match tokens[at].0 {
            Token::Sign('(' | '[' | '{') => closing(tokens, at),
            _ => at + 1,
        };
    }
    at
}

/// The literal parts of a format string, between its placeholders.
fn parts(format: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.peek() == Some(&'{') => {
                chars.next();
                parts.last_mut().unwrap().push('{');
            }
            '}' if chars.peek() == Some(&'}') => {
                chars.next();
                parts.last_mut().unwrap().push('}');
            }
            '{' => {
                chars.by_ref().find(|it| *it == '}');
                parts.push(String::new());
            }
            c => parts.last_mut().unwrap().push(c),
        }
    }
    parts
}

/// Whether `head` is the message: its literal parts, with a word in capital letters for each placeholder.
fn fits(parts: &[String], head: &str) -> bool {
    let Some(rest) = parts
        .first()
        .and_then(|first| head.strip_prefix(first.as_str()))
    else {
        return false;
    };
    if parts.len() == 1 {
        return rest.is_empty();
    }
    let word = rest
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-'))
        .unwrap_or(rest.len());
    // What stands at the end may be empty.
    let least = usize::from(parts.len() > 2 || !parts[1].is_empty());
    (least..=word).any(|end| fits(&parts[1..], &rest[end..]))
}

/// A message in one line, as a head in the man page is compared with it.
fn normal(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.trim_start_matches("; ").to_owned()
}

/// The head that the man page could have for a format string.
fn proposed(format: &str) -> String {
    let mut head = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        let name = name.split(':').next().unwrap().to_ascii_uppercase();
        head += before;
        head += match name.as_str() {
            "" => "X",
            name => name,
        };
        rest = after;
    }
    (head + rest)
        .replace('\\', "\\e")
        .replace('`', "\\(ga")
        .replace('-', "\\-")
}

/// The section of the man page: the heads of its entries, and what is said of each.
fn entries() -> Vec<(String, String)> {
    let man = fs::read_to_string("man/wmgwd.8").unwrap();
    let section = man
        .split_once("\n.Sh DIAGNOSTICS\n")
        .expect("man/wmgwd.8 has no section DIAGNOSTICS")
        .1;
    let section = section.split("\n.Sh ").next().unwrap();
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in section.lines() {
        if let Some(head) = line.strip_prefix(".It ") {
            let head = head
                .replace("\\-", "-")
                .replace("\\(ga", "`")
                .replace("\\(aq", "'")
                .replace("\\(dq", "\"")
                .replace("\\&", "")
                .replace("\\e", "\\");
            entries.push((normal(&head), String::new()));
        } else if line.starts_with(".El") || line.starts_with(".Ss ") {
            // What follows is of no entry.
            entries.push((String::new(), "-".to_owned()));
        } else if let Some((_, text)) = entries.last_mut() {
            text.push_str(line);
        }
    }
    entries.retain(|(head, _)| !head.is_empty());
    entries
}

/// Contract: each message has one entry, and each entry a message and a text.
#[test]
fn the_man_page_explains_every_warning_and_error() {
    let mut source = Vec::new();
    files(Path::new("src"), &mut source);
    let mut messages = Vec::new();
    let direct = logged(&source);
    for message in &direct {
        if !CARRIERS
            .iter()
            .any(|(format, _, _)| *format == message.text)
        {
            let literal = parts(&message.text).join(" ");
            let words = literal
                .split_whitespace()
                .filter(|it| it.chars().any(char::is_alphabetic));
            assert!(
                words.count() >= 2,
                "{}: {:?} carries a text made elsewhere: name in CARRIERS of tests/diagnostics.rs where it is made",
                message.at,
                message.text
            );
            messages.push(message.clone());
        }
    }
    for (format, shown, from) in CARRIERS {
        assert!(
            direct.iter().any(|message| message.text == *format),
            "tests/diagnostics.rs, CARRIERS: nothing logs {format:?} any more; take the line out"
        );
        for Message { text, at } in made(&source, from) {
            let text = shown.replace('@', &text);
            messages.push(Message { text, at });
        }
    }
    assert!(
        messages.len() > 80,
        "only {} messages found",
        messages.len()
    );

    let entries = entries();
    let heads: BTreeSet<&String> = entries.iter().map(|(head, _)| head).collect();
    assert_eq!(
        heads.len(),
        entries.len(),
        "an entry of DIAGNOSTICS is there twice"
    );
    let mut used = BTreeSet::new();
    let mut lacking = BTreeSet::new();
    for Message { text, at } in &messages {
        let text = normal(text);
        let parts = parts(&text);
        let fitting = entries.iter().find(|(head, _)| fits(&parts, head));
        match fitting {
            Some((head, _)) => drop(used.insert(head)),
            None => drop(lacking.insert(format!("{at}\n    .It {}", proposed(&text)))),
        }
    }
    let lacking: Vec<String> = lacking.into_iter().collect();
    assert!(
        lacking.is_empty(),
        "man/wmgwd.8, section DIAGNOSTICS, lacks {} messages. Add an entry for each, with what it means for service \
         and what to do:\n\n{}\n",
        lacking.len(),
        lacking.join("\n")
    );
    for (head, text) in &entries {
        assert!(
            used.contains(head),
            "man/wmgwd.8, section DIAGNOSTICS: nothing logs {head:?} any more; take the entry out"
        );
        assert!(
            text.split_whitespace().count() >= 4,
            "man/wmgwd.8, section DIAGNOSTICS: {head:?} says too little"
        );
    }
}

/// The reader of the source, on what has misled such readers.
#[test]
fn the_source_is_read_as_the_compiler_does() {
    let source = r##"
        // warn!("not this");
        /* nor /* this */ error!("x") */
        fn f<'a>(c: char) { if c == '"' || c == '\'' { warn!("one {x} \
            two"); } log!(level, r#"three "{}""#, y); }
        #[cfg(test)]
        mod tests { fn g() { error!("never"); } }
        #[cfg(test)]
        fn h() { warn!("neither") }
        fn i() { log::error!("four") }
    "##;
    let file = File {
        path: PathBuf::from("x.rs"),
        tokens: without_tests(tokens(source)),
    };
    let found = logged(&[file]);
    let texts: Vec<&str> = found.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(texts, ["one {x} two", "three \"{}\"", "four"]);
    assert_eq!(found[0].at, "x.rs:4");
    assert!(fits(
        &parts("count={} VNIs: {why:?}"),
        "count=N VNIs: REASON"
    ));
    assert!(!fits(&parts("count={} VNIs"), "count=N VNI"));
    assert!(!fits(&parts("no guard: {reason}"), "no guard: reason"));
}
