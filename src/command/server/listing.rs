//! Pages of keys, for both protocols.

use embercask::{Namespace, Page};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::limited_log;
use super::parse::rules;
use super::shared::Unexpired;
use crate::planted::{Planted, planted};

/// A key in a listing. `M` is the protocol's form of metadata.
#[derive(serde::Serialize)]
pub(super) struct ListedKey<'a, M> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<M>,
}

/// Memory that a page of so many keys takes at most, usually much less: each key with its metadata,
/// and both as JSON.
pub(super) fn response_bytes(limit: usize) -> usize {
    limit.min(rules::PAGE_KEYS_MAX) * (4 << 10)
}

/// A page of a listing. For threads that may block.
pub(super) fn page(
    namespace: &Namespace,
    limit: usize,
    prefix: &[u8],
    cursor: Option<String>,
) -> Result<Page, ApiError> {
    let mut list = namespace.list().prefix(prefix).page_size(limit);
    if let Some(cursor) = cursor {
        list = list.cursor(cursor);
    }
    let page = list.page()?;
    // Damaged keys are listed without their unreadable parts; they must not hide the others.
    for error in page.iter().filter_map(|entry| entry.error()) {
        limited_log::damaged_in_listing(error);
    }
    Ok(page)
}

/// The unexpired keys of a page. Keys that are not text are left out: neither protocol can request
/// them.
pub(super) fn listed<M>(page: &Page, unexpired: Unexpired, show: impl Fn(Box<RawValue>) -> M) -> Vec<ListedKey<'_, M>> {
    let entries = page.iter().filter(|entry| unexpired.has(entry.expiry_ms()));
    let keys = entries.filter_map(|entry| {
        Some(ListedKey {
            name: match entry.key_str() {
                Ok(name) => name,
                Err(_) if planted(Planted::ListNoText) => "?",
                Err(_) => return None,
            },
            expiration: entry.expiry_ms().map(rules::expiration_seconds),
            metadata: rules::metadata_json(entry.metadata()).map(&show),
        })
    });
    keys.collect()
}
