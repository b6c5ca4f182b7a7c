//! Memory that is freed goes back to the system.
//!
//! glibc raises the size from which it maps blocks on their own whenever such a block is freed, up
//! to 32 MiB: from then on bodies of requests are in its heaps, which shrink only at their end. So
//! that size is fixed, and what lies free within heaps is given back after much was freed.

use std::sync::Arc;
use std::time::Duration;

use super::blocking::blocking;
use super::shared::Shared;

/// Blocks of at least this size are mapped on their own, and unmapped when they are freed.
const MAPPED_BYTES: i32 = 256 << 10;
/// What the heaps keep free at their end.
const KEPT_BYTES: i32 = 4 << 20;
/// How often it is looked whether much was freed, and how much that is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MUCH_BYTES: u64 = 16 << 20;

/// Configures the allocator of this process.
pub(super) fn configure() {
    glibc::configure(MAPPED_BYTES, KEPT_BYTES);
}

/// Gives free memory back, once much was freed: of bodies and responses, or of the indexes, such as
/// when many keys have expired.
pub(super) async fn give_back(shared: Arc<Shared>) {
    let (mut freed, mut indexes) = (0, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let asked = Arc::clone(&shared);
        let looked = blocking(move || {
            let stats = asked.store.stats();
            let now = stats.keydir_bytes + stats.key_order_bytes + stats.expiry_queue_bytes;
            let less = u64::saturating_sub(indexes, now);
            freed += asked.body_memory.take_given_back() as u64;
            if freed < MUCH_BYTES && less < MUCH_BYTES {
                return Ok((freed, u64::max(indexes, now)));
            }
            glibc::trim();
            Ok((0, now))
        });
        if let Ok(looked) = looked.await {
            (freed, indexes) = looked;
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(
    unsafe_code,
    reason = "glibc's settings cannot be reached in safe Rust; nothing else here is unsafe"
)]
mod glibc {
    pub(super) fn configure(mapped_bytes: i32, kept_bytes: i32) {
        // SAFETY: both are parameters that mallopt knows, with values in their range; it takes the
        // allocator's lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, mapped_bytes);
            libc::mallopt(libc::M_TRIM_THRESHOLD, kept_bytes);
        }
    }

    pub(super) fn trim() {
        // SAFETY: takes the lock of each heap, and changes only memory that is free.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod glibc {
    pub(super) fn configure(_: i32, _: i32) {}

    pub(super) fn trim() {}
}
