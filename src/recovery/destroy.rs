//! Removing a store, so that at every moment its directory holds the store, an empty store, or
//! none.
//!
//! 1. A manifest without segments is published, durably. From here on the store is empty: opening
//!    it would remove the rest.
//! 2. Every file of the store but manifest and lock is removed, and then the manifest, each durably
//!    before the next step. So no segment is ever there without a manifest, which opening would
//!    refuse as the remains of a store.
//! 3. The lock file is removed while it is held, and the directory if it is empty.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::directory::open_directory;
use super::staging::sorted_names;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::{FileName, LOCK_FILE, MANIFEST_FILE, classify};
use crate::log::manifest::{ManifestStore, ReplaceError};
use crate::planted::{Planted, planted};
use crate::storage::{Directory, Storage, StorageLock, check_lock_linked};

/// Removes the store in this directory; also the lock file that an interrupted removal has left.
/// Returns the files that are not the store's, which stay.
pub(crate) fn destroy(storage: &dyn Storage, path: &Path) -> Result<Vec<PathBuf>> {
    let nothing = |what: &str| Error::NotAStore {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let Some(directory) = open_directory(storage, path)? else {
        return Err(nothing("the directory does not exist"));
    };
    // Without a manifest, a lock file alone is what an interrupted removal has left. Beside other
    // files it may be another program's, which is neither to be locked nor to be removed.
    let names = sorted_names(&directory)?;
    let is_store = names.iter().any(|name| name == MANIFEST_FILE);
    let is_rest = names.iter().any(|name| name == LOCK_FILE)
        && !names.iter().any(|name| matches!(classify(name), FileName::Foreign));
    if !is_store && !is_rest {
        return Err(nothing("there is no manifest in it"));
    }
    let lock = take_lock(&directory)?;
    let names = sorted_names(&directory)?;
    if names.iter().any(|name| name == MANIFEST_FILE) {
        let manifest = ManifestStore::read(&directory)?.ok_or_else(|| nothing("its manifest cannot be found"))?;
        if !planted(Planted::DestroySegmentsFirst) {
            publish_empty(&directory, manifest)?;
        }
        remove(&directory, &names, |name| ![LOCK_FILE, MANIFEST_FILE].contains(&name))?;
        remove(&directory, &names, |name| name == MANIFEST_FILE)?;
    } else if let Some(rest) = names.iter().find(|name| is_of_store(name) && *name != LOCK_FILE) {
        return Err(nothing(&format!(
            "there is a store's {rest} but no manifest; remove the directory by other means"
        )));
    }
    // While the lock is held, so that no other process can open the store.
    remove(&directory, &names, |name| name == LOCK_FILE)?;
    drop(lock);
    match storage.remove_empty_directory(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
            let left = sorted_names(&directory)?;
            return Ok(left.iter().map(|name| directory.path_of(name)).collect());
        }
        Err(error) => return Err(Error::io("remove", path, error)),
    }
    if let Some(parent) = path.parent() {
        let synced = Directory::open(storage, parent).and_then(|parent| parent.sync());
        synced.map_err(|error| Error::io("sync", parent, error))?;
    }
    Ok(Vec::new())
}

fn take_lock(directory: &Directory) -> Result<Box<dyn StorageLock>> {
    let path = directory.path_of(LOCK_FILE);
    let owner = format!("process {} (to remove the store)", std::process::id());
    let lock = directory.lock(LOCK_FILE, &owner).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Error::InUse {
            path: directory.path().to_owned(),
            holder: error.to_string(),
        },
        _ => Error::io("lock", &path, error),
    })?;
    check_lock_linked(&*lock).map_err(|error| Error::io("lock", &path, error))?;
    Ok(lock)
}

/// Makes the store an empty one.
fn publish_empty(directory: &Directory, manifest: Manifest) -> Result<()> {
    let empty = Manifest {
        generation: manifest.generation + 1,
        ring_bytes: 0,
        segments: Vec::new(),
        ..manifest
    };
    ManifestStore::write(directory, &empty).map_err(|error| match error {
        ReplaceError::Unchanged(error) | ReplaceError::Unknown(error) => error,
    })
}

/// Removes those files of the store that are wanted, durably.
fn remove(directory: &Directory, names: &[String], wanted: impl Fn(&str) -> bool) -> Result<()> {
    for name in names.iter().filter(|name| is_of_store(name) && wanted(name)) {
        let removed = directory.remove_if_there(name);
        removed.map_err(|error| Error::io("remove", &directory.path_of(name), error))?;
    }
    let synced = directory.sync();
    synced.map_err(|error| Error::io("sync", directory.path(), error))
}

fn is_of_store(name: &str) -> bool {
    match classify(name) {
        FileName::Own | FileName::Segment(_) | FileName::Hint(_) => true,
        FileName::OfSystem | FileName::Foreign => false,
    }
}
