//! (Over 400 lines: one state machine.)
//!
//! The state of a simulated disk: a live and a durable image of every file and directory, and the
//! pending operations between the two.
//!
//! Invariant: the live image of a directory is its durable image with all pending entry changes
//! applied in order. The same holds for files, except after [`Disk::mark_clean`] and
//! [`Disk::fail_commit`]: changes pending at that time stay live but are lost.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::random::SplitMix64;

/// Maximum length of a simulated file: a stray offset should be an error rather than exhaust the
/// test's memory.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// Identifies a file or directory, independent of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode(u64);

/// The root directory, which always exists.
const ROOT: Inode = Inode(0);

/// A directory entry: the directory, and the name in it.
pub(super) type Entry = (Inode, OsString);

/// An unsynced change of a file.
#[derive(Clone, Debug)]
pub(super) enum FileChange {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLength { length: u64 },
}

/// An unsynced, atomic change of names.
#[derive(Clone, Debug)]
pub(super) struct EntryChange {
    /// Its place in the order of all pending operations of the disk, on files and directories.
    pub(super) order: u64,
    /// The inode of each name after the change, if any.
    pub(super) names: Vec<(Entry, Option<Inode>)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) live: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    /// Unsynced changes, with their places in the order of all pending operations of the disk.
    pub(super) pending: Vec<(u64, FileChange)>,
    /// Number of names in the live image.
    pub(super) links: usize,
    /// Number of handles, maps and lock guards.
    open: usize,
    pub(super) locked: bool,
}

#[derive(Clone, Debug, Default)]
struct Directory {
    live: BTreeMap<OsString, Inode>,
    durable: BTreeMap<OsString, Inode>,
    /// Number of handles.
    open: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<Inode, File>,
    directories: BTreeMap<Inode, Directory>,
    pub(super) pending_entries: Vec<EntryChange>,
    next_inode: u64,
    next_order: u64,
    pub(super) capacity_bytes: Option<u64>,
    /// Mutating calls so far.
    pub(super) operation_count: u64,
    /// Whether a commit has failed: changes pending at that time are lost, nothing becomes durable
    /// any more, and metadata cannot be changed.
    journal_failed: bool,
    /// Whether a request that needs the journal has noticed the failure.
    journal_failure_noticed: bool,
    /// The source of random numbers, if not the system. Copies made by a crash continue the same
    /// sequence.
    pub(super) random: Option<SplitMix64>,
}

impl FileChange {
    pub(super) fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write_into(image, *offset as usize, bytes),
            Self::SetLength { length } => image.resize(*length as usize, 0),
        }
    }
}

/// Writes into an image, filling any gap between its end and `offset` with zeros.
pub(super) fn write_into(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    if let Some(target) = image.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            directories: BTreeMap::from([(ROOT, Directory::default())]),
            pending_entries: Vec::new(),
            next_inode: ROOT.0 + 1,
            next_order: 0,
            capacity_bytes: None,
            operation_count: 0,
            journal_failed: false,
            journal_failure_noticed: false,
            random: None,
        }
    }

    fn new_inode(&mut self) -> Inode {
        let inode = Inode(self.next_inode);
        self.next_inode += 1;
        inode
    }

    fn new_order(&mut self) -> u64 {
        let order = self.next_order;
        self.next_order += 1;
        order
    }

    // Content.

    pub(super) fn write(&mut self, inode: Inode, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let file = self.files.get(&inode).ok_or(ErrorKind::NotFound)?;
        let end = check_end(offset, bytes.len() as u64)?;
        let growth = end.saturating_sub(file.live.len() as u64);
        let missing = self.free_bytes().map_or(0, |free| growth.saturating_sub(free));
        // Bytes beyond the space left are not written; a hole before `offset` takes space too.
        let count = (bytes.len() as u64).saturating_sub(missing) as usize;
        if bytes.is_empty() {
            return Ok(0);
        }
        if count == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        if growth > 0 {
            self.check_journal()?;
        }
        let bytes = bytes.get(..count).unwrap_or_default();
        self.change_file(
            inode,
            FileChange::Write {
                offset,
                bytes: bytes.into(),
            },
        );
        Ok(count)
    }

    pub(super) fn set_length(&mut self, inode: Inode, length: u64) -> io::Result<()> {
        check_end(length, 0)?;
        let file = self.files.get_mut(&inode).ok_or(ErrorKind::NotFound)?;
        let growth = length.saturating_sub(file.live.len() as u64);
        self.check_space_for(growth)?;
        self.check_journal()?;
        self.change_file(inode, FileChange::SetLength { length });
        Ok(())
    }

    fn change_file(&mut self, inode: Inode, change: FileChange) {
        let order = self.new_order();
        if let Some(file) = self.files.get_mut(&inode) {
            change.apply(Arc::make_mut(&mut file.live));
            file.pending.push((order, change));
        }
    }

    // Space.

    pub(super) fn used_bytes(&self) -> u64 {
        let there = |file: &&File| file.links > 0 || file.open > 0;
        self.files
            .values()
            .filter(there)
            .map(|file| file.live.len() as u64)
            .sum()
    }

    /// Unlimited if `None`.
    fn free_bytes(&self) -> Option<u64> {
        self.capacity_bytes
            .map(|capacity| capacity.saturating_sub(self.used_bytes()))
    }

    fn check_space_for(&self, bytes: u64) -> io::Result<()> {
        match self.free_bytes() {
            Some(free) if bytes > free => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// New names take none of the bytes counted here, but a disk without any space left refuses
    /// them too.
    fn check_space_left(&self) -> io::Result<()> {
        self.check_space_for(1)
    }

    pub(super) fn opened(&mut self, inode: Inode) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.open += 1;
        }
    }

    pub(super) fn closed(&mut self, inode: Inode) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        file.open -= 1;
        if file.open == 0 && file.links == 0 {
            self.collect();
        }
    }

    pub(super) fn open_directory(&mut self, inode: Inode) -> io::Result<()> {
        self.directories.get_mut(&inode).ok_or(ErrorKind::NotADirectory)?.open += 1;
        Ok(())
    }

    pub(super) fn close_directory(&mut self, inode: Inode) {
        let Some(directory) = self.directories.get_mut(&inode) else {
            return;
        };
        directory.open = directory.open.saturating_sub(1);
        if directory.open == 0 && !self.is_linked_directory(inode) {
            self.collect();
        }
    }

    // Durability.

    /// Fails the journal commit that contains all pending changes.
    pub(super) fn fail_commit(&mut self) {
        self.journal_failed = true;
        for file in self.files.values_mut() {
            file.pending.clear();
        }
        self.pending_entries.clear();
    }

    /// Fails if the journal has failed: changing metadata needs it.
    pub(super) fn check_journal(&self) -> io::Result<()> {
        if self.journal_failed {
            Err(ErrorKind::ReadOnlyFilesystem.into())
        } else {
            Ok(())
        }
    }

    /// Checks the journal on behalf of a caller. As on ext4, the first check after a failure
    /// succeeds and makes the file system notice it.
    pub(super) fn ask_journal(&mut self) -> io::Result<()> {
        if self.journal_failed && !self.journal_failure_noticed {
            self.journal_failure_noticed = true;
            return Ok(());
        }
        self.check_journal()
    }

    /// Succeeds even after a failed commit, without making anything durable.
    pub(super) fn sync_file(&mut self, inode: Inode) {
        if self.journal_failed {
            return;
        }
        if let Some(file) = self.files.get_mut(&inode) {
            settle_file(file, u64::MAX);
        }
    }

    pub(super) fn sync_directory(&mut self, directory: Inode) -> io::Result<()> {
        if !self.is_directory(directory) {
            return Err(ErrorKind::NotADirectory.into());
        }
        if self.journal_failed {
            return Ok(());
        }
        self.settle_entries(|(of, _)| *of == directory);
        self.collect();
        Ok(())
    }

    /// Makes a path durable: its own name and those of its parents.
    pub(super) fn sync_path(&mut self, path: &Path) -> io::Result<()> {
        let mut path = Some(path);
        while let Some(here) = path.filter(|path| !names::of(path).is_empty()) {
            let wanted = self.entry(here)?;
            self.settle_entries(|entry| *entry == wanted);
            path = here.parent();
        }
        Ok(())
    }

    /// Makes the pending changes of these entries durable, each as a whole, together with all
    /// earlier changes of the names they touch.
    fn settle_entries(&mut self, wanted: impl Fn(&Entry) -> bool) {
        let mut touched = BTreeSet::new();
        let mut settled = BTreeSet::new();
        for change in self.pending_entries.iter().rev() {
            if change
                .names
                .iter()
                .any(|(entry, _)| wanted(entry) || touched.contains(entry))
            {
                touched.extend(change.names.iter().map(|(entry, _)| entry.clone()));
                settled.insert(change.order);
            }
        }
        self.settle_entry_changes(|change| settled.contains(&change.order));
    }

    /// Applies the chosen pending changes of entries to the durable image, in order.
    pub(super) fn settle_entry_changes(&mut self, mut chosen: impl FnMut(&EntryChange) -> bool) {
        let directories = &mut self.directories;
        self.pending_entries.retain(|change| {
            if !chosen(change) {
                return true;
            }
            for ((directory, name), inode) in &change.names {
                let Some(directory) = directories.get_mut(directory) else {
                    continue;
                };
                match inode {
                    Some(inode) => directory.durable.insert(name.clone(), *inode),
                    None => directory.durable.remove(name),
                };
            }
            false
        });
    }

    /// Makes all pending operations before this place in the order durable.
    pub(super) fn settle_before(&mut self, order: u64) {
        for file in self.files.values_mut() {
            settle_file(file, order);
        }
        self.settle_entry_changes(|change| change.order < order);
    }

    /// The places of all pending operations, in order.
    pub(super) fn pending_orders(&self) -> Vec<u64> {
        let of_files = self
            .files
            .values()
            .flat_map(|file| file.pending.iter().map(|(order, _)| *order));
        let mut orders: Vec<u64> = of_files
            .chain(self.pending_entries.iter().map(|change| change.order))
            .collect();
        orders.sort_unstable();
        orders
    }

    /// Loses the pending changes of the file, while the live image keeps them.
    pub(super) fn mark_clean(&mut self, inode: Inode) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.pending.clear();
        }
    }

    // Crashes.

    /// Closes everything, as the end of the process does.
    pub(super) fn close_all(&mut self) {
        for file in self.files.values_mut() {
            file.open = 0;
            file.locked = false;
        }
        for directory in self.directories.values_mut() {
            directory.open = 0;
        }
        self.operation_count = 0;
        self.collect();
    }

    /// Makes the durable image the live one, as after a power cut.
    pub(super) fn restart(&mut self) {
        self.journal_failed = false;
        self.journal_failure_noticed = false;
        self.pending_entries.clear();
        for directory in self.directories.values_mut() {
            directory.live = directory.durable.clone();
        }
        for file in self.files.values_mut() {
            file.live = Arc::clone(&file.durable);
            file.pending.clear();
            file.links = 0;
            file.open = 0;
        }
        self.close_all();
        for inode in self.directories.values().flat_map(|directory| directory.live.values()) {
            if let Some(file) = self.files.get_mut(inode) {
                file.links += 1;
            }
        }
    }

    /// Forgets files and directories that are not open and that no name leads to, neither in an
    /// image nor in a pending change.
    fn collect(&mut self) {
        let mut pending_targets = BTreeMap::<Inode, Vec<Inode>>::new();
        for change in &self.pending_entries {
            for ((directory, _), inode) in &change.names {
                pending_targets.entry(*directory).or_default().extend(inode);
            }
        }
        let mut reached = BTreeSet::new();
        let mut to_visit = vec![ROOT];
        let opened = self.directories.iter().filter(|(_, directory)| directory.open > 0);
        to_visit.extend(opened.map(|(inode, _)| *inode));
        while let Some(inode) = to_visit.pop() {
            if reached.insert(inode)
                && let Some(directory) = self.directories.get(&inode)
            {
                to_visit.extend(directory.live.values().chain(directory.durable.values()));
                to_visit.extend(pending_targets.get(&inode).into_iter().flatten());
            }
        }
        self.directories.retain(|inode, _| reached.contains(inode));
        self.files
            .retain(|inode, file| file.open > 0 || reached.contains(inode));
        let directories = &self.directories;
        self.pending_entries
            .retain(|change| change.names.iter().any(|((of, _), _)| directories.contains_key(of)));
    }
}

fn settle_file(file: &mut File, before: u64) {
    let durable = &mut file.durable;
    file.pending.retain(|(order, change)| {
        let settles = *order < before;
        if settles {
            change.apply(Arc::make_mut(durable));
        }
        !settles
    });
}

fn check_end(offset: u64, length: u64) -> io::Result<u64> {
    offset
        .checked_add(length)
        .filter(|end| *end <= FILE_BYTES_MAX)
        .ok_or_else(|| ErrorKind::FileTooLarge.into())
}
