//! What a store accepts.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::record::{KEY_LEN_MAX, METADATA_LEN_MAX, VALUE_LEN_MAX};
use crate::planted::{Planted, planted};

/// Sizes and lifetimes that the store's calls accept. Data already stored can be read, listed and
/// deleted whatever the limits; changing a key's expiry or metadata writes the key again, so it is
/// checked like a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, in bytes. At most 65,536; a key is never empty.
    pub key_bytes_max: usize,
    /// Longest value, in bytes. At most 1 GiB.
    pub value_bytes_max: usize,
    /// Longest metadata, in bytes. At most 65,536.
    pub metadata_bytes_max: usize,
    /// Shortest time to live. An expiry must be at least this far in the future.
    pub ttl_min: Duration,
    /// Most keys that one page of a listing may hold.
    pub page_keys_max: usize,
    /// Whether keys must be UTF-8 and other than `.` and `..`, which a URL's path cannot contain.
    pub url_safe_keys: bool,
}

impl Limits {
    /// The maximum of the format; the default.
    pub const ENGINE: Limits = Limits {
        key_bytes_max: KEY_LEN_MAX,
        value_bytes_max: VALUE_LEN_MAX,
        metadata_bytes_max: METADATA_LEN_MAX,
        ttl_min: Duration::from_millis(1),
        page_keys_max: 1_000_000,
        url_safe_keys: false,
    };

    /// The limits of Cloudflare Workers KV
    /// (<https://developers.cloudflare.com/kv/platform/limits/>): keys of 512 bytes, values of 25
    /// MiB, metadata of 1,024 bytes, lifetimes of at least 60 seconds, pages of 1,000 keys.
    pub const WORKERS_KV: Limits = Limits {
        key_bytes_max: 512,
        value_bytes_max: 25 << 20,
        metadata_bytes_max: 1024,
        ttl_min: Duration::from_secs(60),
        page_keys_max: 1000,
        url_safe_keys: true,
    };

    /// Clips each limit to the maximum of the format.
    pub(crate) fn clipped(self) -> Limits {
        Limits {
            key_bytes_max: self.key_bytes_max.min(KEY_LEN_MAX),
            value_bytes_max: self.value_bytes_max.min(VALUE_LEN_MAX),
            metadata_bytes_max: self.metadata_bytes_max.min(METADATA_LEN_MAX),
            ttl_min: self.ttl_min.max(Limits::ENGINE.ttl_min),
            page_keys_max: self.page_keys_max.clamp(1, Limits::ENGINE.page_keys_max),
            url_safe_keys: self.url_safe_keys,
        }
    }

    /// Whether this key may be written.
    #[inline]
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        if key.is_empty() {
            return Err(Error::invalid("the key is empty; a key has at least one byte"));
        }
        if key.len() > self.key_bytes_max && !planted(Planted::IgnoreLimits) {
            return Err(too_long("key", key.len(), self.key_bytes_max));
        }
        if self.url_safe_keys {
            check_url_safe(key)?;
        }
        Ok(())
    }

    /// Whether a store may have this key. Only the format's own limits apply: a key that was put
    /// before the limits were tightened can be read and listed, so it must be deletable.
    #[inline]
    pub(crate) fn may_be_there(&self, key: &[u8]) -> bool {
        match planted(Planted::LimitDeletes) {
            true => self.check_key(key).is_ok(),
            false => Limits::ENGINE.check_key(key).is_ok(),
        }
    }

    #[inline]
    pub(crate) fn check_value(&self, value: &[u8]) -> Result<()> {
        if value.len() > self.value_bytes_max && !planted(Planted::IgnoreLimits) {
            return Err(too_long("value", value.len(), self.value_bytes_max));
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn check_metadata(&self, metadata: &[u8]) -> Result<()> {
        if metadata.len() > self.metadata_bytes_max && !planted(Planted::IgnoreLimits) {
            return Err(too_long("metadata", metadata.len(), self.metadata_bytes_max));
        }
        Ok(())
    }

    /// The expiry of a key put now with this lifetime, in milliseconds since the epoch.
    pub(crate) fn expiry_after(&self, ttl: Duration, now_ms: u64) -> Result<u64> {
        if ttl < self.ttl_min {
            return Err(Error::invalid(format!(
                "the lifetime of {ttl:?} is too short; it must be at least {:?}",
                self.ttl_min
            )));
        }
        // Rounded up, so that no key expires early.
        let ms = ttl.as_nanos().div_ceil(1_000_000);
        u64::try_from(ms)
            .ok()
            .and_then(|ms| now_ms.checked_add(ms))
            .ok_or_else(|| {
                Error::invalid(format!(
                    "the lifetime of {ttl:?} does not fit a 64-bit time in milliseconds; leave it out"
                ))
            })
    }

    /// Checks that an expiry, in milliseconds since the epoch, is far enough in the future.
    pub(crate) fn check_expiry(&self, expiry_ms: u64, now_ms: u64) -> Result<u64> {
        let earliest = now_ms.saturating_add(self.ttl_min.as_millis().try_into().unwrap_or(u64::MAX));
        if expiry_ms < earliest && !planted(Planted::AcceptPastExpiry) {
            return Err(Error::invalid(format!(
                "the expiry {expiry_ms} is too early; it must be at least {:?} from now, which is {earliest} ms since the epoch",
                self.ttl_min
            )));
        }
        Ok(expiry_ms)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::ENGINE
    }
}

/// An error if this key may not be part of a URL.
fn check_url_safe(key: &[u8]) -> Result<()> {
    if key == b"." || key == b".." {
        return Err(Error::invalid(
            "\".\" and \"..\" are not allowed as keys; choose another",
        ));
    }
    if std::str::from_utf8(key).is_err() {
        return Err(Error::invalid(
            "the key is not UTF-8, which this store's limits require",
        ));
    }
    Ok(())
}

#[cold]
fn too_long(what: &str, length: usize, limit: usize) -> Error {
    Error::invalid(format!(
        "the {what} of {length} bytes exceeds the limit of {limit}; shorten it or split it"
    ))
}
