//! What all connections share, and how requests come and answers go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use embercask::{Durability, Error, ErrorKind, Namespace, Page, PutOptions, Store, Value};
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Tokens;
use super::metrics::Metrics;
use super::parse::bulk;
use super::parse::rules::{self, Expiration, Refusal};
use crate::common::text::parse_id;
use crate::planted::{Planted, planted};

pub(super) type Answer = Response<Full<Bytes>>;

/// The client is gone, or sends what nobody can wait for: the connection ends without an answer.
#[derive(Debug)]
pub(super) struct Disconnected(pub(super) &'static str);

impl std::fmt::Display for Disconnected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for Disconnected {}

/// A body is read to its end, since clients look at the answer only then; but not one without an end.
const DRAINED_BYTES_MAX: u64 = 256 << 20;
/// A body that comes at less than this rate is given up at some time.
const BODY_BYTES_PER_SECOND_MIN: u64 = 16 << 10;
/// Bytes of a permit for memory.
const PERMIT_BYTES: usize = 1 << 10;

/// What all connections share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) tokens: Tokens,
    pub(super) durability: Durability,
    pub(super) metrics: Metrics,
    /// Memory for bodies, in permits.
    body_memory: Arc<Semaphore>,
    body_permits: usize,
    /// How long nothing may come of a body.
    body_timeout: Duration,
    /// Held while the names of namespaces change, so that an id means one namespace from look-up to change.
    pub(super) names: Mutex<()>,
    closing: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        store: Store,
        tokens: Tokens,
        durability: Durability,
        body_memory_bytes: usize,
        body_timeout: Duration,
    ) -> Shared {
        let body_permits = body_memory_bytes.div_ceil(PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        Shared {
            store,
            tokens,
            durability,
            metrics: Metrics::new(),
            body_memory: Arc::new(Semaphore::new(body_permits)),
            body_permits,
            body_timeout,
            names: Mutex::new(()),
            closing: AtomicBool::new(false),
        }
    }

    /// From here on the server is not ready.
    pub(super) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Why requests would not be done now, if they would not.
    pub(super) fn unready(&self) -> Option<&'static str> {
        if self.closing.load(Ordering::Relaxed) {
            return Some("shutting down");
        }
        let stats = self.store.stats();
        stats.poisoned.is_some().then_some("the store refuses writes")
    }

    /// Sets memory apart; waits for it if much is in use.
    async fn memory(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Disconnected> {
        let permits = bytes.div_ceil(PERMIT_BYTES).min(self.body_permits);
        let Ok(permits @ 1..) = u32::try_from(permits) else {
            return Ok(None);
        };
        if planted(Planted::AnyBodyMemory) {
            return Ok(None);
        }
        let permit = Arc::clone(&self.body_memory).acquire_many_owned(permits);
        let permit = tokio::time::timeout(self.body_timeout, permit).await;
        let permit = permit.map_err(|_| Disconnected("memory was in use for too long"))?;
        Ok(Some(permit.map_err(|_| Disconnected("shutting down"))?))
    }

    /// An answer that is made in memory, of which so much is set apart until it has been sent. For threads that may wait.
    fn answer_in_memory(
        &self,
        bytes: usize,
        make: impl FnOnce() -> Result<Vec<u8>, Refusal>,
    ) -> Result<Bytes, Refusal> {
        struct Owner(
            Vec<u8>,
            #[expect(dead_code, reason = "kept until the answer is sent")] Option<OwnedSemaphorePermit>,
        );
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let permit = tokio::runtime::Handle::current().block_on(self.memory(bytes));
        let permit = permit.map_err(|reason| Refusal::new(503, 10001, reason.0))?;
        Ok(Bytes::from_owner(Owner(make()?, permit)))
    }

    /// Reads a body to its end, and keeps its beginning up to so many bytes; what is made of it takes `times` as much. Waits for memory
    /// first, if much is in use: all of it is set apart from the beginning, so that no two bodies wait for each other.
    pub(super) async fn read_body<B>(&self, body: B, keep_max: usize, times: usize) -> Result<Body, Disconnected>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
    {
        let expected = body.size_hint().exact();
        let keep = expected.map_or(keep_max, |exact| {
            usize::try_from(exact).map_or(keep_max, |exact| exact.min(keep_max))
        });
        let permit = self.memory(keep.saturating_mul(times)).await?;
        let begun = Instant::now();
        let mut kept = Vec::with_capacity(if expected.is_some() { keep } else { 0 });
        let (mut length, mut body) = (0_u64, body);
        loop {
            // As long as enough comes, it may take its time.
            let allowed = self.body_timeout + Duration::from_secs(length / BODY_BYTES_PER_SECOND_MIN);
            let left = allowed.saturating_sub(begun.elapsed()).min(self.body_timeout);
            let frame = tokio::time::timeout(left, body.frame()).await;
            let frame = frame.map_err(|_| Disconnected("too little came of a body for too long"))?;
            let Some(frame) = frame else { break };
            let frame = match frame {
                Err(_) if planted(Planted::HalfBulk) => break,
                frame => frame.map_err(|_| Disconnected("a body was cut off"))?,
            };
            let Ok(data) = frame.into_data() else { continue };
            length += data.len() as u64;
            let room = keep.saturating_sub(kept.len());
            kept.extend_from_slice(data.get(..room).unwrap_or(&data));
            if length > DRAINED_BYTES_MAX {
                return Err(Disconnected("a body is too large to be read to its end"));
            }
        }
        self.metrics.received(length);
        Ok(Body {
            bytes: kept,
            length,
            _permit: permit,
        })
    }

    /// Options of a put.
    pub(super) fn put_options(&self, expiration: Option<Expiration>, metadata: Option<&[u8]>) -> PutOptions {
        let mut options = PutOptions::new().durability(self.durability);
        options = match expiration {
            Some(Expiration::After(ttl)) => options.ttl(ttl),
            Some(Expiration::At(seconds)) => options.expiration(seconds),
            None => options,
        };
        if let Some(metadata) = metadata {
            options = options.metadata(metadata);
        }
        options
    }

    /// The namespace of this id or name; of both, the id counts.
    pub(super) fn namespace(&self, id_or_name: &str) -> Result<Option<Namespace>, Refusal> {
        if let Ok(id) = parse_id(id_or_name)
            && let Some(namespace) = self.store.namespace_by_id(id)?
        {
            return Ok(Some(namespace));
        }
        match self.store.open_namespace(id_or_name) {
            Ok(namespace) => Ok(Some(namespace)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A body that was read to its end.
pub(super) struct Body {
    /// All of it, if it is no longer than what was to be kept.
    pub(super) bytes: Vec<u8>,
    pub(super) length: u64,
    /// Memory that is set apart for it.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body {
    /// All of it; None if it is too long.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        (self.bytes.len() as u64 == self.length).then_some(&self.bytes[..])
    }
}

/// Runs what may wait for the disk or for other writers on a thread that may wait. Puts that wait at the same time share one sync of the
/// store.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "a request was not done");
            Err(Refusal::new(500, 10001, "internal error"))
        }
    }
}

/// Errors of the store. Answers say nothing of directories and files; logs do.
impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let refusal = match error.kind() {
            kind if matches!(error, Error::Pending { .. }) => {
                let status = if kind == ErrorKind::NoSpace { 507 } else { 500 };
                Refusal::new(status, 10001, "applied, not written out yet; do not repeat")
            }
            ErrorKind::NotFound => return Refusal::new(404, 10013, "namespace not found"),
            ErrorKind::AlreadyExists => {
                return Refusal::new(400, 10014, "a namespace with this account ID and title already exists");
            }
            ErrorKind::InvalidInput => return Refusal::new(400, 10001, error.to_string()),
            ErrorKind::NoSpace => Refusal::new(507, 10001, "no space is left on the disk"),
            ErrorKind::Closed | ErrorKind::Poisoned => Refusal::new(503, 10001, "the store refuses writes"),
            ErrorKind::Corruption => Refusal::new(500, 10001, "stored data are damaged"),
            _ => Refusal::new(500, 10001, "internal error"),
        };
        tracing::error!(%error, "the store failed");
        refusal
    }
}

/// A key of a listing. What its metadata are as JSON, each protocol has its own way to say.
#[derive(serde::Serialize)]
pub(super) struct ListedKey<'a, M> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<M>,
}

/// A page of a listing. For threads that may wait.
pub(super) fn page(
    namespace: &Namespace,
    limit: usize,
    prefix: &[u8],
    cursor: Option<String>,
) -> Result<Page, Refusal> {
    let mut list = namespace.list().prefix(prefix).limit(limit);
    if let Some(cursor) = cursor {
        list = list.cursor(cursor);
    }
    let page = list.page()?;
    // They are listed, without what cannot be read; that is no reason to keep the others from the client.
    for error in page.iter().filter_map(|entry| entry.error()) {
        tracing::error!(%error, "a listed key is damaged");
    }
    Ok(page)
}

/// The keys of a page. One that is no text is left out: it cannot be asked for by either protocol.
pub(super) fn listed<M>(page: &Page, show: impl Fn(Box<RawValue>) -> M) -> Vec<ListedKey<'_, M>> {
    let keys = page.iter().filter_map(|entry| {
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

impl Shared {
    /// The values of a bulk get as a JSON object, in its order; `show` writes one that is there. For threads that may wait.
    pub(super) fn many(
        &self,
        namespace: &Namespace,
        request: &bulk::Get,
        [before, behind]: [&str; 2],
        show: impl Fn(&mut Vec<u8>, &Value) -> Result<(), Refusal>,
    ) -> Result<Bytes, Refusal> {
        let values = namespace.get_many(&request.keys)?;
        let total: usize = values.iter().flatten().map(|value| value.len()).sum();
        if total > rules::VALUE_BYTES_MAX {
            return Err(Refusal::new(
                413,
                10032,
                "Total size of request exceeds the limit of 25MB",
            ));
        }
        // Escapes and U+FFFD make text longer, and a vector grows by doubling.
        self.answer_in_memory(4 * total, || {
            let mut json = Vec::with_capacity(total);
            json.extend_from_slice(before.as_bytes());
            for (index, (key, value)) in request.keys.iter().zip(&values).enumerate() {
                json.push(if index == 0 { b'{' } else { b',' });
                to_json(&mut json, key)?;
                json.push(b':');
                match value {
                    Some(value) => show(&mut json, value)?,
                    None => json.extend_from_slice(b"null"),
                }
            }
            json.push(b'}');
            json.extend_from_slice(behind.as_bytes());
            Ok(json)
        })
    }
}

pub(super) fn to_json(json: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<(), Refusal> {
    serde_json::to_writer(json, value).map_err(|_| Refusal::new(500, 10001, "internal error"))
}

/// An answer with a body that is in memory already.
pub(super) fn answer(status: u16, content_type: Option<&'static str>, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(content_type) = content_type {
        let content_type = HeaderValue::from_static(content_type);
        answer.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    answer
}

/// An answer with a value for a body: from where it lies in the store's files to the socket, without a copy between.
pub(super) fn value_answer(value: Value) -> Answer {
    struct Owner(Value);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }
    let mut answer = answer(200, Some("application/octet-stream"), Bytes::from_owner(Owner(value)));
    // What a client has stored is not to be run by a browser.
    set_header(&mut answer, "x-content-type-options", b"nosniff");
    answer
}

/// Sets a header whose value is the client's or a number; one that cannot stand in a header is left out.
pub(super) fn set_header(answer: &mut Answer, name: &'static str, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_applied_and_not_written_out_yet_is_not_told_as_one_that_did_not_fit() {
        let no_space = || Error::NoSpace {
            path: "/store/1.segment".into(),
        };
        let refused = |error: Error| {
            let refusal = Refusal::from(error);
            (refusal.status, refusal.message)
        };
        assert_eq!(refused(no_space()), (507, "no space is left on the disk".to_owned()));
        let other = Error::Io {
            action: "write",
            path: "/store/1.segment".into(),
            source: Arc::new(std::io::ErrorKind::Other.into()),
        };
        for (cause, status) in [(no_space(), 507), (other, 500)] {
            let pending = Error::Pending { cause: Arc::new(cause) };
            assert_eq!(
                refused(pending),
                (status, "applied, not written out yet; do not repeat".to_owned())
            );
        }
    }
}
