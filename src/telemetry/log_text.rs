//! Texts of the log: error chains, many VNIs in one line, and each complaint once.

use crate::model::types::Vni;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{Display, Write};

/// An error and its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// The value of a pair `key=value` in a log line: in quotes if it would not be one word without.
pub fn value(text: &str) -> Cow<'_, str> {
    let is_word = !text.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "\"=\\".contains(c));
    if is_word {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{text:?}"))
    }
}

/// VNIs, ascending, with runs drawn together and the rest counted after a few: `1-3,7,9-12,+40`.
pub fn spans(vnis: &[Vni]) -> String {
    const SHOWN: usize = 8;
    let runs = runs(vnis);
    let shown: Vec<String> = runs.iter().take(SHOWN).map(run_text).collect();
    let mut text = shown.join(",");
    let left_out: u32 = runs
        .iter()
        .skip(SHOWN)
        .map(|(first, last)| last - first + 1)
        .sum();
    if left_out > 0 {
        let _ = write!(text, ",+{left_out}");
    }
    text
}

/// The first few of the names, and how many more there are.
pub fn names<T: Display>(names: &[T]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(T::to_string).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The first and the last of each run.
pub(crate) fn runs(vnis: &[Vni]) -> Vec<(u32, u32)> {
    let mut sorted: Vec<u32> = vnis.iter().map(|vni| vni.get()).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

pub(crate) fn run_text(&(first, last): &(u32, u32)) -> String {
    match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    }
}

/// Something that can go wrong for a long time and shall be said once: when it starts, when its reason
/// changes, and when it is over.
#[derive(Debug, Default)]
pub struct Complaint {
    reason: Option<String>,
}

impl Complaint {
    /// It went wrong; says whether that is news.
    pub fn raise(&mut self, reason: &str) -> bool {
        let news = self.reason.as_deref() != Some(reason);
        if news {
            self.reason = Some(reason.to_owned());
        }
        news
    }

    /// It went well; says whether that is news.
    pub fn settle(&mut self) -> bool {
        self.reason.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn spans_draw_runs_together_and_stay_short() {
        let vnis = |numbers: &[u32]| {
            numbers
                .iter()
                .map(|&n| Vni::new(n).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(spans(&[]), "");
        assert_eq!(spans(&vnis(&[7])), "7");
        assert_eq!(spans(&vnis(&[3, 1, 2, 7, 7, 9, 10])), "1-3,7,9-10");
        let odd: Vec<u32> = (0..20).map(|n| 2 * n + 1).collect();
        assert_eq!(spans(&vnis(&odd)), "1,3,5,7,9,11,13,15,+12");
    }

    #[test]
    fn a_value_is_one_word_or_quoted() {
        assert_eq!(value("gw-1"), "gw-1");
        for (text, quoted) in [("", "\"\""), ("a b", "\"a b\""), ("a\"=", "\"a\\\"=\"")] {
            assert_eq!(value(text), quoted);
        }
    }

    #[test]
    fn a_complaint_is_news_once() {
        let mut complaint = Complaint::default();
        assert!(!complaint.settle());
        assert!(complaint.raise("a"));
        assert!(!complaint.raise("a"));
        assert!(complaint.raise("b"));
        assert!(complaint.settle());
        assert!(!complaint.settle());
        assert!(complaint.raise("b"));
    }
}
