//! From a path to a locked directory with a manifest, and an engine over it: the first half of opening a store. What is found in
//! the segments is the other half, `recovery`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::manifest::{ManifestStore, ReplaceError};
use super::recovery::RecoveryReport;
use super::writer::Writer;
use super::{Engine, Events, Wake, random_id, random_u64};
use crate::clock::StoreTime;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::{FileName, LOCK_FILE, MANIFEST_FILE, classify};
use crate::index::hash::KeyHasher;
use crate::index::keydir::Keydir;
use crate::index::namespaces::Namespaces;
use crate::options::Options;
use crate::segment::table::SegmentTable;
use crate::storage::{Storage, StorageLock};

/// Begins at the lock, ends with the store.
struct Opening {
    directory: PathBuf,
    storage: Arc<dyn Storage>,
    lock: Option<Box<dyn StorageLock>>,
    manifest: Manifest,
    created: bool,
}

/// Opens the store in this directory, or creates one.
pub(crate) fn open(directory: &Path, options: Options) -> Result<(Engine, RecoveryReport)> {
    options.check()?;
    let time = StoreTime::new(options.clock.clone());
    let started_ms = time.monotonic_ms();
    let opening = enter(directory, &options)?;
    let mut report = RecoveryReport {
        created: opening.created,
        ..RecoveryReport::default()
    };
    let mut engine = new_engine(opening, options, time);
    engine.recover(&mut report)?;
    report.duration = Duration::from_millis(engine.time.monotonic_ms().saturating_sub(started_ms));
    Ok((engine, report))
}

/// From a path to a locked directory with a manifest.
fn enter(directory: &Path, options: &Options) -> Result<Opening> {
    let storage = options.storage.clone();
    let not_a_store = |what: &str| Error::NotAStore {
        path: directory.to_owned(),
        what: what.to_owned(),
    };
    let exists = storage
        .exists(directory)
        .map_err(|error| Error::io("look for", directory, error))?;
    if !exists {
        if !options.create {
            return Err(not_a_store(
                "the directory does not exist, and creating a store was not asked for",
            ));
        }
        create_directory_durably(&*storage, directory)?;
    }
    // Looked at before the lock file is created, so that nothing is left in a directory that is not ours.
    let manifest = check_directory(&*storage, directory, options.create)?;
    let lock_path = directory.join(LOCK_FILE);
    let owner = format!("process {}", std::process::id());
    let lock = storage.lock(&lock_path, &owner).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::InUse {
            path: directory.to_owned(),
            holder: error.to_string(),
        },
        _ => Error::io("lock", &lock_path, error),
    })?;
    // Somebody may have created or changed the store while this one came for the lock.
    let found = if manifest {
        ManifestStore::read(&*storage, directory)?
    } else {
        None
    };
    let found = match found {
        Some(found) => Some(found),
        None if check_directory(&*storage, directory, options.create)? => ManifestStore::read(&*storage, directory)?,
        None => None,
    };
    let (manifest, created) = match found {
        Some(manifest) => (manifest, false),
        None => {
            if exists {
                create_directory_durably(&*storage, directory)?;
            }
            let manifest = Manifest {
                store_id: random_id(),
                generation: 1,
                next_segment_id: 1,
                next_sequence: 1,
                next_namespace: 1,
                segments: Vec::new(),
            };
            ManifestStore::write(&*storage, directory, &manifest).map_err(|error| match error {
                ReplaceError::Unchanged(error) | ReplaceError::Unknown(error) => error,
            })?;
            (manifest, true)
        }
    };
    Ok(Opening {
        directory: directory.to_owned(),
        storage,
        lock: Some(lock),
        manifest,
        created,
    })
}

/// Creates a directory and those above it, each name durable. Those that are there already may have been left by a process
/// that was killed before it came to sync them, so all names are synced.
pub(crate) fn create_directory_durably(storage: &dyn Storage, directory: &Path) -> Result<()> {
    storage
        .create_directory(directory)
        .map_err(|error| Error::io("create", directory, error))?;
    for parent in directory.ancestors().filter_map(Path::parent) {
        match storage.sync_directory(parent) {
            Ok(()) => {}
            // Nobody has created anything there of late who is no more entitled to than this process.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                break;
            }
            Err(error) => return Err(Error::io("sync", parent, error)),
        }
    }
    Ok(())
}

/// Whether the directory has a manifest. Without one it must be empty, but for what an interrupted creation leaves.
fn check_directory(storage: &dyn Storage, directory: &Path, create: bool) -> Result<bool> {
    let not_a_store = |what: String| Error::NotAStore {
        path: directory.to_owned(),
        what,
    };
    let names = storage.list(directory).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotADirectory => not_a_store("this is a file; name a directory".to_owned()),
        _ => Error::io("list", directory, error),
    })?;
    let mut manifest = false;
    let mut segment = false;
    let mut foreign = None;
    for name in &names {
        let name = name.to_string_lossy();
        match classify(&name) {
            FileName::Own => manifest |= name == MANIFEST_FILE,
            FileName::Segment(_) | FileName::Hint(_) => segment = true,
            FileName::Foreign => foreign = Some(name.into_owned()),
        }
    }
    if manifest {
        return Ok(true);
    }
    if segment {
        let what = "there are segments but no manifest; restore the manifest, or salvage what the segments hold";
        return Err(not_a_store(what.to_owned()));
    }
    if let Some(foreign) = foreign {
        return Err(not_a_store(format!(
            "the directory has other files in it ({foreign}); name an empty or a new one"
        )));
    }
    if !create {
        return Err(not_a_store(
            "the directory is empty, and creating a store was not asked for".to_owned(),
        ));
    }
    Ok(false)
}

/// An empty engine of the same directory, clock and options, for a look at the store as opening it now would see it. Nothing is
/// written through it, and it holds no lock; the other one does.
pub(super) fn beside(engine: &Engine) -> Engine {
    let options = Options {
        progress: None,
        ..engine.options.clone()
    };
    let opening = Opening {
        directory: engine.directory.clone(),
        storage: engine.storage.clone(),
        lock: None,
        manifest: engine.manifest.current(),
        created: false,
    };
    let time = StoreTime::new(options.clock.clone());
    let beside = new_engine(opening, options, time);
    let next_namespace = engine.next_namespace.load(Ordering::Acquire);
    beside.next_namespace.fetch_max(next_namespace, Ordering::AcqRel);
    beside
}

fn new_engine(opening: Opening, options: Options, time: StoreTime) -> Engine {
    let manifest = ManifestStore::new(opening.storage.clone(), &opening.directory, opening.manifest);
    Engine {
        directory: opening.directory,
        storage: opening.storage,
        options: Options {
            limits: options.limits.clipped(),
            ..options
        },
        time,
        hasher: KeyHasher::new([random_u64(), random_u64()]),
        keydir: Keydir::new(),
        segments: SegmentTable::new(),
        namespaces: Namespaces::default(),
        next_namespace: AtomicU32::new(manifest.current().next_namespace),
        namespace_changes: Mutex::new(()),
        manifest,
        writer: Mutex::new(Writer::new(1)),
        progressed: Condvar::new(),
        progress: AtomicU64::new(0),
        sealing: Mutex::new(()),
        unchecked_hints: Mutex::default(),
        expiry: Mutex::default(),
        housekeeping: Mutex::new(()),
        batch_epoch: AtomicU64::new(0),
        compaction: crate::compact::Control::default(),
        events: Events::default(),
        flush_wake: Wake::default(),
        wake: Wake::default(),
        closed: AtomicBool::new(false),
        full: AtomicBool::new(false),
        reserve: Mutex::new(()),
        directory_lock: Mutex::new(opening.lock),
    }
}
