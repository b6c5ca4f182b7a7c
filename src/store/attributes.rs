//! Changing what belongs to a value without changing the value: its expiry and metadata.

use std::time::Duration;

use super::Namespace;
use super::checks::check_options;
use super::update::UPDATE_ATTEMPTS_MAX;
use crate::error::{Error, Result};
use crate::options::{Condition, Lifetime, PutOptions};

impl Namespace {
    /// Makes a key expire after this time; value and metadata are unchanged. False if the key is
    /// absent. [`Error::InvalidInput`] for a time that no put takes, whether or not the key is
    /// there.
    pub fn set_ttl(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        self.change(key.as_ref(), |options| options.ttl(ttl))
    }

    /// Makes a key expire at this time, in milliseconds since the epoch; value and metadata are
    /// unchanged. False if the key is absent.
    pub fn set_expiry(&self, key: impl AsRef<[u8]>, expiry_ms: u64) -> Result<bool> {
        self.change(key.as_ref(), |options| options.expires_at_ms(expiry_ms))
    }

    /// Removes a key's expiry; value and metadata are unchanged. False if the key is absent.
    pub fn remove_expiry(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.change(key.as_ref(), |options| PutOptions {
            lifetime: Lifetime::Forever,
            ..options
        })
    }

    /// Replaces the metadata of a key (`None` removes it); value and expiry are unchanged. False if
    /// the key is absent.
    pub fn set_metadata(&self, key: impl AsRef<[u8]>, metadata: Option<&[u8]>) -> Result<bool> {
        self.change(key.as_ref(), |options| PutOptions {
            metadata: metadata.map(<[u8]>::to_vec),
            ..options
        })
    }

    /// Writes a key again with changed options; retries if another write came in between.
    fn change(&self, key: &[u8], change: impl Fn(PutOptions) -> PutOptions) -> Result<bool> {
        let engine = self.writer()?;
        self.check()?;
        check_options(engine, &self.state, &change(PutOptions::new()))?;
        for _ in 0..UPDATE_ATTEMPTS_MAX {
            let Some(value) = self.get(key)? else { return Ok(false) };
            let same = PutOptions {
                lifetime: value.expiry_ms().map_or(Lifetime::Forever, Lifetime::Kept),
                metadata: value.metadata().map(<[u8]>::to_vec),
                durability: None,
                condition: Some(Condition::Sequence(value.sequence())),
            };
            match self.put_with(key, &value, change(same)) {
                Ok(_) => return Ok(true),
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::TooManyConflicts {
            attempts: UPDATE_ATTEMPTS_MAX,
        })
    }
}
