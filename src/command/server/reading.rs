//! The response to a read of one value, in both protocols.

use embercask::{Namespace, Value};
use hyper::Method;
use hyper::header::IF_RANGE;
use hyper::http::request::Parts;

use super::blocking::{AT_ONCE_BYTES_MAX, blocking};
use super::conditions::{Conditions, NotRead, tag};
use super::error::ApiError;
use super::etag::{Etag, UNASKED_BYTES_MAX};
use super::parse::rules;
use super::range::{ByteRange, Part};
use super::response::{ApiResponse, response, set_etag, set_header, value_response};
use super::shared::Shared;

/// The metadata that belong to a value, as JSON in raw UTF-8. In the REST API too, for the page:
/// what an entity tag is of comes with it.
pub(super) const METADATA_HEADER: &str = "cf-kv-metadata";

/// Gets a value, and makes the answer of it: at once if that neither waits for the device nor takes
/// long, and otherwise where threads may block.
pub(super) async fn get<T: Send + 'static>(
    shared: &Shared,
    namespace: Namespace,
    key: Vec<u8>,
    answer: impl FnOnce(Option<Value>) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let unexpired = shared.unexpired();
    let find = move |namespace: &Namespace, key: &[u8]| -> Result<Option<Value>, ApiError> {
        Ok(namespace.get(key)?.filter(|value| unexpired.has(value.expiry_ms())))
    };
    if !namespace.is_cached(&key)? {
        return blocking(move || answer(find(&namespace, &key)?)).await;
    }
    let value = find(&namespace, &key)?;
    match value.as_ref().is_none_or(|value| value.len() <= AT_ONCE_BYTES_MAX) {
        true => answer(value),
        false => blocking(move || answer(value)).await,
    }
}

/// What a request asks of the value besides its key.
pub(super) struct Reading {
    conditions: Conditions,
    is_head: bool,
    range: Option<ByteRange>,
    /// `If-Range`: the range counts only of this content, and else the whole value is sent. The
    /// inner is None for what no value here matches, such as a date.
    if_range: Option<Option<Etag>>,
}

impl Reading {
    pub(super) fn of(head: &Parts) -> Result<Reading, ApiError> {
        let is_head = head.method == Method::HEAD;
        Ok(Reading {
            conditions: Conditions::of(&head.headers)?,
            is_head,
            range: ByteRange::of(&head.headers).filter(|_| !is_head),
            if_range: head.headers.get(IF_RANGE).map(|condition| {
                let (tag, after) = tag(condition.as_bytes().trim_ascii())?;
                tag.etag.filter(|_| after.is_empty() && !tag.is_weak)
            }),
        })
    }

    /// Whether the response has an entity tag.
    fn has_etag(&self, value: &Value) -> bool {
        let is_asked = self.is_head || !self.conditions.are_none() || self.if_range.is_some();
        is_asked || value.len() <= UNASKED_BYTES_MAX
    }

    fn part(&self, etag: Option<Etag>, length: usize) -> Part {
        let counts = self
            .if_range
            .is_none_or(|condition| condition.is_some() && condition == etag);
        self.range
            .filter(|_| counts)
            .map_or(Part::Whole, |range| range.part(length))
    }

    /// May take some time: the digest of a long value. The expiry has another header in each
    /// protocol.
    pub(super) fn response(&self, value: Value, expiration_header: &'static str) -> Result<ApiResponse, ApiError> {
        let (metadata, expiry_ms) = (rules::metadata_json(value.metadata()), value.expiry_ms());
        let etag = self.has_etag(&value).then(|| Etag::of_value(&value));
        let checked = etag.map_or(Ok(()), |etag| self.conditions.check_read(etag));
        let length = value.len();
        let mut response = match (checked, self.part(etag, length)) {
            (Err(NotRead::PreconditionFailed), _) => return Err(self.conditions.not_met(true)),
            (Err(NotRead::NotModified), _) => response(304, None, ""),
            (Ok(()), Part::Unsatisfiable) => return Err(ApiError::unsatisfiable_range(length)),
            (Ok(()), Part::Whole) => value_response(200, value),
            (Ok(()), Part::Bytes(range)) => {
                let shown = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
                let mut response = value_response(206, value.slice(range));
                set_header(&mut response, "content-range", shown.as_bytes());
                response
            }
        };
        set_header(&mut response, "accept-ranges", b"bytes");
        if let Some(etag) = etag {
            set_etag(&mut response, etag);
        }
        if let Some(metadata) = metadata {
            set_header(&mut response, METADATA_HEADER, metadata.get().as_bytes());
        }
        if let Some(expiry_ms) = expiry_ms {
            let seconds = rules::expiration_seconds(expiry_ms).to_string();
            set_header(&mut response, expiration_header, seconds.as_bytes());
        }
        Ok(response)
    }
}
