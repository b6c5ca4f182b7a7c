//! Making the stream of a log, and checking one that is there.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType};
use bytes::Bytes;

use super::NatsLog;
use super::replies::StreamReply;
use super::sync::{self, ServerReport, Syncing};
use crate::log::LogError;

/// Retries of a publication come within this time, so the log must know them for as long.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The shortest time after which a log may drop entries: a node that is away for longer has to be
/// seeded again.
const SHORTEST_AGE: Duration = Duration::from_secs(3_600);

/// An entry, with some room.
const LARGEST_MESSAGE: i32 = 600 << 10;

/// Making a stream waits for an election.
const CREATING: Duration = Duration::from_secs(20);

/// What a stream is to be like.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// On how many servers it is kept: three, unless it is for trying out.
    pub replicas: usize,
    /// How long it keeps entries.
    pub max_age: Duration,
    /// Addresses of the servers' monitoring, as `10.0.0.1:8222`. If empty, port 8222 of each.
    pub monitors: Vec<String>,
    /// Takes servers that do not sync before they acknowledge.
    pub any_syncing: bool,
}

impl Default for StreamPlan {
    fn default() -> StreamPlan {
        StreamPlan {
            replicas: 3,
            max_age: Duration::from_secs(7 * 24 * 3_600),
            monitors: Vec::new(),
            any_syncing: false,
        }
    }
}

/// A stream that can be the log.
#[derive(Clone, Debug)]
pub struct StreamReport {
    /// Whether it was made now.
    pub is_new: bool,
    /// On how many servers it is kept.
    pub replicas: usize,
    /// How long it keeps entries.
    pub max_age: Duration,
    /// How many entries it holds.
    pub entries: u64,
    /// Position of the last entry ever.
    pub last: u64,
    /// What the servers say about syncing, or that they could not be asked.
    pub servers: Vec<ServerReport>,
}

impl NatsLog {
    /// Makes the stream, or checks the one that is there.
    ///
    /// # Errors
    /// If the stream or a server has settings with which acknowledged entries can be lost; the text
    /// names all that differs. If the log is not available.
    pub async fn prepare_stream(&self, plan: &StreamPlan) -> Result<StreamReport, LogError> {
        if plan.max_age < SHORTEST_AGE {
            return Err(LogError::Refused("a log must keep entries for an hour at least".into()));
        }
        let servers = self.check_servers(plan).await?;
        let (reply, is_new) = match self.ask("STREAM.INFO", Bytes::new(), self.limit).await? {
            Some(reply) => (reply, false),
            None => (self.create(plan).await?, true),
        };
        let wrong = differences(&reply.config, &self.stream, plan);
        if !wrong.is_empty() {
            return Err(LogError::Refused(format!(
                "the stream {} is not fit for a log: {}",
                self.stream,
                wrong.join("; ")
            )));
        }
        Ok(StreamReport {
            is_new,
            replicas: reply.config.num_replicas,
            max_age: reply.config.max_age,
            entries: reply.state.messages,
            last: reply.state.last_seq,
            servers,
        })
    }

    /// Deletes the stream with all entries. All nodes must be seeded again afterwards.
    ///
    /// # Errors
    /// If there is no such stream, or the log is not available.
    pub async fn delete_stream(&self) -> Result<(), LogError> {
        #[derive(serde::Deserialize)]
        struct Deleted {
            success: bool,
        }
        match self.ask("STREAM.DELETE", Bytes::new(), CREATING).await? {
            Some(Deleted { success: true }) => Ok(()),
            Some(_) => Err(LogError::Unavailable("the stream was not deleted".into())),
            None => Err(self.no_stream()),
        }
    }

    /// Name of the server that leads the stream now.
    ///
    /// # Errors
    /// If the log is not available.
    pub async fn leader(&self) -> Result<Option<String>, LogError> {
        Ok(self.info().await?.cluster.and_then(|cluster| cluster.leader))
    }

    async fn create(&self, plan: &StreamPlan) -> Result<StreamReply, LogError> {
        let body = serde_json::to_vec(&config(&self.stream, plan))
            .map_err(|error| LogError::Refused(format!("cannot write the settings of a stream: {error}")))?;
        let created = self.ask("STREAM.CREATE", body.into(), CREATING).await?;
        created.ok_or_else(|| self.no_stream())
    }

    async fn check_servers(&self, plan: &StreamPlan) -> Result<Vec<ServerReport>, LogError> {
        let monitors = if plan.monitors.is_empty() {
            sync::usual_monitors(&self.servers)
        } else {
            plan.monitors.clone()
        };
        let servers = sync::ask(&monitors, self.limit).await;
        let lazy: Vec<String> = servers
            .iter()
            .filter(|server| matches!(server.syncing, Syncing::Each(_)))
            .map(ToString::to_string)
            .collect();
        if !lazy.is_empty() && !plan.any_syncing {
            return Err(LogError::Refused(format!(
                "{}: set `sync_interval: always` in the section `jetstream` of its configuration",
                lazy.join("; ")
            )));
        }
        Ok(servers)
    }
}

pub(super) fn config(stream: &str, plan: &StreamPlan) -> Config {
    Config {
        name: stream.into(),
        subjects: vec![stream.into()],
        description: Some("the log of a group of embercask nodes".into()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        num_replicas: plan.replicas,
        max_age: plan.max_age,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        max_consumers: -1,
        max_message_size: -1,
        duplicate_window: DUPLICATE_WINDOW,
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    }
}

/// What is wrong with a stream, each as "what it is, what it must be".
pub(super) fn differences(found: &Config, stream: &str, plan: &StreamPlan) -> Vec<String> {
    let mut wrong = kind_differences(found, stream);
    wrong.extend(limit_differences(found, plan));
    wrong.extend(switch_differences(found));
    wrong
}

/// What is said of the checks that do not hold.
fn failed<const N: usize>(checks: [(bool, String); N]) -> impl Iterator<Item = String> {
    let failed = checks.into_iter().filter(|(holds, _)| !holds);
    failed.map(|(_, what)| what)
}

fn kind_differences(found: &Config, stream: &str) -> Vec<String> {
    let subjects = format!("its subjects are {:?}, not {stream:?} alone", found.subjects);
    let retention = format!("its retention is {:?}, not Limits", found.retention);
    let no_source = found.mirror.is_none() && found.sources.as_ref().is_none_or(Vec::is_empty);
    failed([
        (found.subjects == [stream], subjects),
        (
            found.storage == StorageType::File,
            "it is kept in memory, not in files".into(),
        ),
        (found.retention == RetentionPolicy::Limits, retention),
        (no_source, "it has a mirror or sources".into()),
        (
            found.subject_transform.is_none(),
            "it changes subjects: subject_transform is set".into(),
        ),
        (
            found.persist_mode != Some(PersistenceMode::Async),
            "it acknowledges before it stores: persist_mode is async".into(),
        ),
    ])
    .collect()
}

fn limit_differences(found: &Config, plan: &StreamPlan) -> Vec<String> {
    let unlimited = |name: &str, limit: i64| (limit <= 0, format!("{name} is {limit}, not unlimited"));
    let replicas = format!("it has {} replicas, not {}", found.num_replicas, plan.replicas);
    let age = format!(
        "it keeps entries for {:?} only, not for an hour at least",
        found.max_age
    );
    let window = format!(
        "its duplicate window is {:?}, not 2 minutes at least",
        found.duplicate_window
    );
    let size = format!(
        "max_msg_size is {}, not {LARGEST_MESSAGE} at least",
        found.max_message_size
    );
    failed([
        (found.num_replicas >= plan.replicas, replicas),
        (found.max_age.is_zero() || found.max_age >= SHORTEST_AGE, age),
        (found.duplicate_window >= DUPLICATE_WINDOW, window),
        unlimited("max_msgs", found.max_messages),
        unlimited("max_msgs_per_subject", found.max_messages_per_subject),
        (
            found.max_message_size <= 0 || found.max_message_size >= LARGEST_MESSAGE,
            size,
        ),
        (
            found.first_sequence.unwrap_or(0) <= 1,
            "it does not begin at 1: first_seq is set".into(),
        ),
    ])
    .collect()
}

fn switch_differences(found: &Config) -> Vec<String> {
    let off = |name: &str, is_set: bool, why: &str| (!is_set, format!("{why}: {name} is set"));
    failed([
        (
            found.deny_delete,
            "entries can be deleted: deny_delete is not set".into(),
        ),
        off("no_ack", found.no_ack, "publications are not acknowledged"),
        off("sealed", found.sealed, "it takes nothing more"),
        off("allow_rollup_hdrs", found.allow_rollup, "entries can be rolled up"),
        off(
            "allow_msg_ttl",
            found.allow_message_ttl,
            "entries can expire one by one",
        ),
        off(
            "allow_msg_counter",
            found.allow_message_counter,
            "it counts instead of storing",
        ),
        off(
            "allow_msg_schedules",
            found.allow_message_schedules,
            "entries can be put off",
        ),
    ])
    .collect()
}
