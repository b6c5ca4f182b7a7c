#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| embercask_replica::fuzzing::replica_entry(data));
