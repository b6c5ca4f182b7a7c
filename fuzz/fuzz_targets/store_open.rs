#![no_main]

#[path = "../../tests/fuzz_corpus/store_open.rs"]
#[allow(dead_code, reason = "seeds are made elsewhere")]
mod store_open;
#[path = "../../tests/common/way.rs"]
mod way;

libfuzzer_sys::fuzz_target!(|data: &[u8]| store_open::store_open(data));
