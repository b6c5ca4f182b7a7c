//! Whether the servers of the log sync what they acknowledge. Their monitoring tells; the protocol
//! of clients does not.

use std::fmt;
use std::time::Duration;

use async_nats::ServerAddr;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What could be found out about a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReport {
    /// Address of its monitoring.
    pub monitor: String,
    /// Its name and its version, where it told them.
    pub name: Option<String>,
    /// When it syncs.
    pub syncing: Syncing,
}

/// When a server syncs its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syncing {
    /// Before it acknowledges.
    Always,
    /// Now and then: a power cut takes what it had acknowledged.
    Each(Duration),
    /// It could not be asked, for this reason.
    Unknown(String),
}

impl fmt::Display for ServerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("server");
        match &self.syncing {
            Syncing::Always => write!(f, "{name} ({}) syncs always", self.monitor),
            Syncing::Each(interval) => {
                write!(f, "{name} ({}) syncs each {} s only", self.monitor, interval.as_secs())
            }
            Syncing::Unknown(why) => {
                write!(
                    f,
                    "{name} ({}): could not find out whether it syncs always: {why}",
                    self.monitor
                )
            }
        }
    }
}

/// Monitoring of the servers where it usually is.
pub(super) fn usual_monitors(servers: &[ServerAddr]) -> Vec<String> {
    let host = |server: &ServerAddr| match server.host() {
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]:8222"),
        host => format!("{host}:8222"),
    };
    servers.iter().map(host).collect()
}

/// Asks all monitors, each for as long as `limit`.
pub(super) async fn ask(monitors: &[String], limit: Duration) -> Vec<ServerReport> {
    let mut reports = Vec::new();
    for monitor in monitors {
        let asked = tokio::time::timeout(limit, get(monitor)).await;
        let variables = match asked {
            Ok(Ok(body)) => read(&body),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {limit:?}")),
        };
        reports.push(match variables {
            Ok((name, syncing)) => ServerReport {
                monitor: monitor.clone(),
                name: Some(name),
                syncing,
            },
            Err(why) => ServerReport {
                monitor: monitor.clone(),
                name: None,
                syncing: Syncing::Unknown(why),
            },
        });
    }
    reports
}

/// `GET /varz`, which is some kilobytes long.
async fn get(monitor: &str) -> std::io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(monitor).await?;
    let request = format!("GET /varz HTTP/1.0\r\nHost: {monitor}\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.take(1 << 20).read_to_end(&mut answer).await?;
    Ok(answer)
}

#[derive(Deserialize)]
struct Variables {
    server_name: String,
    version: String,
    #[serde(default)]
    jetstream: JetStream,
}

#[derive(Default, Deserialize)]
struct JetStream {
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
    /// In nanoseconds.
    #[serde(default)]
    sync_interval: u64,
}

/// Name, version and habit of a server from an answer of its monitoring.
pub(super) fn read(answer: &[u8]) -> Result<(String, Syncing), String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or("its answer is not one of monitoring")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(format!("it answers {status:?}"));
    }
    let variables: Variables =
        serde_json::from_str(body).map_err(|error| format!("its answer is not one of monitoring: {error}"))?;
    let config = variables.jetstream.config.ok_or("it does not have JetStream")?;
    let syncing = if config.sync_always {
        Syncing::Always
    } else {
        Syncing::Each(Duration::from_nanos(config.sync_interval))
    };
    Ok((format!("{} {}", variables.server_name, variables.version), syncing))
}
