//! The part of `store_open` that opens a store by an index file: by one of any content, and by that
//! which closing has left.

use std::path::Path;

use embercask::storage::MemStorage;
use embercask::{ReadMode, Result, Store};

use super::{DIRECTORY, Listing, invents_nothing, listing, options, records, told};
use crate::way::Way;
use embercask::testing::repair;

/// Opens a store by the index file that is on one disk and not on the other. One that fits changes
/// nothing that is shown, unless somebody has put its checksums right: then it may hide what was
/// written, and cannot make up what was not.
pub(super) fn check(disk: &MemStorage, by_log: &MemStorage, read_mode: ReadMode, may_lie: bool) {
    let before = records(disk);
    let bytes = disk.read_file(Path::new(DIRECTORY).join("INDEX")).unwrap();
    let truth = |disk: &MemStorage| listing(&options(disk, read_mode).open(DIRECTORY)?);
    let expected = truth(&by_log.crash_process());
    let store = match options(disk, read_mode).open(DIRECTORY) {
        Ok(store) => store,
        Err(error) => {
            told(&error);
            assert!(expected.is_err(), "an index file keeps it from opening: {error}");
            return;
        }
    };
    if !store.recovery_report().index_file_used {
        match (listing(&store).inspect_err(told), expected) {
            (Ok(shown), Ok(expected)) => assert_eq!(shown, expected, "an index file that was not used"),
            (shown, expected) => assert_eq!(shown.is_ok(), expected.is_ok(), "an index file that was not used"),
        }
        return;
    }
    let manifest = before.get("MANIFEST").map_or(&[][..], Vec::as_slice);
    assert!(
        repair::is_sound_index(&bytes) && repair::is_index_of(&bytes, manifest),
        "an index file is used that does not fit"
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
    // Closed with nothing done, it has changed nothing: without the index file the truth is back.
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
    // What comes of it when it is written to, nobody can say; but it panics at nothing.
    let store = options(disk, read_mode).open(DIRECTORY).unwrap();
    let _ = (store.verify(), write_to(&store), store.close());
}

/// Opened again by its index file, its hints and its records, a store shows the same.
pub(super) fn reopened(disk: &MemStorage, read_mode: ReadMode, shown: &Listing, sound: bool) -> Result<()> {
    for way in [Way::IndexFile, Way::Hints, Way::Records] {
        let prepared = way.prepare(disk, DIRECTORY);
        let store = options(disk, read_mode).open(DIRECTORY)?;
        // What the store has written for itself is fit to be used.
        let report = store.recovery_report();
        assert_eq!(report.index_file_used, prepared.index_file, "{report:?}");
        if sound {
            prepared.assert_all_used(report);
        }
        assert_eq!(
            listing(&store)?,
            *shown,
            "opened again by {way:?}, it shows something else"
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

/// What walking shows, of a store whose indexes need not agree with each other.
fn browse(store: &Store) -> Result<Listing> {
    let mut listing = Listing::new();
    for info in store.namespaces()? {
        let namespace = store.open_namespace(&info.name)?;
        for entry in namespace.list().limit(3).with_values() {
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
