//! The settings of a replica: the table `[replica]`, and the flags that begin with `--replica-`.

#[cfg(feature = "replica")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

#[cfg(feature = "replica")]
use super::File;
use super::seconds;
use crate::common::failure::{Failure, Outcome};
#[cfg(feature = "replica")]
use crate::server::arguments::LogFlags;
use crate::server::arguments::ReplicaFlags;

const WRITE_TIMEOUT_SECONDS_DEFAULT: u64 = 10;
const READ_WAIT_SECONDS_DEFAULT: u64 = 2;
const STALE_AFTER_SECONDS_DEFAULT: u64 = 10;

/// The table of the file. Its settings have the names of the flags, without `replica`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReplicaTable {
    log: Option<String>,
    servers: Option<Vec<String>>,
    credentials: Option<PathBuf>,
    certificates: Option<PathBuf>,
    write_timeout_seconds: Option<u64>,
    read_wait_seconds: Option<u64>,
    stale_after_seconds: Option<u64>,
}

/// Where the log is that all replicas share, and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaSettings {
    /// The name of its stream.
    pub(crate) log: String,
    /// URLs of its servers.
    pub(crate) servers: Vec<String>,
    /// The file with which this client identifies itself.
    pub(crate) credentials: Option<PathBuf>,
    /// Certificates to trust beside those of the system.
    pub(crate) certificates: Option<PathBuf>,
    /// A write that is not applied after this time is answered with 503.
    pub(crate) write_timeout: Duration,
    /// How long a request waits for the position that it names.
    pub(crate) read_wait: Duration,
    /// When nothing has come from the log for this long, the server is not ready.
    pub(crate) stale_after: Duration,
}

impl ReplicaSettings {
    #[cfg(feature = "replica")]
    /// Those of a configuration file and flags, for commands that need the log and no server; with
    /// the store that the file names.
    pub(crate) fn read(config: Option<&Path>, log: &LogFlags) -> Outcome<(Option<PathBuf>, Option<Self>)> {
        let file = config.map_or(Ok(File::default()), super::read)?;
        let flags = ReplicaFlags {
            log: log.clone(),
            ..ReplicaFlags::default()
        };
        Ok((file.store, ReplicaSettings::of(file.replica, &flags)?))
    }

    /// Merges table and flags; None if there are neither.
    pub(super) fn of(table: Option<ReplicaTable>, flags: &ReplicaFlags) -> Outcome<Option<ReplicaSettings>> {
        if table.is_none() && flags.are_none() {
            return Ok(None);
        }
        let table = table.unwrap_or_default();
        let servers = match &flags.log.replica_servers[..] {
            [] => table.servers.unwrap_or_default(),
            given => given.to_vec(),
        };
        let log = flags.log.replica_log.clone().or(table.log).unwrap_or_default();
        if log.is_empty() || servers.is_empty() {
            return Err(Failure::usage(
                "a replica needs to know its log",
                "give the settings log and servers in the table [replica], or --replica-log and --replica-servers",
            ));
        }
        Ok(Some(ReplicaSettings {
            log,
            servers,
            credentials: flags.log.replica_credentials.clone().or(table.credentials),
            certificates: flags.log.replica_certificates.clone().or(table.certificates),
            write_timeout: seconds(
                flags.replica_write_timeout_seconds.or(table.write_timeout_seconds),
                WRITE_TIMEOUT_SECONDS_DEFAULT,
            ),
            read_wait: seconds(
                flags.replica_read_wait_seconds.or(table.read_wait_seconds),
                READ_WAIT_SECONDS_DEFAULT,
            ),
            stale_after: seconds(
                flags.replica_stale_after_seconds.or(table.stale_after_seconds),
                STALE_AFTER_SECONDS_DEFAULT,
            ),
        }))
    }
}
