//! The append buffer: the active segment's bytes in memory, with one writer, many readers and no
//! lock.
//!
//! Invariants that make the `unsafe` code below sound:
//!
//! * Bytes below `published` never change again. Only [`Appender`] writes; it cannot be cloned, and
//!   it hands out only bytes at or beyond `published`.
//! * Readers never see bytes at or beyond `published`: [`AppendBuffer::published`] ends there.
//! * `published` only grows. Rolling back published bytes takes a new buffer
//!   ([`AppendBuffer::copy_of_first`]), since readers may still use the old one.
#![allow(unsafe_code)]

use std::sync::{Arc, Weak};

use super::memory::{Memory, SpareMemory};
use crate::sync::{AtomicUsize, Ordering};

/// The bytes of an active segment, as readers see them.
#[derive(Debug)]
pub(crate) struct AppendBuffer {
    memory: Memory,
    published: AtomicUsize,
    /// Where the memory goes when the buffer is used no more.
    spare: Weak<SpareMemory>,
}

// SAFETY: `published` divides shared access to the memory as described in the module docs.
unsafe impl Sync for AppendBuffer {}

impl AppendBuffer {
    /// A new buffer of the same capacity that begins with the first `length` published bytes of
    /// this one.
    pub(crate) fn copy_of_first(&self, length: usize) -> Appender {
        let kept = self.published();
        Appender::beginning_with(kept.get(..length).unwrap_or(kept), self.memory.capacity())
    }

    /// The bytes published so far. They never change, and stay valid as long as the buffer.
    pub(crate) fn published(&self) -> &[u8] {
        // Acquire pairs with the Release in `Appender::publish`: a thread that sees the length sees
        // the bytes.
        let length = self.published.load(Ordering::Acquire);
        // SAFETY: `length` is at most the capacity, whose bytes are initialised, and bytes below it
        // are never written again while the buffer has the memory.
        unsafe { std::slice::from_raw_parts(self.memory.start().as_ptr(), length) }
    }
}

impl Drop for AppendBuffer {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.upgrade() {
            // Nothing refers to it any more.
            spare.keep(self.memory.pass_on());
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
    /// A buffer with nothing published. Memory that is never written to is not committed.
    pub(crate) fn new(capacity: usize) -> Appender {
        Appender::in_memory(Memory::new(capacity), Weak::new())
    }

    /// A buffer with nothing published, in memory that goes back to `spare` when it is used no
    /// more; and whether that was used before, so that all of it is committed.
    pub(crate) fn of_spare(spare: &Arc<SpareMemory>, capacity: usize) -> (Appender, bool) {
        let (memory, is_used) = spare.take(capacity);
        (Appender::in_memory(memory, Arc::downgrade(spare)), is_used)
    }

    fn in_memory(memory: Memory, spare: Weak<SpareMemory>) -> Appender {
        let buffer = AppendBuffer {
            memory,
            published: AtomicUsize::new(0),
            spare,
        };
        Appender {
            buffer: Arc::new(buffer),
            end: 0,
        }
    }

    /// A buffer of just these bytes, all of them published.
    pub(crate) fn of(bytes: &[u8]) -> Appender {
        Appender::beginning_with(bytes, bytes.len())
    }

    fn beginning_with(bytes: &[u8], capacity: usize) -> Appender {
        let mut appender = Appender::new(capacity);
        appender.append(bytes);
        appender
    }

    /// Copies as many of these bytes as fit, and publishes them.
    fn append(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(self.spare_len());
        if let (Some(spare), Some(bytes)) = (self.spare().get_mut(..length), bytes.get(..length)) {
            spare.copy_from_slice(bytes);
        }
        self.publish(length);
    }

    /// Goes on as a copy of the first `end` published bytes of another buffer. What this one has
    /// are fewer of them, or none.
    pub(crate) fn copy_on(&mut self, other: &AppendBuffer, end: usize) {
        let bytes = other.published().get(self.end..end);
        debug_assert!(bytes.is_some(), "a copy is no longer than its original");
        self.append(bytes.unwrap_or_default());
    }

    /// The reading end.
    pub(crate) fn buffer(&self) -> &Arc<AppendBuffer> {
        &self.buffer
    }

    /// Bytes published so far.
    pub(crate) fn len(&self) -> usize {
        self.end
    }

    /// Bytes that fit in all.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.memory.capacity()
    }

    /// Bytes that still fit.
    pub(crate) fn spare_len(&self) -> usize {
        self.buffer.memory.capacity() - self.end
    }

    /// The bytes beyond the published ones: anything, such as bytes written but not published.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        // SAFETY: the range begins at `published` (no other thread changes it) and ends with the
        // allocation; readers see only bytes before it; `&mut self` on the only appender makes this
        // the only such slice.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.buffer.memory.start().as_ptr().add(self.end),
                self.buffer.memory.capacity() - self.end,
            )
        }
    }

    /// Gives the memory behind the published bytes back to the system, until it is written to.
    pub(crate) fn release_spare(&mut self) {
        // SAFETY: only this appender refers to it, and lends it by `&mut` alone; readers see only
        // the bytes before it.
        unsafe { self.buffer.memory.release_from(self.end) }
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
        let mut appender = old.copy_of_first(2);
        appender.copy_on(&old, 4);
        append(&mut appender, b"next");
        assert_eq!(seen, b"keepgone");
        assert_eq!(appender.buffer().published(), b"keepnext");
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
