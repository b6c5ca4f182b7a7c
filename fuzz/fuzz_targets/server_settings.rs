#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| embercask_command::fuzzing::server_settings(data));
