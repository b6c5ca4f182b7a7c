//! The append buffer: the active segment's bytes in memory, with one writer, many readers and no
//! lock.
//!
//! Invariants that make the `unsafe` code below sound:
//!
//! * Bytes below `published` never change again. Only [`Appender`] writes; it cannot be cloned, and
//!   it hands out only bytes at or beyond `published`.
//! * Readers never see bytes at or beyond `published`: [`AppendBuffer::published`] ends there.
//! * `published` only grows. Rolling back published bytes takes a new buffer
//!   ([`Appender::copy_of_first`]), since readers may still use the old one.
//!
//! A large buffer is an anonymous mapping that the system may back with huge pages: small pages
//! cost a fault for every two dozen small records, a fifth of a put (measured; see
//! `docs/decisions/0012-where-a-put-spends-its-time.md`). The first part uses small pages all the
//! same, so that a store with little data stays small.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::sync::{AtomicUsize, Ordering};

/// The alignment that the system's allocator guarantees anyway. For a higher one the standard
/// library zeroes the memory itself, which commits all of it at once; up to this one it uses
/// `calloc`, which gets fresh pages that are committed when touched.
const MEMORY_ALIGNMENT: usize = 8;

/// The smallest capacity allocated, since a layout must not be empty.
const CAPACITY_MIN: usize = 64;

/// A buffer of at least this capacity is mapped, and may use huge pages from this offset on.
const MAPPED_MIN: usize = 2 << 20;

/// The bytes of an active segment, as readers see them.
#[derive(Debug)]
pub(crate) struct AppendBuffer {
    memory: NonNull<u8>,
    capacity: usize,
    owner: Owner,
    published: AtomicUsize,
}

/// Where the memory came from and is returned to.
#[derive(Debug)]
enum Owner {
    Allocator(Layout),
    Map { _map: MmapMut },
}

// SAFETY: the buffer owns the memory, through `owner`, and `published` divides shared access to it
// as described in the module docs.
unsafe impl Send for AppendBuffer {}
// SAFETY: as above.
unsafe impl Sync for AppendBuffer {}

impl AppendBuffer {
    /// The bytes published so far. They never change, and stay valid as long as the buffer.
    pub(crate) fn published(&self) -> &[u8] {
        // Acquire pairs with the Release in `Appender::publish`: a thread that sees the length sees
        // the bytes.
        let length = self.published.load(Ordering::Acquire);
        // SAFETY: `length` is at most the capacity, whose bytes are initialised (zeroed at first),
        // and bytes below it are never written again.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), length) }
    }
}

impl AppendBuffer {
    /// A zeroed buffer with nothing published.
    fn new(capacity: usize) -> AppendBuffer {
        let capacity = capacity.max(CAPACITY_MIN);
        // The fallback to the allocator only costs more page faults. Miri has no mappings.
        let mapped = (capacity >= MAPPED_MIN && !cfg!(miri)).then(|| Self::mapped(capacity));
        mapped.flatten().unwrap_or_else(|| Self::allocated(capacity))
    }

    fn mapped(capacity: usize) -> Option<AppendBuffer> {
        let mut map = MmapMut::map_anon(capacity).ok()?;
        #[cfg(target_os = "linux")]
        {
            // Only a hint: a system without huge pages uses small ones.
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
            // SAFETY: `memory` came from `alloc_zeroed` with this layout, and nothing else uses it
            // any more.
            unsafe { dealloc(self.memory.as_ptr(), layout) }
        }
    }
}

/// The writing end of an append buffer, one per buffer.
#[derive(Debug)]
pub(crate) struct Appender {
    buffer: Arc<AppendBuffer>,
    end: usize,
}

impl Appender {
    /// A zeroed buffer with nothing published. Memory that is never written to is not committed.
    pub(crate) fn new(capacity: usize) -> Appender {
        Appender {
            buffer: Arc::new(AppendBuffer::new(capacity)),
            end: 0,
        }
    }

    /// A buffer of just these bytes, all of them published.
    pub(crate) fn of(bytes: &[u8]) -> Appender {
        Appender::beginning_with(bytes, bytes.len())
    }

    /// A new buffer that begins with the first `length` published bytes of this one.
    pub(crate) fn copy_of_first(&self, length: usize) -> Appender {
        let kept = self.buffer.published();
        Appender::beginning_with(kept.get(..length).unwrap_or(kept), self.buffer.capacity)
    }

    fn beginning_with(bytes: &[u8], capacity: usize) -> Appender {
        let mut appender = Appender::new(capacity);
        if let Some(spare) = appender.spare().get_mut(..bytes.len()) {
            spare.copy_from_slice(bytes);
        }
        appender.publish(bytes.len());
        appender
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

    /// The bytes beyond the published ones: zeros, or bytes written but not published.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        // SAFETY: the range begins at `published` (no other thread changes it) and ends with the
        // allocation; readers see only bytes before it; `&mut self` on the only appender makes this
        // the only such slice.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.buffer.memory.as_ptr().add(self.end),
                self.buffer.capacity - self.end,
            )
        }
    }

    /// Makes the next `length` bytes visible to readers (at most the spare ones).
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
        // Miri is about a thousand times slower.
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
