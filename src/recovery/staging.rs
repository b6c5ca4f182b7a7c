//! Building a directory so that it appears under its name complete or not at all.
//!
//! Everything is built in a sibling, `<name>.partial`, which is renamed when it is complete and
//! durable. An interrupted attempt leaves the sibling behind. The next attempt removes it, if it
//! holds only files that a store may have, and is not a finished store with that name: a manifest
//! without the file `UNFINISHED` means a finished store. `UNFINISHED` is created first and deleted
//! after the rename; when a sibling is removed, its manifest is removed first. The caller must
//! prevent two concurrent attempts on one target.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{create_directory_durably, open_directory};
use crate::error::{Error, Result};
use crate::format::{FileName, LOCK_FILE, MANIFEST_FILE, UNFINISHED_FILE, classify};
use crate::planted::{Planted, planted};
use crate::storage::{Directory, Storage};

/// A directory under construction; removed when dropped without [`Staging::publish`].
#[derive(Debug)]
pub(crate) struct Staging {
    storage: Arc<dyn Storage>,
    target: PathBuf,
    partial: PathBuf,
    /// The sibling, opened when it was created.
    directory: Directory,
    published: bool,
}

impl Staging {
    /// Creates the sibling. The target must be missing or an empty directory.
    pub(crate) fn begin(storage: Arc<dyn Storage>, target: &Path) -> Result<Staging> {
        let Some(name) = target.file_name() else {
            return Err(Error::invalid(format!(
                "{} has no file name; name a new directory",
                target.display()
            )));
        };
        let mut partial_name = name.to_owned();
        partial_name.push(".partial");
        let target = absolute(target)?;
        let partial = target.with_file_name(partial_name);
        if let Some(name) = list(&*storage, &target)?.unwrap_or_default().first() {
            return Err(Error::invalid(format!(
                "the target is not empty (it holds {name}); name an empty or a new directory: {}",
                target.display()
            )));
        }
        if let Some(names) = list(&*storage, &partial)? {
            if let Some(foreign) = names
                .iter()
                .find(|name| matches!(classify(name), FileName::Foreign | FileName::OfSystem))
            {
                return Err(Error::invalid(format!(
                    "the left-over of an interrupted attempt holds a foreign file, {foreign}; move it away: {}",
                    partial.display()
                )));
            }
            // Salvage builds through a store, so a lock file may be left over; a held lock may not.
            if names.iter().any(|name| name == LOCK_FILE) {
                check_unlocked(&*storage, &partial)?;
            }
            let holds = |file: &str| names.iter().any(|name| name == file);
            if holds(MANIFEST_FILE) && !holds(UNFINISHED_FILE) && !planted(Planted::BuildOverStore) {
                return Err(Error::invalid(format!(
                    "the directory to build the copy in is a store; move it away, or name another target: {}",
                    partial.display()
                )));
            }
            remove(&*storage, &partial)
                .map_err(|error| Error::io("remove the left-overs of an interrupted attempt in", &partial, error))?;
        }
        // From here on the sibling belongs to this attempt.
        let opened = create_directory_durably(&*storage, &partial)
            .and_then(|()| Directory::open(&*storage, &partial).map_err(|error| Error::io("open", &partial, error)));
        let directory = opened.inspect_err(|_| {
            let _ = remove(&*storage, &partial);
        })?;
        let staging = Staging {
            storage,
            target,
            partial,
            directory,
            published: false,
        };
        staging
            .directory
            .create(UNFINISHED_FILE)
            .and_then(|_| staging.directory.sync())
            .map_err(|error| Error::io("create", &staging.directory.path_of(UNFINISHED_FILE), error))?;
        Ok(staging)
    }

    /// The directory to build in. Its content, names included, must be durable before `publish`.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Renames the directory to its final name, durably.
    pub(crate) fn publish(mut self) -> Result<()> {
        let renamed = match self.storage.rename_directory(&self.partial, &self.target) {
            // Not every system replaces an empty directory.
            Err(_) if list(&*self.storage, &self.target)?.is_some_and(|names| names.is_empty()) => self
                .storage
                .remove_directory(&self.target)
                .and_then(|()| self.storage.rename_directory(&self.partial, &self.target)),
            result => result,
        };
        renamed.map_err(|error| Error::io("rename the finished directory to", &self.target, error))?;
        let parent = self.target.parent().unwrap_or(Path::new(""));
        let synced = match planted(Planted::SkipPublishSync) {
            true => Ok(()),
            false => Directory::open(&*self.storage, parent).and_then(|parent| parent.sync()),
        };
        if let Err(error) = synced {
            // So that an error leaves nothing under the final name; `drop` removes the rest.
            self.published = self.storage.rename_directory(&self.target, &self.partial).is_err();
            return Err(Error::io("sync", parent, error));
        }
        self.published = true;
        // If it stays, the next open removes it.
        let _ = self.directory.remove(UNFINISHED_FILE);
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published && !planted(Planted::KeepPartialCopy) {
            // If this fails, the next attempt removes it.
            let _ = remove(&*self.storage, &self.partial);
        }
    }
}

/// Removes an unfinished directory, in an order that never leaves anything that looks like a store.
fn remove(storage: &dyn Storage, partial: &Path) -> std::io::Result<()> {
    let directory = Directory::open(storage, partial)?;
    directory.remove_if_there(MANIFEST_FILE)?;
    directory.sync()?;
    drop(directory);
    storage.remove_directory(partial)
}

/// Fails if the store in this directory is open.
fn check_unlocked(storage: &dyn Storage, path: &Path) -> Result<()> {
    let directory = Directory::open(storage, path).map_err(|error| Error::io("open", path, error))?;
    let owner = format!("process {}", std::process::id());
    match directory.lock(LOCK_FILE, &owner) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(Error::InUse {
            path: path.to_owned(),
            holder: error.to_string(),
        }),
        Err(error) => Err(Error::io("lock", &directory.path_of(LOCK_FILE), error)),
    }
}

/// The absolute path, which stays valid if the process changes its directory.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io("find", path, error))
}

/// Names in a directory, sorted; None if nothing has this name. A file in its place is an error.
pub(crate) fn list(storage: &dyn Storage, directory: &Path) -> Result<Option<Vec<String>>> {
    let opened = open_directory(storage, directory).map_err(|error| match error {
        Error::NotAStore { path, what } => Error::invalid(format!("{what}: {}", path.display())),
        error => error,
    })?;
    let Some(opened) = opened else { return Ok(None) };
    Ok(Some(sorted_names(&opened)?))
}

/// Names in a directory, sorted.
pub(crate) fn sorted_names(directory: &Directory) -> Result<Vec<String>> {
    let names = directory
        .list()
        .map_err(|error| Error::io("list", directory.path(), error))?;
    let mut names: Vec<_> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;
