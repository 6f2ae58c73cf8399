//! Sets of VNIs as runs of consecutive numbers: compact where most of a range is in the set, or little. Pure.

use super::types::Vni;
use std::fmt;
use std::str::FromStr;

/// A set of VNIs, as text `1-5,9,20-30`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spans {
    /// The first and the last VNI of each run, ascending; two runs never touch.
    runs: Vec<(Vni, Vni)>,
}

impl Spans {
    /// Whether the set holds `vni`.
    pub fn contains(&self, vni: Vni) -> bool {
        let at = self.runs.partition_point(|&(_, last)| last < vni);
        self.runs.get(at).is_some_and(|&(first, _)| first <= vni)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The number of runs: what the text of the set takes grows with it.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// The number of VNIs.
    pub fn len(&self) -> usize {
        let count = |&(first, last): &(Vni, Vni)| (last.get() - first.get()) as usize + 1;
        self.runs.iter().map(count).sum()
    }

    /// The VNIs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Vni> + '_ {
        let numbers = |&(first, last): &(Vni, Vni)| first.get()..=last.get();
        self.runs.iter().flat_map(numbers).filter_map(Vni::new)
    }

    /// Keeps the first `most` runs.
    pub fn truncate(&mut self, most: usize) {
        self.runs.truncate(most);
    }
}

impl FromIterator<Vni> for Spans {
    /// From VNIs in ascending order; one that is not greater than the one before is left out.
    fn from_iter<I: IntoIterator<Item = Vni>>(vnis: I) -> Spans {
        let mut runs: Vec<(Vni, Vni)> = Vec::new();
        for vni in vnis {
            match runs.last_mut() {
                Some((_, last)) if vni <= *last => {}
                Some((_, last)) if last.get() + 1 == vni.get() => *last = vni,
                _ => runs.push((vni, vni)),
            }
        }
        Spans { runs }
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.runs.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// A text is no set of VNIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSpans;

impl FromStr for Spans {
    type Err = NoSpans;

    fn from_str(text: &str) -> Result<Spans, NoSpans> {
        let mut runs: Vec<(Vni, Vni)> = Vec::new();
        if text.is_empty() {
            return Ok(Spans::default());
        }
        for run in text.split(',') {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let vni = |text: &str| text.parse::<Vni>().map_err(|_| NoSpans);
            let (first, last) = (vni(first)?, vni(last)?);
            let apart = |&(_, before): &(Vni, Vni)| before.get() + 1 < first.get();
            if first > last || !runs.last().is_none_or(apart) {
                return Err(NoSpans);
            }
            runs.push((first, last));
        }
        Ok(Spans { runs })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spans(numbers: &[u32]) -> Spans {
        numbers
            .iter()
            .map(|&number| Vni::new(number).unwrap())
            .collect()
    }

    #[test]
    fn a_set_reads_back_as_it_was_written() {
        for (numbers, text) in [
            (&[][..], ""),
            (&[7], "7"),
            (&[1, 2, 3, 9, 20, 21], "1-3,9,20-21"),
            (&[16_777_214, 16_777_215], "16777214-16777215"),
        ] {
            let set = spans(numbers);
            assert_eq!(set.to_string(), text);
            assert_eq!(text.parse(), Ok(set.clone()));
            assert_eq!(set.len(), numbers.len());
            let all: Vec<u32> = set.iter().map(Vni::get).collect();
            assert_eq!(all, numbers);
            for number in [1, 2, 3, 4, 7, 8, 9, 10, 19, 20, 21, 22, 16_777_215] {
                assert_eq!(
                    set.contains(Vni::new(number).unwrap()),
                    numbers.contains(&number)
                );
            }
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in [
            ",", "1,", "0", "5-3", "3,2", "1-3,3", "1-2,3", "1--3", "a", "16777216", "1-2-3", " 1",
        ] {
            assert_eq!(text.parse::<Spans>(), Err(NoSpans), "{text}");
        }
    }
}
