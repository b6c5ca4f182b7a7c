//! From a path to a locked directory with a manifest: the first step of opening a store.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::{FileName, INDEX_FILE, LOCK_FILE, MANIFEST_FILE, RESERVE_FILE, RING_FILE, classify};
use crate::log::manifest::{ManifestStore, ReplaceError};
use crate::options::Options;
use crate::planted::{Planted, planted};
use crate::storage::{Directory, Storage, StorageLock, check_lock_linked, random_id};

/// A directory locked by this handle, and its manifest.
pub(super) struct Entered {
    pub(super) directory: Directory,
    pub(super) lock: Option<Box<dyn StorageLock>>,
    pub(super) manifest: Manifest,
    pub(super) created: bool,
}

/// Opens, locks and if needed initialises the directory of a store.
pub(super) fn enter(path: &Path, options: &Options) -> Result<Entered> {
    let storage = options.storage.clone();
    let (directory, existed) = match open_directory(&*storage, path)? {
        Some(directory) => (directory, true),
        None if options.creates() => {
            create_directory_durably(&*storage, path)?;
            let created = Directory::open(&*storage, path);
            (created.map_err(|error| Error::io("open", path, error))?, false)
        }
        None => {
            return Err(Error::NotAStore {
                path: path.to_owned(),
                what: "the directory does not exist, and the options do not allow creating it".to_owned(),
            });
        }
    };
    // Checked before the lock file is created, so that nothing is left in a directory that is not a
    // store's.
    check_options(&directory, options)?;
    let lock = lock_directory(&directory)?;
    // Another process may have created or changed the store before this one got the lock.
    let found = if check_options(&directory, options)? {
        let found = ManifestStore::read(&directory)?;
        if found.is_none() && !planted(Planted::UnreadableIsAbsent) {
            // It is listed, so it is not absent: a link's target may come back.
            let error = std::io::Error::from(ErrorKind::NotFound);
            return Err(Error::io("read", &directory.path_of(MANIFEST_FILE), error));
        }
        found
    } else {
        None
    };
    let (manifest, created) = match found {
        Some(manifest) => (manifest, false),
        None => {
            if existed {
                create_directory_durably(&*storage, path)?;
            }
            let manifest = Manifest {
                store_id: random_id(&*storage),
                generation: 1,
                next_segment_id: 1,
                next_sequence: 1,
                next_namespace: 1,
                ring_bytes: 0,
                segments: Vec::new(),
            };
            ManifestStore::write(&directory, &manifest).map_err(|error| match error {
                ReplaceError::Unchanged(error) | ReplaceError::Unknown(error) => error,
            })?;
            (manifest, true)
        }
    };
    Ok(Entered {
        directory,
        lock,
        manifest,
        created,
    })
}

/// Locks the directory for this process.
fn lock_directory(directory: &Directory) -> Result<Option<Box<dyn StorageLock>>> {
    let owner = format!("process {}", std::process::id());
    let lock = match directory.lock(LOCK_FILE, &owner) {
        Err(_) if planted(Planted::IgnoreLock) => None,
        lock => Some(lock.map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::InUse {
                path: directory.path().to_owned(),
                holder: error.to_string(),
            },
            _ => Error::io("lock", &directory.path_of(LOCK_FILE), error),
        })?),
    };
    if let Some(lock) = &lock {
        // Another process may have destroyed the store after this one opened the file.
        check_lock_linked(&**lock).map_err(|error| Error::io("lock", &directory.path_of(LOCK_FILE), error))?;
    }
    Ok(lock)
}

/// Whether the directory has a manifest; an error if it must not have one, or cannot get one.
fn check_options(directory: &Directory, options: &Options) -> Result<bool> {
    let is_store = check_directory(directory, options.creates())?;
    if is_store && options.create_new && !planted(Planted::OpenExisting) {
        return Err(Error::StoreExists {
            path: directory.path().to_owned(),
        });
    }
    Ok(is_store)
}

/// Opens a directory; None if nothing has this name. A dangling link is an error, since its target
/// may come back.
pub(crate) fn open_directory(storage: &dyn Storage, path: &Path) -> Result<Option<Directory>> {
    let mut opened = Directory::open(storage, path);
    if opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        let exists = storage.exists(path);
        if !exists.map_err(|error| Error::io("look for", path, error))? {
            return Ok(None);
        }
        // Another has created it in between, unless it is a dangling link.
        opened = Directory::open(storage, path);
    }
    match opened {
        Ok(directory) => Ok(Some(directory)),
        Err(error) => match error.kind() {
            ErrorKind::NotADirectory => Err(Error::NotAStore {
                path: path.to_owned(),
                what: "this is a file; name a directory".to_owned(),
            }),
            _ => Err(Error::io("open", path, error)),
        },
    }
}

/// Creates a directory and its ancestors, and syncs all their names: existing ones may have been
/// created by a process that was killed before it synced them.
pub(crate) fn create_directory_durably(storage: &dyn Storage, directory: &Path) -> Result<()> {
    storage
        .create_directory(directory)
        .map_err(|error| Error::io("create", directory, error))?;
    if planted(Planted::SkipCreationSync) {
        return Ok(());
    }
    for parent in directory.ancestors().filter_map(Path::parent) {
        match Directory::open(storage, parent).and_then(|parent| parent.sync()) {
            Ok(()) => {}
            // Something was created there recently, with rights that this process lacks.
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

/// Whether the directory has a manifest. Without one it must be empty, except for what the system
/// puts there, and what an interrupted creation leaves: a lock file, an unfinished manifest, the
/// marker of an unfinished copy.
pub(super) fn check_directory(directory: &Directory, create: bool) -> Result<bool> {
    let not_a_store = |what: String| Error::NotAStore {
        path: directory.path().to_owned(),
        what,
    };
    let names = directory
        .list()
        .map_err(|error| Error::io("list", directory.path(), error))?;
    let mut manifest = false;
    let mut segment = false;
    let mut foreign = None;
    let mut rest = None;
    for name in &names {
        let name = name.to_string_lossy();
        match classify(&name) {
            FileName::Own if name == MANIFEST_FILE => manifest = true,
            FileName::Own if [INDEX_FILE, RESERVE_FILE, RING_FILE].contains(&&*name) => rest = Some(name.into_owned()),
            FileName::OfSystem if !planted(Planted::StrangerBySystem) => {}
            FileName::Own => {}
            FileName::Segment(_) | FileName::Hint(_) => segment = true,
            FileName::OfSystem | FileName::Foreign => foreign = Some(name.into_owned()),
        }
    }
    if manifest {
        return Ok(true);
    }
    if segment && !planted(Planted::CreateOverSegments) {
        let what = "there are segments but no manifest; restore the manifest, or salvage the records in the segments";
        return Err(not_a_store(what.to_owned()));
    }
    if let Some(rest) = rest {
        return Err(not_a_store(format!(
            "there is a store's {rest} file but no manifest; restore the manifest, or name another directory"
        )));
    }
    if let Some(foreign) = foreign.filter(|_| !planted(Planted::CreateBesideOthers)) {
        return Err(not_a_store(format!(
            "the directory has other files in it ({foreign}); name an empty or a new one"
        )));
    }
    if !create {
        return Err(not_a_store(
            "the directory is empty, and the options do not allow creating a store".to_owned(),
        ));
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
