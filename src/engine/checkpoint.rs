//! A consistent copy of a running store.
//!
//! The log is sealed up to the present, then all segments that one manifest lists as sealed (or
//! cut) are linked into a new directory, with a manifest that lists just these. Sealed segments
//! never change, so a link is as good as a copy.
//!
//! Why this is a prefix of the log, although writes proceed:
//!
//! 1. Segments of the log are sealed in log order, one at a time, and the manifest says so before
//!    the next is sealed. So the segments that one manifest lists as sealed are the log up to the
//!    end of some segment. That end is at or past everything acknowledged before the call, since
//!    all of it was sealed before the manifest was read. Segments filled and sealed meanwhile are
//!    copied along with everything before them.
//! 2. A batch never spans segments, and dropping a namespace is one record: each is entirely before
//!    or after that end.
//! 3. Outputs of compaction hold only older records. But compaction drops a put when a newer record
//!    of its key is durable, and that record may be in an open segment, which is not copied. So
//!    `compaction.running` is taken *before* sealing: whatever an earlier run relied on was in the
//!    log by then, is sealed by the first step, and is copied; and no later run starts before the
//!    copy is complete.
//! 4. For the same reason no file is unlinked meanwhile: only compaction removes segments that were
//!    sealed.
//!
//! The copy has the store's id, since the segments contain it. It is a separate store all the same:
//! files must not be moved from one to the other.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentEntry, SegmentState};
use crate::format::segment::SEAL_LEN;
use crate::format::{hint_file, segment_file};
use crate::log::manifest::{ManifestStore, ReplaceError};
use crate::options::Progress;
use crate::planted::{Planted, planted};
use crate::recovery::staging::Staging;
use crate::storage::{Directory, write_all_at};

/// Bytes copied per call, where links cannot be made.
const COPY_BYTES: u64 = 1 << 20;

/// What [`crate::Store::checkpoint`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// Segments in the copy.
    pub segments: u64,
    /// Files, hints included, that the copy shares with the store as hard links.
    pub linked: u64,
    /// Files that had to be copied, since the file system has no links or the target is on another
    /// file system.
    pub copied: u64,
    /// Bytes of all segments in the copy.
    pub bytes: u64,
    /// Every write up to this sequence is in the copy (or a later one of the same key is), and none
    /// past it.
    pub last_sequence: u64,
    /// How long it took.
    pub duration: Duration,
}

/// How a file was added to the copy.
enum Way {
    Linked,
    Copied,
}

impl Engine {
    pub(crate) fn checkpoint(
        &self,
        target: &Path,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<CheckpointReport> {
        self.context.check_open()?;
        let started_ms = self.context.time.monotonic_ms();
        let _no_compaction = self.compactor.control.lock_at_once()?;
        self.context.check_open()?;
        let staging = Staging::begin(self.context.storage.clone(), target)?;
        let (manifest, last_sequence) = self.log.sealed_prefix()?;
        let mut report = CheckpointReport {
            last_sequence,
            ..CheckpointReport::default()
        };
        self.carry_over(&manifest, staging.directory(), &mut report, progress)?;
        ManifestStore::write(staging.directory(), &manifest).map_err(|error| match error {
            ReplaceError::Unchanged(error) | ReplaceError::Unknown(error) => error,
        })?;
        staging.publish()?;
        report.duration = Duration::from_millis(self.context.time.monotonic_ms().saturating_sub(started_ms));
        Ok(report)
    }

    /// Links or copies all segments of a manifest, and their hints, into a directory.
    fn carry_over(
        &self,
        manifest: &Manifest,
        directory: &Directory,
        report: &mut CheckpointReport,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<()> {
        let ended = |entry: &SegmentEntry| match entry.state {
            SegmentState::Sealed(summary) => Some((summary, summary.data_end + SEAL_LEN)),
            SegmentState::Cut(summary) => Some((summary, summary.data_end)),
            SegmentState::Open => None,
        };
        let total_bytes = manifest
            .segments
            .iter()
            .filter_map(ended)
            .map(|(summary, _)| summary.data_end)
            .sum();
        for entry in &manifest.segments {
            let Some((summary, length)) = ended(entry) else {
                continue;
            };
            report.count(self.link_or_copy(&segment_file(entry.id), directory, Some(length))?);
            report.segments += 1;
            report.bytes += summary.data_end;
            match self.link_or_copy(&hint_file(entry.id), directory, None) {
                Ok(way) => report.count(way),
                // Missing: opening the copy writes it.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let done_bytes = report.bytes;
            if !progress(Progress {
                done_bytes,
                total_bytes,
            }) {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Gives a file a second name, or else copies it up to `length` and syncs the copy.
    fn link_or_copy(&self, name: &str, to: &Directory, length: Option<u64>) -> Result<Way> {
        match self.context.directory.hard_link(name, to) {
            Ok(()) => Ok(Way::Linked),
            Err(error) if links_are_impossible(&error) => {
                self.copy_file(name, to, length)?;
                Ok(Way::Copied)
            }
            Err(error) => Err(Error::io("link", &self.context.directory.path_of(name), error)),
        }
    }

    fn copy_file(&self, name: &str, to: &Directory, length: Option<u64>) -> Result<()> {
        let (from, to_path) = (&self.context.directory.path_of(name), &to.path_of(name));
        let source = self
            .context
            .directory
            .open_file(name, false)
            .map_err(|error| Error::io("open", from, error))?;
        let length = match length {
            Some(length) => length,
            None => source.len().map_err(|error| Error::io("measure", from, error))?,
        };
        let target = to.create(name).map_err(|error| Error::io("create", to_path, error))?;
        let mut buffer = vec![0; length.min(COPY_BYTES) as usize];
        let mut offset = 0;
        while offset < length {
            let part = buffer
                .get_mut(..(length - offset).min(COPY_BYTES) as usize)
                .unwrap_or_default();
            crate::storage::read_exact_at(&*source, part, offset).map_err(|error| Error::io("read", from, error))?;
            write_all_at(&*target, part, offset).map_err(|error| Error::io("write", to_path, error))?;
            offset += part.len() as u64;
        }
        if planted(Planted::SkipCopySync) {
            return Ok(());
        }
        target.sync().map_err(|error| Error::io("sync", to_path, error))
    }
}

impl CheckpointReport {
    fn count(&mut self, way: Way) {
        match way {
            Way::Linked => self.linked += 1,
            Way::Copied => self.copied += 1,
        }
    }
}

/// Whether a file may be copied after linking it failed: true if the error means that links are
/// impossible here, or that this file can have no more. A file system without links returns EPERM,
/// EOPNOTSUPP, ENOSYS or EINVAL; EACCES and EPERM are also returned where linking other users'
/// files is forbidden. Errors that copying would hit as well (no space, no such file, a failing
/// device) remain errors.
fn links_are_impossible(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, InvalidInput, PermissionDenied, TooManyLinks, Unsupported};
    matches!(
        error.kind(),
        Unsupported | CrossesDevices | TooManyLinks | PermissionDenied | InvalidInput
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_where_there_are_no_links_is_told_from_other_failures() {
        // The same on Linux and elsewhere, except for EOPNOTSUPP, ENOSYS, EXDEV and EMLINK, which
        // have their own kinds.
        let (eperm, eacces, einval, enoent, eio, erofs) = (1, 13, 22, 2, 5, 30);
        for number in [eperm, eacces, einval] {
            assert!(links_are_impossible(&io::Error::from_raw_os_error(number)), "{number}");
        }
        #[cfg(target_os = "linux")]
        for (name, number) in [("EXDEV", 18), ("EMLINK", 31), ("ENOSYS", 38), ("EOPNOTSUPP", 95)] {
            assert!(links_are_impossible(&io::Error::from_raw_os_error(number)), "{name}");
        }
        for number in [enoent, eio, erofs] {
            assert!(!links_are_impossible(&io::Error::from_raw_os_error(number)), "{number}");
        }
    }
}
