#![no_main]

use test_support::fuzz::store_open;

libfuzzer_sys::fuzz_target!(|data: &[u8]| store_open::store_open(data));
