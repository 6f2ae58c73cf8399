//! Stories with names.
