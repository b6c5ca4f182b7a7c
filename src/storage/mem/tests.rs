//! (Over 400 lines: each rule of the simulated disk.)
//!
//! The two images, the states that power cuts leave, and the limits of the disk.

use std::collections::BTreeSet;

use super::*;
use crate::storage::write_all_at;

const GRAIN: usize = 512;

fn create(disk: &MemStorage, path: &str, content: &[u8]) -> Arc<dyn StorageFile> {
    let file = disk.create(Path::new(path)).unwrap();
    write_all_at(&*file, content, 0).unwrap();
    file
}

/// A file whose content and name are durable.
fn create_durably(disk: &MemStorage, path: &str, content: &[u8]) -> Arc<dyn StorageFile> {
    let file = create(disk, path, content);
    file.sync().unwrap();
    sync_root(disk);
    file
}

fn sync_root(disk: &MemStorage) {
    disk.sync_directory(Path::new("/")).unwrap();
}

fn rename(disk: &MemStorage, from: &str, to: &str) {
    disk.rename(Path::new(from), Path::new(to)).unwrap();
}

fn lose_unsynced(disk: &MemStorage) -> MemStorage {
    disk.power_cut(&CutPolicy::LoseUnsynced)
}

/// The disks that random cuts leave, with their seeds.
fn random_cuts(disk: &MemStorage) -> impl Iterator<Item = (u64, MemStorage)> + '_ {
    (0..500).map(|seed| (seed, disk.power_cut(&CutPolicy::Random { seed, grain: GRAIN })))
}

fn names(disk: &MemStorage) -> Vec<String> {
    disk.files("/")
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn unsynced_bytes_are_lost_and_synced_ones_kept() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", b"synced");
    file.write_at(b"more", 6).unwrap();
    file.write_at(b"S", 0).unwrap();
    assert_eq!(disk.read_file("/a").unwrap(), b"Syncedmore");
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"synced");
    assert_eq!(
        disk.power_cut(&CutPolicy::KeepAll).read_file("/a").unwrap(),
        b"Syncedmore"
    );
    file.sync().unwrap();
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"Syncedmore");
}

#[test]
fn an_unsynced_length_is_lost() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", b"0123");
    file.set_len(1).unwrap();
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"0123");
    file.sync().unwrap();
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"0");
}

#[test]
fn a_new_file_is_lost_until_its_directory_is_synced() {
    let disk = MemStorage::new();
    let file = create(&disk, "/a", b"content");
    file.sync().unwrap();
    assert!(
        names(&lose_unsynced(&disk)).is_empty(),
        "syncing a file does not sync its name"
    );
    sync_root(&disk);
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"content");
}

#[test]
fn a_synced_name_without_synced_content_is_an_empty_file() {
    let disk = MemStorage::new();
    let _file = create(&disk, "/a", b"content");
    sync_root(&disk);
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"");
}

#[test]
fn a_new_directory_is_lost_until_the_one_above_is_synced() {
    let disk = MemStorage::new();
    disk.create_directory(Path::new("/x/y")).unwrap();
    create(&disk, "/x/y/a", b"content").sync().unwrap();
    disk.sync_directory(Path::new("/x/y")).unwrap();
    disk.sync_directory(Path::new("/x")).unwrap();
    assert!(!lose_unsynced(&disk).exists(Path::new("/x")).unwrap());
    sync_root(&disk);
    assert_eq!(lose_unsynced(&disk).read_file("/x/y/a").unwrap(), b"content");
}

#[test]
fn a_removed_name_comes_back_until_its_directory_is_synced() {
    let disk = MemStorage::new();
    create_durably(&disk, "/a", b"content");
    disk.remove(Path::new("/a")).unwrap();
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"content");
    sync_root(&disk);
    assert!(names(&lose_unsynced(&disk)).is_empty());
}

#[test]
fn a_rename_is_atomic_however_power_fails() {
    let disk = MemStorage::new();
    create_durably(&disk, "/MANIFEST", b"old");
    let new = create(&disk, "/MANIFEST.tmp", b"new");
    new.sync().unwrap();
    rename(&disk, "/MANIFEST.tmp", "/MANIFEST");
    assert_eq!(lose_unsynced(&disk).read_file("/MANIFEST").unwrap(), b"old");
    let mut seen = BTreeSet::new();
    for (seed, cut) in random_cuts(&disk) {
        let content = cut
            .read_file("/MANIFEST")
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let temporary = cut.read_file("/MANIFEST.tmp").ok();
        assert!(
            content == b"old" || temporary.is_none(),
            "seed {seed}: kept under both names"
        );
        seen.insert((content, temporary));
    }
    let expected = [
        (b"new".to_vec(), None),
        (b"old".to_vec(), None),
        (b"old".to_vec(), Some(b"new".to_vec())),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_rename_across_directories_is_atomic_too() {
    let disk = MemStorage::new();
    for directory in ["/x", "/y"] {
        disk.create_directory(Path::new(directory)).unwrap();
    }
    create_durably(&disk, "/x/a", b"content");
    disk.sync_directory(Path::new("/x")).unwrap();
    rename(&disk, "/x/a", "/y/a");
    for (seed, cut) in random_cuts(&disk) {
        let there = ["/x/a", "/y/a"].map(|path| cut.exists(Path::new(path)).unwrap());
        assert!(there[0] != there[1], "seed {seed}: {there:?}");
    }
    disk.sync_directory(Path::new("/y")).unwrap();
    let cut = lose_unsynced(&disk);
    assert_eq!(cut.read_file("/y/a").unwrap(), b"content");
    assert!(
        !cut.exists(Path::new("/x/a")).unwrap(),
        "syncing either directory syncs the whole rename"
    );
}

#[test]
fn a_rename_without_a_synced_file_can_leave_an_empty_one() {
    let disk = MemStorage::new();
    create_durably(&disk, "/MANIFEST", b"old");
    create(&disk, "/MANIFEST.tmp", b"new");
    rename(&disk, "/MANIFEST.tmp", "/MANIFEST");
    assert!(random_cuts(&disk).any(|(_, cut)| cut.read_file("/MANIFEST").unwrap().is_empty()));
}

#[test]
fn a_chain_of_renames_survives_in_order() {
    let disk = MemStorage::new();
    create_durably(&disk, "/a", b"content");
    rename(&disk, "/a", "/b");
    rename(&disk, "/b", "/c");
    let seen: BTreeSet<_> = random_cuts(&disk).map(|(_, cut)| names(&cut)).collect();
    assert_eq!(
        seen,
        BTreeSet::from(["/a", "/b", "/c"].map(|name| vec![name.to_owned()]))
    );
}

#[test]
fn names_change_independently_of_each_other() {
    let disk = MemStorage::new();
    create_durably(&disk, "/old", b"");
    create(&disk, "/new", b"");
    disk.remove(Path::new("/old")).unwrap();
    let seen: BTreeSet<_> = random_cuts(&disk).map(|(_, cut)| names(&cut)).collect();
    assert!(
        seen.contains(&Vec::new()),
        "removed before the other was created: {seen:?}"
    );
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_prefix_follows_the_order_over_all_files_and_directories() {
    let disk = MemStorage::new();
    let a = create(&disk, "/a", b"1");
    create(&disk, "/b", b"2");
    a.write_at(b"3", 1).unwrap();
    assert_eq!(disk.pending_operations(), 5);
    let state = |operations| {
        let cut = disk.power_cut(&CutPolicy::KeepPrefix { operations });
        names(&cut)
            .iter()
            .map(|name| (name.clone(), cut.read_file(name).unwrap()))
            .collect::<Vec<_>>()
    };
    let (a, b) = (
        |content: &[u8]| ("/a".to_owned(), content.to_vec()),
        |content: &[u8]| ("/b".to_owned(), content.to_vec()),
    );
    assert_eq!(state(0), []);
    assert_eq!(state(1), [a(b"")]);
    assert_eq!(state(2), [a(b"1")]);
    assert_eq!(state(3), [a(b"1"), b(b"")]);
    assert_eq!(state(4), [a(b"1"), b(b"2")]);
    assert_eq!(state(5), [a(b"13"), b(b"2")]);
    assert_eq!(state(6), state(5));
}

#[test]
fn random_cuts_tear_writes_at_sectors_and_reorder_them() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", &[b'.'; 4 * GRAIN]);
    file.write_at(&[b'1'; 2 * GRAIN], 0).unwrap();
    file.write_at(&[b'2'; GRAIN], 2 * GRAIN as u64 + 100).unwrap();
    let mut seen = BTreeSet::new();
    for (seed, cut) in random_cuts(&disk) {
        let content = cut.read_file("/a").unwrap();
        for sector in content[..2 * GRAIN].chunks(GRAIN) {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "seed {seed}: a sector is torn"
            );
        }
        seen.insert([0, GRAIN, 3 * GRAIN - 1, 3 * GRAIN].map(|index| char::from(content[index])));
    }
    assert_eq!(seen.len(), 16, "each sector is kept or lost on its own: {seen:?}");
}

#[test]
fn random_cuts_leave_lengths_without_data_and_lose_data_beyond_the_length() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", b"");
    file.write_at(&[1; GRAIN], 0).unwrap();
    file.write_at(&[2; 3 * GRAIN], GRAIN as u64).unwrap();
    let seen: BTreeSet<_> = random_cuts(&disk)
        .map(|(_, cut)| cut.read_file("/a").unwrap())
        .collect();
    let lengths: BTreeSet<_> = seen.iter().map(Vec::len).collect();
    assert_eq!(lengths, (0..=4).map(|sectors| sectors * GRAIN).collect());
    assert!(seen.contains(&vec![0; 4 * GRAIN]), "the length without the data");
    assert!(
        seen.contains(&[vec![0; GRAIN], vec![2; 3 * GRAIN]].concat()),
        "the second write without the first"
    );
}

#[test]
fn a_random_cut_never_touches_what_was_synced() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", &[7; 1000]);
    file.write_at(&[8; 1000], 1000).unwrap();
    file.set_len(1500).unwrap();
    for (seed, cut) in random_cuts(&disk) {
        let content = cut.read_file("/a").unwrap();
        assert!(content.len() >= 1000 && content[..1000] == [7; 1000], "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let disk = MemStorage::new();
    for name in ["/a", "/b", "/c"] {
        create(&disk, name, &[1; 3000]).write_at(&[2; 3000], 1500).unwrap();
    }
    let state = |cut: &MemStorage| {
        names(cut)
            .iter()
            .map(|name| cut.read_file(name).unwrap())
            .collect::<Vec<_>>()
    };
    let first: Vec<_> = random_cuts(&disk).map(|(_, cut)| state(&cut)).collect();
    let second: Vec<_> = random_cuts(&disk.clone()).map(|(_, cut)| state(&cut)).collect();
    assert_eq!(first, second);
    assert!(
        first.iter().collect::<BTreeSet<_>>().len() > 50,
        "and different seeds give different ones"
    );
}

#[test]
fn a_cut_disk_is_independent_and_has_no_locks() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", b"old");
    let _held = disk.lock(Path::new("/LOCK"), "me").unwrap();
    let after_cut = disk.power_cut(&CutPolicy::KeepAll);
    let after_crash = disk.crash_process();
    file.write_at(b"new", 0).unwrap();
    for other in [after_cut, after_crash] {
        assert_eq!(other.read_file("/a").unwrap(), b"old");
        let _held = other.lock(Path::new("/LOCK"), "other").unwrap();
        other.remove(Path::new("/a")).unwrap();
    }
    assert_eq!(disk.read_file("/a").unwrap(), b"new");
    disk.lock(Path::new("/LOCK"), "second").unwrap_err();
}

#[test]
fn a_killed_process_leaves_the_page_cache() {
    let disk = MemStorage::new();
    create_durably(&disk, "/a", b"synced")
        .write_at(b", not synced", 6)
        .unwrap();
    let next = disk.crash_process();
    assert_eq!(next.read_file("/a").unwrap(), b"synced, not synced");
    assert_eq!(lose_unsynced(&next).read_file("/a").unwrap(), b"synced");
    next.open(Path::new("/a"), false).unwrap().sync().unwrap();
    assert_eq!(lose_unsynced(&next).read_file("/a").unwrap(), b"synced, not synced");
}

#[test]
fn what_was_marked_clean_is_shown_but_never_durable_unless_written_again() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", b"synced");
    file.write_at(b"LOST", 6).unwrap();
    disk.mark_clean("/a").unwrap();
    file.write_at(b"new", 10).unwrap();
    file.sync().unwrap();
    let killed = disk.crash_process();
    assert_eq!(killed.read_file("/a").unwrap(), b"syncedLOSTnew");
    assert_eq!(
        killed.power_cut(&CutPolicy::KeepAll).read_file("/a").unwrap(),
        b"synced\0\0\0\0new"
    );
    file.write_at(b"LOST", 6).unwrap();
    file.sync().unwrap();
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"syncedLOSTnew");
}

#[test]
fn a_full_disk_writes_short_then_nothing_and_frees_what_is_removed() {
    let disk = MemStorage::new();
    let file = create(&disk, "/a", &[1; 60]);
    let other = create(&disk, "/b", &[2; 30]);
    disk.set_capacity(Some(100));
    assert_eq!(
        file.write_at(&[3; 40], 50).unwrap(),
        20,
        "ten over the old bytes, ten that are free"
    );
    assert_eq!(file.write_at(&[3; 30], 70).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[4; 70], 0).unwrap(), 70, "overwriting takes no space");
    assert_eq!(file.set_len(71).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.create(Path::new("/c")).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.used(), 100);

    let map = other.map(30, NeverChanged::promised()).unwrap();
    disk.hard_link(Path::new("/b"), Path::new("/b2")).unwrap();
    disk.remove(Path::new("/b")).unwrap();
    disk.remove(Path::new("/b2")).unwrap();
    drop(other);
    assert_eq!(disk.used(), 100, "still mapped");
    drop(map);
    assert_eq!(disk.used(), 70);
    assert_eq!(file.write_at(&[5; 30], 70).unwrap(), 30);
    file.set_len(10).unwrap();
    assert_eq!(disk.used(), 10);
}

#[test]
fn a_replaced_file_frees_its_space() {
    let disk = MemStorage::new();
    create(&disk, "/a", &[1; 60]);
    create(&disk, "/b", &[1; 30]);
    rename(&disk, "/b", "/a");
    assert_eq!(disk.used(), 30);
    assert_eq!(lose_unsynced(&disk).used(), 0);
}

#[test]
fn a_full_disk_can_still_be_locked() {
    let disk = MemStorage::new();
    drop(disk.lock(Path::new("/LOCK"), "me").unwrap());
    create(&disk, "/a", &[0; 10]);
    disk.set_capacity(Some(1));
    let _held = disk.lock(Path::new("/LOCK"), "me").unwrap();
}

#[test]
fn damage_is_durable() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", b"@@@@");
    file.write_at(b"@@", 4).unwrap();
    disk.flip_bit("/a", 40).unwrap();
    disk.truncate("/a", 6).unwrap();
    disk.write_file("/b", b"made up").unwrap();
    let cut = lose_unsynced(&disk);
    assert_eq!(cut.read_file("/a").unwrap(), b"@@@@@A");
    assert_eq!(cut.read_file("/b").unwrap(), b"made up");
    assert_eq!(disk.flip_bit("/a", 48).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.truncate("/missing", 0).unwrap_err().kind(), ErrorKind::NotFound);
    disk.truncate("/a", 2).unwrap();
    disk.remove_file("/b").unwrap();
    assert_eq!(names(&lose_unsynced(&disk)), ["/a"]);
    assert_eq!(lose_unsynced(&disk).read_file("/a").unwrap(), b"@@");
    assert_eq!(file.len().unwrap(), 2);
}

#[test]
fn mutating_calls_are_counted() {
    let disk = MemStorage::new();
    let file = create(&disk, "/a", b"x");
    assert_eq!(disk.operation_count(), 2);
    file.len().unwrap();
    disk.open(Path::new("/a"), true).unwrap();
    file.sync().unwrap();
    sync_root(&disk);
    assert_eq!(disk.operation_count(), 4);
    assert_eq!(disk.crash_process().operation_count(), 0);
}

#[test]
fn a_snapshot_map_does_not_see_later_writes_of_others() {
    let disk = MemStorage::new();
    let map = create(&disk, "/a", b"old").map(3, NeverChanged::promised()).unwrap();
    disk.open(Path::new("/a"), true).unwrap().write_at(b"new", 0).unwrap();
    assert_eq!(&map[..], b"old");
}

#[test]
fn a_removed_directory_comes_back_with_its_content() {
    let disk = MemStorage::new();
    disk.create_directory(Path::new("/x")).unwrap();
    create_durably(&disk, "/x/a", b"content");
    disk.sync_directory(Path::new("/x")).unwrap();
    disk.remove_directory(Path::new("/x")).unwrap();
    assert_eq!(lose_unsynced(&disk).read_file("/x/a").unwrap(), b"content");
    sync_root(&disk);
    assert!(!lose_unsynced(&disk).exists(Path::new("/x")).unwrap());
    disk.create_directory(Path::new("/x")).unwrap();
    assert!(disk.files("/x").is_empty());
}

#[test]
fn after_a_failed_commit_syncs_say_yes_metadata_cannot_be_changed_and_nothing_becomes_durable() {
    let disk = MemStorage::new();
    let file = create_durably(&disk, "/a", b"durable");
    let other = create(&disk, "/b", b"lost");
    file.write_at(b", lost", 7).unwrap();
    other.fail_commit();
    let root = disk.open_directory(Path::new("/")).unwrap();
    root.check_journal().expect("who makes it notice is not told");
    for file in [&file, &other] {
        file.sync().unwrap();
        assert_eq!(root.check_journal().unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    sync_root(&disk);
    assert_eq!(disk.read_file("/a").unwrap(), b"durable, lost");
    for refused in [
        disk.create("/c").map(drop),
        disk.rename("/a", "/c"),
        disk.remove("/a"),
        file.write_at(b"longer", 13).map(drop),
        file.set_len(3),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    let rebooted = disk.power_cut(&CutPolicy::KeepAll);
    assert_eq!(names(&rebooted), ["/a"]);
    assert_eq!(rebooted.read_file("/a").unwrap(), b"durable");
    rebooted.create("/c").unwrap();
    let root = rebooted.open_directory(Path::new("/")).unwrap();
    root.check_journal().unwrap();
}

/// The files that a store with a simulated clock leaves on this disk: segments, a namespace, an
/// index file.
fn life_of_a_store(disk: &MemStorage) -> Vec<(PathBuf, Vec<u8>)> {
    let store = crate::Store::options()
        .maintenance(crate::Maintenance::Manual)
        .segment_bytes(4096)
        .clock(crate::ManualClock::new(1_700_000_000_000))
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..200 {
        namespace.put(format!("key {n}"), [n; 100]).unwrap();
    }
    store.close().unwrap();
    let files = disk.files("/store").into_iter();
    files
        .map(|path| (path.clone(), disk.read_file(path).unwrap()))
        .collect()
}

#[test]
fn all_that_is_random_in_a_store_follows_from_the_seed_of_its_disk() {
    let life = life_of_a_store(&MemStorage::seeded(1));
    assert!(life.iter().any(|(path, _)| path.ends_with("INDEX")));
    assert!(life == life_of_a_store(&MemStorage::seeded(1)), "the same seed");
    assert!(life != life_of_a_store(&MemStorage::seeded(2)), "another seed");
    assert!(
        life_of_a_store(&MemStorage::new()) != life_of_a_store(&MemStorage::new()),
        "no seed"
    );
    // A crash does not restart the sequence: salts must be different after it.
    let disk = MemStorage::seeded(1);
    let first = disk.random_u64();
    assert_ne!(disk.power_cut(&CutPolicy::LoseUnsynced).random_u64(), first);
    assert_ne!(disk.crash_process().random_u64(), first);
}
