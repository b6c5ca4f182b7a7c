//! Tells a process from its forked children. A forked child has a copy of all memory, and shares
//! the open files and the lock of the store with its parent; it must use neither.
//!
//! On Linux a page of memory that the kernel clears in the child tells the two apart at the cost of
//! one load. Elsewhere, and on kernels without such pages, the process id does.

#![allow(
    unsafe_code,
    reason = "requesting such a page, and accessing it as an atomic, cannot be expressed in safe Rust"
)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies the process that created it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessMark {
    value: u64,
    page: Option<&'static AtomicU64>,
}

impl ProcessMark {
    pub(crate) fn of_this_process() -> ProcessMark {
        let page = cleared_by_fork();
        let value = match page {
            Some(page) => mark(page),
            None => std::process::id().into(),
        };
        ProcessMark { value, page }
    }

    /// Whether the current process created the mark, rather than being a forked child.
    #[inline]
    pub(crate) fn is_of_this_process(&self) -> bool {
        match self.page {
            Some(page) => page.load(Ordering::Relaxed) == self.value,
            None => u64::from(std::process::id()) == self.value,
        }
    }
}

/// The value of the page in this process: never 0, and never its value in a process that this one
/// was forked from.
fn mark(page: &AtomicU64) -> u64 {
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    // The process id alone may be that of an earlier ancestor.
    let new = u64::from(std::process::id()) << 32 | u64::from(since_1970.subsec_nanos()) << 1 | 1;
    match page.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => new,
        Err(standing) => standing,
    }
}

/// A number that is 0 in a forked child until it is set there; None if the system does not support
/// this.
#[cfg(all(target_os = "linux", not(miri)))]
fn cleared_by_fork() -> Option<&'static AtomicU64> {
    use std::sync::OnceLock;

    use memmap2::MmapMut;
    use rustix::mm::{Advice, madvise};

    static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // Rounded up to a page by the system.
        let mut map = MmapMut::map_anon(size_of::<AtomicU64>()).ok()?;
        let start = map.as_mut_ptr();
        // SAFETY: the range is that of the map, which is private and anonymous, as this advice
        // requires. It only changes the content that a child sees, before the child accesses it.
        unsafe { madvise(start.cast(), map.len(), Advice::LinuxWipeOnFork).ok()? };
        // The map lives as long as the process.
        std::mem::forget(map);
        // SAFETY: the map is page-aligned, zeroed, long enough, never unmapped, and accessed only
        // through this atomic. A child's copy is zeroed, which is a valid value.
        Some(unsafe { &*start.cast::<AtomicU64>() })
    })
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn cleared_by_fork() -> Option<&'static AtomicU64> {
    None
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_made_a_mark_knows_it_and_a_cleared_page_tells_another() {
        let mark = ProcessMark::of_this_process();
        assert!(mark.is_of_this_process());
        assert!(ProcessMark::of_this_process().is_of_this_process());
        // The page as a child sees it.
        static CLEARED: AtomicU64 = AtomicU64::new(0);
        let inherited = ProcessMark {
            page: Some(&CLEARED),
            ..mark
        };
        assert!(!inherited.is_of_this_process());
        // The child opens its own store.
        let own = super::mark(&CLEARED);
        assert_ne!(own, 0);
        assert_eq!(super::mark(&CLEARED), own, "one for the whole process");
    }
}
