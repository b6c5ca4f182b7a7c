//! Conditional requests, by RFC 9110: `If-Match` and `If-None-Match`.
//!
//! Of a write, the store judges them, under the lock of its writers: between the judgement and the
//! write nothing can come.

use embercask::{Condition, Durability, Error, Namespace, PutOptions, Value};
use embercask_replica::entry;
use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::blocking::blocking;
use super::error::ApiError;
use super::etag::Etag;
use crate::planted::{Planted, planted};

/// The error code of a condition that does not hold.
const NOT_MET: u32 = 10412;

/// The conditions of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) if_match: Option<Tags>,
    pub(crate) if_none_match: Option<Tags>,
}

/// What a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`: whatever is there.
    Any,
    These(Vec<Tag>),
}

/// An entity tag in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) is_weak: bool,
    /// None for a tag that this server never gives, and which so matches nothing.
    pub(crate) etag: Option<Etag>,
}

/// Why a read is not answered with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// The client has what it would get.
    NotModified,
    /// The client has asked for another.
    PreconditionFailed,
}

impl Conditions {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Conditions, ApiError> {
        Ok(Conditions {
            if_match: tags(headers, &IF_MATCH)?,
            if_none_match: tags(headers, &IF_NONE_MATCH)?,
        })
    }

    pub(crate) fn are_none(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Whether they are about the content, not only about existence.
    pub(crate) fn need_etag(&self) -> bool {
        let lists = [&self.if_match, &self.if_none_match];
        lists.iter().any(|tags| matches!(tags, Some(Tags::These(_))))
    }

    /// Whether a write may replace what is there; None if the key is absent.
    pub(crate) fn allow(&self, found: Option<Etag>) -> bool {
        let is_matched = self.if_match.as_ref().is_none_or(|tags| tags.name_strongly(found));
        let is_named = self.if_none_match.as_ref().is_some_and(|tags| tags.name_weakly(found));
        is_matched && !is_named
    }

    /// Whether a value that is there may be read.
    pub(crate) fn check_read(&self, found: Etag) -> Result<(), NotRead> {
        if let Some(tags) = &self.if_match
            && !tags.name_strongly(Some(found))
        {
            return Err(NotRead::PreconditionFailed);
        }
        match &self.if_none_match {
            Some(tags) if tags.name_weakly(Some(found)) => Err(NotRead::NotModified),
            _ => Ok(()),
        }
    }

    /// As [`Conditions::allow`], of a value.
    fn allow_value(&self, found: Option<&Value>) -> bool {
        let etag = found.map(|value| match self.need_etag() {
            true => Etag::of_value(value),
            // Only whether there is one matters.
            false => Etag(0),
        });
        self.allow(etag) || planted(Planted::IgnoreConditions)
    }

    /// The condition of the store that says the same without reading the value.
    fn on_existence(&self) -> Option<Condition> {
        match (&self.if_match, &self.if_none_match) {
            (Some(Tags::Any), None) => Some(Condition::Present),
            (None, Some(Tags::Any)) => Some(Condition::Absent),
            _ => None,
        }
        .filter(|_| !planted(Planted::IgnoreConditions))
    }

    /// Puts a value if they hold.
    pub(crate) fn put(
        &self,
        namespace: &Namespace,
        key: &[u8],
        value: &[u8],
        options: PutOptions,
    ) -> Result<(), ApiError> {
        let written = match self.on_existence() {
            _ if self.are_none() => namespace.put_with(key, value, options),
            Some(condition) => namespace.put_with(key, value, options.condition(condition)),
            None if planted(Planted::JudgeConditionsFirst) => match self.allow_value(namespace.get(key)?.as_ref()) {
                true => namespace.put_with(key, value, options),
                false => Err(Error::Conflict { found: None }),
            },
            None => namespace.put_when(key, value, &options, |found| self.allow_value(found)),
        };
        written.map(drop).map_err(|error| self.refused(error))
    }

    /// Whether the store alone can judge them, without looking at the value.
    pub(crate) fn are_of_the_store(&self) -> bool {
        self.are_none() || self.on_existence().is_some()
    }

    /// As [`Conditions::put`] on a thread that must not be kept waiting, if the store alone can
    /// judge them.
    pub(crate) async fn put_async(
        &self,
        namespace: &Namespace,
        key: &[u8],
        value: &[u8],
        options: PutOptions,
    ) -> Result<(), ApiError> {
        let options = match self.on_existence() {
            Some(condition) => options.condition(condition),
            None => options,
        };
        let written = namespace.put_with_async(key, value, options).await;
        written.map(drop).map_err(|error| self.refused(error))
    }

    /// As [`Conditions::delete`] on a thread that must not be kept waiting.
    pub(crate) async fn delete_async(
        self,
        namespace: Namespace,
        key: Vec<u8>,
        durability: Durability,
    ) -> Result<(), ApiError> {
        if !self.are_of_the_store() {
            return blocking(move || self.delete(&namespace, &key, durability)).await;
        }
        let deleted = namespace.delete_with_async(&key, self.on_existence(), Some(durability));
        deleted.await.map(drop).map_err(|error| self.refused(error))
    }

    /// Deletes a key if they hold.
    pub(crate) fn delete(&self, namespace: &Namespace, key: &[u8], durability: Durability) -> Result<(), ApiError> {
        let durability = Some(durability);
        let condition = self.on_existence();
        let deleted = match condition {
            None if !self.are_none() => namespace.delete_when(key, durability, |found| self.allow_value(found)),
            condition => namespace.delete_with(key, condition, durability),
        };
        deleted.map(drop).map_err(|error| self.refused(error))
    }

    /// The same for all replicas, which judge them when they apply the write.
    pub(crate) fn replicated(&self) -> entry::Conditions {
        entry::Conditions {
            if_match: self.if_match.as_ref().map(|tags| tags.replicated(|tag| !tag.is_weak)),
            if_none_match: self.if_none_match.as_ref().map(|tags| tags.replicated(|_| true)),
        }
    }

    fn refused(&self, error: Error) -> ApiError {
        match error {
            Error::Conflict { found } => self.not_met(found.is_some()),
            error => error.into(),
        }
    }

    /// The error for a condition that does not hold.
    pub(crate) fn not_met(&self, is_there: bool) -> ApiError {
        let why = match (is_there, &self.if_match) {
            (false, _) => "the key is absent, or has expired",
            (true, None) => "the key exists, with content that If-None-Match names",
            (true, Some(_)) => "the content is not, or no longer, one that the condition allows",
        };
        ApiError::new(412, NOT_MET, format!("Precondition Failed: {why}"))
    }
}

impl Tags {
    /// Strong comparison: a weak tag equals none.
    fn name_strongly(&self, found: Option<Etag>) -> bool {
        self.name(found, |tag| !tag.is_weak)
    }

    /// Weak comparison: whether a tag is weak does not matter.
    fn name_weakly(&self, found: Option<Etag>) -> bool {
        self.name(found, |_| true)
    }

    /// Without those that match nothing.
    fn replicated(&self, counts: impl Fn(&Tag) -> bool) -> entry::Tags {
        match self {
            Tags::Any => entry::Tags::Any,
            Tags::These(tags) => {
                let tags = tags.iter().filter(|tag| counts(tag));
                entry::Tags::These(tags.filter_map(|tag| tag.etag).map(|etag| etag.0).collect())
            }
        }
    }

    fn name(&self, found: Option<Etag>, counts: impl Fn(&Tag) -> bool) -> bool {
        let Some(found) = found else { return false };
        match self {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|tag| counts(tag) && tag.etag == Some(found)),
        }
    }
}

/// For a request that changes something else than one value: ignoring its conditions would do what
/// the client wanted to exclude.
pub(crate) fn refuse(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH) {
        true => Err(ApiError::new(
            400,
            10001,
            "If-Match and If-None-Match are possible for a single value only",
        )),
        false => Ok(()),
    }
}

/// The tags in a header, which may be repeated.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let mut text = first.as_bytes().to_vec();
    for line in lines {
        text.push(b',');
        text.extend_from_slice(line.as_bytes());
    }
    let malformed = || {
        let message = format!("{name} is malformed: it takes * or entity tags, which stand in quotation marks");
        ApiError::new(400, 10001, message)
    };
    match text.trim_ascii() {
        b"*" => Ok(Some(Tags::Any)),
        text => Ok(Some(Tags::These(list(text).ok_or_else(malformed)?))),
    }
}

/// Tags separated by commas; empty elements are allowed, but not nothing at all. None if malformed.
fn list(text: &[u8]) -> Option<Vec<Tag>> {
    let mut tags = Vec::new();
    let (mut rest, mut needs_comma) = (text, false);
    loop {
        match rest.trim_ascii_start() {
            [] => break,
            [b',', after @ ..] => (rest, needs_comma) = (after, false),
            _ if needs_comma => return None,
            text => {
                let (tag, after) = tag(text)?;
                tags.push(tag);
                (rest, needs_comma) = (after, true);
            }
        }
    }
    Some(tags).filter(|tags| !tags.is_empty())
}

/// The tag at the beginning, and what follows it.
pub(crate) fn tag(text: &[u8]) -> Option<(Tag, &[u8])> {
    let (is_weak, text) = match text.strip_prefix(b"W/") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let text = text.strip_prefix(b"\"")?;
    let length = text.iter().position(|byte| *byte == b'"')?;
    let (opaque, after) = text.split_at_checked(length)?;
    if opaque.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)) {
        return None;
    }
    let etag = parse(opaque);
    Some((Tag { is_weak, etag }, after.strip_prefix(b"\"")?))
}

/// A tag of this server, without its quotation marks.
fn parse(opaque: &[u8]) -> Option<Etag> {
    let is_ours = opaque.len() == 32 && opaque.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(opaque).ok().filter(|_| is_ours)?;
    u128::from_str_radix(text, 16).ok().map(Etag)
}

#[cfg(test)]
mod tests;
