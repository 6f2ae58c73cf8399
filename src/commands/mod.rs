//! What an operator runs beside the daemon, one module a command.

pub mod check;
pub mod operate;
pub mod status;
pub mod withdraw;
