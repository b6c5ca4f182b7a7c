//! A hint to the processor.
//!
//! A plain load ahead of time is not the same: taking a lock waits for all loads before it. What the
//! hint is worth is in `docs/decisions/0024-the-lean-path.md`.

#![allow(
    unsafe_code,
    reason = "the instruction is only available as an unsafe function; it cannot fail and has no effect"
)]

/// Begins to load what is referred to into the processor's cache, and does not wait for it.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        // SAFETY: a prefetch changes nothing that a program can see, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}

/// The same for what is about to be changed, which other processors may have in their caches.
#[inline]
pub(crate) fn prefetch_to_change<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};

        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}
