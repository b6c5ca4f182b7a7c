//! Connections: accepted up to a limit, closed when idle.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Endpoint;
use super::respond::respond;
use super::settings::{Address, Tls};
use super::shared::Shared;
#[cfg(unix)]
use super::socket::SocketFile;
use crate::common::failure::{Failure, Outcome};

/// Longest head of a request, in bytes: a key of 512 bytes, escaped, twice; metadata; and the rest.
const HEAD_BYTES_MAX: usize = 64 << 10;
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

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Socket::Unix(socket) => Ok(Box::new(socket.listener.accept().await?.0)),
        }
    }

    /// Accepts connections until this future is dropped.
    pub(super) async fn serve(self, shared: Arc<Shared>, limits: Limits, graceful: Arc<GracefulShutdown>) {
        loop {
            let stream = match self.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            // At the limit this connection waits here, and later ones in the system's queue.
            let Ok(place) = Arc::clone(&limits.connections).acquire_owned().await else {
                return;
            };
            let (shared, endpoint, tls) = (Arc::clone(&shared), self.endpoint.clone(), self.tls.clone());
            let (idle, watcher) = (limits.idle_timeout, graceful.watcher());
            tokio::spawn(async move {
                let _place = place;
                let stream: Pin<Box<dyn Stream>> = match tls {
                    None => Box::into_pin(stream),
                    Some(tls) => {
                        let handshake = tls.accept(Box::into_pin(stream));
                        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                            Ok(Ok(stream)) => Box::pin(stream),
                            _ => return,
                        }
                    }
                };
                let mut stream = TimeoutStream::new(stream);
                // So that a client that does not read cannot keep a value in memory.
                stream.set_write_timeout(Some(idle));
                shared.metrics.connections.inc();
                let requests = Arc::clone(&shared);
                let service = service_fn(move |request| respond(Arc::clone(&requests), endpoint.clone(), request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    // Also from the end of one request to the head of the next.
                    .header_read_timeout(idle)
                    .max_buf_size(HEAD_BYTES_MAX)
                    .max_headers(HEADERS_MAX)
                    .serve_connection(TokioIo::new(Box::pin(stream)), service);
                // Only for debugging: clients come and go, and failed requests are counted
                // elsewhere.
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%error, "a connection ended");
                }
                shared.metrics.connections.dec();
            });
        }
    }
}

/// Limits shared by all listeners.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) connections: Arc<Semaphore>,
    pub(super) idle_timeout: Duration,
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
