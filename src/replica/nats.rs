//! The log kept by NATS JetStream: one stream with one subject, whose sequences are the positions.
//!
//! Nothing here waits without a limit. The client reconnects for ever and queues what it is given
//! meanwhile, so nothing is given to it while it has no connection: retries of an hour would fill
//! memory, and arrive all at once.

mod addresses;
mod config;
mod reader;
mod replies;
mod stream;
mod sync;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, ServerAddr, jetstream};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::log::{Bounds, LogError, LogReader, Pending, ReplicatedLog};

use addresses::{addresses, check_name, user_and_password};
pub use config::{LogServer, nats_config};
use replies::{Acknowledgement, Replies, StreamReply};
pub use stream::{StreamPlan, StreamReport};
pub use sync::{ServerReport, Syncing};

/// Calls that fail for this long make the client try another server: this one may be cut off from
/// the others, which a client cannot see.
const PATIENCE_WITH_A_SERVER: Duration = Duration::from_secs(3);

/// How to reach a log.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// URLs of the servers: `nats://` or, with TLS, `tls://`. They may have a user and a password,
    /// the same in all.
    pub servers: Vec<String>,
    /// A file of credentials, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// Certificates to trust beside those of the system, as PEM.
    pub root_certificates: Option<PathBuf>,
    /// Name of the stream, and of its subject.
    pub stream: String,
    /// What the servers call this connection.
    pub connection_name: String,
    /// Limit of one call to the log.
    pub call_timeout: Duration,
}

/// A stream of NATS JetStream as a log.
pub struct NatsLog {
    stream: String,
    servers: Vec<ServerAddr>,
    client: Client,
    context: jetstream::Context,
    replies: Replies,
    limit: Duration,
    trouble: Arc<Mutex<Trouble>>,
    /// Told when the server is to be left.
    leave: Arc<Notify>,
    leaving: JoinHandle<()>,
}

/// Some events have a number in them.
const TOLD_MOST: usize = 50;

/// What has gone wrong of late.
#[derive(Debug, Default)]
struct Trouble {
    /// What the client said last while it had no connection.
    connection: Option<String>,
    /// All that it said since then: what is tried again each second is told once.
    told: Vec<String>,
    /// When calls began to fail; `None` if the last one succeeded.
    failing_since: Option<Instant>,
}

impl fmt::Debug for NatsLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsLog")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Notes how a call has ended.
struct CallEnds<'a> {
    log: &'a NatsLog,
    went_well: bool,
}

impl Drop for CallEnds<'_> {
    fn drop(&mut self) {
        self.log.note(self.went_well);
    }
}

impl Drop for NatsLog {
    fn drop(&mut self) {
        self.leaving.abort();
    }
}

/// Makes the client try another server each time that it is told to.
async fn leave_servers(client: Client, leave: Arc<Notify>) {
    loop {
        leave.notified().await;
        let server = client.try_server_info().map(|info| info.server_name);
        tracing::warn!(server, "the log does not answer: trying another server");
        // It fails only if the client has ended, which the next call tells.
        let _ = client.force_reconnect().await;
    }
}

impl NatsLog {
    /// Begins to connect, and does not wait for it: a node serves its reads while the log is away.
    ///
    /// # Errors
    /// If the settings are wrong: an address, the credentials, the name of the stream.
    pub async fn connect(settings: &NatsSettings) -> Result<NatsLog, LogError> {
        check_name(&settings.stream)?;
        let servers = addresses(&settings.servers)?;
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let mut options = options(settings, &trouble).await?;
        if let Some((user, password)) = user_and_password(&servers)? {
            options = options.user_and_password(user, password);
        }
        let client = options
            .connect(servers.as_slice())
            .await
            .map_err(|error| LogError::Refused(format!("cannot connect: {error}")))?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(settings.call_timeout);
        let replies = Replies::new(&client)
            .await
            .map_err(|error| LogError::Refused(format!("cannot subscribe to replies: {error}")))?;
        let leave = Arc::new(Notify::new());
        let leaving = tokio::spawn(leave_servers(client.clone(), Arc::clone(&leave)));
        Ok(NatsLog {
            stream: settings.stream.clone(),
            servers,
            client,
            context,
            replies,
            limit: settings.call_timeout,
            trouble,
            leave,
            leaving,
        })
    }

    /// Name of the server that this node is connected to.
    #[must_use]
    pub fn server_name(&self) -> Option<String> {
        self.client.try_server_info().map(|info| info.server_name)
    }

    async fn connected(&self) {
        while self.client.connection_state() != State::Connected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a connection and the call, for as long as `limit` in all. The caller may end it
    /// sooner, which counts as a failure as well.
    async fn limited<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, LogError>>,
    ) -> Result<T, LogError> {
        let mut call_ends = CallEnds {
            log: self,
            went_well: false,
        };
        let whole = async {
            self.connected().await;
            call.await
        };
        let result = match tokio::time::timeout(limit, whole).await {
            Ok(result) => result,
            Err(_) => Err(self.out_of_time(limit)),
        };
        call_ends.went_well = !matches!(result, Err(LogError::Unavailable(_)));
        result
    }

    fn out_of_time(&self, limit: Duration) -> LogError {
        let trouble = lock(&self.trouble);
        LogError::Unavailable(match (&trouble.connection, self.server_name()) {
            (Some(why), _) => format!("no connection: {why}"),
            (None, Some(server)) if self.client.connection_state() == State::Connected => {
                format!("no answer within {limit:?}, asked through the server {server}")
            }
            _ => format!("no connection within {limit:?}"),
        })
    }

    fn note(&self, went_well: bool) {
        let mut trouble = lock(&self.trouble);
        if went_well {
            trouble.failing_since = None;
            return;
        }
        let now = Instant::now();
        let since = *trouble.failing_since.get_or_insert(now);
        let is_connected = self.client.connection_state() == State::Connected;
        if is_connected && now.duration_since(since) >= PATIENCE_WITH_A_SERVER {
            trouble.failing_since = Some(now);
            self.leave.notify_one();
        }
    }

    /// Asks the API of JetStream. `None` if there is no such stream.
    async fn ask<T: DeserializeOwned>(&self, what: &str, body: Bytes, limit: Duration) -> Result<Option<T>, LogError> {
        self.limited(limit, async {
            let subject = format!("$JS.API.{what}.{}", self.stream);
            let message = self
                .replies
                .request(&self.client, subject, HeaderMap::new(), body)
                .await?;
            replies::parse_if_any(&message.payload)
        })
        .await
    }

    fn no_stream(&self) -> LogError {
        LogError::Refused(format!(
            "there is no stream {}: make it with `embercask replica init`",
            self.stream
        ))
    }

    async fn append(&self, id: &str, entry: Bytes) -> Result<u64, LogError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        headers.insert("Nats-Expected-Stream", self.stream.as_str());
        self.limited(self.limit, async {
            let most = self.client.max_payload();
            if entry.len().saturating_add(MOST_HEADERS) > most {
                return Err(LogError::Refused(format!(
                    "an entry has {} bytes, and the servers take {most}: raise their max_payload to 1MB",
                    entry.len()
                )));
            }
            let message = self
                .replies
                .request(&self.client, self.stream.clone(), headers, entry)
                .await?;
            let Acknowledgement { seq } = replies::parse(&message.payload)?;
            Ok(seq)
        })
        .await
    }

    async fn info(&self) -> Result<StreamReply, LogError> {
        let found = self.ask("STREAM.INFO", Bytes::new(), self.limit).await?;
        found.ok_or_else(|| self.no_stream())
    }
}

/// More than the headers of a message ever have, which count towards its size.
const MOST_HEADERS: usize = 1024;

impl ReplicatedLog for NatsLog {
    fn publish<'a>(&'a self, id: &'a str, entry: Bytes) -> Pending<'a, Result<u64, LogError>> {
        Box::pin(self.append(id, entry))
    }

    fn bounds(&self) -> Pending<'_, Result<Bounds, LogError>> {
        Box::pin(async {
            let state = self.info().await?.state;
            // An empty stream says 0 if there never was an entry.
            let first = if state.messages == 0 {
                state.last_seq.saturating_add(1)
            } else {
                state.first_seq
            };
            Ok(Bounds {
                first,
                last: state.last_seq,
                entries: state.messages,
            })
        })
    }

    fn read_from(&self, position: u64) -> Pending<'_, Result<Box<dyn LogReader>, LogError>> {
        Box::pin(async move {
            let opened = reader::NatsReader::open(&self.context, &self.stream, position);
            let reader = self.limited(self.limit, opened).await?;
            Ok(Box::new(reader) as Box<dyn LogReader>)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn options(settings: &NatsSettings, trouble: &Arc<Mutex<Trouble>>) -> Result<ConnectOptions, LogError> {
    let trouble = Arc::clone(trouble);
    let mut options = ConnectOptions::new()
        .name(&settings.connection_name)
        .retry_on_initial_connect()
        // Others may be known by addresses that lead nowhere from here.
        .ignore_discovered_servers()
        .connection_timeout(settings.call_timeout)
        .request_timeout(Some(settings.call_timeout))
        // A server that is stopped or cut off answers none: three are missed.
        .ping_interval(Duration::from_secs(1))
        // What waits to be written is bounded: entries are up to 512 KiB.
        .client_capacity(64)
        .reconnect_delay_callback(|attempts| {
            let attempts = u64::try_from(attempts).unwrap_or(u64::MAX);
            Duration::from_millis(attempts.saturating_sub(1).saturating_mul(50).min(1_000))
        })
        .event_callback(move |event| {
            hear(&trouble, &event);
            std::future::ready(())
        });
    if let Some(path) = &settings.credentials {
        options = options.credentials_file(path).await.map_err(|error| {
            LogError::Refused(format!("the credentials {} cannot be used: {error}", path.display()))
        })?;
    }
    if let Some(path) = &settings.root_certificates {
        if let Err(error) = std::fs::metadata(path) {
            return Err(LogError::Refused(format!(
                "the certificates {}: {error}",
                path.display()
            )));
        }
        options = options.add_root_certificates(path.clone());
    }
    Ok(options)
}

/// Notes what the client tells of its connection.
fn hear(trouble: &Mutex<Trouble>, event: &Event) {
    let mut trouble = lock(trouble);
    match event {
        Event::Connected => {
            trouble.connection = None;
            trouble.told.clear();
            tracing::info!("connected to the log");
        }
        Event::Closed => tracing::debug!("the connection to the log is closed"),
        _ => {
            let text = event.to_string();
            if !trouble.told.contains(&text) {
                tracing::warn!(event = text, "connection to the log");
                if trouble.told.len() >= TOLD_MOST {
                    trouble.told.clear();
                }
                trouble.told.push(text.clone());
            }
            // A server in lame duck mode still serves, and ends the connection later.
            if !matches!(event, Event::LameDuckMode | Event::SlowConsumer(_)) {
                trouble.connection = Some(text);
            }
        }
    }
}
