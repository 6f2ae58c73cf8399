//! Pure: findings as lines, and as JSON.

use super::{Finding, Fitness, Level, fitness};
use serde_json::json;
use std::fmt::Write;

/// Findings as aligned lines, each with what repairs it below, and what they come to. In colour with `colour`.
pub fn lines(findings: &[Finding], colour: bool) -> String {
    let widest = |width: fn(&Finding) -> usize| findings.iter().map(width).max().unwrap_or(0);
    let levels = widest(|finding| finding.level.word().len());
    let abouts = widest(|finding| finding.about.len());
    let mut text = String::new();
    for finding in findings {
        let (word, about) = (finding.level.word(), finding.about);
        let (on, off) = if colour {
            (shade(finding.level), "\x1b[0m")
        } else {
            ("", "")
        };
        let said = plain(&finding.text);
        let _ = writeln!(text, "{on}{word:levels$}{off}  {about:abouts$}  {said}");
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(
                text,
                "{:levels$}  {:abouts$}  remedy: {}",
                "",
                "",
                plain(remedy)
            );
        }
    }
    let count = |level| findings.iter().filter(|it| it.level == level).count();
    let _ = writeln!(
        text,
        "{} ({} ok, {} warn, {} unknown, {} fail)",
        sentence(fitness(findings)),
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Unknown),
        count(Level::Fail)
    );
    text
}

/// Findings as one JSON object.
pub fn json(findings: &[Finding]) -> String {
    let each: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "level": finding.level.word(),
                "about": finding.about,
                "text": finding.text,
                "remedy": finding.remedy,
            })
        })
        .collect();
    let fit = match fitness(findings) {
        Fitness::May => json!(true),
        Fitness::MayNot => json!(false),
        Fitness::CannotTell => json!(null),
    };
    json!({"may_serve": fit, "findings": each}).to_string() + "\n"
}

fn sentence(fitness: Fitness) -> &'static str {
    match fitness {
        Fitness::May => "this host may serve",
        Fitness::MayNot => "this host may not serve",
        Fitness::CannotTell => "whether this host may serve cannot be told",
    }
}

/// The colour of a level, as a terminal's control sequence (ECMA-48).
fn shade(level: Level) -> &'static str {
    match level {
        Level::Ok => "\x1b[32m",
        Level::Warn | Level::Unknown => "\x1b[33m",
        Level::Fail => "\x1b[31m",
    }
}

/// What FRR and etcd say goes to a terminal: nothing that it would obey.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn some() -> Vec<Finding> {
        vec![
            Finding::ok("ip_forward", "on"),
            Finding::fail("FRR", "bgpd says \x1b[2J", "systemctl restart frr"),
        ]
    }

    #[test]
    fn lines_are_aligned_and_plain() {
        assert_eq!(
            lines(&some(), false),
            "ok    ip_forward  on\n\
             fail  FRR         bgpd says  [2J\n\
             \x20                 remedy: systemctl restart frr\n\
             this host may not serve (1 ok, 0 warn, 0 unknown, 1 fail)\n"
        );
        assert!(lines(&some(), true).contains("\x1b[31mfail\x1b[0m  FRR"));
    }

    #[test]
    fn json_says_the_same() {
        let json: serde_json::Value = serde_json::from_str(&json(&some())).unwrap();
        assert_eq!(json["may_serve"], false);
        assert_eq!(json["findings"][1]["remedy"], "systemctl restart frr");
        assert!(json["findings"][0]["remedy"].is_null());
    }
}
