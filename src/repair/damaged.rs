//! Common to verify and salvage: damaged ranges, and reading a file despite read errors.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::Damage;
use crate::format::segment::SEGMENT_LEN_MAX;
use crate::storage::{Directory, StorageFile, read_exact_at};

/// A damaged range of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// The segment that the file is, or belongs to; `None` for the manifest.
    pub segment: Option<u64>,
    /// Where the range begins in the file, in bytes.
    pub offset: u64,
    /// Length of the range in bytes; 0 if it is unknown.
    pub length: u64,
    /// Which check failed.
    pub cause: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damaged {
            path,
            offset,
            length,
            cause,
            ..
        } = self;
        write!(f, "{cause}: {length} bytes of {} at offset {offset}", path.display())
    }
}

/// Bytes read per call.
const READ_BYTES: usize = 1 << 20;
/// Where a read fails, it is repeated in blocks of this size.
const BLOCK_BYTES: usize = 4 << 10;

/// The content of a file, as far as it can be read.
#[derive(Default)]
pub(super) struct Content {
    /// Zero where nothing could be read.
    pub(super) bytes: Vec<u8>,
    /// Offsets of blocks that could not be read, and why.
    unreadable: Vec<(u64, String)>,
}

impl Content {
    /// Reads the first `length` bytes, or all there are, but no more than the longest segment. A
    /// failed read loses only its block.
    pub(super) fn read(&mut self, file: &dyn StorageFile, path: &Path, length: u64) -> Result<()> {
        self.read_any(file, path, length.min(SEGMENT_LEN_MAX))
    }

    /// The same for a file that may be longer than a segment.
    pub(super) fn read_any(&mut self, file: &dyn StorageFile, path: &Path, length: u64) -> Result<()> {
        let there = file.len().map_err(|error| Error::io("measure", path, error))?;
        self.unreadable.clear();
        self.bytes.clear();
        self.bytes.resize(length.min(there) as usize, 0);
        let mut offset = 0;
        for part in self.bytes.chunks_mut(READ_BYTES) {
            if read_exact_at(file, part, offset).is_err() {
                for (index, block) in part.chunks_mut(BLOCK_BYTES).enumerate() {
                    let block_offset = offset + (index * BLOCK_BYTES) as u64;
                    if let Err(error) = read_exact_at(file, block, block_offset) {
                        block.fill(0);
                        self.unreadable.push((block_offset, error.to_string()));
                    }
                }
            }
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Unreadable blocks that no range in this list covers.
    pub(super) fn unlisted(&self, path: &Path, segment: u64, listed: &[Damaged]) -> Vec<Damaged> {
        let is_listed = |block: u64| {
            let covers = |range: &Damaged| (range.offset..range.offset + range.length).contains(&block);
            listed.iter().any(|range| range.path == path && covers(range))
        };
        let blocks = self.unreadable.iter().map(|(block, _)| *block);
        let length = |block: u64| (self.bytes.len() as u64).saturating_sub(block).min(BLOCK_BYTES as u64);
        blocks
            .filter(|block| !is_listed(*block))
            .map(|block| self.damaged((path, Some(segment)), block, length(block), Damage::Short))
            .collect()
    }

    /// Whether everything could be read.
    pub(super) fn is_whole(&self) -> bool {
        self.unreadable.is_empty()
    }

    /// A damaged range of this content, which belongs to this file and segment. If the range could
    /// not be read, that is the cause.
    pub(super) fn damaged(
        &self,
        (path, segment): (&Path, Option<u64>),
        offset: u64,
        length: u64,
        damage: Damage,
    ) -> Damaged {
        let inside = |block: u64| block < offset + length.max(1) && offset < block + BLOCK_BYTES as u64;
        let unreadable = self.unreadable.iter().find(|(block, _)| inside(*block));
        let cause = match unreadable {
            Some((_, error)) => format!("cannot be read: {error}"),
            None => damage.to_string(),
        };
        Damaged {
            path: path.to_owned(),
            segment,
            offset,
            length,
            cause,
        }
    }
}

/// Opens a file that should exist; None if it does not.
pub(super) fn open_if_there(directory: &Directory, name: &str) -> Result<Option<Arc<dyn StorageFile>>> {
    match directory.open_file(name, false) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", &directory.path_of(name), error)),
    }
}
