//! Listeners, and the connections that they accept.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Endpoint;
use super::body::{Disconnected, Unread};
use super::connection::{HEAD_BYTES_MAX, Progress, Receiving, Sending, TimedStream, Times};
use super::error::ApiError;
use super::limited_log;
use super::metrics::Answered;
use super::places::{Place, Places};
use super::respond::{is_health, respond, with_retry_after};
use super::response::ApiResponse;
use super::settings::{Address, Tls};
use super::shared::Shared;
#[cfg(unix)]
use super::socket::SocketFile;
use super::stop::{Stop, Watcher};
use crate::common::failure::{Failure, Outcome};
use crate::planted::{Planted, planted};

const HEADERS_MAX: usize = 100;
/// Timeout of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, such as for lack of descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(SocketFile),
}

/// A listener and its protocol.
pub(super) struct Listener {
    socket: Socket,
    endpoint: Endpoint,
    tls: Option<TlsAcceptor>,
    /// Its address for clients.
    pub(super) url: String,
}

impl Listener {
    /// Must be called on the runtime.
    pub(super) fn bind(address: &Address, endpoint: Endpoint, tls: Option<&TlsAcceptor>) -> Outcome<Listener> {
        match address {
            Address::Tcp(address) => {
                let fail = |error: io::Error| Failure::file("listen to", address, &error);
                let listener = std::net::TcpListener::bind(address).map_err(fail)?;
                listener.set_nonblocking(true).map_err(fail)?;
                let listener = TcpListener::from_std(listener).map_err(fail)?;
                let bound = listener.local_addr().map_err(fail)?;
                let scheme = if tls.is_some() { "https" } else { "http" };
                Ok(Listener {
                    socket: Socket::Tcp(listener),
                    endpoint,
                    tls: tls.cloned(),
                    url: format!("{scheme}://{bound}"),
                })
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let fail = |error: io::Error| Failure::file("listen to", path.display(), &error);
                let socket = SocketFile::bind(path).map_err(fail)?;
                Ok(Listener {
                    socket: Socket::Unix(socket),
                    endpoint: Endpoint {
                        is_socket: true,
                        ..endpoint
                    },
                    tls: None,
                    url: format!("unix:{}", path.display()),
                })
            }
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Endpoint)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // The connection may have ended already, and is slower without it at most.
                let _ = stream.set_nodelay(true);
                let endpoint = Endpoint {
                    peer: Some(peer.ip()),
                    ..self.endpoint.clone()
                };
                Ok((Box::new(stream), endpoint))
            }
            #[cfg(unix)]
            Socket::Unix(socket) => Ok((Box::new(socket.listener.accept().await?.0), self.endpoint.clone())),
        }
    }

    /// Accepts connections until this future is dropped.
    pub(super) async fn serve(self, shared: Arc<Shared>, limits: Limits, stop: Arc<Stop>) {
        let places = Places::new(limits.max_connections, self.endpoint.has_health());
        loop {
            let (stream, endpoint) = match self.accept().await {
                Ok(accepted) => accepted,
                // Of that connection alone.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {
                    continue;
                }
                Err(error) => {
                    limited_log::not_accepted(&error);
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            let Some(place) = places.take().await else {
                return;
            };
            let connection = Connection {
                shared: Arc::clone(&shared),
                endpoint,
                places: places.clone(),
                progress: Progress::new(limits.times),
                place: Arc::new(Mutex::new(place)),
                idle: limits.times.idle,
            };
            connection.begin(stream, self.tls.clone(), stop.watcher());
        }
    }
}

/// One connection.
#[derive(Clone)]
struct Connection {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    places: Places,
    place: Arc<Mutex<Place>>,
    progress: Progress,
    idle: Duration,
}

impl Connection {
    /// Serves this connection on a task of its own.
    fn begin(self, stream: Box<dyn Stream>, tls: Option<TlsAcceptor>, watcher: Watcher) {
        let (places, progress, place) = (self.places.clone(), self.progress.clone(), Arc::clone(&self.place));
        // Until then it cannot leave the spare places.
        let place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let task = tokio::spawn(self.run(stream, tls, watcher));
        if matches!(*place, Place::Spare) {
            places.take_spare(progress, task.abort_handle());
        }
    }

    /// Serves this connection until it ends, or the server stops.
    async fn run(self, stream: Box<dyn Stream>, tls: Option<TlsAcceptor>, mut watcher: Watcher) {
        let _open = Open::new(&self);
        let stream: Pin<Box<dyn Stream>> = match tls {
            None => Box::into_pin(stream),
            Some(tls) => {
                let handshake = tls.accept(Box::into_pin(stream));
                let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake);
                tokio::select! {
                    shaken = handshake => match shaken {
                        Ok(Ok(stream)) => Box::pin(stream),
                        _ => return,
                    },
                    () = watcher.told() => return,
                }
            }
        };
        let mut stream = TimeoutStream::new(stream);
        // So that a client that does not read cannot keep a value in memory.
        stream.set_write_timeout(Some(self.idle));
        let stream = TimedStream::new(Box::pin(stream), self.progress.clone());
        let progress = self.progress.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            // hyper calls this as soon as it has the head.
            self.progress.begin_request();
            let connection = self.clone();
            async move {
                let progress = connection.progress.clone();
                let request = request.map(|body| Receiving::new(body, progress.clone()));
                let mut response = connection.respond(request).await?;
                if progress.is_body_left() {
                    end_connection(&mut response);
                }
                Ok::<_, Disconnected>(response.map(|body| Sending::new(body, progress)))
            }
        });
        let connection = http1::Builder::new()
            // The stream has the time limits, since there are two.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            // A request that has come is begun before the server stops.
            biased;
            ended = connection.as_mut() => ended,
            () = watcher.told() => {
                if progress.stop() && !planted(Planted::WaitForHeads) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        // Only for debugging: clients come and go, and failed requests are counted elsewhere.
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }

    async fn respond<B>(&self, request: Request<B>) -> Result<ApiResponse, Disconnected>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let error = if head_bytes(&request) > HEAD_BYTES_MAX {
            ApiError::new(431, 10001, "the head of the request is longer than 64 KiB")
        } else if self.may_ask(&request) {
            return respond(Arc::clone(&self.shared), self.endpoint.clone(), request).await;
        } else {
            ApiError::new(503, 10001, "all connections are in use; try again")
        };
        Unread::new(&self.shared, request.into_body()).finish().await?;
        let (protocol, status) = (&self.endpoint.protocol, error.status);
        let answer = Answered {
            status,
            took: Duration::ZERO,
            bytes: 0,
        };
        self.shared.metrics.answered(protocol.name(), "other", &answer);
        let mut refused = with_retry_after(protocol.refused(&error));
        end_connection(&mut refused);
        Ok(refused)
    }

    /// Whether this connection has a place for this request.
    fn may_ask<B>(&self, request: &Request<B>) -> bool {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::Spare)
            && !is_health(request.uri().path())
            && let Some(ordinary) = self.places.ordinary_now()
        {
            *place = ordinary;
            self.places.leave_spare(&self.progress);
        }
        matches!(*place, Place::Ordinary(_)) || is_health(request.uri().path())
    }
}

/// No other request comes after this response.
fn end_connection(response: &mut ApiResponse) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Bytes of a head as it came, at least.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let uri = scheme + authority + path;
    let line = request.method().as_str().len() + uri + "  HTTP/1.1\r\n".len();
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + headers.sum::<usize>() + "\r\n".len()
}

/// A connection counts as long as it is open.
struct Open {
    shared: Arc<Shared>,
    places: Places,
    progress: Progress,
}

impl Open {
    fn new(connection: &Connection) -> Open {
        connection.shared.metrics.connections.inc();
        Open {
            shared: Arc::clone(&connection.shared),
            places: connection.places.clone(),
            progress: connection.progress.clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.metrics.connections.dec();
        self.places.leave_spare(&self.progress);
    }
}

/// Limits of each listener.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) max_connections: usize,
    pub(super) times: Times,
}

/// Reads a certificate and its key.
pub(super) fn tls(files: &Tls) -> Outcome<TlsAcceptor> {
    let wrong = |path: &Path, what: String| Failure::usage(format!("{}: {what}", path.display()), "");
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&files.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error.to_string()))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| wrong(&files.certificate, error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
