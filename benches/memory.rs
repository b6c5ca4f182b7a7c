//! Memory of both indexes a key, and disk a user's byte, at 1 million and 10 million keys of 16 to 40 bytes.
//!
//! `cargo bench --bench memory` prints a table; `-- --test` runs with few keys, to see that it works.

mod common;

use common::{VALUE_BYTES, directory, filled, random_key};

fn main() {
    let short = std::env::args().any(|argument| argument == "--test");
    let sizes: &[u64] = if short { &[10_000] } else { &[1_000_000, 10_000_000] };
    println!("| keys | keydir, bytes a key | key order, bytes a key | both | disk a user's byte |");
    println!("| --- | --- | --- | --- | --- |");
    for &keys in sizes {
        let directory = directory();
        let (store, namespace) = filled(directory.path(), keys);
        store.maintain().expect("maintenance");
        let stats = store.stats();
        assert_eq!(stats.keys, keys, "all keys are there");
        drop(namespace);
        store.close().expect("a close");
        let user_bytes: u64 = (0..keys)
            .map(|number| (random_key(number).len() + VALUE_BYTES) as u64)
            .sum();
        let files = std::fs::read_dir(directory.path()).expect("a directory");
        let disk_bytes: u64 = files
            .map(|file| {
                file.and_then(|file| file.metadata())
                    .map_or(0, |metadata| metadata.len())
            })
            .sum();
        let each = |bytes: u64| bytes as f64 / keys as f64;
        println!(
            "| {keys} | {:.2} | {:.2} | {:.2} | {:.3} |",
            each(stats.keydir_bytes),
            each(stats.key_order_bytes),
            each(stats.keydir_bytes + stats.key_order_bytes),
            disk_bytes as f64 / user_bytes as f64
        );
    }
}
