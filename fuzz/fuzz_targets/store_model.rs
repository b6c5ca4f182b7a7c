#![no_main]

#[path = "../../tests/model/driver/mod.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod driver;
#[path = "../../tests/model/model.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod model;
#[path = "../../tests/model/ops.rs"]
#[allow(dead_code, reason = "operations come from bytes here, not from a strategy")]
mod ops;
#[path = "../../tests/fuzz_corpus/store_model.rs"]
mod store_model;
#[path = "../../tests/common/way.rs"]
mod way;

libfuzzer_sys::fuzz_target!(|data: &[u8]| store_model::store_model(data));
