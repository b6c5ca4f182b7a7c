#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| embercask::fuzzing::server_request(data));
