use std::collections::BTreeMap;

use super::*;
use crate::storage::MemStorage;
use crate::{Maintenance, Store};

/// Some segments of a store.
fn segments(many: usize) -> Vec<Arc<Segment>> {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    while store.engine().state.segments.all().len() < many {
        namespace.put("key", "value").unwrap();
        store.end_segment();
    }
    store.engine().state.segments.all()
}

#[test]
fn what_is_kept_is_found_by_hash_and_sequence_and_what_is_not_needed_is_let_go() {
    let segments = segments(3);
    let mut kept = KeptRecords::default();
    let mut model: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    assert!(!kept.has(0) && kept.find(0, |_| true, 0).is_none());
    // Hashes that meet in one slot, and such that fill many shards.
    let hashes: Vec<u64> = (0..40)
        .chain((0..2000u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let mut sequence = 1;
    for round in 0..3u64 {
        for hash in &hashes {
            let (from, until) = (sequence, sequence + 1 + hash % 3);
            let offset = 64 + sequence * 8;
            kept.insert(*hash, (from, until), &segments[(hash % 3) as usize], offset);
            model.insert((*hash, from), (until, offset));
            sequence += 1 + round;
        }
    }
    assert_eq!(kept.len(), model.len());
    // The same record again, with another end.
    let (hash, from) = *model.keys().next().unwrap();
    kept.insert(hash, (from, 1_000_000), &segments[(hash % 3) as usize], 64);
    model.insert((hash, from), (1_000_000, 64));
    let check = |kept: &KeptRecords, model: &BTreeMap<(u64, u64), (u64, u64)>| {
        assert_eq!(kept.len(), model.len());
        for ((hash, from), (_, offset)) in model {
            let (segment, found) = kept.find(*hash, |record| record.from == *from, 0).unwrap();
            assert_eq!((found, segment.id()), (*offset, segments[(hash % 3) as usize].id()));
            assert!(kept.has(*hash));
            assert!(kept.find(*hash, |record| record.from == *from, 1).is_none());
        }
        assert!(!kept.has(123_456_789));
    };
    check(&kept, &model);
    assert!(kept.memory_bytes() >= model.len() as u64 * 32);
    kept.retain(|record| record.until > 3000);
    model.retain(|_, (until, _)| *until > 3000);
    check(&kept, &model);
    assert_eq!(kept.segments().count(), 3);
    kept.retain(|record| record.hash % 3 == 1);
    model.retain(|(hash, _), _| hash % 3 == 1);
    check(&kept, &model);
    let held: Vec<_> = kept.segments().map(|segment| segment.id()).collect();
    assert_eq!(held, [segments[1].id()]);
    kept.retain(|_| false);
    assert_eq!((kept.len(), kept.segments().count()), (0, 0));
}

#[test]
fn a_slot_gives_back_what_was_put_into_it_at_the_limits() {
    let hashes = [0, u64::MAX, 0x0123_4567_89ab_cdef];
    for hash in hashes {
        for segment in [0, 1, (1 << SEGMENT_BITS) - 1] {
            for offset in [Location::OFFSET_MIN, Location::OFFSET_MAX - ALIGNMENT] {
                let slot = Slot::new(hash, segment, offset);
                assert_ne!(slot, Slot::FREE);
                assert_eq!((slot.segment(), slot.offset()), (segment, offset));
                assert!(slot.may_be_of(hash));
                assert!(hashes.iter().all(|other| *other == hash || !slot.may_be_of(*other)));
            }
        }
    }
}
