//! Building a directory so that it appears under its name whole or not at all.
//!
//! Everything is made in a sibling, `<name>.partial`, which is renamed when it is complete and durable. What an interrupted
//! attempt leaves is that sibling; the next attempt removes it, if it holds nothing but files of ours and is no store that
//! somebody gave that name: a manifest counts for one unless the file `UNFINISHED` stands beside it. That file is there before
//! anything else is, and goes when the sibling has its name; the manifest is what is removed first. Two attempts on one target at the
//! same time are the caller's to avoid.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{FileName, LOCK_FILE, MANIFEST_FILE, UNFINISHED_FILE, classify};
use crate::log::opening::create_directory_durably;
use crate::storage::Storage;

/// A directory under construction; removed when dropped without [`Staging::publish`].
#[derive(Debug)]
pub(super) struct Staging {
    storage: Arc<dyn Storage>,
    target: PathBuf,
    partial: PathBuf,
    published: bool,
}

impl Staging {
    /// Creates the sibling. The target must be missing or an empty directory.
    pub(super) fn begin(storage: Arc<dyn Storage>, target: &Path) -> Result<Staging> {
        let Some(name) = target.file_name() else {
            return Err(Error::invalid(format!(
                "{} has no name of its own; name a new directory",
                target.display()
            )));
        };
        let mut partial_name = name.to_owned();
        partial_name.push(".partial");
        let partial = target.with_file_name(partial_name);
        if let Some(name) = list(&*storage, target)?.unwrap_or_default().first() {
            return Err(Error::invalid(format!(
                "the target is not empty, it holds {name}; name an empty or a new directory: {}",
                target.display()
            )));
        }
        if let Some(names) = list(&*storage, &partial)? {
            if let Some(foreign) = names.iter().find(|name| classify(name) == FileName::Foreign) {
                return Err(Error::invalid(format!(
                    "what an interrupted attempt seems to have left holds another file, {foreign}; move it away: {}",
                    partial.display()
                )));
            }
            // Salvage builds by way of a store, so a lock file says nothing; that somebody holds it does.
            let lock = partial.join(LOCK_FILE);
            if names.iter().any(|name| name == LOCK_FILE)
                && let Err(error) = storage.lock(&lock, &format!("process {}", std::process::id()))
            {
                return Err(match error.kind() {
                    std::io::ErrorKind::WouldBlock => Error::InUse {
                        path: partial,
                        holder: error.to_string(),
                    },
                    _ => Error::io("lock", &lock, error),
                });
            }
            let holds = |file: &str| names.iter().any(|name| name == file);
            if holds(MANIFEST_FILE) && !holds(UNFINISHED_FILE) {
                return Err(Error::invalid(format!(
                    "the copy would be built where a store is; move it away, or name another target: {}",
                    partial.display()
                )));
            }
            remove(&*storage, &partial)
                .map_err(|error| Error::io("remove what an interrupted attempt left in", &partial, error))?;
        }
        // From here on what is there is ours to remove.
        let staging = Staging {
            storage,
            target: target.to_owned(),
            partial,
            published: false,
        };
        create_directory_durably(&*staging.storage, &staging.partial)?;
        let unfinished = staging.partial.join(UNFINISHED_FILE);
        staging
            .storage
            .create(&unfinished)
            .and_then(|_| staging.storage.sync_directory(&staging.partial))
            .map_err(|error| Error::io("create", &unfinished, error))?;
        Ok(staging)
    }

    /// Where to build. What is put there must be durable, names included, before it is published.
    pub(super) fn directory(&self) -> &Path {
        &self.partial
    }

    /// Gives the directory its name, durably.
    pub(super) fn publish(mut self) -> Result<()> {
        let renamed = match self.storage.rename(&self.partial, &self.target) {
            // Not every system replaces an empty directory.
            Err(_) if list(&*self.storage, &self.target)?.is_some_and(|names| names.is_empty()) => self
                .storage
                .remove_directory(&self.target)
                .and_then(|()| self.storage.rename(&self.partial, &self.target)),
            result => result,
        };
        renamed.map_err(|error| Error::io("rename the finished directory to", &self.target, error))?;
        let parent = self.target.parent().unwrap_or(Path::new(""));
        if let Err(error) = self.storage.sync_directory(parent) {
            // So that an error leaves nothing under that name; `drop` removes the rest.
            self.published = self.storage.rename(&self.target, &self.partial).is_err();
            return Err(Error::io("sync", parent, error));
        }
        self.published = true;
        // If it stays, the next opening removes it.
        let _ = self.storage.remove(&self.target.join(UNFINISHED_FILE));
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // If this fails, the next attempt removes it.
            let _ = remove(&*self.storage, &self.partial);
        }
    }
}

/// Removes an unfinished directory, in such an order that what is left if that is cut off cannot be taken for a store.
fn remove(storage: &dyn Storage, partial: &Path) -> std::io::Result<()> {
    match storage.remove(&partial.join(MANIFEST_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => storage.sync_directory(partial)?,
    }
    storage.remove_directory(partial)
}

/// Names in a directory, sorted; None if there is nothing of that name. A file in its place is an error.
pub(super) fn list(storage: &dyn Storage, directory: &Path) -> Result<Option<Vec<String>>> {
    if !storage
        .exists(directory)
        .map_err(|error| Error::io("look for", directory, error))?
    {
        return Ok(None);
    }
    let names = storage.list(directory).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotADirectory => {
            Error::invalid(format!("this is a file; name a directory: {}", directory.display()))
        }
        _ => Error::io("list", directory, error),
    })?;
    let mut names: Vec<_> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(Some(names))
}
