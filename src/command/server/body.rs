//! Bodies of requests.
//!
//! A body is read once the request's rights and head are checked; that of a refused request is read
//! to its end without keeping it, since clients read the response only then. One that is too long
//! for that is left, and the connection ends after the response. Its memory is counted as its bytes
//! arrive.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use super::error::ApiError;
use super::memory::{Claim, Holder};
use super::shared::Shared;
use crate::planted::{Planted, planted};

/// The error for a body that is longer than its request allows.
pub(super) fn too_large() -> ApiError {
    ApiError::new(413, 10012, "the request body is too large")
}

/// The connection ends without a response: the client is gone, or too slow.
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
/// A body is kept in pieces of at least and at most this size, so that none is copied when it
/// grows. The system gets the larger ones back as soon as they are freed.
const PIECE_BYTES: std::ops::RangeInclusive<usize> = 4 << 10..=256 << 10;

/// Longest body of a request that has only a few settings in it.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;

/// What is done with a body, and takes memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// It is a value, or a form whose value is not copied.
    Value,
    /// Its items are copied into a batch, and what was read of it is freed meanwhile. The longest
    /// value and a copy of it are there besides.
    Bulk,
    /// A short body.
    Small,
}

impl Work {
    /// Bytes of memory for a body of this length.
    fn bytes(self, length: usize) -> usize {
        /// A value in base64.
        const ITEM_BYTES_MAX: usize = 34 << 20;
        match self {
            Work::Value => length,
            Work::Bulk => length.saturating_add(2 * length.min(ITEM_BYTES_MAX)),
            Work::Small => length.saturating_mul(4),
        }
    }
}

type Source = UnsyncBoxBody<Bytes, Disconnected>;

/// A body that may not have been read yet.
pub(super) struct Unread<'a> {
    shared: &'a Shared,
    source: Source,
    /// Bytes read so far.
    length: u64,
    begun: Instant,
    /// Time in which the client was not asked for more.
    paused: Duration,
    ended: Option<Result<(), Disconnected>>,
}

impl<'a> Unread<'a> {
    pub(super) fn new<B>(shared: &'a Shared, body: B) -> Unread<'a>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
    {
        Unread {
            shared,
            source: body.map_err(|_| Disconnected("a body was cut off")).boxed_unsync(),
            length: 0,
            begun: Instant::now(),
            paused: Duration::ZERO,
            ended: None,
        }
    }

    /// Reads the body to its end. Nothing is kept of one that is longer than `most`.
    ///
    /// Memory is waited for if much is in use; if none becomes free in time, the request is refused
    /// with 503, and the rest of its body is read without keeping it.
    pub(super) async fn read(&mut self, holder: &Holder, most: usize, work: Work) -> Result<Body, ApiError> {
        let memory = &self.shared.body_memory;
        let expected = hyper::body::Body::size_hint(&self.source).exact();
        if let Some(expected) = expected.filter(|expected| *expected > most as u64) {
            self.drain().await;
            return Ok(Body::too_long(expected));
        }
        let expected = expected.and_then(|expected| usize::try_from(expected).ok());
        let mut claim = match expected {
            Some(expected) => memory.claim(holder, work.bytes(expected))?,
            None => memory.claim_up_to(holder, work.bytes(most)),
        };
        let mut pieces = Pieces::default();
        while let Some(data) = self.next(Some(&claim)).await? {
            if pieces.length + data.len() > most {
                drop((pieces, claim));
                self.drain().await;
                return Ok(Body::too_long(self.length));
            }
            claim.check(work.bytes(pieces.length + data.len()))?;
            self.keep(&mut pieces, &mut claim, &data, expected).await?;
        }
        let need = work.bytes(pieces.length).max(claim.held());
        claim.will_need(need)?;
        let more = need - claim.held();
        claim.grow(more).await?;
        claim.settle(need);
        Ok(Body {
            pieces,
            length: self.length,
            is_whole: true,
            _claim: Some(claim),
        })
    }

    /// Keeps some more bytes, once there is memory for them.
    async fn keep(
        &mut self,
        pieces: &mut Pieces,
        claim: &mut Claim,
        mut data: &[u8],
        expected: Option<usize>,
    ) -> Result<(), ApiError> {
        while !data.is_empty() {
            if pieces.room() == 0 {
                let left = expected.map_or(usize::MAX, |expected| expected.saturating_sub(pieces.length));
                let bytes = pieces.next_bytes().min(left).max(1);
                let asked = Instant::now();
                claim.grow(bytes).await?;
                self.paused += asked.elapsed();
                pieces.begin(bytes);
            }
            let (now, later) = data.split_at(data.len().min(pieces.room()));
            pieces.push(now);
            data = later;
        }
        Ok(())
    }

    /// Reads what is left of the body, without keeping it. The error ends the connection.
    pub(super) async fn finish(mut self) -> Result<(), Disconnected> {
        self.drain().await;
        self.shared.metrics.received(self.length);
        self.ended.unwrap_or(Ok(()))
    }

    async fn drain(&mut self) {
        let expected = hyper::body::Body::size_hint(&self.source).exact();
        if expected.is_some_and(|expected| expected > DRAINED_BYTES_MAX) {
            return;
        }
        while let Ok(Some(_)) = self.next(None).await {}
    }

    /// The next bytes; None at the end. An error if others need what the claim holds, if the body
    /// is too long, or if the connection must end, which [`Unread::finish`] tells then.
    async fn next(&mut self, claim: Option<&Claim>) -> Result<Option<Bytes>, ApiError> {
        if let Some(ended) = &self.ended {
            return ended.as_ref().map(|()| None).map_err(cut_off);
        }
        let pushed_out = async {
            match claim {
                Some(claim) => claim.pushed_out().await,
                None => std::future::pending().await,
            }
        };
        // A body may take long, as long as it keeps the minimum rate.
        let timeout = self.shared.body_memory.timeout;
        let allowed = timeout + self.paused + Duration::from_secs(self.length / BODY_BYTES_PER_SECOND_MIN);
        let left = allowed.saturating_sub(self.begun.elapsed()).min(timeout);
        let frame = tokio::select! {
            biased;
            error = pushed_out => return Err(error),
            frame = tokio::time::timeout(left, data(&mut self.source)) => frame,
        };
        let lost = match frame {
            Err(_) => Disconnected("a body arrived too slowly"),
            Ok(Err(_)) if planted(Planted::HalfBulk) => {
                self.ended = Some(Ok(()));
                return Ok(None);
            }
            Ok(Err(lost)) => lost,
            Ok(Ok(None)) => {
                self.ended = Some(Ok(()));
                return Ok(None);
            }
            Ok(Ok(Some(data))) => {
                self.length += data.len() as u64;
                if self.length <= DRAINED_BYTES_MAX {
                    return Ok(Some(data));
                }
                self.ended = Some(Ok(()));
                return Err(too_large());
            }
        };
        let error = cut_off(&lost);
        self.ended = Some(Err(lost));
        Err(error)
    }
}

/// What a handler is told of a connection that ends; no client sees it.
fn cut_off(lost: &Disconnected) -> ApiError {
    ApiError::new(400, 10001, lost.0)
}

/// The next bytes of a body, without its trailers.
async fn data(source: &mut Source) -> Result<Option<Bytes>, Disconnected> {
    loop {
        match source.frame().await.transpose()?.map(hyper::body::Frame::into_data) {
            None => return Ok(None),
            Some(Ok(data)) => return Ok(Some(data)),
            Some(Err(_trailers)) => {}
        }
    }
}

/// Bytes in pieces, each with the room that was set apart for it.
#[derive(Default)]
struct Pieces {
    pieces: std::collections::VecDeque<Vec<u8>>,
    length: usize,
    /// Read of the first one.
    read: usize,
}

impl Pieces {
    fn room(&self) -> usize {
        self.pieces.back().map_or(0, |last| last.capacity() - last.len())
    }

    /// The size of the next piece: as much again, within bounds.
    fn next_bytes(&self) -> usize {
        self.length.clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end())
    }

    fn begin(&mut self, bytes: usize) {
        self.pieces.push_back(Vec::with_capacity(bytes));
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(last) = self.pieces.back_mut() {
            last.extend_from_slice(bytes);
            self.length += bytes.len();
        }
    }
}

/// Frees each piece once it is read.
impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let Some(first) = self.pieces.front() else {
                return Ok(0);
            };
            let left = first.get(self.read..).unwrap_or_default();
            if left.is_empty() {
                self.pieces.pop_front();
                self.read = 0;
                continue;
            }
            let count = left.len().min(into.len());
            let (Some(from), Some(into)) = (left.get(..count), into.get_mut(..count)) else {
                return Ok(0);
            };
            into.copy_from_slice(from);
            self.read += count;
            return Ok(count);
        }
    }
}

/// A body that was read to its end.
pub(super) struct Body {
    pieces: Pieces,
    pub(super) length: u64,
    is_whole: bool,
    /// The memory for it and for what is done with it.
    _claim: Option<Claim>,
}

impl Body {
    fn too_long(length: u64) -> Body {
        Body {
            pieces: Pieces::default(),
            length,
            is_whole: false,
            _claim: None,
        }
    }

    /// Takes the whole body out, and keeps its memory claimed; None if it was too long.
    pub(super) fn take_whole(&mut self) -> Option<Vec<u8>> {
        let mut pieces = std::mem::take(&mut self.pieces);
        if !self.is_whole {
            return None;
        }
        if pieces.pieces.len() <= 1 {
            return Some(pieces.pieces.pop_front().unwrap_or_default());
        }
        let mut whole = Vec::with_capacity(pieces.length);
        for piece in pieces.pieces {
            whole.extend_from_slice(&piece);
        }
        Some(whole)
    }

    /// Reads the whole body, and frees each part of it once it is read; None if it was too long.
    pub(super) fn reader(&mut self) -> Option<impl Read> {
        let pieces = std::mem::take(&mut self.pieces);
        // JSON is read byte by byte.
        self.is_whole.then(|| std::io::BufReader::new(pieces))
    }
}
