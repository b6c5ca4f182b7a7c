//! Memory of both indexes per key, and disk space per user byte, at 1 million and 10 million keys
//! of 16 to 40 bytes.
//!
//! `cargo bench --bench memory` prints a table; `-- --test` runs with few keys, to see that it
//! works.

mod common;

use common::{KEYS, KeyOf, VALUE_BYTES, directory, filled, ordered_key, random_key};

/// Names of the orders in which keys are put, and functions that make the keys.
const ORDERS: [(&str, KeyOf); 2] = [("at random", random_key), ("in order", ordered_key)];

fn main() {
    let short = std::env::args().any(|argument| argument == "--test");
    let sizes = if short { vec![10_000] } else { vec![KEYS, 10 * KEYS] };
    println!("| keys | filled | keydir, bytes a key | key order, bytes a key | both | disk a user's byte |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for keys in sizes {
        for (order, key) in ORDERS {
            measure(keys, order, key);
        }
    }
}

fn measure(keys: u64, order: &str, key: KeyOf) {
    let directory = directory();
    let (store, namespace) = filled(directory.path(), keys, key);
    store.maintain().expect("maintenance");
    let stats = store.stats();
    assert_eq!(stats.keys, keys, "all keys are there");
    drop(namespace);
    store.close().expect("a close");
    let user_bytes: u64 = (0..keys).map(|number| (key(number).len() + VALUE_BYTES) as u64).sum();
    let disk_bytes: u64 = std::fs::read_dir(directory.path())
        .expect("a directory")
        .map(|file| {
            file.and_then(|file| file.metadata())
                .map_or(0, |metadata| metadata.len())
        })
        .sum();
    let each = |bytes: u64| bytes as f64 / keys as f64;
    println!(
        "| {keys} | {order} | {:.2} | {:.2} | {:.2} | {:.3} |",
        each(stats.keydir_bytes),
        each(stats.key_order_bytes),
        each(stats.keydir_bytes + stats.key_order_bytes),
        disk_bytes as f64 / user_bytes as f64
    );
}
