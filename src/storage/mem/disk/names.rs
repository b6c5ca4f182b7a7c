//! The operations that look up and change names.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path};

use super::{Directory, Disk, Entry, EntryChange, File, Inode, ROOT};

impl Disk {
    /// The file or directory at this path in the live image.
    pub(in crate::storage::mem) fn resolve(&self, path: &Path) -> io::Result<Inode> {
        let mut inode = ROOT;
        for name in of(path) {
            inode = self.child(&(inode, name.to_owned()))?.ok_or(ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    /// The directory entry of the path's last name. Its directory must exist.
    pub(in crate::storage::mem) fn entry(&self, path: &Path) -> io::Result<Entry> {
        let mut names = of(path);
        let name = names.pop().ok_or(ErrorKind::InvalidInput)?.to_owned();
        let mut directory = ROOT;
        for name in names {
            directory = self.child(&(directory, name.to_owned()))?.ok_or(ErrorKind::NotFound)?;
        }
        if self.is_directory(directory) {
            Ok((directory, name))
        } else {
            Err(ErrorKind::NotADirectory.into())
        }
    }

    pub(in crate::storage::mem) fn child(&self, (directory, name): &Entry) -> io::Result<Option<Inode>> {
        let directory = self.directories.get(directory).ok_or(ErrorKind::NotADirectory)?;
        Ok(directory.live.get(name).copied())
    }

    pub(super) fn is_directory(&self, inode: Inode) -> bool {
        self.directories.contains_key(&inode)
    }

    /// The file under this path.
    pub(in crate::storage::mem) fn file_at(&self, path: &Path) -> io::Result<Inode> {
        self.check_file(self.resolve(path)?)
    }

    /// The file of this name.
    pub(in crate::storage::mem) fn file_of(&self, entry: &Entry) -> io::Result<Inode> {
        self.check_file(self.child(entry)?.ok_or(ErrorKind::NotFound)?)
    }

    fn check_file(&self, inode: Inode) -> io::Result<Inode> {
        if self.is_directory(inode) {
            Err(ErrorKind::IsADirectory.into())
        } else {
            Ok(inode)
        }
    }

    /// Names in a directory, and whether each is a directory itself.
    pub(in crate::storage::mem) fn list(&self, directory: Inode) -> io::Result<Vec<(OsString, bool)>> {
        let directory = self.directories.get(&directory).ok_or(ErrorKind::NotADirectory)?;
        Ok(directory
            .live
            .iter()
            .map(|(name, inode)| (name.clone(), self.is_directory(*inode)))
            .collect())
    }

    pub(in crate::storage::mem) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let mut directory = ROOT;
        for name in of(path) {
            let entry = (directory, name.to_owned());
            directory = match self.child(&entry)? {
                Some(inode) if self.is_directory(inode) => inode,
                Some(_) => return Err(ErrorKind::AlreadyExists.into()),
                None => {
                    self.check_space_left()?;
                    self.check_journal()?;
                    let inode = self.new_inode();
                    self.directories.insert(inode, Directory::default());
                    self.change_entries(vec![(entry, Some(inode))]);
                    inode
                }
            };
        }
        Ok(())
    }

    pub(in crate::storage::mem) fn create(&mut self, entry: Entry) -> io::Result<Inode> {
        if self.child(&entry)?.is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.check_linked(entry.0)?;
        self.check_space_left()?;
        self.check_journal()?;
        let inode = self.new_inode();
        self.files.insert(inode, File::default());
        self.change_entries(vec![(entry, Some(inode))]);
        Ok(inode)
    }

    pub(in crate::storage::mem) fn rename(&mut self, from: Entry, to: Entry) -> io::Result<()> {
        let inode = self.child(&from)?.ok_or(ErrorKind::NotFound)?;
        self.check_linked(to.0)?;
        self.check_journal()?;
        if self.is_directory(inode) && self.is_inside(to.0, inode) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if let Some(replaced) = self.child(&to)? {
            match (self.directories.get(&inode), self.directories.get(&replaced)) {
                // POSIX: renaming one name of a file to another name of it keeps both.
                _ if inode == replaced => return Ok(()),
                (None, Some(_)) => return Err(ErrorKind::IsADirectory.into()),
                (Some(_), None) => return Err(ErrorKind::NotADirectory.into()),
                (Some(_), Some(target)) if !target.live.is_empty() => return Err(ErrorKind::DirectoryNotEmpty.into()),
                _ => {}
            }
        }
        self.change_entries(vec![(from, None), (to, Some(inode))]);
        Ok(())
    }

    pub(in crate::storage::mem) fn hard_link(&mut self, from: Entry, to: Entry) -> io::Result<()> {
        let inode = self.file_of(&from)?;
        if self.child(&to)?.is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.check_linked(to.0)?;
        self.check_journal()?;
        self.change_entries(vec![(to, Some(inode))]);
        Ok(())
    }

    pub(in crate::storage::mem) fn remove(&mut self, entry: Entry) -> io::Result<()> {
        self.file_of(&entry)?;
        self.check_journal()?;
        self.change_entries(vec![(entry, None)]);
        self.collect();
        Ok(())
    }

    pub(in crate::storage::mem) fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        let directory = self.resolve(path)?;
        if !self.is_directory(directory) {
            return Err(ErrorKind::NotADirectory.into());
        }
        self.check_journal()?;
        let entry = self.entry(path)?;
        self.remove_content(directory);
        self.change_entries(vec![(entry, None)]);
        self.collect();
        Ok(())
    }

    pub(in crate::storage::mem) fn remove_empty_directory(&mut self, path: &Path) -> io::Result<()> {
        let directory = self.resolve(path)?;
        let is_empty = |directory: &Directory| directory.live.is_empty();
        if !self.directories.get(&directory).is_none_or(is_empty) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.remove_directory(path)
    }

    fn remove_content(&mut self, directory: Inode) {
        let content = self
            .directories
            .get(&directory)
            .map(|directory| directory.live.clone())
            .unwrap_or_default();
        for (name, inode) in content {
            self.remove_content(inode);
            self.change_entries(vec![((directory, name), None)]);
        }
    }

    /// Whether a path leads to this directory.
    pub(in crate::storage::mem) fn is_linked_directory(&self, inode: Inode) -> bool {
        self.is_inside(inode, ROOT)
    }

    /// Fails if the directory was removed: nothing can be created in it.
    fn check_linked(&self, directory: Inode) -> io::Result<()> {
        if self.is_linked_directory(directory) {
            Ok(())
        } else {
            Err(ErrorKind::NotFound.into())
        }
    }

    fn is_inside(&self, inner: Inode, outer: Inode) -> bool {
        inner == outer
            || self
                .directories
                .get(&outer)
                .is_some_and(|outer| outer.live.values().any(|child| self.is_inside(inner, *child)))
    }

    /// Changes names in the live image, and records the change as pending.
    pub(super) fn change_entries(&mut self, names: Vec<(Entry, Option<Inode>)>) {
        for ((directory, name), inode) in &names {
            let Some(directory) = self.directories.get_mut(directory) else {
                continue;
            };
            let before = match inode {
                Some(inode) => directory.live.insert(name.clone(), *inode),
                None => directory.live.remove(name),
            };
            if let Some(file) = before.and_then(|inode| self.files.get_mut(&inode)) {
                file.links -= 1;
            }
            if let Some(file) = inode.and_then(|inode| self.files.get_mut(&inode)) {
                file.links += 1;
            }
        }
        let order = self.new_order();
        self.pending_entries.push(EntryChange { order, names });
    }
}

/// The names that lead to a path from the root; a relative path starts there too.
pub(super) fn of(path: &Path) -> Vec<&OsStr> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    names
}
