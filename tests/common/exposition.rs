//! What a daemon answers over HTTP, and a strict reader of Prometheus's text format, version 0.0.4: what a scraper could
//! only guess at is an error.

use super::eventually;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The samples of a page, by name and labels as they stand there.
#[derive(Debug, Default)]
pub struct Page {
    samples: BTreeMap<String, f64>,
}

impl Page {
    /// The value of `series`: a name, with its labels in the order of the page.
    pub fn get(&self, series: &str) -> f64 {
        let value = self.samples.get(series).copied();
        value.unwrap_or_else(|| panic!("{series} is not there: {:#?}", self.samples.keys()))
    }

    /// Whether the metric or series `name` is there.
    pub fn has(&self, name: &str) -> bool {
        let is_of = |series: &String| series == name || series.split('{').next() == Some(name);
        self.samples.keys().any(is_of)
    }

    /// The sum over all series of the metric `name`.
    pub fn sum(&self, name: &str) -> f64 {
        let is_of = |series: &str| series.split('{').next() == Some(name);
        let of = self.samples.iter().filter(|(series, _)| is_of(series));
        of.map(|(_, value)| value).sum()
    }
}

/// Status line and body of an answer; nothing if there is none.
pub fn ask(port: u16, request: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

/// The answer for a path.
pub fn get(port: u16, path: &str) -> Option<(String, String)> {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

/// What a scrape reads.
pub fn scrape(port: u16) -> Page {
    let (status, body) = eventually("a scrape is answered", || get(port, "/metrics"));
    assert_eq!(status, "HTTP/1.1 200 OK");
    read(&body)
}

/// Reads a page.
///
/// # Panics
/// It is not one, or breaks a rule.
pub fn read(text: &str) -> Page {
    assert!(text.ends_with('\n'), "the last line ends like all others");
    let mut page = Page::default();
    let mut families = BTreeSet::new();
    let mut family = (String::new(), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(!help.is_empty() && help.ends_with('.'), "{line}");
            let kind = lines.next().and_then(|it| it.strip_prefix("# TYPE "));
            let (named, kind) = kind.and_then(|it| it.split_once(' ')).expect(line);
            assert_eq!(named, name, "the type follows the help");
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{kind}");
            assert!(is_name(name, true) && name.starts_with("wmgwd_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(families.insert(name.to_owned()), "{name} stands twice");
            family = (name.to_owned(), kind.to_owned());
            let next = lines.peek().expect("a family has samples");
            assert!(!next.starts_with('#'), "{name} has no samples");
            continue;
        }
        let (name, labels, value) = sample(line);
        let stem = match family.1.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part))
                .expect(line),
            _ => &name,
        };
        assert_eq!(stem, family.0, "{line} stands with its family");
        assert_eq!(
            name.ends_with("_bucket"),
            labels.iter().any(|it| it == "le")
        );
        if family.1 != "gauge" {
            assert!(value >= 0.0, "{line}");
        }
        let series = line.rsplit_once(' ').expect(line).0.to_owned();
        assert!(page.samples.insert(series, value).is_none(), "{line} twice");
    }
    for name in &families {
        buckets_grow(text, name);
    }
    page
}

/// Name, label names and value of a line.
fn sample(line: &str) -> (String, Vec<String>, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label, false) && !label.starts_with("__"), "{line}");
            assert!(!labels.contains(&label.to_owned()), "{line}");
            labels.push(label.to_owned());
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().expect(line) {
                    (_, '\\') => assert!(
                        matches!(chars.next(), Some((_, '\\' | '"' | 'n'))),
                        "{line}"
                    ),
                    (at, '"') => break at,
                    _ => {}
                }
            };
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').expect(line);
    }
    let value = rest.strip_prefix(' ').expect(line);
    assert!(!value.contains(' '), "no timestamps: {line}");
    let value: f64 = value.parse().expect(line);
    assert!(value.is_finite(), "{line}");
    (name.to_owned(), labels, value)
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`, for labels without the colon.
fn is_name(text: &str, colon: bool) -> bool {
    let right = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    text.chars().all(right) && text.starts_with(|c: char| !c.is_ascii_digit())
}

/// A histogram's buckets grow in bound and in count, and the last holds all.
fn buckets_grow(text: &str, name: &str) {
    let bucket = format!("{name}_bucket{{le=\"");
    let mut last = (f64::NEG_INFINITY, 0.0);
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(&bucket) else {
            continue;
        };
        let (bound, count) = rest.split_once("\"} ").expect(line);
        let (bound, count): (f64, f64) = (bound.parse().expect(line), count.parse().expect(line));
        assert!(bound > last.0 && count >= last.1, "{line}");
        last = (bound, count);
    }
    if last.0 > f64::NEG_INFINITY {
        assert_eq!(last.0, f64::INFINITY, "{name}");
        let count = format!("{name}_count {}", last.1);
        assert!(text.lines().any(|line| line == count), "{count}");
    }
}
