//! What the standard library lacks: a clock that runs while the machine sleeps, child processes, files in memory.

pub mod child;
pub mod clock;
pub mod memfd;
