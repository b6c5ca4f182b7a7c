//! The part of `store_open` that opens a store by its index file: one of any content, and one that
//! closing wrote.

use std::path::Path;

use embercask::storage::MemStorage;
use embercask::{ReadMode, Result, Store};

use super::{DIRECTORY, Listing, invents_nothing, listing, options, records, told};
use crate::way::Way;
use embercask::testing::repair;

/// Opens a store by the index file that is on `disk` and not on `by_log`. One that fits changes
/// nothing visible, unless its checksums were repaired: then it may hide records, but cannot invent
/// any.
pub(super) fn check(disk: &MemStorage, by_log: &MemStorage, read_mode: ReadMode, may_lie: bool) {
    let before = records(disk);
    let bytes = disk.read_file(Path::new(DIRECTORY).join("INDEX")).unwrap();
    let truth = |disk: &MemStorage| listing(&options(disk, read_mode).open(DIRECTORY)?);
    let expected = truth(&by_log.crash_process());
    let store = match options(disk, read_mode).open(DIRECTORY) {
        Ok(store) => store,
        Err(error) => {
            told(&error);
            assert!(expected.is_err(), "an index file prevents opening: {error}");
            return;
        }
    };
    if !store.recovery_report().index_file_used {
        match (listing(&store).inspect_err(told), expected) {
            (Ok(shown), Ok(expected)) => assert_eq!(shown, expected, "an unused index file changed the content"),
            (shown, expected) => assert_eq!(
                shown.is_ok(),
                expected.is_ok(),
                "an unused index file changed the outcome"
            ),
        }
        return;
    }
    let manifest = before.get("MANIFEST").map_or(&[][..], Vec::as_slice);
    assert!(
        repair::is_sound_index(&bytes) && repair::is_index_of(&bytes, manifest),
        "an index file that does not fit was used"
    );
    match (browse(&store), may_lie) {
        (shown, true) => invents_nothing(&before, shown.as_ref().ok()),
        (Ok(shown), false) => {
            if let Ok(expected) = &expected {
                assert_eq!(shown, *expected, "an index file changed what the store shows");
            }
        }
        (Err(error), false) => told(&error),
    }
    // Closing without a write changed nothing: without the index file, the truth is back.
    store.close().unwrap();
    let again = disk.crash_process();
    Way::Hints.prepare(&again, DIRECTORY);
    match (truth(&again), expected) {
        (Ok(shown), Ok(expected)) => assert_eq!(shown, expected, "an index file changed the store itself"),
        (shown, expected) => assert_eq!(
            shown.is_ok(),
            expected.is_ok(),
            "an index file changed the store itself"
        ),
    }
    // The result of writes to such a store is undefined, but they must not panic.
    let store = options(disk, read_mode).open(DIRECTORY).unwrap();
    let _ = (store.verify(), write_to(&store), store.close());
}

/// Opened by its index file, its hints and its records, a store shows the same.
pub(super) fn reopened(disk: &MemStorage, read_mode: ReadMode, shown: &Listing, sound: bool) -> Result<()> {
    for way in [Way::IndexFile, Way::Hints, Way::Records] {
        let prepared = way.prepare(disk, DIRECTORY);
        let store = options(disk, read_mode).open(DIRECTORY)?;
        // The store must use the files it wrote itself.
        let report = store.recovery_report();
        assert_eq!(report.index_file_used, prepared.index_file, "{report:?}");
        if sound {
            prepared.assert_all_used(report);
        }
        assert_eq!(
            listing(&store)?,
            *shown,
            "opened again by {way:?}, it shows different content"
        );
        store.close()?;
    }
    Ok(())
}

fn write_to(store: &Store) -> Result<()> {
    let namespace = store.namespace("used")?;
    namespace.put("a key of its own", [7; 5000])?;
    namespace.delete("a key of its own")?;
    store.maintain()?;
    store.compact()?;
    browse(store).map(drop)
}

/// What a listing shows of a store whose indexes may disagree with each other.
fn browse(store: &Store) -> Result<Listing> {
    let mut listing = Listing::new();
    for info in store.namespaces()? {
        let namespace = store.open_namespace(&info.name)?;
        for entry in namespace.list().page_size(3).with_values() {
            let entry = entry?;
            let _ = namespace.get(entry.key())?;
            let value = entry.value().unwrap();
            let content = (value.to_vec(), value.metadata().map(<[u8]>::to_vec), value.expiry_ms());
            listing.insert((info.name.clone(), entry.key().to_vec()), content);
        }
        namespace.count()?;
    }
    Ok(listing)
}
