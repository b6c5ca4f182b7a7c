//! A listing finds what a filter finds, and hides no damage.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation, StorageFile};
use embercask::{Durability, ErrorKind, ManualClock, Namespace, PutOptions, ReadMode, Result, Store};

use crate::known_bugs::START_MS;
use test_support::{DIRECTORY, Rng, at_least, class, ending, is_corruption, keys, manual, open, rng};

/// B35, against a filter over all keys.
#[test]
fn prefixes_and_ranges_find_what_a_filter_finds() {
    let mut rng = rng();
    let disk = MemStorage::seeded(rng.next());
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
    let mut found_some = 0;
    for n in 0..600 {
        let pick = |rng: &mut Rng| match rng.below(3) {
            0 => special[rng.below(7) as usize].to_vec(),
            _ => random_key(rng, 3),
        };
        let (prefix, start, end) = (pick(&mut rng), pick(&mut rng), pick(&mut rng));
        let (by_start, by_end, reverse, with_values) =
            (rng.below(4), rng.below(3) == 0, rng.below(2) == 0, rng.below(2) == 0);
        let mut list = namespace.list().prefix(&prefix).page_size(1 + rng.below(9) as usize);
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
        found_some += u64::from(!found.is_empty());
    }
    at_least(150, all.len() as u64, "keys");
    at_least(60, found_some, "listings with keys in them");
}

/// A store of thirty keys, where key 17 has a damaged value. Keys from 20 on have metadata, keys
/// from 25 on an expiry.
fn with_a_damaged_value() -> (MemStorage, Store, Namespace) {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone()))
        .read_mode(ReadMode::Pread)
        .clock(ManualClock::new(START_MS))
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..30 {
        let mut options = PutOptions::new();
        if n >= 20 {
            options = options.metadata(format!("metadata {n}"));
        }
        if n >= 25 {
            options = options.expires_at_ms(START_MS + 1000 + n);
        }
        namespace
            .put_with(format!("{n:02}"), format!("value {n:02}").repeat(20), options)
            .unwrap();
    }
    store.compact().unwrap();
    store.maintain().unwrap();
    damage(&disk, b"value 17");
    (disk, store, namespace)
}

/// B29, C15.
#[test]
fn a_walk_names_a_damaged_key_once_goes_on_behind_it_and_ends() {
    let (disk, store, namespace) = with_a_damaged_value();
    for (list, keys, before) in [
        (namespace.list(), 30, 17),
        (namespace.list().reverse(), 30, 12),
        (namespace.list().prefix("1"), 10, 7),
    ] {
        for limit in [1, 5, 1_000] {
            let list = list.clone().with_values().page_size(limit);
            let found: Vec<_> = list.clone().into_iter().collect();
            assert_eq!(found.len(), keys);
            for (index, entry) in found.iter().enumerate() {
                match entry {
                    Ok(entry) => assert!(index != before && entry.value().is_some()),
                    Err(error) => {
                        assert_eq!(index, before, "{error}");
                        is_corruption(error, &disk, "walk");
                        assert!(error.to_string().contains("key \"17\""), "{error}");
                    }
                }
            }
            // Iteration that skips errors ends too.
            let mut walk = list.into_iter();
            assert_eq!(walk.by_ref().flatten().count(), keys - 1);
            assert!(walk.next().is_none() && walk.next().is_none());
        }
    }
    // Neither listing keys alone nor reading other keys is affected.
    assert_eq!(namespace.list().into_iter().map(Result::unwrap).count(), 30);
    assert_eq!(namespace.count().unwrap(), 30);
    assert_eq!(namespace.get("17").unwrap_err().kind(), ErrorKind::Corruption);
    assert!(namespace.get("16").unwrap().is_some() && namespace.get("18").unwrap().is_some());
    let error = namespace.get_many(&["16", "17"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("key \"17\""), "{error}");
    // Damaged records are not copied.
    namespace.delete("16").unwrap();
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(namespace.get("17").unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(keys(&namespace).len(), 29);
}

/// C15: damage in a value used to hide the whole page, even if no values were requested.
#[test]
fn a_page_has_the_damaged_key_and_says_what_is_wrong_with_it() {
    let (disk, _store, namespace) = with_a_damaged_value();
    damage(&disk, b"value 22");
    damage(&disk, b"value 27");
    // Damages the header of this record.
    let (path, value) = find(&disk, b"value 28");
    flip_in_place(
        &disk,
        &path,
        (value - "metadata 28".len() as u64 - "28".len() as u64 - 20) * 8,
    );
    for (list, damaged) in [
        (namespace.list(), &["22", "27", "28"][..]),
        (namespace.list().with_values(), &["17", "22", "27", "28"]),
        (namespace.list().with_values().reverse(), &["28", "27", "22", "17"]),
    ] {
        let page = list.page().unwrap();
        assert_eq!(page.len(), 30);
        let mut found = Vec::new();
        for entry in page.iter() {
            let Some(error) = entry.error() else { continue };
            let key = entry.key_str().unwrap();
            is_corruption(error, &disk, key);
            assert!(error.to_string().contains(&format!("key {key:?}")), "{error}");
            assert!(entry.value().is_none() && entry.metadata().is_none());
            // The expiry comes from the header, if that is readable.
            assert_eq!(entry.expiry_ms(), (key == "27").then_some(START_MS + 1027));
            found.push(key.to_owned());
        }
        assert_eq!(found, damaged);
    }
    assert_eq!(namespace.list().into_iter().filter(Result::is_err).count(), 3);
    // Keys with an expiry are looked up; an unreadable one counts as existing.
    assert_eq!(namespace.count().unwrap(), 30);
    assert_eq!(
        namespace
            .list()
            .prefix("2")
            .page_size(3)
            .page()
            .unwrap()
            .get(2)
            .unwrap()
            .key(),
        b"22"
    );
}

#[test]
fn a_key_that_has_expired_is_not_listed_whatever_has_become_of_its_value() {
    let disk = MemStorage::new();
    let clock = ManualClock::new(START_MS);
    let store = manual(Arc::new(disk.clone()))
        .read_mode(ReadMode::Pread)
        .clock(clock.clone())
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let options = PutOptions::new().metadata("m").expires_at_ms(START_MS + 10);
    namespace.put_with("short", "a value that is damaged", options).unwrap();
    store.compact().unwrap();
    damage(&disk, b"a value that is damaged");
    let list = namespace.list().with_values();
    assert_eq!(list.clone().into_iter().filter(Result::is_err).count(), 1);
    clock.advance(10);
    assert!(list.page().unwrap().is_empty());
    assert_eq!(namespace.count().unwrap(), 0);
}

/// In map mode this would end the process.
#[test]
fn a_record_that_the_device_does_not_give_out_costs_that_record() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = manual(Arc::new(faults.clone()))
        .read_mode(ReadMode::Pread)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for key in ["a", "b"] {
        namespace.put_with(key, "1", PutOptions::new().metadata("m")).unwrap();
    }
    store.compact().unwrap();
    for key in ["c", "d"] {
        namespace.put_with(key, "1", PutOptions::new().metadata("m")).unwrap();
    }
    let failing = FaultKind::Error(std::io::ErrorKind::Other);
    faults.inject(Fault::new(failing).on(Operation::Read).repeated());
    let page = namespace.list().page().unwrap();
    let failed: Vec<_> = page
        .iter()
        .filter_map(|entry| Some((entry.key(), entry.error()?)))
        .collect();
    let [(b"a", first), (b"b", second)] = failed[..] else {
        panic!("{failed:?}")
    };
    for (error, named) in [(first, "key \"a\""), (second, "key \"b\"")] {
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(named), "{error}");
    }
    assert_eq!(page.get(2).unwrap().metadata(), Some(&b"m"[..]));
    faults.clear();
    assert_eq!(namespace.list().into_iter().map(Result::unwrap).count(), 4);
}

/// C15: `.flatten()` used to loop for ever.
#[test]
fn a_walk_that_cannot_go_on_says_so_once_and_ends() {
    let store = open(&MemStorage::new());
    let (closed, dropped) = (store.namespace("N").unwrap(), store.namespace("D").unwrap());
    for namespace in [&closed, &dropped] {
        for n in 0..10 {
            namespace.put(format!("{n}"), "1").unwrap();
        }
    }
    let mut of_dropped = dropped.list().page_size(3).into_iter();
    assert_eq!(of_dropped.next().unwrap().unwrap().key(), b"0");
    store.drop_namespace("D").unwrap();
    // The entries of the current page come first.
    assert_eq!(of_dropped.by_ref().take(2).flatten().count(), 2);
    assert_eq!(of_dropped.next().unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(of_dropped.next().is_none() && of_dropped.next().is_none());
    let walk = closed.list().page_size(3).into_iter();
    store.close().unwrap();
    assert_eq!(walk.flatten().count(), 0);
}

/// The place of these bytes on the disk.
fn find(disk: &MemStorage, needle: &[u8]) -> (PathBuf, u64) {
    let found = ending(disk, ".segment").into_iter().find_map(|path| {
        let bytes = disk.read_file(&path).unwrap();
        let at = bytes.windows(needle.len()).position(|window| window == needle)?;
        Some((path, at as u64))
    });
    found.unwrap()
}

/// Flips a bit in the only value that contains these bytes; returns its file.
pub(crate) fn damage(disk: &MemStorage, needle: &[u8]) -> PathBuf {
    let (path, at) = find(disk, needle);
    flip_in_place(disk, &path, at * 8);
    path
}

/// Like a failing disk: open files see the change.
fn flip_in_place(disk: &MemStorage, path: &Path, bit: u64) {
    let file: Arc<dyn StorageFile> = disk.open(path, true).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, bit / 8).unwrap();
    file.write_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
}
