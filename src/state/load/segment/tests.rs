use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::format::hint::Offsets;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::storage::MemStorage;
use crate::{ErrorKind, Maintenance, ReadMode, Store};

fn open(read_mode: ReadMode) -> Store {
    Store::options()
        .maintenance(Maintenance::Manual)
        .read_mode(read_mode)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap()
}

/// Where the newest record of a key is.
fn location(store: &Store, namespace: &str, key: &str) -> Location {
    let state = &store.engine().state;
    let number = store.open_namespace(namespace).unwrap().state.number;
    let found = state.find_header(&state.hashed(number, key.as_bytes())).unwrap();
    found.unwrap().0
}

/// Runs `act` with what loads into this state.
fn with_loading<T>(state: &State, act: impl FnOnce(&Loading<'_>) -> T) -> T {
    let progress = LoadProgress {
        done: AtomicU64::new(0),
        total_bytes: 0,
    };
    let sources: Vec<_> = (state.segments.all().into_iter())
        .map(|segment| Source::scanned(segment, Offsets::default()))
        .collect();
    act(&Loading {
        state,
        right: &ChangeRight::new(),
        names: &Names::new(),
        dead: &DeadRecords::none(&sources),
        progress: &progress,
    })
}

#[test]
fn an_offset_without_a_record_of_a_key_is_the_fault_of_the_hint_or_of_a_scanned_segment() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let store = open(read_mode);
        store.namespace("N").unwrap().put("key", "value").unwrap();
        let inside = location(&store, "N", "key").offset() + 8;
        store.end_segment();
        let state = &store.engine().state;
        let [segment] = &state.segments.all()[..] else { panic!() };
        let beyond = segment.data_end() + 8;
        // The first is that of the segment's start record.
        for offset in [SEGMENT_HEADER_LEN, inside, beyond] {
            let offsets = || {
                let mut offsets = Offsets::with_capacity(1);
                offsets.push(offset);
                offsets
            };
            let hinted = Source::hinted(segment.clone(), offsets(), 0);
            let scanned = Source::scanned(segment.clone(), offsets());
            with_loading(state, |loading| {
                assert!(loading.load(&hinted).unwrap().is_none());
                let error = loading.load(&scanned).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            });
            let mut wrong_hints = Vec::new();
            state.load_names(&[hinted], &mut wrong_hints).unwrap();
            assert_eq!(wrong_hints, [segment.id()]);
            let error = state.load_names(&[scanned], &mut wrong_hints).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        }
    }
}

/// All are under one hash, as if the hashes of different keys had the same tag.
#[test]
fn the_newest_record_of_each_key_stays_in_whatever_order_they_are_loaded() {
    let store = open(ReadMode::Map);
    let [m, n] = ["M", "N"].map(|name| store.namespace(name).unwrap());
    m.put("key", "other namespace").unwrap();
    n.put("other", "other key").unwrap();
    n.put("key", "old").unwrap();
    let old = location(&store, "N", "key");
    n.put("key", "new").unwrap();
    let newest = [("M", "key"), ("N", "other"), ("N", "key")].map(|(name, key)| location(&store, name, key));
    let [segment] = &store.engine().state.segments.all()[..] else {
        panic!()
    };
    let all = [newest[0], newest[1], newest[2], old];
    for first in 0..all.len() {
        for step in [1, 3] {
            let state = State::new(store.engine().context.clone(), 1);
            state.segments.set(segment.clone());
            with_loading(&state, |loading| {
                for number in 0..all.len() {
                    let location = all[(first + step * number) % all.len()];
                    let _ = loading.upsert(segment, location, 7, &mut Scratch::default()).unwrap();
                }
            });
            assert!(newest.iter().all(|location| state.points_at(7, *location)));
            assert!(!state.points_at(7, old));
        }
    }
}
