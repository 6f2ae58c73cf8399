//! What the daemon tells about itself: numbers, log lines, the service manager, the operator's command.

pub mod complaints;
pub mod counters;
pub mod log_text;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod status_line;
