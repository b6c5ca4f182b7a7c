//! What Workers KV accepts (<https://developers.cloudflare.com/kv/platform/limits/>), and its error
//! messages, for both protocols.

use std::time::Duration;

use embercask::Limits;
use serde_json::value::RawValue;

use crate::common::blanks::without_blanks;
use crate::common::parse::FAR_FUTURE_SECONDS;
use crate::planted::{Planted, planted};
use crate::server::error::ApiError;

/// Longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = Limits::WORKERS_KV.key_bytes_max;
/// Longest key that a store can hold, in bytes.
const STORED_KEY_BYTES_MAX: usize = Limits::ENGINE.key_bytes_max;
/// Largest value, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = Limits::WORKERS_KV.value_bytes_max;
/// Longest metadata, in bytes.
const METADATA_BYTES_MAX: usize = Limits::WORKERS_KV.metadata_bytes_max;
/// Most keys on a page of a listing.
pub(crate) const PAGE_KEYS_MAX: usize = Limits::WORKERS_KV.page_keys_max;
/// Shortest lifetime, in seconds, unless the owner of the server has set another.
pub(crate) const TTL_SECONDS_MIN: u64 = Limits::WORKERS_KV.ttl_min.as_secs();
/// Shortest `cache_ttl`, in seconds.
const CACHE_SECONDS_MIN: i64 = 30;

/// When a key expires, as the client gives it. The store adds a lifetime to its own clock when it
/// writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiration {
    After(Duration),
    /// Seconds since the epoch.
    At(u64),
}

/// Checks a key.
pub(crate) fn check_key(key: &[u8]) -> Result<(), ApiError> {
    if planted(Planted::AcceptAnyKey) {
        return Ok(());
    }
    if key.is_empty() {
        return Err(ApiError::new(400, 10030, "Key names must not be empty"));
    }
    if let b"." | b".." = key {
        let key = if key.len() == 1 { "." } else { ".." };
        let message = format!("Illegal key name \"{key}\". Please use a different name.");
        return Err(ApiError::new(400, 10030, message));
    }
    check_length(key, KEY_BYTES_MAX)?;
    match std::str::from_utf8(key) {
        Ok(_) => Ok(()),
        Err(_) => Err(undecodable_key()),
    }
}

/// Checks a key to delete that is given in a body, not in a path. Other programs can have stored
/// keys that no path can name, or that are longer than Workers KV allows; they are listed, and so
/// must be deletable.
pub(crate) fn check_deleted_key(key: &[u8]) -> Result<(), ApiError> {
    if key.is_empty() {
        return check_key(key);
    }
    check_length(key, STORED_KEY_BYTES_MAX)
}

/// Checks a prefix of keys.
pub(crate) fn check_prefix(prefix: &[u8]) -> Result<(), ApiError> {
    check_length(prefix, KEY_BYTES_MAX)
}

fn check_length(key: &[u8], most: usize) -> Result<(), ApiError> {
    let length = key.len();
    if length > most {
        let message = format!("UTF-8 encoded length of {length} exceeds key length limit of {most}.");
        return Err(ApiError::new(414, 10030, message));
    }
    Ok(())
}

/// For a key in a path that is wrongly escaped, or not text.
pub(crate) fn undecodable_key() -> ApiError {
    ApiError::new(400, 10030, "Could not URL-decode key name")
}

/// For a query parameter that is wrongly escaped, or not text.
pub(crate) fn undecodable_parameter(name: &str) -> ApiError {
    ApiError::new(400, 10001, format!("Could not URL-decode {name}"))
}

/// What expiries are checked by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpiryRules {
    /// The store's time.
    pub(crate) now_ms: u64,
    /// Shortest lifetime.
    pub(crate) ttl_seconds_min: u64,
}

impl ExpiryRules {
    fn ttl_seconds_min(self) -> i64 {
        match planted(Planted::AcceptShortLifetimes) {
            true => 0,
            false => i64::try_from(self.ttl_seconds_min).unwrap_or(i64::MAX),
        }
    }
}

/// When a key expires, if ever. The lifetime wins if both are given.
pub(crate) fn expiration(
    expiration: Option<&str>,
    lifetime: Option<&str>,
    rules: ExpiryRules,
) -> Result<Option<Expiration>, ApiError> {
    if let Some(text) = lifetime {
        return ttl("expiration_ttl", text, rules).map(|ttl| Some(Expiration::After(ttl)));
    }
    let Some(text) = expiration else { return Ok(None) };
    let wrong = |what: &str| ApiError::new(400, 10033, format!("Invalid expiration of {text}. {what}"));
    let now = i64::try_from(rules.now_ms / 1000).unwrap_or(i64::MAX);
    let expiration = match whole(text) {
        Some(expiration) if expiration > now => expiration,
        _ => {
            return Err(wrong(
                "Please specify integer greater than the current number of seconds since the UNIX epoch.",
            ));
        }
    };
    // Exact to the second, as in Workers KV; the store itself accepts any future time.
    let seconds_min = rules.ttl_seconds_min();
    if expiration < now.saturating_add(seconds_min) {
        let unit = if seconds_min == 1 { "second" } else { "seconds" };
        return Err(wrong(&format!(
            "Expiration times must be at least {seconds_min} {unit} in the future."
        )));
    }
    if are_milliseconds(expiration) {
        return Err(wrong(
            "This looks like milliseconds. Please specify seconds since the UNIX epoch.",
        ));
    }
    Ok(Some(Expiration::At(expiration.unsigned_abs())))
}

/// A lifetime, given by a parameter or property with this name.
pub(crate) fn ttl(name: &str, text: &str, rules: ExpiryRules) -> Result<Duration, ApiError> {
    let wrong = |what: &str| ApiError::new(400, 10034, format!("Invalid {name} of {text}. {what}"));
    let ttl = match whole(text) {
        Some(ttl @ 1..) => ttl,
        _ => return Err(wrong("Please specify integer greater than 0.")),
    };
    let seconds_min = rules.ttl_seconds_min();
    if ttl < seconds_min {
        return Err(wrong(&format!("Expiration TTL must be at least {seconds_min}.")));
    }
    if are_milliseconds(ttl) {
        return Err(wrong(
            "This looks like milliseconds, or like a time. Please specify seconds from now.",
        ));
    }
    Ok(Duration::from_secs(ttl.unsigned_abs()))
}

fn are_milliseconds(seconds: i64) -> bool {
    seconds >= FAR_FUTURE_SECONDS as i64 && !planted(Planted::AcceptMilliseconds)
}

/// A whole number, without a plus sign. What is too large is as large as can be.
fn whole(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if digits == text { i64::MAX } else { i64::MIN }))
}

/// Checks metadata, and returns the client's bytes, to be stored as they are; None for `null`.
pub(crate) fn check_metadata(metadata: &[u8]) -> Result<Option<&[u8]>, ApiError> {
    if planted(Planted::AcceptAnyMetadata) {
        return Ok(Some(metadata));
    }
    let length = metadata.len();
    if length > METADATA_BYTES_MAX {
        let message = format!("Metadata length of {length} exceeds limit of {METADATA_BYTES_MAX}.");
        return Err(ApiError::new(413, 10147, message));
    }
    match serde_json::from_slice::<&RawValue>(metadata) {
        Ok(json) => Ok(Some(metadata).filter(|_| json.get() != "null")),
        Err(_) => Err(ApiError::new(400, 10147, "metadata must be valid json")),
    }
}

/// Checks the length of a value.
pub(crate) fn check_value(length: u64) -> Result<(), ApiError> {
    if length > VALUE_BYTES_MAX as u64 && !planted(Planted::AcceptLargeValues) {
        return Err(value_too_long(length));
    }
    Ok(())
}

pub(crate) fn value_too_long(length: u64) -> ApiError {
    let message = format!("Value length of {length} exceeds limit of {VALUE_BYTES_MAX}.");
    ApiError::new(413, 10032, message)
}

/// Checks a `cache_ttl`, which has no effect here: there is no cache.
pub(crate) fn check_cache_ttl(text: Option<&str>) -> Result<(), ApiError> {
    let Some(text) = text else { return Ok(()) };
    match text.parse::<i64>() {
        Ok(CACHE_SECONDS_MIN..) if !text.starts_with('+') => Ok(()),
        _ => Err(ApiError::new(
            400,
            10001,
            format!("Invalid cache_ttl of {text}. Cache TTL must be at least 30."),
        )),
    }
}

/// The length of a page.
pub(crate) fn page_limit(text: Option<&str>, name: &str) -> Result<usize, ApiError> {
    let Some(text) = text else { return Ok(PAGE_KEYS_MAX) };
    let wrong = |what: &str| ApiError::new(400, 10001, format!("Invalid {name} of {text}. {what}"));
    match whole(text) {
        Some(limit @ 1..=1000) => Ok(usize::try_from(limit).unwrap_or(PAGE_KEYS_MAX)),
        // The wording of Workers KV, although 1000 is accepted.
        Some(1001..) => Err(wrong("Please specify an integer less than 1000.")),
        _ => Err(wrong("Please specify an integer greater than 0.")),
    }
}

/// Stored metadata as JSON that is valid in a header; None if it is not JSON, as other programs may
/// write.
pub(crate) fn metadata_json(metadata: Option<&[u8]>) -> Option<Box<RawValue>> {
    let json: &RawValue = serde_json::from_slice(metadata?).ok()?;
    if json.get().contains(['\n', '\r', DEL]) {
        // Line breaks are whitespace in JSON. DEL can occur only in strings, and no header may
        // contain it.
        return RawValue::from_string(without_blanks(json.get()).replace(DEL, "\\u007f")).ok();
    }
    Some(json.to_owned())
}

const DEL: char = '\u{7f}';

/// A stored expiry in seconds, rounded up.
pub(crate) fn expiration_seconds(expiry_ms: u64) -> u64 {
    expiry_ms.div_ceil(1000)
}

#[cfg(test)]
mod tests;
