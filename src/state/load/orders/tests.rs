use super::*;
use crate::format::hint::Offsets;
use crate::log::hints::source_of;
use crate::storage::MemStorage;
use crate::{Maintenance, Store};

fn open(disk: &MemStorage) -> Store {
    let options = Store::options().maintenance(Maintenance::Manual).index_file(false);
    options.storage(Arc::new(disk.clone())).open("/store").unwrap()
}

/// A store with this many keys in each of two namespaces, all in one sealed segment.
fn with_keys(count: usize) -> Store {
    let store = open(&MemStorage::new());
    for name in ["M", "N"] {
        let namespace = store.namespace(name).unwrap();
        let keys = (0..count).map(|key| format!("{key:04}"));
        let mut batch = store.batch();
        for key in keys {
            batch.put(&namespace, key, "1");
        }
        batch.commit().unwrap();
    }
    store.end_segment();
    store
}

/// The source of the store's only segment.
fn only_source(store: &Store) -> Source {
    let engine = store.engine();
    let [segment] = &engine.state.segments.all()[..] else {
        panic!()
    };
    source_of(&engine.context, segment, false).unwrap()
}

#[test]
fn a_key_is_found_in_a_segment_by_how_many_come_before_it() {
    let store = with_keys(20);
    let (state, source) = (&store.engine().state, only_source(&store));
    let keys: Vec<_> = (0..source.offsets.len())
        .map(|position| source.key_at(state, position).unwrap())
        .collect();
    // The store's own two records, of which each is the name of a namespace.
    assert_eq!(keys.len(), 2 + 2 * 20);
    assert!(keys.is_sorted_by(|before, after| before < after));
    assert_eq!(keys[2].1, b"0000");
    for (position, (namespace, key)) in keys.iter().enumerate() {
        let behind = [&key[..], b"!"].concat();
        let found = [key.clone(), behind].map(|key| source.position_of(state, &(*namespace, key)).unwrap());
        assert_eq!(found, [position, position + 1]);
    }
}

#[test]
fn keys_are_divided_evenly_and_each_key_of_all_segments_belongs_to_one_range() {
    let store = with_keys(500);
    let (state, source) = (&store.engine().state, only_source(&store));
    let repeated = |times: usize| {
        let mut offsets = Offsets::with_capacity(source.offsets.len() * times);
        for offset in source.offsets.iter() {
            (0..times).for_each(|_| offsets.push(offset));
        }
        Source::scanned(source.segment.clone(), offsets)
    };
    assert_eq!(
        state.ranges(&[repeated(1)]).unwrap().len(),
        1,
        "not worth a second thread"
    );
    // Enough for two threads.
    let sources = [repeated(3), repeated(40)];
    let ranges = state.ranges(&sources).unwrap();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(ranges.len(), threads.min(2));
    for (number, times) in [3, 40].into_iter().enumerate() {
        let (mut end, mut cuts) = (0, Vec::new());
        for range in &ranges {
            assert_eq!(range[number].start, end);
            end = range[number].end;
            cuts.push(end / times);
        }
        assert_eq!(end, 1_002 * times);
        assert_eq!(cuts, [1_002 / 2, 1_002][2 - ranges.len()..]);
    }
}

#[test]
fn what_is_live_is_counted_when_a_store_is_opened_without_an_index_file() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for (key, length) in [("a", 100), ("b", 200), ("a", 300), ("c", 400)] {
        namespace.put(key, vec![7; length]).unwrap();
    }
    namespace.delete("c").unwrap();
    let live = |store: &Store| {
        let stats = store.stats();
        let records: u64 = stats.segments.iter().map(|segment| segment.live_records).sum();
        (records, stats.live_bytes)
    };
    let before = live(&store);
    assert!(before.0 == 3 && before.1 > 500, "{before:?}");
    store.close().unwrap();
    assert_eq!(live(&open(&disk)), before);
}

/// Enough keys for two threads; in several segments and namespaces, some with little in common.
#[test]
fn keys_of_many_segments_are_in_order_whatever_they_share() {
    for read_mode in [crate::ReadMode::Map, crate::ReadMode::Pread] {
        let disk = MemStorage::new();
        let open = || {
            let options = Store::options().maintenance(Maintenance::Manual).index_file(false);
            let options = options.read_mode(read_mode).storage(Arc::new(disk.clone()));
            options.open("/store").unwrap()
        };
        let store = open();
        let mut expected: std::collections::BTreeMap<(usize, String), usize> = Default::default();
        let names = ["A", "B", "C"];
        let namespaces = names.map(|name| store.namespace(name).unwrap());
        for segment in 0..7 {
            let mut batch = store.batch();
            for number in (segment..42_000).step_by(6) {
                // B has long common beginnings, and keys that begin with others; A is in few
                // segments.
                let place = if segment < 2 && number % 5 == 0 {
                    0
                } else {
                    1 + number % 2
                };
                let key = match place {
                    1 => format!("{}{}", "common/beginning/".repeat(2), number / 3),
                    _ => format!("{:x}", number * 7919),
                };
                let value = vec![7; number % 3];
                if segment == 6 && number % 4 == 0 {
                    batch.delete(&namespaces[place], &key);
                    expected.remove(&(place, key));
                } else {
                    batch.put(&namespaces[place], &key, &value);
                    expected.insert((place, key), value.len());
                }
            }
            batch.commit().unwrap();
            store.end_segment();
        }
        store.close().unwrap();
        let store = open();
        assert!(expected.len() > 2 * RANGE_RECORDS_MIN);
        for (place, name) in names.into_iter().enumerate() {
            let namespace = store.open_namespace(name).unwrap();
            let listed = namespace.list().with_values().into_iter();
            let listed = listed.map(|entry| {
                let entry = entry.unwrap();
                (entry.key_str().unwrap().to_owned(), entry.value().unwrap().len())
            });
            let known = expected.iter().filter(|((of, _), _)| *of == place);
            let known = known.map(|((_, key), length)| (key.clone(), *length));
            assert!(listed.eq(known), "{name}, {read_mode:?}");
        }
        let live: u64 = store.stats().segments.iter().map(|segment| segment.live_records).sum();
        assert_eq!(live, expected.len() as u64 + names.len() as u64);
    }
}

/// Of large records, a list is smaller than a bit for each place.
#[test]
fn what_is_dead_is_noted_in_both_ways_alike() {
    let few = |length: usize| {
        let disk = MemStorage::new();
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        for round in 0..3 {
            for key in 0..20 {
                // Half of them in each segment, the others in one.
                if key % 2 == 0 || key % 3 == round {
                    namespace.put(format!("{key}"), vec![round; length]).unwrap();
                }
            }
            store.end_segment();
        }
        store.close().unwrap();
        let store = open(&disk);
        let sources: Vec<_> = (store.engine().state.segments.all().iter())
            .map(|segment| source_of(&store.engine().context, segment, true).unwrap())
            .collect();
        let dead = DeadRecords::none(&sources);
        let is_bitmap = matches!(dead.of(&sources[0]), Some(DeadInSegment::Bitmap(_)));
        let namespace = store.open_namespace("N").unwrap();
        let keys: Vec<_> = namespace.list().with_values().into_iter().map(Result::unwrap).collect();
        let shown: Vec<_> = keys
            .iter()
            .map(|entry| (entry.key().to_vec(), entry.value().unwrap()[0]))
            .collect();
        (is_bitmap, shown)
    };
    let ((small_is_bitmap, small), (large_is_bitmap, large)) = (few(10), few(10_000));
    assert!(small_is_bitmap && !large_is_bitmap);
    assert_eq!(small.len(), 20);
    assert_eq!(small, large);
}
