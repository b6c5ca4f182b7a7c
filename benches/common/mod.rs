//! Shared by the benches: keys, values, stores and a deterministic random generator.

use embercask::{Durability, Namespace, Options, Store};

/// Keys of a store, unless a bench says otherwise.
pub const KEYS: u64 = 1_000_000;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;

/// Makes the key of a number.
pub type KeyOf = fn(u64) -> Vec<u8>;

/// Mixes a number into a random-looking one (splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A key of 16 to 40 bytes, in no order.
pub fn random_key(number: u64) -> Vec<u8> {
    let bits = mix(number);
    let mut key = format!("{bits:016x}{:016x}{:016x}", mix(bits), mix(bits ^ 1)).into_bytes();
    key.truncate(16 + (bits % 25) as usize);
    key
}

/// A key of 16 to 40 bytes; keys ascend with the number.
pub fn ordered_key(number: u64) -> Vec<u8> {
    let mut key = format!("{number:016}{:016x}{:08x}", mix(number), number as u32).into_bytes();
    key.truncate(16 + (mix(number) % 25) as usize);
    key
}

/// A value.
pub fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    for (slot, n) in value.chunks_mut(8).zip(0..) {
        slot.copy_from_slice(&mix(number ^ (n << 48)).to_le_bytes()[..slot.len()]);
    }
    value
}

/// A fresh directory in `EMBERCASK_BENCH_DIR`, by default the system's directory for temporary
/// files.
pub fn directory() -> tempfile::TempDir {
    let base = std::env::var_os("EMBERCASK_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(base).expect("a temporary directory")
}

/// Default options except for the durability of a put, so that filling a store does not measure the
/// device.
pub fn options() -> Options {
    Store::options().durability(Durability::Os)
}

/// A store with the first `keys` of these keys.
pub fn filled(directory: &std::path::Path, keys: u64, key: KeyOf) -> (Store, Namespace) {
    let store = options().open(directory).expect("a store");
    let namespace = store.namespace("BENCH").expect("a namespace");
    for number in 0..keys {
        namespace.put(key(number), value(number)).expect("a put");
    }
    (store, namespace)
}
