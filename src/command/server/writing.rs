//! Writes of one key, in both protocols.

use std::time::Duration;

use embercask::Namespace;

use super::conditions::Conditions;
use super::error::ApiError;
use super::etag::{Etag, UNASKED_BYTES_MAX};
use super::parse::rules::Expiration;
use super::shared::Shared;

/// A put of one value, besides the value.
pub(super) struct Put {
    pub(super) key: Vec<u8>,
    pub(super) expiration: Option<Expiration>,
    pub(super) metadata: Option<Vec<u8>>,
    pub(super) conditions: Conditions,
}

/// When a key expires that is put now.
enum Expiry {
    At(Option<u64>),
    /// The store alone can say: the lifetime is so short that it might be over before the put.
    Unknown,
}

impl Put {
    /// Returns the entity tag of what was written, for values of up to 1 MiB and for puts with a
    /// condition. May wait for the disk.
    pub(super) fn run(self, shared: &Shared, namespace: &Namespace, value: &[u8]) -> Result<Option<Etag>, ApiError> {
        let mut options = shared.put_options(None, self.metadata.as_deref());
        // Known before the put, since the tag of what was written includes it.
        let expiry = self.expiry(shared, namespace);
        options = match expiry {
            Expiry::At(Some(expiry_ms)) => options.expires_at_ms(expiry_ms),
            Expiry::At(None) => options.forever(),
            Expiry::Unknown => options,
        };
        self.conditions.put(namespace, &self.key, value, options)?;
        let is_told = value.len() <= UNASKED_BYTES_MAX || !self.conditions.are_none();
        Ok(match expiry {
            Expiry::At(expiry_ms) if is_told => Some(Etag::of(value, self.metadata.as_deref(), expiry_ms)),
            _ => None,
        })
    }

    fn expiry(&self, shared: &Shared, namespace: &Namespace) -> Expiry {
        let after = |ttl: Duration| {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            Expiry::At(Some(shared.store.now_ms().saturating_add(ttl_ms)))
        };
        match (self.expiration, namespace.default_ttl()) {
            (Some(Expiration::After(ttl)), _) => after(ttl),
            (Some(Expiration::At(seconds)), _) => Expiry::At(Some(seconds.saturating_mul(1000))),
            (None, None) => Expiry::At(None),
            (None, Some(ttl)) if ttl >= Duration::from_secs(1) => after(ttl),
            (None, Some(_)) => Expiry::Unknown,
        }
    }
}
