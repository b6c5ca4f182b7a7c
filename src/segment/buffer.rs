//! The append buffer: the active segment's bytes in memory, written by one, read by many, without a
//! lock.
//!
//! The invariants that make the `unsafe` below sound, and who keeps them:
//!
//! * Bytes below `published` never change again. [`Appender`] is the only one who writes; it cannot
//!   be cloned, and it hands out only what lies at or beyond `published`.
//! * Bytes at or beyond `published` are never read by others: [`AppendBuffer::published`] ends
//!   there.
//! * `published` only grows. Taking back what was published means a new buffer
//!   ([`Appender::copy_of_first`]), since a reader may still be reading the old one.
//!
//! A large buffer is a map of memory that the system may fill with huge pages: taking it page by
//! page costs a fault for every two dozen small records, a fifth of a put (measured; see
//! `docs/decisions/0012-where-a-put-spends-its-time.md`). The first part is taken by small pages
//! all the same, so that a store with little in it stays small.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::sync::{AtomicUsize, Ordering};

/// No more than the system's allocator grants anyway. Beyond that the standard library fills the
/// memory with zeros by hand, which takes all of it from the system at once; up to that it asks for
/// fresh pages, which are taken when they are touched.
const MEMORY_ALIGNMENT: usize = 8;

/// The smallest buffer that is allocated: a layout must not be empty.
const CAPACITY_MIN: usize = 64;

/// A buffer of this capacity or more is mapped, and from this offset on may be taken by huge pages.
const MAPPED_MIN: usize = 2 << 20;

/// The bytes of an active segment, as readers see them.
#[derive(Debug)]
pub(crate) struct AppendBuffer {
    memory: NonNull<u8>,
    capacity: usize,
    owner: Owner,
    published: AtomicUsize,
}

/// What the memory came from, and goes back to.
#[derive(Debug)]
enum Owner {
    Allocator(Layout),
    Map { _map: MmapMut },
}

// SAFETY: the memory is owned by the buffer, through `owner`, and shared access to it is divided by
// `published` as the module says.
unsafe impl Send for AppendBuffer {}
// SAFETY: as above.
unsafe impl Sync for AppendBuffer {}

impl AppendBuffer {
    /// What has been published by now. Never changes, and stays valid as long as the buffer.
    pub(crate) fn published(&self) -> &[u8] {
        // Acquire pairs with the Release in `Appender::publish`: who sees the length sees the bytes.
        let length = self.published.load(Ordering::Acquire);
        // SAFETY: `length` is at most the capacity, whose bytes are initialised (zeroed at first), and
        // bytes below it are not written any more.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), length) }
    }
}

impl AppendBuffer {
    /// So many zeros, nothing of them published.
    fn new(capacity: usize) -> AppendBuffer {
        let capacity = capacity.max(CAPACITY_MIN);
        // Without a map a buffer costs more faults; it is no worse otherwise. Miri has none.
        let mapped = (capacity >= MAPPED_MIN && !cfg!(miri)).then(|| Self::mapped(capacity));
        mapped.flatten().unwrap_or_else(|| Self::allocated(capacity))
    }

    fn mapped(capacity: usize) -> Option<AppendBuffer> {
        let mut map = MmapMut::map_anon(capacity).ok()?;
        #[cfg(target_os = "linux")]
        {
            // Only a hint: a system that has no huge pages fills the map with small ones.
            let _ = map.advise_range(memmap2::Advice::HugePage, MAPPED_MIN, capacity - MAPPED_MIN);
        }
        Some(AppendBuffer {
            memory: NonNull::new(map.as_mut_ptr())?,
            capacity,
            owner: Owner::Map { _map: map },
            published: AtomicUsize::new(0),
        })
    }

    fn allocated(capacity: usize) -> AppendBuffer {
        let Ok(layout) = Layout::from_size_align(capacity, MEMORY_ALIGNMENT) else {
            handle_alloc_error(Layout::new::<u8>());
        };
        // SAFETY: the layout's size is not zero, since the capacity is at least `CAPACITY_MIN`.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout);
        };
        AppendBuffer {
            memory,
            capacity,
            owner: Owner::Allocator(layout),
            published: AtomicUsize::new(0),
        }
    }
}

impl Drop for AppendBuffer {
    fn drop(&mut self) {
        if let Owner::Allocator(layout) = self.owner {
            // SAFETY: `memory` came from `alloc_zeroed` with this layout, and no other user of it is left.
            unsafe { dealloc(self.memory.as_ptr(), layout) }
        }
    }
}

/// The writing end of an append buffer. There is one for each buffer.
#[derive(Debug)]
pub(crate) struct Appender {
    buffer: Arc<AppendBuffer>,
    end: usize,
}

impl Appender {
    /// A buffer of zeros, nothing of it published. Memory that is never written to is not taken
    /// from the system.
    pub(crate) fn new(capacity: usize) -> Appender {
        Appender {
            buffer: Arc::new(AppendBuffer::new(capacity)),
            end: 0,
        }
    }

    /// A new buffer that begins with the first `length` published bytes of this one.
    pub(crate) fn copy_of_first(&self, length: usize) -> Appender {
        let mut copy = Appender::new(self.buffer.capacity);
        let kept = self.buffer.published();
        let kept = kept.get(..length).unwrap_or(kept);
        if let Some(spare) = copy.spare().get_mut(..kept.len()) {
            spare.copy_from_slice(kept);
        }
        copy.publish(kept.len());
        copy
    }

    /// The reading end.
    pub(crate) fn buffer(&self) -> &Arc<AppendBuffer> {
        &self.buffer
    }

    /// Bytes published so far.
    pub(crate) fn len(&self) -> usize {
        self.end
    }

    /// Bytes that still fit.
    pub(crate) fn spare_len(&self) -> usize {
        self.buffer.capacity - self.end
    }

    /// What lies beyond the published bytes: zeros, or what was written here and not published.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        // SAFETY: the range begins at `published` (no other thread changes it) and ends with the
        // allocation; readers see only what lies before it; `&mut self` on the only appender makes
        // this the only such slice.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.buffer.memory.as_ptr().add(self.end),
                self.buffer.capacity - self.end,
            )
        }
    }

    /// Lets readers see the next `length` bytes (at most what is spare).
    pub(crate) fn publish(&mut self, length: usize) {
        debug_assert!(length <= self.spare_len());
        self.end += length.min(self.spare_len());
        self.buffer.published.store(self.end, Ordering::Release);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test fails by panicking, in its helpers too")]

    use super::*;

    fn append(appender: &mut Appender, bytes: &[u8]) {
        appender.spare()[..bytes.len()].copy_from_slice(bytes);
        appender.publish(bytes.len());
    }

    #[test]
    fn what_is_published_is_read_and_nothing_else() {
        let mut appender = Appender::new(256);
        let buffer = appender.buffer().clone();
        assert_eq!(buffer.published(), b"");
        append(&mut appender, b"hello");
        appender.spare()[..3].copy_from_slice(b"xyz");
        assert_eq!(buffer.published(), b"hello");
        append(&mut appender, b" you");
        assert_eq!(buffer.published(), b"hello you");
        assert_eq!(appender.spare_len(), 256 - 9);
    }

    #[test]
    fn taking_back_leaves_earlier_readers_their_bytes() {
        let mut appender = Appender::new(64);
        append(&mut appender, b"keep");
        append(&mut appender, b"gone");
        let old = appender.buffer().clone();
        let seen = old.published();
        let mut appender = appender.copy_of_first(4);
        append(&mut appender, b"next");
        assert_eq!(seen, b"keepgone");
        assert_eq!(appender.buffer().published(), b"keepnext");
        assert!(appender.spare().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_full_buffer_has_no_spare_bytes() {
        let mut appender = Appender::new(64);
        append(&mut appender, &[1; 64]);
        assert!(appender.spare().is_empty());
        assert_eq!(appender.buffer().published(), [1; 64]);
    }

    #[test]
    fn readers_in_other_threads_see_whole_words() {
        // Miri takes some thousand times as long.
        const BYTES: usize = if cfg!(miri) { 1024 } else { 64 * 1024 };
        let mut appender = Appender::new(BYTES);
        let buffer = appender.buffer().clone();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                loop {
                    let seen = buffer.published();
                    for word in seen.chunks(8) {
                        assert!(word == [7; 8], "{word:?}");
                    }
                    if seen.len() == BYTES {
                        break;
                    }
                }
            });
            for _ in 0..BYTES / 8 {
                append(&mut appender, &[7; 8]);
            }
        });
    }
}

#[cfg(all(test, shuttle))]
mod interleavings {
    use super::*;

    #[test]
    fn a_reader_sees_whole_records_in_order() {
        shuttle::check_random(
            || {
                let mut appender = Appender::new(64);
                let buffer = appender.buffer().clone();
                let reader = shuttle::thread::spawn(move || {
                    let mut before = 0;
                    for _ in 0..4 {
                        let seen = buffer.published();
                        assert!(seen.len() >= before && seen.len() % 8 == 0);
                        assert!(seen.chunks(8).enumerate().all(|(n, word)| word == [n as u8 + 1; 8]));
                        before = seen.len();
                    }
                });
                for n in 0..4 {
                    appender.spare()[..8].copy_from_slice(&[n + 1; 8]);
                    appender.publish(8);
                }
                reader.join().unwrap();
            },
            1000,
        );
    }
}
