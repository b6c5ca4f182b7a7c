//! The storage doubles of the feature `testing`: what they see of each call, and what they do with
//! it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use embercask::storage::{
    Call, CutPolicy, Fault, FaultKind, FaultStorage, Interposed, Interposer, MemStorage, Operation, Storage,
};

use crate::public_interface::fill;
use embercask::{Durability, ReadMode, RingMode};
use test_support::{DIRECTORY, class, ending, manual};

/// Records each call, and checks that its context is complete.
#[derive(Debug, Default)]
struct Scribe {
    calls: Mutex<Vec<(Operation, PathBuf)>>,
}

impl Interposer for Scribe {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        use Operation::*;
        let operation = call.operation;
        let renames = matches!(operation, Rename | HardLink);
        assert_eq!(call.to.is_some(), renames, "{operation:?}");
        assert_eq!(
            call.write.is_some(),
            matches!(operation, Write | Store),
            "{operation:?}"
        );
        let on_file = matches!(operation, Read | Write | Sync | SetLen | Allocate | Map);
        assert!(
            !on_file || call.file.is_some() && call.directory.is_none(),
            "{operation:?}"
        );
        let in_directory = matches!(operation, Create | OpenRead | OpenWrite | Remove | SyncDirectory | Lock);
        assert!(!in_directory || call.directory.is_some(), "{operation:?}");
        let takes_space = matches!(operation, CreateDirectory | Create | HardLink | Write | Allocate);
        assert!(call.takes_space == takes_space || operation == SetLen, "{operation:?}");
        self.calls.lock().unwrap().push((operation, call.path.to_owned()));
        make()
    }
}

#[test]
fn an_interposer_is_asked_about_every_call_of_a_store() {
    let disk = MemStorage::new();
    let scribe = Arc::new(Scribe::default());
    let storage: Arc<dyn Storage> = Arc::new(Interposed::over(Arc::new(disk.clone()), scribe.clone()));
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let options = manual(storage.clone()).read_mode(mode).ring(RingMode::Always);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        fill(&namespace, 20, 3, 500);
        namespace.put_with("stored", "", class(Durability::Os)).unwrap();
        assert!(namespace.get("1").unwrap().is_some());
        store.compact().unwrap();
        let copy = Path::new("/copy").join(format!("{mode:?}"));
        store.checkpoint(&copy).unwrap();
        storage.remove_directory(&copy).unwrap();
        store.close().unwrap();
    }
    // Files are only cut after a failure.
    let root = storage.open_directory(Path::new("/")).unwrap();
    root.create("cut").unwrap().set_len(1).unwrap();
    root.open("cut", true).unwrap();
    let mut seen = BTreeMap::new();
    for (operation, path) in scribe.calls.lock().unwrap().iter() {
        assert!(path.is_absolute(), "{operation:?} of {path:?}");
        seen.insert(format!("{operation:?}"), *operation);
    }
    let (changing, reading): (Vec<_>, Vec<_>) = seen.values().copied().partition(|operation| operation.mutates());
    assert_eq!(
        changing,
        [
            Operation::Allocate,
            Operation::Create,
            Operation::CreateDirectory,
            Operation::HardLink,
            Operation::Lock,
            Operation::Remove,
            Operation::RemoveDirectory,
            Operation::Rename,
            Operation::SetLen,
            Operation::Store,
            Operation::Sync,
            Operation::SyncDirectory,
            Operation::Write,
        ]
    );
    assert_eq!(
        reading,
        [
            Operation::CheckJournal,
            Operation::List,
            Operation::Map,
            Operation::OpenDirectory,
            Operation::OpenRead,
            Operation::OpenWrite,
            Operation::Read,
        ]
    );
    let opening: Vec<_> = seen.values().copied().filter(|operation| operation.opens()).collect();
    assert_eq!(
        opening,
        [
            Operation::Create,
            Operation::Lock,
            Operation::OpenDirectory,
            Operation::OpenRead,
            Operation::OpenWrite,
        ]
    );
}

/// Halves one write.
#[derive(Debug, Default)]
struct Halving(Mutex<u32>);

impl Interposer for Halving {
    fn around(&self, _: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        make()
    }

    fn around_write(&self, call: &Call<'_>, make: &mut dyn FnMut(usize) -> io::Result<usize>) -> io::Result<usize> {
        let (_, bytes) = call.write.unwrap();
        let mut writes = self.0.lock().unwrap();
        *writes += 1;
        make(if *writes == 1 { bytes.len() / 2 } else { bytes.len() })
    }
}

#[test]
fn an_interposer_decides_how_much_of_a_write_is_done() {
    let disk = MemStorage::new();
    let storage = Interposed::over(Arc::new(disk.clone()), Arc::new(Halving::default()));
    let file = storage.open_directory(Path::new("/")).unwrap().create("file").unwrap();
    assert_eq!(file.write_at(b"12345678", 0).unwrap(), 4);
    assert_eq!(disk.read_file("/file").unwrap(), b"1234");
    assert_eq!(file.write_at(b"5678", 4).unwrap(), 4);
    assert_eq!(disk.read_file("/file").unwrap(), b"12345678");
}

#[test]
fn a_fault_holds_what_its_builder_was_told() {
    let fault = Fault::new(FaultKind::Stop);
    assert_eq!(
        (fault.at, fault.repeats, fault.operation, fault.kind),
        (0, false, None, FaultKind::Stop)
    );
    assert_eq!(fault.path_contains, None);
    let fault = fault.at(3).repeated().on(Operation::Sync).path(".hint");
    assert_eq!(
        (fault.at, fault.repeats, fault.operation),
        (3, true, Some(Operation::Sync))
    );
    assert_eq!(fault.path_contains.as_deref(), Some(".hint"));
}

#[test]
fn each_kind_of_fault_strikes_what_it_says() {
    let kinds = [
        (
            FaultKind::Error(ErrorKind::PermissionDenied),
            Some(ErrorKind::PermissionDenied),
            None,
            None,
        ),
        (
            FaultKind::Full,
            Some(ErrorKind::StorageFull),
            Some(ErrorKind::StorageFull),
            None,
        ),
        (FaultKind::ShortWrite { bytes: 2 }, None, None, None),
        (FaultKind::FailedSync, None, None, Some(ErrorKind::Other)),
        (
            FaultKind::FailedCommit { told: true },
            None,
            None,
            Some(ErrorKind::Other),
        ),
        (FaultKind::FailedCommit { told: false }, None, None, None),
        (
            FaultKind::Stop,
            Some(ErrorKind::Other),
            Some(ErrorKind::Other),
            Some(ErrorKind::Other),
        ),
    ];
    for (kind, creating, writing, syncing) in kinds {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let root = faults.open_directory(Path::new("/")).unwrap();
        let file = root.create("file").unwrap();
        assert_eq!(faults.struck(), 0);
        faults.inject(Fault::new(kind));
        if creating.is_some() {
            assert_eq!(
                root.create("other").err().map(|error| error.kind()),
                creating,
                "{kind:?}"
            );
            if kind != FaultKind::Stop {
                faults.inject(Fault::new(kind));
            }
        }
        if matches!(kind, FaultKind::Error(_)) {
            continue;
        }
        let written = file.write_at(b"12345678", 0);
        assert_eq!(written.as_ref().err().map(io::Error::kind), writing, "{kind:?}");
        assert_eq!(
            written.is_ok_and(|written| written == 2),
            matches!(kind, FaultKind::ShortWrite { .. })
        );
        assert_eq!(file.sync().err().map(|error| error.kind()), syncing, "{kind:?}");
        assert!(faults.struck() > 0, "{kind:?}");
        // After a failed commit nothing becomes durable, reported or not.
        if let FaultKind::FailedCommit { .. } = kind {
            root.sync().unwrap();
            assert!(
                disk.power_cut(&CutPolicy::LoseUnsynced).read_file("/file").is_err(),
                "{kind:?}"
            );
        }
        assert_eq!(faults.is_stopped(), kind == FaultKind::Stop);
        faults.clear();
        assert!(!faults.is_stopped());
        assert_eq!(file.write_at(b"12345678", 0).unwrap(), 8, "{kind:?}");
    }
    // A process without descriptors.
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    faults.inject(Fault::new(FaultKind::NoDescriptors).repeated());
    assert_eq!(
        faults.open_directory(Path::new("/")).unwrap_err().raw_os_error(),
        Some(24)
    );
    faults.create_directory(Path::new("/directory")).unwrap();
}

#[test]
fn a_random_cut_is_the_same_for_the_same_seed_and_tears_at_its_grain() {
    let disk = MemStorage::new();
    disk.write_file("/file", &[0; 4096]).unwrap();
    disk.open("/file", true).unwrap().write_at(&[1; 4096], 0).unwrap();
    let cut = |seed| {
        disk.power_cut(&CutPolicy::Random { seed, grain: 512 })
            .read_file("/file")
            .unwrap()
    };
    let mut torn = 0;
    for seed in 0..20 {
        let bytes = cut(seed);
        assert_eq!(bytes, cut(seed));
        for sector in bytes.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}");
        }
        torn += u32::from(bytes.contains(&0) && bytes.contains(&1));
    }
    assert!(torn > 5, "{torn}");
    assert!(ending(&disk, ".segment").is_empty());
}
