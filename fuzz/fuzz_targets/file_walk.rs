#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sampan_storage::fuzz::file_walk(data));
