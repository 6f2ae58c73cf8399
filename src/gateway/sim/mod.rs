//! Whole clusters under faults.
