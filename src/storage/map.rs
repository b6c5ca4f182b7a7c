//! Read-only views of file content: the only place where a file becomes a slice.
//!
//! Invariant: the bytes of a [`Map`] never change while the map lives. The engine maps only sealed
//! segments, which are never written again, and holds the lock of the store, which keeps other
//! processes out; in addition, a file handle refuses to write or truncate below a length that it
//! has mapped.

#![allow(
    unsafe_code,
    reason = "mapping a file cannot be expressed in safe Rust; nothing else here is unsafe"
)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

/// The first bytes of a file, read-only; dereferences to `[u8]`.
///
/// A map stays valid after its file is closed, renamed or, except on Windows, removed: the blocks
/// on disk are freed when the last map is dropped. On Windows a file cannot be removed while it is
/// mapped.
///
/// If another program truncates the file, or the device fails, accessing the lost part raises
/// SIGBUS (an in-page error on Windows), which cannot be turned into an `Err` here.
pub struct Map(Backing);

enum Backing {
    /// Not every system can map an empty range.
    Empty,
    File(Mmap),
    Memory {
        bytes: Arc<Vec<u8>>,
        length: usize,
        /// Keeps the file open until the map is dropped.
        _opened: Arc<dyn Send + Sync>,
    },
}

impl Map {
    /// Maps the first `length` bytes of `file`, and advises the system of random access.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file is shorter: mapping would succeed, but accessing its end would
    /// kill the process.
    pub(super) fn of_file(file: &File, length: u64) -> io::Result<Self> {
        let available = file.metadata()?.len();
        check_length(length, available)?;
        if length == 0 {
            return Ok(Self(Backing::Empty));
        }
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: the slice made from the map is sound as long as its bytes neither change nor
        // vanish. They do not change from inside: the caller of `StorageFile::map` promises not to
        // write below `length`, the engine maps sealed segments only, and `OsFile` refuses such
        // writes through the handle that was mapped. They do not change from outside: the store's
        // lock keeps other embercask processes out. They do not vanish: the file is at least
        // `length` long (checked above), and the map keeps the content alive after an unlink.
        let map = unsafe { MmapOptions::new().len(length).map(file)? };
        let map = Self(Backing::File(map));
        map.advise_random();
        Ok(map)
    }

    /// A snapshot of a file in memory; `opened` is kept until the map is dropped.
    pub(super) fn of_memory(bytes: Arc<Vec<u8>>, length: u64, opened: Arc<dyn Send + Sync>) -> io::Result<Self> {
        check_length(length, bytes.len() as u64)?;
        // Lossless: not above the length of a Vec.
        let length = length as usize;
        Ok(Self(Backing::Memory {
            bytes,
            length,
            _opened: opened,
        }))
    }

    /// Asks the system to read the whole map ahead, for a sequential reader. Never fails: a system
    /// without such a hint ignores it.
    pub fn read_ahead(&self) {
        #[cfg(unix)]
        if let Backing::File(map) = &self.0 {
            // Some file systems refuse the hint; reading is then merely slower.
            let _ = map.advise(memmap2::Advice::WillNeed);
        }
    }

    /// Whether these bytes, as far as there are any, are in memory, so that reading them waits for
    /// no device. False where the system does not tell.
    pub(crate) fn is_cached(&self, range: Range<usize>) -> bool {
        let bytes = self.get(range.start..range.end.min(self.len())).unwrap_or_default();
        match &self.0 {
            Backing::File(_) => bytes.is_empty() || are_resident(bytes),
            Backing::Empty | Backing::Memory { .. } => true,
        }
    }

    /// Gets read at random, so read-ahead would be wasted.
    fn advise_random(&self) {
        #[cfg(unix)]
        if let Backing::File(map) = &self.0 {
            let _ = map.advise(memmap2::Advice::Random);
        }
    }
}

/// Most pages that are asked about in one call; more count as not resident.
#[cfg(target_os = "linux")]
const PAGES_MAX: usize = 64;

/// Whether all pages of these bytes, which are mapped from a file, are in the page cache.
#[cfg(target_os = "linux")]
fn are_resident(bytes: &[u8]) -> bool {
    let page = rustix::param::page_size();
    let before = bytes.as_ptr().addr() % page;
    let pages = (before + bytes.len()).div_ceil(page);
    let mut found = [0; PAGES_MAX];
    if pages > PAGES_MAX {
        return false;
    }
    // SAFETY: the call reads no memory of these pages, writes one byte for each of them to `found`,
    // which has that many, and tells by an error if any is not mapped.
    let told = unsafe {
        let first = bytes.as_ptr().sub(before).cast_mut().cast();
        libc::mincore(first, before + bytes.len(), found.as_mut_ptr())
    };
    let found = found.get(..pages).unwrap_or_default();
    told == 0 && found.iter().all(|page| page & 1 == 1)
}

#[cfg(not(target_os = "linux"))]
fn are_resident(_: &[u8]) -> bool {
    false
}

fn check_length(wanted: u64, available: u64) -> io::Result<()> {
    if wanted <= available {
        return Ok(());
    }
    let message = format!("cannot map {wanted} bytes of a file that has {available}");
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
}

impl Deref for Map {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Backing::Empty => &[],
            Backing::File(map) => map,
            Backing::Memory { bytes, length, .. } => bytes.get(..*length).unwrap_or_default(),
        }
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backing = match &self.0 {
            Backing::Empty => "empty",
            Backing::File(_) => "file",
            Backing::Memory { .. } => "memory",
        };
        formatter
            .debug_struct("Map")
            .field("backing", &backing)
            .field("length", &self.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn of_bytes(bytes: &[u8]) -> Map {
        Map::of_memory(Arc::new(bytes.to_vec()), bytes.len() as u64, Arc::new(())).unwrap()
    }

    #[test]
    fn a_map_can_be_sent_and_shared() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Map>();
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri cannot map files")]
    fn a_file_map_shows_the_bytes_asked_for_and_outlives_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let map = Map::of_file(&file, 4).unwrap();
        drop(file);
        assert_eq!(&map[..], b"0123");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri cannot map files")]
    fn mapping_nothing_is_empty_and_mapping_too_much_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(Map::of_file(&file, 0).unwrap().is_empty());
        assert_eq!(Map::of_file(&file, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let beyond = Map::of_memory(Arc::new(vec![1]), 2, Arc::new(()));
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri cannot map files")]
    fn what_was_just_written_is_cached_and_what_is_in_memory_always_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        let map = Map::of_file(&file, 1 << 20).unwrap();
        let is_told = cfg!(target_os = "linux");
        for range in [
            0..1,
            4095..4097,
            10_000..100_000,
            (1 << 20) - 1..2 << 20,
            2 << 20..3 << 20,
        ] {
            assert_eq!(map.is_cached(range.clone()), is_told, "{range:?}");
        }
        assert!(!map.is_cached(0..1 << 20), "more is asked about than one call tells");
        assert!(of_bytes(b"abc").is_cached(0..3) && of_bytes(b"").is_cached(0..0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri cannot map files")]
    fn reading_ahead_changes_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let mapped = Map::of_file(&file, 10_000).unwrap();
        for map in [&mapped, &of_bytes(b"abc"), &of_bytes(b"")] {
            map.read_ahead();
        }
        assert_eq!(mapped[9_999], 7);
    }
}
