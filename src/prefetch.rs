//! A hint to the processor.
//!
//! A plain load ahead of time is not the same: taking a lock waits for all loads before it. What
//! the hint is worth is in `docs/decisions/0024-the-lean-path.md`.

#![allow(
    unsafe_code,
    reason = "the instruction is only available as an unsafe function; it cannot fail and has no effect"
)]

/// Begins to load what is referred to into the processor's cache, and does not wait for it.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    hint::<TO_READ, T>(place);
}

/// The same for what is about to be changed, which other processors may have in their caches.
#[inline]
pub(crate) fn prefetch_to_change<T>(place: &T) {
    hint::<TO_CHANGE, T>(place);
}

/// As [`prefetch_to_change`], at an address where there may be nothing any more.
#[inline]
pub(crate) fn prefetch_address_to_change(address: usize) {
    hint::<TO_CHANGE, u8>(std::ptr::without_provenance(address));
}

/// `_MM_HINT_T0` and `_MM_HINT_ET0` of x86-64.
const TO_READ: i32 = 3;
const TO_CHANGE: i32 = 7;

#[inline]
fn hint<const HINT: i32, T>(place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch changes nothing that a program can see, at any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<HINT>(place.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}
