#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wmgwd::fuzzing::vtysh_output(bytes));
