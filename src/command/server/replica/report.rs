//! What a replica tells of itself: whether it is ready, its status, its metrics.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use embercask_replica::content;
use embercask_replica::node::{Doing, Status};
use embercask_replica::state::StateError;
use serde_json::{Value, json};

use super::{Replica, not_a_replica};
use crate::server::blocking::blocking;
use crate::server::error::ApiError;
use crate::server::shared::Shared;

/// A clock that differs from log time by more is told.
const CLOCK_DIFFERENCE_MS_MAX: u64 = 5_000;
/// How long a digest waits for its position: until the next beat, and more.
const POSITION_WITHIN: Duration = Duration::from_secs(15);

impl Replica {
    /// Why it is not ready; None if it is.
    pub(in crate::server) fn unready(&self) -> Option<String> {
        self.node
            .status()
            .not_ready
            .map(|why| format!("the replica is not ready: {why}"))
    }

    /// What does not keep it from being ready, and should be known.
    pub(in crate::server) fn remark(&self) -> Option<String> {
        let difference_ms = self.clock_difference_ms(&self.node.status())?;
        (difference_ms.unsigned_abs() > CLOCK_DIFFERENCE_MS_MAX).then(|| {
            let (seconds, side) = (difference_ms.unsigned_abs() / 1000, side(difference_ms));
            format!("the clock of this machine is {seconds} s {side} log time, by which the replica goes")
        })
    }

    /// By how much the clock of this machine is ahead of log time; None while entries do not come
    /// as they are written, and log time here is not that of the log.
    fn clock_difference_ms(&self, status: &Status) -> Option<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).ok()?;
        let log_ms = i64::try_from(self.node.now_ms()).ok()?;
        (status.doing == Doing::Following).then(|| now_ms.saturating_sub(log_ms))
    }

    /// Metrics as text.
    pub(in crate::server) fn metrics(&self) -> String {
        let status = self.node.status();
        let mut text = String::new();
        let mut add = |kind: &str, (name, help, number): Metric| {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "# HELP embercask_replica_{name} {help}\n# TYPE embercask_replica_{name} {kind}\n\
                 embercask_replica_{name} {number}"
            );
        };
        gauges(&status).into_iter().for_each(|metric| add("gauge", metric));
        if let Some(difference_ms) = self.clock_difference_ms(&status) {
            let help = "By how much the clock of this machine is ahead of log time";
            add(
                "gauge",
                ("clock_difference_seconds", help, difference_ms as f64 / 1000.0),
            );
        }
        counters(&status).into_iter().for_each(|metric| add("counter", metric));
        text
    }
}

/// Name, description and number of a metric.
type Metric = (&'static str, &'static str, f64);

fn gauges(status: &Status) -> Vec<Metric> {
    let (first, last) = status.log.map_or((0, 0), |log| (log.first, log.last));
    let lag = last.saturating_sub(status.position);
    let truth = |is_true| f64::from(u8::from(is_true));
    vec![
        (
            "position",
            "Last position of the log that is applied",
            status.position as f64,
        ),
        ("log_first", "First position that the log keeps", first as f64),
        (
            "log_last",
            "Last position of the log, when it was asked last",
            last as f64,
        ),
        ("lag_entries", "Entries of the log that are not applied yet", lag as f64),
        (
            "log_missing_entries",
            "Entries that the log has lost between its first and its last",
            status.missing as f64,
        ),
        (
            "age_seconds",
            "Time since the last entry came",
            status.age.as_secs_f64(),
        ),
        (
            "queued_operations",
            "Operations that wait for the log",
            status.held as f64,
        ),
        ("ready", "Whether it is ready", truth(status.not_ready.is_none())),
        (
            "needs_seed",
            "Whether it must be seeded again, or given its old log back",
            truth(status.misfit.is_some()),
        ),
        (
            "disagrees",
            "Whether half of the other replicas have applied something else",
            truth(status.disagrees),
        ),
    ]
}

fn counters(status: &Status) -> Vec<Metric> {
    vec![
        (
            "gaps_total",
            "Readers given up because an entry was missing",
            status.gaps as f64,
        ),
        (
            "damaged_total",
            "Readers given up because an entry was damaged or foreign",
            status.damaged as f64,
        ),
        (
            "failures_total",
            "Readers given up because the log failed or was silent",
            status.failed as f64,
        ),
        (
            "refusals_total",
            "Times that the store refused an entry",
            status.refused as f64,
        ),
    ]
}

fn side(difference_ms: i64) -> &'static str {
    if difference_ms > 0 { "ahead of" } else { "behind" }
}

fn doing(doing: Doing) -> &'static str {
    match doing {
        Doing::Starting => "starting",
        Doing::CatchingUp => "catching up",
        Doing::Following => "following",
        Doing::Waiting => "waiting",
        Doing::Stopped => "stopped",
    }
}

/// The status as JSON.
pub(in crate::server) fn status(shared: &Shared) -> Result<Value, ApiError> {
    let replica = shared.replica.as_ref().ok_or_else(not_a_replica)?;
    let status = replica.node.status();
    let trouble = status.trouble.as_ref();
    Ok(json!({
        "cluster": format!("{:032x}", replica.cluster),
        "doing": doing(status.doing),
        "ready": status.not_ready.is_none(),
        "why_not": status.not_ready,
        "position": status.position,
        "log_first": status.log.map(|log| log.first),
        "log_last": status.log.map(|log| log.last),
        "log_missing": status.missing,
        "log_ms": status.log_ms,
        "age_ms": u64::try_from(status.age.as_millis()).unwrap_or(u64::MAX),
        "clock_difference_ms": replica.clock_difference_ms(&status),
        "queued_operations": status.held,
        "gaps": status.gaps,
        "damaged": status.damaged,
        "failures": status.failed,
        "refusals": status.refused,
        "trouble": trouble.map(|(what, _)| what),
        "trouble_seconds": trouble.map(|(_, since)| since.as_secs()),
        "disagrees": status.disagrees,
    }))
}

/// A digest of all that clients can see here, at the position named if it is the next one that this
/// replica applies. Reads everything.
pub(in crate::server) async fn digest(
    shared: &Arc<Shared>,
    position: Option<u64>,
    horizon_ms: u64,
) -> Result<Value, ApiError> {
    let replica = shared.replica.as_ref().ok_or_else(not_a_replica)?;
    if let Some(position) = position
        && !replica.node.wait_for(position, POSITION_WITHIN).await
    {
        let message = format!(
            "position {position} was not applied within {} s",
            POSITION_WITHIN.as_secs()
        );
        return Err(ApiError::new(503, 10001, message));
    }
    let asked = Arc::clone(shared);
    blocking(move || {
        let content = content::digest(&asked.store, horizon_ms).map_err(|error| match error {
            StateError::Store(error) => error.into(),
            error => ApiError::new(500, 10001, error.to_string()),
        })?;
        Ok(json!({
            "cluster": format!("{:032x}", content.state.cluster),
            "position": content.state.position,
            "digest": content.digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "namespaces": content.namespaces,
            "keys": content.keys,
        }))
    })
    .await
}
