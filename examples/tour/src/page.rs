//! One file as a cached page: its expected value, metadata and expiry, and the check against the
//! store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use embercask::{Durability, Namespace, PutOptions};
use serde::Serialize;

use crate::source::SourceFile;
use crate::{Result, ensure};

/// Lifetime of the pages that expire.
pub(crate) const LIFETIME: Duration = Duration::from_secs(5);
/// First line of an overwritten page.
const SECOND_EDITION: &[u8] = b"second edition\n";

/// A file in the store.
pub(crate) struct Page {
    pub(crate) file: SourceFile,
    state: State,
    /// When the page expires, if it does.
    pub(crate) expiry_ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Original,
    Overwritten,
    Deleted,
}

/// Metadata of a page.
#[derive(Serialize)]
struct PageInfo {
    size: u64,
    modified_ms: u64,
}

/// Result of checking a page.
pub(crate) enum Comparison {
    Same(usize),
    AbsentAsItMust,
    ChangedInTheTree,
}

impl Page {
    pub(crate) fn new(file: SourceFile) -> Page {
        Page {
            file,
            state: State::Original,
            expiry_ms: None,
        }
    }

    /// Whether the page has not been deleted.
    pub(crate) fn is_kept(&self) -> bool {
        self.state != State::Deleted
    }

    /// Expected value of the page; `None` if the file has changed.
    fn content(&self) -> Option<Vec<u8>> {
        let original = self.file.read()?;
        Some(match self.state {
            State::Overwritten => [SECOND_EDITION, &original].concat(),
            State::Original | State::Deleted => original,
        })
    }

    fn info(&self, content: &[u8]) -> Result<Vec<u8>> {
        let info = PageInfo {
            size: content.len() as u64,
            modified_ms: self.file.modified_ms,
        };
        Ok(serde_json::to_vec(&info)?)
    }

    /// Puts the expected value, with or without a lifetime. Returns its length; `None` if the file
    /// has changed.
    pub(crate) fn put(&mut self, namespace: &Namespace, expires: bool) -> Result<Option<usize>> {
        let Some(content) = self.content() else { return Ok(None) };
        let mut options = PutOptions::new()
            .metadata(self.info(&content)?)
            .durability(Durability::Os);
        self.expiry_ms = expires.then(|| now_ms() + LIFETIME.as_millis() as u64);
        if let Some(expiry_ms) = self.expiry_ms {
            options = options.expires_at_ms(expiry_ms);
        }
        namespace.put_with(&self.file.key, &content, options)?;
        Ok(Some(content.len()))
    }

    /// Overwrites the page with its second edition. A lifetime starts again.
    pub(crate) fn overwrite(&mut self, namespace: &Namespace) -> Result<Option<usize>> {
        self.state = State::Overwritten;
        self.put(namespace, self.expiry_ms.is_some())
    }

    /// Deletes the page, which must exist unless its lifetime may have ended.
    pub(crate) fn delete(&mut self, namespace: &Namespace) -> Result<()> {
        let deleted = namespace.delete_with(&self.file.key, None, Some(Durability::Os))?;
        self.state = State::Deleted;
        ensure(deleted.existed || self.expiry_ms.is_some(), || {
            format!("{} was absent before it was deleted", shown(&self.file.key))
        })
    }

    /// Whether the page has a lifetime that has ended.
    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        self.expiry_ms.is_some_and(|expiry_ms| now_ms >= expiry_ms)
    }

    /// Reads the page and compares all of it; a deleted or expired page must be absent.
    pub(crate) fn compare(&self, namespace: &Namespace) -> Result<Comparison> {
        let name = || shown(&self.file.key);
        let (before_ms, found, after_ms) = (now_ms(), namespace.get(&self.file.key)?, now_ms());
        let Some(value) = found else {
            // It may have expired between the two readings of the clock.
            let rightly = self.state == State::Deleted || self.has_expired(after_ms);
            ensure(rightly, || format!("{} is missing", name()))?;
            return Ok(Comparison::AbsentAsItMust);
        };
        ensure(self.state != State::Deleted, || {
            format!("{} was deleted but is present", name())
        })?;
        ensure(!self.has_expired(before_ms), || {
            format!("{} has expired but is present", name())
        })?;
        let Some(content) = self.content() else {
            return Ok(Comparison::ChangedInTheTree);
        };
        ensure(value == content, || {
            format!("the value of {} is not what was put", name())
        })?;
        let info = self.info(&content)?;
        ensure(value.metadata() == Some(&info), || {
            format!("the metadata of {} is not what was put", name())
        })?;
        ensure(value.expiry_ms() == self.expiry_ms, || {
            format!("the expiry of {} is not what was put", name())
        })?;
        Ok(Comparison::Same(content.len()))
    }
}

pub(crate) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
