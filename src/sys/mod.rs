//! The operating system, where the standard library ends: a clock that runs while the machine sleeps, child
//! processes, files in memory, memory that stays, real-time priority, signals, the service manager.

pub mod child;
pub mod clock;
pub mod memfd;
pub mod memory;
pub mod pidfd;
pub mod realtime;
pub mod sd_notify;
pub mod signal;
