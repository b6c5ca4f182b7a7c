//! Connections to a server: one request and its response.

use std::io;
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::address::{Address, Endpoint};
use crate::common::failure::Outcome;
use crate::common::interrupt;

/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);
/// Longest wait for the head of a response, and for each part of its body.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// A body is expected to be sent at this rate at least, in bytes per second.
const SEND_RATE_MIN: u64 = 16 << 10;
/// Longest body of a response: values of 25 MiB, each byte as a JSON escape.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Interval between checks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// A response, with its whole body.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server has not received the request.
    NotSent(String),
    /// The server may have received the request, and done what it says.
    Lost(String),
    /// The user asked to stop.
    Stopped,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Waits for the future, unless the user asks to stop.
pub(super) async fn unless_stopped<T>(future: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let mut future = pin!(future);
    loop {
        match timeout(LOOK_EVERY, future.as_mut()).await {
            Ok(result) => return result,
            Err(_) if interrupt::is_requested() => return Err(Trouble::Stopped),
            Err(_) => {}
        }
    }
}

/// Opens a connection.
pub(super) async fn open(address: &Address, tls: Option<&TlsConnector>) -> Result<Sender, Trouble> {
    let opened = timeout(CONNECT_WITHIN, stream(address, tls)).await;
    let stream = opened
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
        .map_err(|error| Trouble::NotSent(super::tls::told(&error)))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Trouble::NotSent(error.to_string()))?;
    // Its errors reach the request that waits for a response.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn stream(address: &Address, tls: Option<&TlsConnector>) -> io::Result<Box<dyn Stream>> {
    match &address.endpoint {
        Endpoint::Tcp { host, port, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = tls else { return Ok(Box::new(stream)) };
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            Ok(Box::new(tls.connect(name, stream).await?))
        }
        #[cfg(unix)]
        Endpoint::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
        #[cfg(not(unix))]
        Endpoint::Unix(_) => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

/// Sends a request, and reads the response to its end.
pub(super) async fn exchange(
    sender: &mut Sender,
    request: Request<Full<Bytes>>,
    length: usize,
) -> Result<Answer, Trouble> {
    let sending = Duration::from_secs(length as u64 / SEND_RATE_MIN);
    let late = || Trouble::Lost("the server has not answered in time".to_owned());
    let answered = timeout(ANSWER_WITHIN + sending, sender.send_request(request)).await;
    let response = answered.map_err(|_| late())?.map_err(|error| {
        if error.is_canceled() {
            Trouble::NotSent(told(&error))
        } else {
            Trouble::Lost(told(&error))
        }
    })?;
    whole(response).await
}

/// A response with its whole body.
async fn whole(response: Response<Incoming>) -> Result<Answer, Trouble> {
    let late = || Trouble::Lost("the server has not answered in time".to_owned());
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = timeout(ANSWER_WITHIN, body.frame()).await.map_err(|_| late())? {
        let frame = frame.map_err(|error| Trouble::Lost(told(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(Trouble::Lost("the response is too long".to_owned()));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: bytes.into(),
    })
}

/// How a response that is followed has gone on.
pub(super) enum Followed {
    /// It was not a success, and is whole.
    Answer(Answer),
    End,
    /// It was left.
    Broken(Outcome),
}

/// Sends a request, and passes on the parts of a response that succeeds as they come.
pub(super) async fn follow(
    sender: &mut Sender,
    request: Request<Full<Bytes>>,
    take: &mut impl FnMut(&[u8]) -> Outcome<ControlFlow<()>>,
) -> Result<Followed, Trouble> {
    let late = || Trouble::Lost("the server has not answered in time".to_owned());
    let answered = timeout(ANSWER_WITHIN, sender.send_request(request)).await;
    let response = answered.map_err(|_| late())?;
    let response = response.map_err(|error| Trouble::Lost(told(&error)))?;
    if !response.status().is_success() {
        return whole(response).await.map(Followed::Answer);
    }
    let mut body = response.into_body();
    // A heartbeat comes while there is nothing else.
    while let Some(frame) = timeout(ANSWER_WITHIN, body.frame()).await.map_err(|_| late())? {
        let frame = frame.map_err(|error| Trouble::Lost(told(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        match take(&data) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(Followed::Broken(Ok(()))),
            Err(failure) => return Ok(Followed::Broken(Err(failure))),
        }
    }
    Ok(Followed::End)
}

/// An error of a connection, with its cause.
fn told(error: &hyper::Error) -> String {
    use std::error::Error;

    if error.is_parse() {
        return "the server does not speak HTTP at this address".to_owned();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "the connection was closed before the response had arrived".to_owned();
    }
    match error.source() {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}
