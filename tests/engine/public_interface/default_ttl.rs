//! The lifetime that a namespace gives to puts which name none.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{
    ErrorKind, Limits, ManualClock, Namespace, Options, Part, PartValue, PutOptions, Store, Update, inspect, salvage,
    verify,
};

use test_support::{DIRECTORY, ending, manual};

const NOW_MS: u64 = 2_000_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: u64 = 3_600_000;

fn options(disk: &MemStorage) -> Options {
    manual(Arc::new(disk.clone())).clock(ManualClock::new(NOW_MS))
}

/// When a key expires, in milliseconds from now.
#[track_caller]
fn left_ms(namespace: &Namespace, key: &str) -> Option<u64> {
    let value = namespace.get(key).unwrap().expect("the key is there");
    value.expiry_ms().map(|expiry_ms| expiry_ms - NOW_MS)
}

#[test]
fn puts_that_name_no_lifetime_get_that_of_their_namespace() {
    let store = options(&MemStorage::new()).open(DIRECTORY).unwrap();
    let [namespace, other] = ["N", "other"].map(|name| store.namespace(name).unwrap());
    assert_eq!(namespace.default_ttl(), None);
    namespace.put("before", "1").unwrap();
    namespace.set_default_ttl(Some(HOUR)).unwrap();
    assert_eq!(namespace.default_ttl(), Some(HOUR));

    let plain = PutOptions::new();
    namespace.put("put", "1").unwrap();
    namespace
        .put_with("with", "1", PutOptions::new().metadata("m"))
        .unwrap();
    namespace.put_json("json", &1).unwrap();
    namespace.replace("replaced", "1", &plain).unwrap();
    namespace.put_when("when", "1", &plain, |_| true).unwrap();
    namespace
        .update("updated", |_| Update::Put(b"1".to_vec(), PutOptions::new()))
        .unwrap();
    namespace.increment("counted", 1).unwrap();
    store
        .batch()
        .put(&namespace, "batch", "1")
        .put(&other, "batch", "1")
        .commit()
        .unwrap();
    for key in ["put", "with", "json", "replaced", "when", "updated", "counted", "batch"] {
        assert_eq!(left_ms(&namespace, key), Some(HOUR_MS), "{key}");
    }
    // Not those of others, nor what was put before, nor what says otherwise.
    assert_eq!((left_ms(&other, "batch"), left_ms(&namespace, "before")), (None, None));
    namespace
        .put_with("own", "1", PutOptions::new().ttl(Duration::from_secs(1)))
        .unwrap();
    namespace
        .put_with("forever", "1", PutOptions::new().ttl(HOUR).forever())
        .unwrap();
    namespace.set_metadata("before", Some(b"m")).unwrap();
    namespace.remove_expiry("put").unwrap();
    namespace.increment("before", 1).unwrap();
    let kept = [("own", Some(1000)), ("forever", None), ("before", None), ("put", None)];
    for (key, left) in kept {
        assert_eq!(left_ms(&namespace, key), left, "{key}");
    }

    // To the millisecond, rounded up.
    namespace
        .set_default_ttl(Some(Duration::from_nanos(1_000_001)))
        .unwrap();
    namespace.put("short", "1").unwrap();
    assert_eq!(left_ms(&namespace, "short"), Some(2));
    namespace
        .set_default_ttl(Some(Duration::MAX.min(Duration::from_millis(u64::MAX))))
        .unwrap();
    namespace.put("long", "1").unwrap();
    assert_eq!(namespace.get("long").unwrap().unwrap().expiry_ms(), Some(u64::MAX));
    namespace.set_default_ttl(None).unwrap();
    namespace.put("put", "1").unwrap();
    assert_eq!((namespace.default_ttl(), left_ms(&namespace, "put")), (None, None));
}

#[test]
fn a_default_lifetime_that_no_put_may_have_is_refused() {
    let disk = MemStorage::new();
    let store = options(&disk).limits(Limits::WORKERS_KV).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    for ttl in [Duration::ZERO, Duration::from_secs(59), Duration::MAX] {
        let refused = namespace.set_default_ttl(Some(ttl)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{ttl:?}");
    }
    assert_eq!(namespace.default_ttl(), None);
    store.drop_namespace("N").unwrap();
    assert_eq!(namespace.set_default_ttl(None).unwrap_err().kind(), ErrorKind::NotFound);
    store.close().unwrap();
    assert_eq!(namespace.set_default_ttl(None).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_default_lifetime_outlives_renames_restarts_power_cuts_compaction_and_damage() {
    let disk = MemStorage::new();
    let mut store = options(&disk).open(DIRECTORY).unwrap();
    store.namespace("first").unwrap().set_default_ttl(Some(HOUR)).unwrap();
    store.namespace("none").unwrap();
    let check = |store: &Store, name: &str| {
        let namespace = store.open_namespace(name).unwrap();
        assert_eq!(namespace.default_ttl(), Some(HOUR));
        namespace.put("key", "value").unwrap();
        assert_eq!(left_ms(&namespace, "key"), Some(HOUR_MS));
        assert_eq!(store.open_namespace("none").unwrap().default_ttl(), None);
    };
    // It is durable when the call returns.
    check(
        &options(&disk.power_cut(&CutPolicy::LoseUnsynced))
            .open(DIRECTORY)
            .unwrap(),
        "first",
    );
    check(&options(&disk.crash_process()).open(DIRECTORY).unwrap(), "first");
    store.rename_namespace("first", "second").unwrap();
    for index_file in [true, false] {
        for _ in 0..3 {
            check(&store, "second");
            store.compact().unwrap();
            store.close().unwrap();
            assert!(verify(DIRECTORY, &options(&disk)).unwrap().damaged.is_empty());
            store = options(&disk).index_file(index_file).open(DIRECTORY).unwrap();
            assert_eq!(store.recovery_report().index_file_used, index_file);
        }
    }
    // Shown by inspect, and carried over by salvage.
    let mut shown = 0;
    for segment in ending(&disk, ".segment") {
        let shows = |part: &Part<'_>| {
            let is_it = |(name, value): &(&str, PartValue<'_>)| {
                *name == "namespace default lifetime in ms" && matches!(value, PartValue::Number(HOUR_MS))
            };
            shown += part.fields.iter().filter(|value| is_it(value)).count();
            true
        };
        inspect(&segment, &options(&disk), shows).unwrap();
    }
    assert!(shown > 0);
    store.close().unwrap();
    salvage(DIRECTORY, "/saved", options(&disk)).unwrap();
    check(&options(&disk).open("/saved").unwrap(), "second");
    let store = options(&disk).open(DIRECTORY).unwrap();
    store.open_namespace("second").unwrap().set_default_ttl(None).unwrap();
    store.close().unwrap();
    let store = options(&disk).open(DIRECTORY).unwrap();
    assert_eq!(store.open_namespace("second").unwrap().default_ttl(), None);
}
