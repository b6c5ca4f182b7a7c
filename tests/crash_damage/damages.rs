//! Ways to damage the files of a store, and the resulting differences.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use embercask::storage::MemStorage;

use crate::records::{Record, SEAL};
use crate::subject::Subject;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// One change to files.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Flip(PathBuf, usize),
    /// Truncates to this length, or extends with zeros.
    SetLength(PathBuf, usize),
    /// Appends this many bytes of this value.
    Append(PathBuf, usize, u8),
    /// Sets all bytes of a block to this value.
    Fill(PathBuf, Range<usize>, u8),
    /// Swaps two blocks of this size.
    Swap((PathBuf, usize), (PathBuf, usize), usize),
    /// Copies the first file over the second name.
    Copy(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Remove(PathBuf),
    /// Replaces the content; the text describes the new one.
    Replace(PathBuf, Vec<u8>, String),
    Several(Vec<Damage>),
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Describes the damage completely, so that it can be repeated.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Flip(path, bit) => write!(f, "flip bit {bit} of {}", name(path)),
            Damage::SetLength(path, length) => write!(f, "set length {length} of {}", name(path)),
            Damage::Append(path, count, byte) => write!(f, "append {count} of {byte:#04x} to {}", name(path)),
            Damage::Fill(path, range, byte) => write!(f, "fill {range:?} of {} with {byte:#04x}", name(path)),
            Damage::Swap((a, at), (b, to), length) => {
                write!(
                    f,
                    "swap {length} bytes at {at} of {} and at {to} of {}",
                    name(a),
                    name(b)
                )
            }
            Damage::Copy(from, to) => write!(f, "copy {} over {}", name(from), name(to)),
            Damage::Exchange(a, b) => write!(f, "exchange {} and {}", name(a), name(b)),
            Damage::Remove(path) => write!(f, "remove {}", name(path)),
            Damage::Replace(path, _, what) => write!(f, "replace {} by {what}", name(path)),
            Damage::Several(damages) => {
                let texts: Vec<_> = damages.iter().map(Damage::to_string).collect();
                write!(f, "{}", texts.join(", then "))
            }
        }
    }
}

impl Damage {
    fn apply(&self, files: &mut Files) {
        match self {
            Damage::Flip(path, bit) => {
                let byte = files.get_mut(path).and_then(|bytes| bytes.get_mut(bit / 8));
                byte.into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Damage::SetLength(path, length) => {
                files.entry(path.clone()).and_modify(|bytes| bytes.resize(*length, 0));
            }
            Damage::Append(path, count, value) => {
                files
                    .entry(path.clone())
                    .and_modify(|bytes| bytes.resize(bytes.len() + count, *value));
            }
            Damage::Fill(path, range, value) => {
                let bytes = files.get_mut(path).map_or(&mut [][..], |bytes| bytes);
                let end = range.end.min(bytes.len());
                bytes[range.start.min(end)..end].fill(*value);
            }
            Damage::Swap((a, at), (b, to), length) => {
                let block = |path: &PathBuf, at: usize| {
                    let bytes = files.get(path).map_or(&[][..], |bytes| bytes);
                    bytes[at.min(bytes.len())..(at + length).min(bytes.len())].to_vec()
                };
                let (first, second) = (block(a, *at), block(b, *to));
                // If a block reaches the end of its file, the file keeps its length.
                for (path, at, new) in [(a, *at, second), (b, *to, first)] {
                    for (index, byte) in new.into_iter().enumerate() {
                        let old = files.get_mut(path).and_then(|bytes| bytes.get_mut(at + index));
                        old.into_iter().for_each(|old| *old = byte);
                    }
                }
            }
            Damage::Copy(from, to) => {
                if let Some(bytes) = files.get(from).cloned() {
                    files.insert(to.clone(), bytes);
                }
            }
            Damage::Exchange(a, b) => {
                if let (Some(first), Some(second)) = (files.get(a).cloned(), files.get(b).cloned()) {
                    files.insert(a.clone(), second);
                    files.insert(b.clone(), first);
                }
            }
            Damage::Remove(path) => drop(files.remove(path)),
            Damage::Replace(path, bytes, _) => drop(files.insert(path.clone(), bytes.clone())),
            Damage::Several(damages) => damages.iter().for_each(|damage| damage.apply(files)),
        }
    }
}

/// A store after its files were damaged.
pub(crate) struct Damaged<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) files: Files,
}

impl<'a> Damaged<'a> {
    pub(crate) fn new(subject: &'a Subject, damage: &Damage) -> Damaged<'a> {
        let mut files = subject.files.clone();
        damage.apply(&mut files);
        Damaged { subject, files }
    }

    /// A disk with these files.
    pub(crate) fn disk(&self) -> MemStorage {
        let disk = self.subject.disk.crash_process();
        for (path, bytes) in &self.files {
            if self.subject.files.get(path) != Some(bytes) {
                disk.write_file(path, bytes).unwrap();
            }
        }
        for path in self.subject.files.keys().filter(|path| !self.files.contains_key(*path)) {
            disk.remove_file(path).unwrap();
        }
        disk
    }

    pub(crate) fn bytes(&self, path: &Path) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// Whether this file differs, is missing or is new.
    pub(crate) fn is_changed(&self, path: &Path) -> bool {
        self.files.get(path) != self.subject.files.get(path)
    }

    /// Whether the file has its original length.
    pub(crate) fn has_its_length(&self, path: &Path) -> bool {
        self.files.get(path).map(Vec::len) == self.subject.files.get(path).map(Vec::len)
    }

    /// The first byte in a range of a file that differs or is missing.
    pub(crate) fn first_touched(&self, path: &Path, range: Range<usize>) -> Option<usize> {
        let (old, new) = (self.subject.files.get(path)?, self.bytes(path).unwrap_or_default());
        range.into_iter().find(|&at| old.get(at) != new.get(at))
    }

    pub(crate) fn is_touched(&self, path: &Path, range: Range<usize>) -> bool {
        self.first_touched(path, range).is_some()
    }

    /// Whether anything in a live segment that matters has changed.
    pub(crate) fn hurts_a_segment(&self) -> bool {
        let records = &self.subject.records;
        let touched = |record: &Record| self.is_touched(&record.path, record.start..record.end);
        let resized = |record: &Record| record.kind == SEAL && !self.has_its_length(&record.path);
        records
            .iter()
            .any(|record| touched(record) || resized(record) || self.wrong_header_bits(&record.path) > 0)
    }

    /// Number of wrong bits in the segment's header.
    pub(crate) fn wrong_header_bits(&self, path: &Path) -> u32 {
        let (Some(old), Some(new)) = (self.subject.files.get(path), self.bytes(path)) else {
            return u32::MAX;
        };
        match (old.first_chunk::<64>(), new.first_chunk::<64>()) {
            (Some(old), Some(new)) => old.iter().zip(new).map(|(old, new)| (old ^ new).count_ones()).sum(),
            _ => u32::MAX,
        }
    }
}
