//! One key of etcd as last seen. Snapshots, watch events and this node's own commits arrive in any order and
//! overlap. A cell takes only what is newer than what it holds, so that none of them can undo another.

use crate::model::types::{LeaseId, Revision};

/// One key of etcd as last seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell<T> {
    /// The last value that could be read; `None` where the key is missing, or empty.
    value: Option<T>,
    /// The lease that the value ends with.
    lease: Option<LeaseId>,
    /// The revision of the last change, readable or not.
    revision: Revision,
    /// The last change could not be read: the value is the one from before.
    unreadable: bool,
}

/// What a change made of a key.
pub enum Reading<T> {
    Value(Option<T>),
    Unreadable,
}

impl<T> Default for Cell<T> {
    fn default() -> Cell<T> {
        Cell {
            value: None,
            lease: None,
            revision: Revision::default(),
            unreadable: false,
        }
    }
}

impl<T> Cell<T> {
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    pub fn lease(&self) -> Option<LeaseId> {
        self.lease
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// Takes a change if it is newer. Returns whether it was.
    pub fn take(&mut self, revision: Revision, lease: Option<LeaseId>, value: Reading<T>) -> bool {
        if revision <= self.revision {
            return false;
        }
        self.revision = revision;
        match value {
            Reading::Unreadable => self.unreadable = true,
            Reading::Value(value) => {
                *self = Cell {
                    value,
                    lease,
                    revision,
                    unreadable: false,
                };
            }
        }
        true
    }

    /// A snapshot of `revision` does not have the key. Returns whether that was news.
    pub fn missing(&mut self, revision: Revision) -> bool {
        let known = self.value.is_some() || self.unreadable;
        known && self.take(revision, None, Reading::Value(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_newer_counts() {
        let mut cell = Cell::default();
        assert!(cell.take(Revision(5), Some(LeaseId(1)), Reading::Value(Some(1))));
        assert!(!cell.take(Revision(5), None, Reading::Value(Some(2))));
        assert!(!cell.take(Revision(4), None, Reading::Value(None)));
        assert!(!cell.missing(Revision(5)));
        assert_eq!((cell.value(), cell.lease()), (Some(&1), Some(LeaseId(1))));
        assert!(cell.missing(Revision(6)) && cell.value().is_none());
        assert!(
            !cell.missing(Revision(7)),
            "no news, so an older change counts"
        );
        assert_eq!(cell.revision(), Revision(6));
    }

    #[test]
    fn a_value_that_cannot_be_read_leaves_the_one_before() {
        let mut cell = Cell::default();
        cell.take(Revision(1), Some(LeaseId(1)), Reading::Value(Some(1)));
        assert!(cell.take(Revision(2), None, Reading::Unreadable));
        assert_eq!((cell.value(), cell.lease()), (Some(&1), Some(LeaseId(1))));
        assert!(cell.is_unreadable());
        assert!(cell.take(Revision(3), None, Reading::Value(Some(3))));
        assert!(!cell.is_unreadable() && cell.lease().is_none());
    }
}
