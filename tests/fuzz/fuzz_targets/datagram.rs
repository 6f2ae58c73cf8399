#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wmgwd::fuzzing::datagram(bytes));
