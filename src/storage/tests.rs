//! (Over 400 lines: each rule of the storage traits, for all storages.)
//!
//! The behaviour required of every storage, tested on each of them: the engine cannot tell them
//! apart by anything tested here.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::testing::until;

/// The storage calls by path.
pub(super) trait ByPath {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>>;
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>>;
    fn is_locked(&self, path: &Path) -> io::Result<bool>;
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

impl<S: Storage + ?Sized> ByPath for S {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.open_directory(path.parent().unwrap())?.create(name(path))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        self.open_directory(path.parent().unwrap())?.open(name(path), write)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.open_directory(path)?.list()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent());
        self.open_directory(from.parent().unwrap())?
            .rename(name(from), name(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.open_directory(path.parent().unwrap())?.remove(name(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let target = self.open_directory(to.parent().unwrap())?;
        self.open_directory(from.parent().unwrap())?
            .hard_link(name(from), &*target, name(to))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        self.open_directory(path.parent().unwrap())?.lock(name(path), owner)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.open_directory(path.parent().unwrap())?.is_locked(name(path))
    }
}

/// A storage and an empty directory on it.
struct Setup {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Setup {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn create(&self, name: &str, content: &[u8]) -> Arc<dyn StorageFile> {
        let file = self.storage.create(&self.path(name)).unwrap();
        write_all_at(&*file, content, 0).unwrap();
        file
    }

    fn content(&self, name: &str) -> Vec<u8> {
        read_whole(&*self.storage.open(&self.path(name), false).unwrap(), 1 << 20).unwrap()
    }

    fn names(&self) -> Vec<OsString> {
        let mut names = self.storage.list(&self.directory).unwrap();
        names.sort();
        names
    }
}

fn setups() -> Vec<Setup> {
    let directory = PathBuf::from("/store");
    let mut setups = Vec::new();
    for wrapped in [false, true] {
        let memory: Arc<dyn Storage> = Arc::new(MemStorage::new());
        let storage = if wrapped {
            Arc::new(FaultStorage::new(memory))
        } else {
            memory
        };
        storage.create_directory(&directory).unwrap();
        setups.push(Setup {
            storage,
            directory: directory.clone(),
            _temporary: None,
        });
    }
    if !cfg!(miri) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().to_owned();
        setups.push(Setup {
            storage: Arc::new(OsStorage),
            directory,
            _temporary: Some(temporary),
        });
    }
    setups
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("the call must fail").kind()
}

#[test]
fn create_wants_a_new_name_and_open_an_existing_one() {
    for setup in setups() {
        let path = setup.path("a");
        assert_eq!(kind(setup.storage.open(&path, true)), ErrorKind::NotFound);
        assert!(!setup.storage.exists(&path).unwrap());
        setup.create("a", b"content");
        assert!(setup.storage.exists(&path).unwrap());
        assert_eq!(kind(setup.storage.create(&path)), ErrorKind::AlreadyExists);
        assert_eq!(setup.content("a"), b"content");
        assert_eq!(
            kind(setup.storage.create(&setup.path("missing/a"))),
            ErrorKind::NotFound
        );
    }
}

#[test]
fn a_file_opened_for_reading_cannot_be_written() {
    for setup in setups() {
        setup.create("a", b"content");
        let file = setup.storage.open(&setup.path("a"), false).unwrap();
        file.write_at(b"x", 0).unwrap_err();
        file.set_len(0).unwrap_err();
        assert_eq!(setup.content("a"), b"content");
    }
}

#[test]
fn reads_end_at_the_end_of_the_file() {
    for setup in setups() {
        let file = setup.create("a", b"0123");
        let mut buffer = [0xee; 8];
        assert_eq!(file.read_at(&mut buffer, 1).unwrap(), 3);
        assert_eq!(&buffer[..4], b"123\xee");
        assert_eq!(file.read_at(&mut buffer, 4).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
        assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
        assert_eq!(kind(read_exact_at(&*file, &mut buffer, 0)), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn writes_overwrite_extend_and_leave_holes_of_zeros() {
    for setup in setups() {
        let file = setup.create("a", b"0123");
        write_all_at(&*file, b"xy", 3).unwrap();
        write_all_at(&*file, b"z", 7).unwrap();
        assert_eq!(file.write_at(b"", 100).unwrap(), 0);
        assert_eq!(setup.content("a"), b"012xy\0\0z");
        assert_eq!(file.len().unwrap(), 8);
        file.sync().unwrap();
    }
}

#[test]
fn the_length_can_be_cut_and_extended_with_zeros() {
    for setup in setups() {
        let file = setup.create("a", b"0123");
        file.set_len(2).unwrap();
        file.set_len(4).unwrap();
        file.sync().unwrap();
        assert_eq!(setup.content("a"), b"01\0\0");
    }
}

#[test]
fn a_listing_names_files_and_directories() {
    for setup in setups() {
        setup.create("b", b"");
        setup.create("a", b"");
        setup.storage.create_directory(&setup.path("deep/deeper")).unwrap();
        setup.storage.create_directory(&setup.path("deep")).unwrap();
        assert_eq!(setup.names(), ["a", "b", "deep"]);
        assert_eq!(setup.storage.list(&setup.path("deep")).unwrap(), ["deeper"]);
        assert_eq!(kind(setup.storage.list(&setup.path("missing"))), ErrorKind::NotFound);
        setup.storage.create_directory(&setup.path("a")).unwrap_err();
        setup.storage.open_directory(&setup.directory).unwrap().sync().unwrap();
    }
}

#[test]
fn a_rename_replaces_its_target_and_open_handles_keep_their_file() {
    for setup in setups() {
        let new = setup.create("new", b"new");
        let old = setup.create("name", b"old");
        setup.storage.rename(&setup.path("new"), &setup.path("name")).unwrap();
        assert_eq!(setup.names(), ["name"]);
        assert_eq!(setup.content("name"), b"new");
        assert_eq!(old.len().unwrap(), 3);
        write_all_at(&*new, b"NEW!", 0).unwrap();
        assert_eq!(setup.content("name"), b"NEW!");
        assert_eq!(
            kind(setup.storage.rename(&setup.path("new"), &setup.path("x"))),
            ErrorKind::NotFound
        );
        setup.storage.rename(&setup.path("name"), &setup.path("name")).unwrap();
        assert_eq!(setup.names(), ["name"]);
    }
}

#[test]
fn a_directory_is_renamed_with_all_that_is_in_it() {
    for setup in setups() {
        setup.storage.create_directory(&setup.path("from/inner")).unwrap();
        setup.create("from/inner/a", b"content");
        setup
            .storage
            .rename_directory(&setup.path("from"), &setup.path("to"))
            .unwrap();
        assert_eq!(setup.content("to/inner/a"), b"content");
        assert_eq!(setup.names(), ["to"]);
        setup
            .storage
            .rename_directory(&setup.path("to"), &setup.path("to/inner/to"))
            .unwrap_err();
        setup.storage.create_directory(&setup.path("full")).unwrap();
        setup.create("full/a", b"");
        setup
            .storage
            .rename(&setup.path("to"), &setup.path("full"))
            .unwrap_err();
        setup.create("file", b"");
        setup
            .storage
            .rename(&setup.path("to"), &setup.path("file"))
            .unwrap_err();
        setup
            .storage
            .rename(&setup.path("file"), &setup.path("to"))
            .unwrap_err();
    }
}

#[test]
fn a_hard_link_is_a_second_name_of_the_same_file() {
    for setup in setups() {
        let file = setup.create("a", b"one");
        setup.storage.hard_link(&setup.path("a"), &setup.path("b")).unwrap();
        write_all_at(&*file, b"two", 0).unwrap();
        assert_eq!(setup.content("b"), b"two");
        setup.storage.remove(&setup.path("a")).unwrap();
        assert_eq!(setup.content("b"), b"two");
        setup.create("c", b"");
        assert_eq!(
            kind(setup.storage.hard_link(&setup.path("b"), &setup.path("c"))),
            ErrorKind::AlreadyExists
        );
        assert_eq!(
            kind(setup.storage.hard_link(&setup.path("missing"), &setup.path("d"))),
            ErrorKind::NotFound
        );
    }
}

#[test]
#[cfg(unix)]
fn a_rename_between_two_names_of_one_file_keeps_both() {
    for setup in setups() {
        setup.create("a", b"one");
        setup.storage.hard_link(&setup.path("a"), &setup.path("b")).unwrap();
        setup.storage.rename(&setup.path("a"), &setup.path("b")).unwrap();
        assert_eq!(setup.names(), ["a", "b"], "so POSIX has it");
    }
}

#[test]
#[cfg(unix)]
fn a_removed_file_lives_on_in_its_handles_and_maps() {
    for setup in setups() {
        let file = setup.create("a", b"content");
        let map = file.map(7, NeverChanged::promised()).unwrap();
        setup.storage.remove(&setup.path("a")).unwrap();
        assert_eq!(kind(setup.storage.remove(&setup.path("a"))), ErrorKind::NotFound);
        assert!(setup.names().is_empty());
        write_all_at(&*file, b"!", 7).unwrap();
        assert_eq!(file.len().unwrap(), 8);
        drop(file);
        assert_eq!(&map[..], b"content");
    }
}

#[test]
fn a_directory_is_removed_with_all_that_is_in_it() {
    for setup in setups() {
        setup.storage.create_directory(&setup.path("d/inner")).unwrap();
        setup.create("d/inner/a", b"content");
        setup.create("d/b", b"content");
        setup.storage.remove(&setup.path("d")).unwrap_err();
        let only_if_empty = |name: &str| setup.storage.remove_empty_directory(&setup.path(name));
        assert_eq!(kind(only_if_empty("d")), ErrorKind::DirectoryNotEmpty);
        setup.storage.remove(&setup.path("d/inner/a")).unwrap();
        only_if_empty("d/inner").unwrap();
        assert_eq!(kind(only_if_empty("d/inner")), ErrorKind::NotFound);
        setup.storage.remove_directory(&setup.path("d")).unwrap();
        assert!(setup.names().is_empty());
        assert_eq!(
            kind(setup.storage.remove_directory(&setup.path("d"))),
            ErrorKind::NotFound
        );
    }
}

#[test]
fn a_map_shows_the_first_bytes_and_never_more_than_there_are() {
    for setup in setups() {
        let file = setup.create("a", b"0123456789");
        assert_eq!(&file.map(10, NeverChanged::promised()).unwrap()[..], b"0123456789");
        assert_eq!(&file.map(4, NeverChanged::promised()).unwrap()[..], b"0123");
        assert!(file.map(0, NeverChanged::promised()).unwrap().is_empty());
        assert_eq!(kind(file.map(11, NeverChanged::promised())), ErrorKind::UnexpectedEof);
        assert!(
            setup
                .create("empty", b"")
                .map(0, NeverChanged::promised())
                .unwrap()
                .is_empty()
        );
    }
}

#[test]
fn what_is_stored_into_a_ring_is_what_every_handle_reads() {
    for setup in setups() {
        let file = setup.create("a", &[1; 8192]);
        let mut ring = file.map_ring(4096, OnlyMap::promised()).unwrap();
        ring.store(b"begin", 0).unwrap();
        ring.store(b"end", 4093).unwrap();
        for (bytes, offset) in [(&b"end"[..], 4094), (b"x", 4096), (b"x", u64::MAX)] {
            assert_eq!(kind(ring.store(bytes, offset)), ErrorKind::InvalidInput);
        }
        let again = setup.storage.open(&setup.path("a"), false).unwrap();
        let found = read_whole(&*again, 8192).unwrap();
        assert_eq!((&found[..5], &found[4093..4096]), (&b"begin"[..], &b"end"[..]));
        assert!(found[5..4093].iter().chain(&found[4096..]).all(|byte| *byte == 1));
        assert_eq!(kind(file.map_ring(8193, OnlyMap::promised())), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn rings_suit_known_file_systems_only() {
    for setup in setups() {
        let suits = setup.storage.open_directory(&setup.directory).unwrap().suits_rings();
        let known = if setup._temporary.is_some() {
            let output = std::process::Command::new("stat")
                .args(["-f", "-c", "%T"])
                .arg(&setup.directory)
                .output();
            let Ok(output) = output else { continue };
            ["ext2/ext3", "xfs", "tmpfs"].contains(&String::from_utf8_lossy(&output.stdout).trim())
        } else {
            false
        };
        assert_eq!(suits, known && cfg!(target_os = "linux"));
    }
}

#[test]
fn what_is_mapped_cannot_be_changed_through_the_same_handle() {
    for setup in setups() {
        let file = setup.create("a", b"0123");
        let map = file.map(4, NeverChanged::promised()).unwrap();
        assert_eq!(kind(file.write_at(b"x", 3)), ErrorKind::InvalidInput);
        assert_eq!(kind(file.set_len(3)), ErrorKind::InvalidInput);
        assert_eq!(&map[..], b"0123");
        drop(map);
        write_all_at(&*file, b"4", 4).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(setup.content("a"), b"0123");
    }
}

#[test]
fn what_is_allocated_is_there_as_zeros_and_nothing_is_shortened() {
    for setup in setups() {
        let file = setup.create("a", b"0123");
        match file.allocate(10_000) {
            // Some file systems cannot.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert_eq!(setup.content("a"), b"0123");
                continue;
            }
            Ok(()) => assert_eq!(file.len().unwrap(), 10_000),
        }
        file.allocate(5).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        write_all_at(&*file, b"45", 4).unwrap();
        let content = setup.content("a");
        assert_eq!((content.len(), &content[..6]), (10_000, &b"012345"[..]));
        assert!(content[6..].iter().all(|byte| *byte == 0));
        file.set_len(6).unwrap();
        assert_eq!(setup.content("a"), b"012345");
    }
}

#[test]
fn a_held_lock_tells_who_holds_it() {
    for setup in setups() {
        let path = setup.path("LOCK");
        assert!(!setup.storage.is_locked(&path).unwrap());
        assert_eq!(setup.names(), [""; 0], "looking creates nothing");
        let held = setup.storage.lock(&path, "process 7\n").unwrap();
        assert!(setup.storage.is_locked(&path).unwrap());
        let refused = setup.storage.lock(&path, "process 8").expect_err("two hold one lock");
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        if cfg!(not(windows)) {
            assert_eq!(refused.to_string(), "process 7");
        }
        drop(held);
        assert!(!setup.storage.is_locked(&path).unwrap());
        assert_eq!(setup.names(), ["LOCK"], "the file stays");
        let held = setup.storage.lock(&path, "9").unwrap();
        if cfg!(not(windows)) {
            assert_eq!(setup.content("LOCK"), b"9");
        }
        drop(held);
        setup.storage.lock(&path, "").unwrap();
        assert_eq!(
            kind(setup.storage.lock(&setup.path("missing/LOCK"), "me")),
            ErrorKind::NotFound
        );
    }
}

#[test]
fn one_of_many_threads_gets_the_lock() {
    for setup in setups() {
        let path = &setup.path("LOCK");
        let storage = &setup.storage;
        let taken: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(move || storage.lock(path, "me").ok()))
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(taken.len(), 1);
    }
}

#[test]
fn a_small_file_is_read_whole_and_a_big_one_refused() {
    for setup in setups() {
        let file = setup.create("a", b"0123");
        assert_eq!(read_whole(&*file, 4).unwrap(), b"0123");
        assert_eq!(kind(read_whole(&*file, 3)), ErrorKind::InvalidData);
    }
}

#[test]
#[cfg(unix)]
fn an_open_directory_stays_the_same_one_when_it_is_moved_and_another_takes_its_path() {
    for setup in setups() {
        setup.storage.create_directory(&setup.path("data")).unwrap();
        setup.create("data/a", b"first");
        let held = setup.storage.open_directory(&setup.path("data")).unwrap();
        setup
            .storage
            .rename_directory(&setup.path("data"), &setup.path("moved"))
            .unwrap();
        setup.storage.create_directory(&setup.path("data")).unwrap();
        setup.create("data/a", b"second");
        assert_eq!(read_whole(&*held.open("a", false).unwrap(), 100).unwrap(), b"first");
        held.rename("a", "b").unwrap();
        write_all_at(&*held.create("c").unwrap(), b"new", 0).unwrap();
        held.sync().unwrap();
        assert_eq!(setup.content("moved/b"), b"first");
        assert_eq!(setup.content("moved/c"), b"new");
        assert_eq!(setup.storage.list(&setup.path("data")).unwrap(), ["a"]);
        assert!(held.is_linked().unwrap());
        let elsewhere = setup.storage.open_directory(&setup.path("data")).unwrap();
        held.hard_link("c", &*elsewhere, "c").unwrap();
        assert_eq!(setup.content("data/c"), b"new");
    }
}

#[test]
#[cfg(unix)]
fn a_removed_directory_and_its_files_say_so_and_take_nothing_new() {
    for setup in setups() {
        setup.storage.create_directory(&setup.path("data")).unwrap();
        let file = setup.create("data/a", b"content");
        let held = setup.storage.open_directory(&setup.path("data")).unwrap();
        assert!(held.is_linked().unwrap() && file.is_linked().unwrap());
        setup.storage.remove_directory(&setup.path("data")).unwrap();
        // The answer may be some microseconds old.
        until("both say that they were removed", || {
            !held.is_linked().unwrap() && !file.is_linked().unwrap()
        });
        assert_eq!(kind(held.create("b")), ErrorKind::NotFound);
        assert_eq!(kind(held.open("a", false)), ErrorKind::NotFound);
        file.write_at(b"goes on", 0).unwrap();
    }
}

#[test]
#[cfg(unix)]
fn a_link_that_leads_nowhere_is_listed_and_exists() {
    let temporary = tempfile::tempdir().unwrap();
    let link = temporary.path().join("MANIFEST");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let directory = OsStorage.open_directory(temporary.path()).unwrap();
    assert_eq!(directory.list().unwrap(), ["MANIFEST"]);
    assert!(OsStorage.exists(&link).unwrap());
    assert_eq!(kind(directory.open("MANIFEST", false)), ErrorKind::NotFound);
}

#[test]
fn the_question_for_the_journal_is_answered_where_it_works() {
    for setup in setups() {
        setup.create("a", b"content").sync().unwrap();
        let directory = setup.storage.open_directory(&setup.directory).unwrap();
        directory.check_journal().unwrap();
        directory.sync().unwrap();
        directory.check_journal().unwrap();
    }
}
