//! Memory for append buffers.
//!
//! Memory that is touched for the first time is zeroed by the system, which takes longer than to
//! copy a record there. So the memory of a buffer that is used no more is kept for the next one
//! ([`SpareMemory`]).
//!
//! A large buffer is an anonymous mapping that the system may back with huge pages: small pages
//! cost a fault for every two dozen small records, a fifth of a put (measured; see
//! `docs/decisions/0012-where-a-put-spends-its-time.md`). The first part uses small pages all the
//! same, so that a store with little data stays small.
#![allow(
    unsafe_code,
    reason = "memory that is committed when touched cannot be had in safe Rust, nor passed on with its content"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use memmap2::MmapMut;

use crate::sync::lock;

/// The alignment that the system's allocator guarantees anyway. For a higher one the standard
/// library zeroes the memory itself, which commits all of it at once; up to this one it uses
/// `calloc`, which gets fresh pages that are committed when touched.
const MEMORY_ALIGNMENT: usize = 8;

/// A multiple of the system's pages, in bytes.
#[cfg(target_os = "linux")]
const PAGE: usize = 64 << 10;

/// The smallest capacity allocated, since a layout must not be empty.
const CAPACITY_MIN: usize = 64;

/// A buffer of at least this capacity is mapped, and may use huge pages from this offset on.
const MAPPED_MIN: usize = 2 << 20;

/// Owned memory; all of it is initialised.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    owner: Owner,
}

/// Where the memory came from and is returned to.
#[derive(Debug)]
enum Owner {
    Allocator(Layout),
    Map(MmapMut),
    /// It was moved to another [`Memory`].
    Moved,
}

// SAFETY: it owns the memory, through `owner`, and does not access it.
unsafe impl Send for Memory {}

/// The memory of one buffer that is used no more.
#[derive(Debug)]
pub(crate) struct SpareMemory {
    kept: Mutex<Option<Kept>>,
    /// Memory of more bytes is not kept.
    capacity_max: usize,
    has_ended: AtomicBool,
}

#[derive(Debug)]
struct Kept {
    memory: Memory,
    /// When [`SpareMemory::shrink`] saw it first.
    since_ms: Option<u64>,
}

impl Memory {
    /// Zeroed memory. What is never written to is not committed.
    pub(super) fn new(capacity: usize) -> Memory {
        let capacity = capacity.max(CAPACITY_MIN);
        // The fallback to the allocator only costs more page faults. Miri has no mappings.
        let mapped = (capacity >= MAPPED_MIN && !cfg!(miri)).then(|| Self::mapped(capacity));
        mapped.flatten().unwrap_or_else(|| Self::allocated(capacity))
    }

    fn mapped(capacity: usize) -> Option<Memory> {
        let mut map = MmapMut::map_anon(capacity).ok()?;
        #[cfg(target_os = "linux")]
        {
            // Only a hint: a system without huge pages uses small ones.
            let _ = map.advise_range(memmap2::Advice::HugePage, MAPPED_MIN, capacity - MAPPED_MIN);
        }
        Some(Memory {
            start: NonNull::new(map.as_mut_ptr())?,
            capacity,
            owner: Owner::Map(map),
        })
    }

    fn allocated(capacity: usize) -> Memory {
        let Ok(layout) = Layout::from_size_align(capacity, MEMORY_ALIGNMENT) else {
            handle_alloc_error(Layout::new::<u8>());
        };
        // SAFETY: the layout's size is not zero, since the capacity is at least `CAPACITY_MIN`.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout);
        };
        Memory {
            start,
            capacity,
            owner: Owner::Allocator(layout),
        }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Gives the memory from this offset on back to the system, as far as that can be done; what
    /// was there is lost.
    ///
    /// # Safety
    ///
    /// Nothing may refer to that part.
    pub(super) unsafe fn release_from(&self, offset: usize) {
        #[cfg(target_os = "linux")]
        if let Owner::Map(map) = &self.owner {
            let begin = offset.next_multiple_of(PAGE);
            // SAFETY: the range is within the map, or refused; it is of anonymous memory, which is
            // zeroed when it is touched again; and the caller promises that nothing refers to it.
            let _ = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    begin,
                    self.capacity.saturating_sub(begin),
                )
            };
        }
        let _ = offset;
    }

    /// The memory, which is no longer this one's.
    pub(super) fn pass_on(&mut self) -> Memory {
        Memory {
            start: self.start,
            capacity: self.capacity,
            owner: std::mem::replace(&mut self.owner, Owner::Moved),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Owner::Allocator(layout) = self.owner {
            // SAFETY: the memory came from `alloc_zeroed` with this layout, and nothing else uses
            // it any more.
            unsafe { dealloc(self.start.as_ptr(), layout) }
        }
    }
}

impl SpareMemory {
    /// Keeps the memory of buffers of at most this capacity.
    pub(crate) fn new(capacity_max: usize) -> Arc<SpareMemory> {
        Arc::new(SpareMemory {
            kept: Mutex::new(None),
            capacity_max,
            has_ended: AtomicBool::new(false),
        })
    }

    /// Memory of this capacity, and whether it was used before: what is kept, if that is of this
    /// capacity, else zeroed.
    pub(super) fn take(&self, capacity: usize) -> (Memory, bool) {
        let kept = lock(&self.kept).take().map(|kept| kept.memory);
        match kept.filter(|memory| memory.capacity == capacity) {
            Some(memory) => (memory, true),
            None => (Memory::new(capacity), false),
        }
    }

    pub(super) fn keep(&self, memory: Memory) {
        // A drop must not wait: it may be that of a reader, or in a forked child, which does not
        // have the thread that holds the lock.
        let Ok(mut kept) = self.kept.try_lock() else { return };
        let unwanted = match *kept {
            None if memory.capacity <= self.capacity_max && !self.has_ended.load(Ordering::Relaxed) => {
                *kept = Some(Kept { memory, since_ms: None });
                None
            }
            _ => Some(memory),
        };
        drop(kept);
        // Without the lock, since that takes long.
        drop(unwanted);
    }

    /// Gives the memory back, and keeps none any more.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        drop(lock(&self.kept).take());
    }

    /// Gives the memory back if it was not needed for this many milliseconds, as far as the calls
    /// can tell. `now_ms` only grows.
    pub(crate) fn shrink(&self, now_ms: u64, kept_ms: u64) {
        let mut kept = lock(&self.kept);
        let is_old = kept.as_mut().is_some_and(|kept| {
            let since_ms = *kept.since_ms.get_or_insert(now_ms);
            now_ms.saturating_sub(since_ms) >= kept_ms
        });
        let old = if is_old { kept.take() } else { None };
        drop(kept);
        drop(old);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test fails by panicking, in its helpers too")]

    use super::*;
    use crate::segment::buffer::Appender;

    fn of_spare(spare: &Arc<SpareMemory>, capacity: usize) -> Appender {
        Appender::of_spare(spare, capacity).0
    }

    fn append(appender: &mut Appender, bytes: &[u8]) {
        appender.spare()[..bytes.len()].copy_from_slice(bytes);
        appender.publish(bytes.len());
    }

    fn place(appender: &mut Appender) -> *const u8 {
        appender.spare().as_ptr().wrapping_sub(appender.len())
    }

    #[test]
    fn the_memory_of_a_buffer_that_is_used_no_more_is_the_next_ones() {
        for capacity in [64, MAPPED_MIN] {
            let spare = SpareMemory::new(MAPPED_MIN);
            let is_kept = || lock(&spare.kept).is_some();
            let mut first = of_spare(&spare, capacity);
            append(&mut first, b"first");
            let (was_at, reader) = (place(&mut first), first.buffer().clone());
            drop(first);
            // Not while it is read.
            let mut second = of_spare(&spare, capacity);
            assert_ne!(place(&mut second), was_at);
            assert_eq!(reader.published(), b"first");
            drop(reader);
            assert!(is_kept());
            let mut third = of_spare(&spare, capacity);
            assert_eq!(place(&mut third), was_at);
            assert_eq!(third.buffer().published(), b"");
            // One is kept, for buffers of its own capacity, and not for long.
            drop((second, third));
            assert!(is_kept());
            let larger = of_spare(&spare, capacity * 2);
            assert!(!is_kept());
            drop(larger);
            assert_eq!(is_kept(), capacity == 64, "too large a one is not kept");
            drop(of_spare(&spare, capacity));
            let value = of_spare(&spare, capacity).buffer().clone();
            drop(value);
            for (now_ms, kept) in [(7, true), (1006, true), (1007, false)] {
                spare.shrink(now_ms, 1000);
                assert_eq!(is_kept(), kept, "{now_ms}");
            }
        }
    }

    #[test]
    fn a_buffer_outlives_what_would_keep_its_memory() {
        let spare = SpareMemory::new(64);
        let mut appender = of_spare(&spare, 64);
        append(&mut appender, b"kept");
        drop(spare);
        let buffer = appender.buffer().clone();
        drop(appender);
        assert_eq!(buffer.published(), b"kept");
    }

    #[test]
    fn a_store_that_was_closed_keeps_nothing() {
        let spare = SpareMemory::new(64);
        let (before, after) = (of_spare(&spare, 64), of_spare(&spare, 64));
        drop(before);
        assert!(lock(&spare.kept).is_some());
        spare.end();
        assert!(lock(&spare.kept).is_none());
        // A value that was held on to.
        drop(after);
        assert!(lock(&spare.kept).is_none());
    }

    #[test]
    fn what_is_given_back_behind_the_published_bytes_is_used_again() {
        for capacity in [64, MAPPED_MIN] {
            let mut appender = Appender::new(capacity);
            append(&mut appender, b"before");
            appender.spare().fill(7);
            appender.release_spare();
            append(&mut appender, b" and after");
            assert_eq!(appender.buffer().published(), b"before and after");
            let last = appender.spare().last().copied();
            let is_zeroed = capacity == MAPPED_MIN && cfg!(all(target_os = "linux", not(miri)));
            assert_eq!(last, Some(if is_zeroed { 0 } else { 7 }));
        }
    }
}
