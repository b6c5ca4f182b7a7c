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
    let mut freed = Freed::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let asked = Arc::clone(&shared);
        let looked = blocking(move || {
            let stats = asked.store.stats();
            let indexes = stats.keydir_bytes + stats.key_order_bytes + stats.expiry_queue_bytes;
            if freed.is_much(asked.body_memory.take_given_back() as u64, indexes) {
                glibc::trim();
            }
            Ok(freed)
        });
        if let Ok(looked) = looked.await {
            freed = looked;
        }
    }
}

/// What was freed since memory was given back last.
#[derive(Clone, Copy, Debug, Default)]
struct Freed {
    /// By bodies and responses.
    bodies: u64,
    /// The most that the indexes took.
    indexes_most: u64,
}

impl Freed {
    /// Whether it is much, now that bodies freed so much more and the indexes take so much. If so,
    /// counting begins again.
    fn is_much(&mut self, bodies: u64, indexes: u64) -> bool {
        let bodies = self.bodies + bodies;
        let indexes_most = self.indexes_most.max(indexes);
        let is_much = bodies >= MUCH_BYTES || indexes_most - indexes >= MUCH_BYTES;
        *self = match is_much {
            true => Freed {
                bodies: 0,
                indexes_most: indexes,
            },
            false => Freed { bodies, indexes_most },
        };
        is_much
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_is_given_back_after_many_bodies_and_after_a_sweep() {
        let mut freed = Freed::default();
        // Indexes that grow, and bodies that are small together.
        for second in 0..10 {
            assert!(!freed.is_much(MIB, second * 100 * MIB), "{second}");
        }
        assert!(freed.is_much(6 * MIB, 900 * MIB), "16 MiB of bodies");
        assert!(!freed.is_much(15 * MIB, 900 * MIB), "counted from then on");
        // Keys expire, a few at a time.
        let mut freed = Freed::default();
        let given_back = (0..=200).filter(|second| freed.is_much(0, (1000 - 4 * second) * MIB));
        assert_eq!(given_back.count(), 800 / 16);
        // A sweep that ends is the last change, and no body comes afterwards.
        assert!(freed.is_much(0, 0));
        assert!(!freed.is_much(0, 0), "once");
    }
}
