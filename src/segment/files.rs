//! The files of segments read with one call per read (pread mode). A store may have more segments
//! than the process has file descriptors, so only a bounded number of files is open at a time, and
//! the others are opened when they are read.
//!
//! A file that is being read stays open for that read, even if it is closed here meanwhile. The
//! file of a segment that was compacted away can no longer be opened; its reader looks the record
//! up again. Files that are held for snapshots stay open, and do not count.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{ReadError, Value};
use crate::format::record::{Header, Place, Record};
use crate::format::{Damage, segment_file};
use crate::planted::{Planted, planted};
use crate::storage::{Directory, StorageFile, read_exact_at};

/// Maximum number of open segment files, not counting files that are being read.
const OPEN_FILES_MAX: usize = 64;

/// The same for a store that is only read: the process that writes may remove files, and what is
/// open can be read all the same.
const OPEN_FILES_OF_READER_MAX: usize = 512;

/// Which files are open; shared by all segments of a store.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    directory: Directory,
    /// Oldest first.
    opened: Mutex<VecDeque<Weak<Slot>>>,
    most: usize,
}

/// Holds the file of a segment while it is open.
#[derive(Debug, Default)]
struct Slot {
    file: Mutex<Option<Arc<dyn StorageFile>>>,
    /// Whether the file was read since it was last considered for closing.
    was_read: AtomicBool,
    /// Number of holders for whom it stays open.
    holders: AtomicUsize,
}

/// The file of one segment. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    id: u64,
    files: Arc<OpenFiles>,
    slot: Arc<Slot>,
}

impl OpenFiles {
    pub(crate) fn new(directory: Directory) -> Arc<OpenFiles> {
        Arc::new(OpenFiles {
            most: match directory.is_read_only() {
                true => OPEN_FILES_OF_READER_MAX,
                false => OPEN_FILES_MAX,
            },
            directory,
            opened: Mutex::default(),
        })
    }

    /// The file of a segment, given already open.
    pub(crate) fn of_segment(self: &Arc<OpenFiles>, id: u64, file: Arc<dyn StorageFile>) -> SegmentFile {
        let slot = Arc::new(Slot::default());
        *slot.lock() = Some(file);
        self.note_opened(&slot);
        SegmentFile {
            id,
            files: self.clone(),
            slot,
        }
    }

    /// Adds a file to the open ones and, if there are too many, closes those not read recently
    /// (second chance).
    fn note_opened(&self, slot: &Arc<Slot>) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.push_back(Arc::downgrade(slot));
        if planted(Planted::KeepFilesOpen) {
            return;
        }
        // A file is skipped at most once for having been read.
        for _ in 0..opened.len() * 2 {
            if opened.len() <= self.most {
                break;
            }
            let Some(oldest) = opened.pop_front() else { break };
            let Some(slot) = oldest.upgrade() else { continue };
            if slot.is_held() {
                // It returns once it is not.
            } else if slot.was_read.swap(false, Ordering::Relaxed) {
                opened.push_back(oldest);
            } else {
                *slot.lock() = None;
            }
        }
    }

    /// Closes all files that are not being read.
    fn close_all(&self) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in opened.drain(..).filter_map(|slot| slot.upgrade()) {
            if !slot.is_held() {
                *slot.lock() = None;
            }
        }
    }

    /// Opens the file of a segment. If the process is out of descriptors, closes the other
    /// segments' files and retries.
    fn open(&self, id: u64) -> io::Result<Arc<dyn StorageFile>> {
        let name = segment_file(id);
        match self.directory.open_file(&name, false) {
            Err(error) if is_out_of_descriptors(&error) => {
                self.close_all();
                self.directory.open_file(&name, false)
            }
            result => result,
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn StorageFile>>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_held(&self) -> bool {
        self.holders.load(Ordering::Acquire) > 0 && !planted(Planted::CloseHeldFiles)
    }
}

impl SegmentFile {
    /// Keeps the file open from now on, or no longer; each hold is given up once. If it cannot be
    /// opened now, later reads say so.
    pub(crate) fn hold(&self, hold: bool) {
        if hold {
            self.slot.holders.fetch_add(1, Ordering::AcqRel);
            let _ = self.get();
        } else if self.slot.holders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.files.note_opened(&self.slot);
        }
    }

    /// The file, opened if need be, for one read.
    pub(crate) fn get(&self) -> io::Result<Arc<dyn StorageFile>> {
        self.slot.was_read.store(true, Ordering::Relaxed);
        let standing = self.slot.lock().clone();
        if let Some(file) = standing {
            return Ok(file);
        }
        // Several threads may open the file at once; the last one stays in the slot.
        let file = self.files.open(self.id)?;
        *self.slot.lock() = Some(file.clone());
        self.files.note_opened(&self.slot);
        Ok(file)
    }
}

/// `EMFILE` or `ENFILE`, by their numbers on Unix: they have no `ErrorKind`.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// As [`super::Segment::value`], of a file.
pub(super) fn read_value(
    file: &SegmentFile,
    data_end: u64,
    place: Place,
    wanted: impl FnOnce(&Record<'_>) -> bool,
) -> Result<Option<Value>, ReadError> {
    let mut bytes = Vec::new();
    read_record(&*file.get()?, data_end, place, &mut bytes)?;
    let record = Record::parse(&bytes, place)?;
    if !wanted(&record) {
        return Ok(None);
    }
    if !planted(Planted::SkipBodyCheck) {
        record.check_body()?;
    }
    let header = record.header;
    Ok(Some(Value::owned(bytes, header.header_len(), &header)))
}

/// Reads a record into `bytes`: first enough for a small record, then, once the header is checked,
/// the rest.
pub(super) fn read_record(
    file: &dyn StorageFile,
    data_end: u64,
    place: Place,
    bytes: &mut Vec<u8>,
) -> Result<(), ReadError> {
    const FIRST_READ: u64 = 4096;
    let left = data_end.checked_sub(place.offset).ok_or(Damage::Short)?;
    bytes.clear();
    bytes.resize(left.min(FIRST_READ) as usize, 0);
    read_exact_at(file, bytes, place.offset)?;
    let length = Header::decode(bytes, place)?.record_len();
    if length > left {
        return Err(Damage::Short.into());
    }
    let have = bytes.len();
    bytes.resize(length as usize, 0);
    if let Some(rest) = bytes.get_mut(have..) {
        read_exact_at(file, rest, place.offset + have as u64)?;
    }
    Ok(())
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test fails by panicking, in its helpers too"
    )]

    use super::*;
    use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, write_all_at};

    /// This many segments, each holding its id.
    fn files(count: u64) -> (FaultStorage, Arc<OpenFiles>, Vec<SegmentFile>) {
        let disk = MemStorage::new();
        disk.create_directory("/store").unwrap();
        let storage = FaultStorage::new(Arc::new(disk));
        let directory = Directory::open(&storage, "/store".as_ref()).unwrap();
        let files = OpenFiles::new(directory.clone());
        let segments = (0..count).map(|id| {
            let file = directory.create(&segment_file(id)).unwrap();
            write_all_at(&*file, &id.to_le_bytes(), 0).unwrap();
            files.of_segment(id, file)
        });
        let segments = segments.collect();
        (storage, files, segments)
    }

    fn open_count(segments: &[SegmentFile]) -> usize {
        segments.iter().filter(|segment| segment.slot.lock().is_some()).count()
    }

    #[test]
    fn a_bounded_number_is_open_and_every_file_can_be_read() {
        let (_, _, segments) = files(500);
        assert_eq!(open_count(&segments), OPEN_FILES_MAX);
        for round in 0..3 {
            for (id, segment) in segments.iter().enumerate() {
                let mut bytes = [0; 8];
                segment.get().unwrap().read_at(&mut bytes, 0).unwrap();
                assert_eq!(u64::from_le_bytes(bytes), id as u64, "round {round}");
            }
            assert_eq!(open_count(&segments), OPEN_FILES_MAX);
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_costs_no_other_segment_its_file() {
        let (storage, _, segments) = files(200);
        storage.inject(Fault::new(FaultKind::Error(io::ErrorKind::Other)));
        assert_eq!(segments[0].get().unwrap_err().kind(), io::ErrorKind::Other);
        assert_eq!(open_count(&segments), OPEN_FILES_MAX);
    }

    #[test]
    fn what_is_read_again_and_again_stays_open() {
        let (_, _, segments) = files(200);
        for segment in &segments {
            segments[7].get().unwrap();
            segment.get().unwrap();
        }
        assert!(segments[7].slot.lock().is_some());
    }

    #[test]
    fn without_descriptors_those_of_other_segments_are_given_back() {
        let (storage, files, segments) = files(200);
        storage.inject(Fault::new(FaultKind::NoDescriptors));
        assert!(segments[0].slot.lock().is_none() && segments[1].slot.lock().is_none());
        segments[0].get().unwrap();
        assert_eq!(storage.struck(), 1);
        assert_eq!(files.opened.lock().unwrap().len(), 1);
        storage.inject(Fault::new(FaultKind::NoDescriptors).repeated());
        let error = segments[1].get().unwrap_err();
        assert!(is_out_of_descriptors(&error), "{error}");
    }
}
