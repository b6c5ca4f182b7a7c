//! A listing finds what a filter would, and hides no damage.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use embercask::storage::{MemStorage, StorageFile};
use embercask::{Durability, ErrorKind, ReadMode, Result};

use crate::common::{DIRECTORY, Rng, class, ending, is_corruption, keys, manual, open, rng};

/// B35, against a filter over all keys.
#[test]
fn prefixes_and_ranges_find_what_a_filter_finds() {
    let mut rng = rng();
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let alphabet = [0x00, 0x01, b'a', b'b', 0x7f, 0x80, 0xfe, 0xff];
    let random_key = |rng: &mut Rng, longest: u64| -> Vec<u8> {
        (0..rng.below(longest + 1))
            .map(|_| alphabet[rng.below(8) as usize])
            .collect()
    };
    let mut all = BTreeSet::new();
    for n in 0..400 {
        let key = random_key(&mut rng, 4);
        if !key.is_empty() {
            namespace.put_with(&key, "1", class(Durability::Buffered)).unwrap();
            all.insert(key);
        }
        if n == 200 {
            store.maintain().unwrap();
        }
    }
    let special: [&[u8]; 7] = [
        b"",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\xff\xff\xff",
        b"a\xff",
        b"\0",
        b"a\xff\xff",
    ];
    for n in 0..600 {
        let pick = |rng: &mut Rng| match rng.below(3) {
            0 => special[rng.below(7) as usize].to_vec(),
            _ => random_key(rng, 3),
        };
        let (prefix, start, end) = (pick(&mut rng), pick(&mut rng), pick(&mut rng));
        let (by_start, by_end, reverse, with_values) =
            (rng.below(4), rng.below(3) == 0, rng.below(2) == 0, rng.below(2) == 0);
        let mut list = namespace.list().prefix(&prefix).limit(1 + rng.below(9) as usize);
        match by_start {
            0 => list = list.start(&start),
            1 => list = list.start_after(&start),
            _ => {}
        }
        if by_end {
            list = list.end(&end);
        }
        if reverse {
            list = list.reverse();
        }
        if with_values {
            list = list.with_values();
        }
        let holds = |key: &Vec<u8>| {
            let begins = match by_start {
                0 => *key >= start,
                1 => *key > start,
                _ => true,
            };
            key.starts_with(&prefix) && begins && (!by_end || *key < end)
        };
        let mut expected: Vec<_> = all.iter().filter(|key| holds(key)).cloned().collect();
        if reverse {
            expected.reverse();
        }
        let context = format!("{n}: prefix {prefix:x?}, start {by_start} {start:x?}, end {by_end} {end:x?}, {reverse}");
        assert_eq!(list.count().unwrap(), expected.len() as u64, "{context}");
        let found: Vec<_> = list.into_iter().map(|entry| entry.unwrap().key().to_vec()).collect();
        assert_eq!(found, expected, "{context}");
    }
}

/// B29.
#[test]
fn a_walk_that_met_damage_goes_on_reporting_it_and_leaves_out_nothing_in_silence() {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone()))
        .read_mode(ReadMode::Pread)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..30 {
        namespace
            .put(format!("{n:02}"), format!("value {n:02}").repeat(20))
            .unwrap();
    }
    store.compact().unwrap();
    store.maintain().unwrap();
    let damaged = ending(&disk, ".segment").into_iter().find_map(|path| {
        let bytes = disk.read_file(&path).unwrap();
        let at = bytes.windows(8).position(|window| window == b"value 17")?;
        Some((path, at as u64 * 8))
    });
    let (path, bit) = damaged.unwrap();
    flip_in_place(&disk, &path, bit);
    for (list, before) in [
        (namespace.list(), 17),
        (namespace.list().reverse(), 12),
        (namespace.list().prefix("1"), 7),
    ] {
        for limit in [1, 5, 1_000] {
            let mut walk = list.clone().with_values().limit(limit).into_iter();
            let mut seen = 0;
            let error = loop {
                match walk.next().expect("an error before the end") {
                    Ok(_) => seen += 1,
                    Err(error) => break error,
                }
            };
            // A page that cannot be had whole is not had at all.
            assert!(
                seen <= before && seen + limit > before,
                "{seen} seen of {before}, limit {limit}"
            );
            is_corruption(&error, &disk, "walk");
            for _ in 0..5 {
                assert_eq!(walk.next().unwrap().unwrap_err().to_string(), error.to_string());
            }
        }
    }
    // Keys alone are not affected, nor are other keys.
    assert_eq!(namespace.list().into_iter().map(Result::unwrap).count(), 30);
    assert_eq!(namespace.count().unwrap(), 30);
    assert_eq!(namespace.get("17").unwrap_err().kind(), ErrorKind::Corruption);
    assert!(namespace.get("16").unwrap().is_some() && namespace.get("18").unwrap().is_some());
    assert_eq!(
        namespace.get_many(&["16", "17"]).unwrap_err().kind(),
        ErrorKind::Corruption
    );
    // What is damaged is not copied.
    namespace.delete("16").unwrap();
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(namespace.get("17").unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(keys(&namespace).len(), 29);
}

/// As a failing disk would: those who have the file open see it.
fn flip_in_place(disk: &MemStorage, path: &Path, bit: u64) {
    let file: Arc<dyn StorageFile> = disk.open(path, true).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, bit / 8).unwrap();
    file.write_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
}
