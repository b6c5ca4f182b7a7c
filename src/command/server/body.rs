//! Bodies of requests, and the memory reserved for them and for large responses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::planted::{Planted, planted};

/// The connection ends without a response: the client is gone, too slow, or sends too much.
#[derive(Debug)]
pub(super) struct Disconnected(pub(super) &'static str);

impl std::fmt::Display for Disconnected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for Disconnected {}

/// A body is read to its end, since clients read the response only then; but at most this much.
const DRAINED_BYTES_MAX: u64 = 256 << 20;
/// A body that arrives more slowly than this is given up eventually.
const BODY_BYTES_PER_SECOND_MIN: u64 = 16 << 10;
/// Bytes of memory per permit.
const PERMIT_BYTES: usize = 1 << 10;

/// Bounds the memory for bodies in use at a time.
pub(super) struct BodyMemory {
    permits: Arc<Semaphore>,
    /// Number of permits in all.
    all: usize,
    /// Longest wait for memory, or for the next bytes of a body.
    timeout: Duration,
}

impl BodyMemory {
    pub(super) fn new(bytes: usize, timeout: Duration) -> BodyMemory {
        let all = bytes.div_ceil(PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        BodyMemory {
            permits: Arc::new(Semaphore::new(all)),
            all,
            timeout,
        }
    }

    /// Reserves memory; waits for it if much is in use.
    async fn set_apart(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Disconnected> {
        let permits = bytes.div_ceil(PERMIT_BYTES).min(self.all);
        let Ok(permits @ 1..) = u32::try_from(permits) else {
            return Ok(None);
        };
        if planted(Planted::AnyBodyMemory) {
            return Ok(None);
        }
        let permit = Arc::clone(&self.permits).acquire_many_owned(permits);
        let permit = tokio::time::timeout(self.timeout, permit).await;
        let permit = permit.map_err(|_| Disconnected("no memory for a body became free in time"))?;
        Ok(Some(permit.map_err(|_| Disconnected("shutting down"))?))
    }

    /// Builds a response in memory, of which `bytes` are reserved until it is sent. For threads
    /// that may block.
    pub(super) fn response_in_memory(
        &self,
        bytes: usize,
        make: impl FnOnce() -> Result<Vec<u8>, ApiError>,
    ) -> Result<Bytes, ApiError> {
        struct Owner(
            Vec<u8>,
            #[expect(dead_code, reason = "kept until the response is sent")] Option<OwnedSemaphorePermit>,
        );
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let permit = tokio::runtime::Handle::current().block_on(self.set_apart(bytes));
        let permit = permit.map_err(|reason| ApiError::new(503, 10001, reason.0))?;
        Ok(Bytes::from_owner(Owner(make()?, permit)))
    }

    /// Reads a body to its end, and keeps its first `keep_max` bytes. Processing it takes `times`
    /// as much memory. Waits for memory first, if much is in use: all of it is reserved at once, so
    /// that no two bodies wait for each other.
    pub(super) async fn read<B>(&self, body: B, keep_max: usize, times: usize) -> Result<Body, Disconnected>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
    {
        let expected = body.size_hint().exact();
        let keep = expected.map_or(keep_max, |exact| {
            usize::try_from(exact).map_or(keep_max, |exact| exact.min(keep_max))
        });
        let permit = self.set_apart(keep.saturating_mul(times)).await?;
        let begun = Instant::now();
        let mut kept = Vec::with_capacity(if expected.is_some() { keep } else { 0 });
        let (mut length, mut body) = (0_u64, body);
        loop {
            // A body may take long, as long as it keeps the minimum rate.
            let allowed = self.timeout + Duration::from_secs(length / BODY_BYTES_PER_SECOND_MIN);
            let left = allowed.saturating_sub(begun.elapsed()).min(self.timeout);
            let frame = tokio::time::timeout(left, body.frame()).await;
            let frame = frame.map_err(|_| Disconnected("a body arrived too slowly"))?;
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
        Ok(Body {
            bytes: kept,
            length,
            _permit: permit,
        })
    }
}

/// A body that was read to its end.
pub(super) struct Body {
    /// The kept bytes: all of the body, unless it was too long.
    pub(super) bytes: Vec<u8>,
    pub(super) length: u64,
    /// The memory reserved for it.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body {
    /// The whole body; None if it was too long.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        (self.bytes.len() as u64 == self.length).then_some(&self.bytes[..])
    }
}
