#![no_main]

use test_support::fuzz::store_model;

libfuzzer_sys::fuzz_target!(|data: &[u8]| store_model::store_model(data));
