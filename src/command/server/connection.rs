//! The stages of a connection, and how long each may take.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::planted::{Planted, planted};

/// Longest head of a request, in bytes: a key of 512 bytes, escaped, twice; metadata; and the rest.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// From its beginning, or the first byte of a head, to the end of the head.
    pub(super) head: Duration,
    /// Between requests, and for a client that does not read.
    pub(super) idle: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// So many bytes of a head have come, perhaps none yet.
    Head { until: Instant, bytes: usize },
    /// A request is being answered.
    Request,
    /// Its response is being sent, or nothing happens.
    Idle { until: Instant },
    /// All has been sent, and what the client still sends is dropped.
    Lingering { until: Instant },
}

/// Where a connection is.
#[derive(Debug)]
struct Place {
    stage: Stage,
    times: Times,
    /// Whether any request has come.
    has_begun: bool,
    /// Whether more of a request's body may come.
    is_body_left: bool,
    is_stopping: bool,
}

/// Where a connection is, as its stream and its service tell.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<Place>>);

impl Progress {
    pub(super) fn new(times: Times) -> Progress {
        let until = Instant::now() + times.head.min(times.idle);
        Progress(Arc::new(Mutex::new(Place {
            stage: Stage::Head { until, bytes: 0 },
            times,
            has_begun: false,
            is_body_left: false,
            is_stopping: false,
        })))
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is(&self, other: &Progress) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the head of a request has ever come as a whole.
    pub(super) fn has_begun(&self) -> bool {
        self.place().has_begun
    }

    pub(super) fn begin_request(&self) {
        let mut place = self.place();
        (place.stage, place.has_begun) = (Stage::Request, true);
    }

    fn end_request(&self) {
        let mut place = self.place();
        let until = Instant::now() + place.times.idle;
        place.stage = Stage::Idle { until };
    }

    /// Whether the body of the request was not read to its end, so that the next request could not
    /// be found.
    pub(super) fn is_body_left(&self) -> bool {
        self.place().is_body_left
    }

    fn set_body_left(&self, is_left: bool) {
        self.place().is_body_left = is_left;
    }

    /// The server stops. Whether the connection can end at once: there is no request that its
    /// client could expect an answer to, or it was answered.
    pub(super) fn stop(&self) -> bool {
        let mut place = self.place();
        place.is_stopping = true;
        !place.has_begun || matches!(place.stage, Stage::Lingering { .. })
    }

    /// Nothing will be sent any more. If the client may be sending still, its bytes are read for a
    /// while: the system resets a connection that is closed before, and the client loses the
    /// answer.
    fn begin_lingering(&self) {
        let mut place = self.place();
        let is_half_a_head = matches!(place.stage, Stage::Head { bytes: 1.., .. });
        if !place.is_stopping && (place.is_body_left || is_half_a_head) {
            let until = Instant::now() + place.times.head.min(place.times.idle);
            place.stage = Stage::Lingering { until };
        }
    }

    fn is_lingering(&self) -> bool {
        matches!(self.place().stage, Stage::Lingering { until } if Instant::now() < until)
    }

    /// How much of a head may still come; None if it is not a head that comes.
    fn room(&self) -> Option<usize> {
        match self.place().stage {
            Stage::Head { bytes, .. } => Some(HEAD_BYTES_MAX.saturating_sub(bytes)),
            Stage::Idle { .. } => Some(HEAD_BYTES_MAX),
            Stage::Request | Stage::Lingering { .. } => None,
        }
    }

    fn has_read(&self, count: usize) {
        let mut place = self.place();
        match &mut place.stage {
            Stage::Head { bytes, .. } => *bytes += count,
            Stage::Idle { .. } => {
                let until = Instant::now() + place.times.head.min(place.times.idle);
                place.stage = Stage::Head { until, bytes: count };
            }
            Stage::Request | Stage::Lingering { .. } => {}
        }
    }

    /// A client that takes what is sent is neither idle nor slow.
    fn has_written(&self) {
        let mut place = self.place();
        let Times { head, idle } = place.times;
        match &mut place.stage {
            Stage::Head { until, .. } => *until = Instant::now() + head.min(idle),
            Stage::Idle { until } => *until = Instant::now() + idle,
            Stage::Request | Stage::Lingering { .. } => {}
        }
    }

    /// When the connection ends unless something happens.
    fn until(&self) -> Option<Instant> {
        match self.place().stage {
            Stage::Head { .. } if planted(Planted::AnySlowHead) => None,
            Stage::Head { until, .. } | Stage::Idle { until } | Stage::Lingering { until } => Some(until),
            Stage::Request => None,
        }
    }
}

/// The body of a request.
pub(super) struct Receiving<B> {
    body: B,
    progress: Progress,
}

impl<B: Body> Receiving<B> {
    pub(super) fn new(body: B, progress: Progress) -> Receiving<B> {
        progress.set_body_left(!body.is_end_stream());
        Receiving { body, progress }
    }
}

impl<B: Body + Unpin> Body for Receiving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.progress.set_body_left(false);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response. Its request ends when all of it was taken to be sent.
pub(super) struct Sending<B> {
    body: B,
    progress: Progress,
}

impl<B> Sending<B> {
    pub(super) fn new(body: B, progress: Progress) -> Sending<B> {
        Sending { body, progress }
    }
}

impl<B: Body + Unpin> Body for Sending<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Sending<B> {
    fn drop(&mut self) {
        self.progress.end_request();
    }
}

/// A stream that ends when its stage takes too long.
pub(super) struct TimedStream<S> {
    stream: S,
    progress: Progress,
    sleep: Pin<Box<Sleep>>,
    is_shut_down: bool,
}

impl<S> TimedStream<S> {
    pub(super) fn new(stream: S, progress: Progress) -> TimedStream<S> {
        TimedStream {
            stream,
            progress,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            is_shut_down: false,
        }
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.progress.until() else {
            return Poll::Pending;
        };
        if self.sleep.deadline() != until {
            self.sleep.as_mut().reset(until);
        }
        self.sleep.as_mut().poll(context)
    }
}

impl<S: AsyncRead + Unpin> TimedStream<S> {
    /// Drops what the client still sends, until it sends no more or its time is over.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 8 << 10];
        while self.progress.is_lingering() {
            let mut dropped = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut dropped) {
                Poll::Ready(Ok(())) if !dropped.filled().is_empty() => {}
                Poll::Ready(_) => break,
                Poll::Pending => return self.poll_late(context),
            }
        }
        Poll::Ready(())
    }

    /// Reads no more of a head than it may have, also if more has come.
    fn poll_read_up_to(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        room: Option<usize>,
    ) -> Poll<io::Result<()>> {
        let Some(room) = room.filter(|room| *room < buffer.remaining()) else {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        };
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), self.progress.room());
        if room == Some(0) {
            return Poll::Ready(Err(io::Error::other("a head is too long")));
        }
        match self.poll_read_up_to(context, buffer, room) {
            Poll::Ready(Ok(())) => {
                let read = buffer.filled().len() - before;
                if read > 0 {
                    self.progress.has_read(read);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.poll_late(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> TimedStream<S> {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.progress.has_written();
        }
        written
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut_down {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.is_shut_down = true;
            self.progress.begin_lingering();
        }
        self.poll_linger(context).map(Ok)
    }
}
