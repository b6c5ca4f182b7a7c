//! A server whose store is a replica: its writes go through the log that all replicas share, and
//! its reads are answered by the store, which knows the position in the log that it has applied.
//!
//! Without the table `[replica]` there is no [`Replica`], and nothing here runs.

pub(super) mod checkpoint;
mod many;
mod names;
pub(super) mod report;
mod start;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use embercask_replica::entry::{Lifetime, Operation, Outcome};
use embercask_replica::node::Node;
use embercask_replica::writer::WriteError;
use hyper::HeaderMap;
use hyper::header::HeaderName;

use checkpoint::Sending;

pub(super) use start::{create_namespaces, refuse_replica};

use super::error::ApiError;
use super::parse::rules::Expiration;
use super::response::{ApiResponse, set_header};

/// What a request wants to have been applied before it is answered.
const MIN_POSITION: HeaderName = HeaderName::from_static("x-embercask-min-position");
/// What has been applied when a request is answered; of a write, its own entry.
const POSITION: &str = "x-embercask-position";
/// How old what the replica shows may be, in milliseconds: [`Node::age`].
const AGE: &str = "x-embercask-age-ms";

tokio::task_local! {
    /// The position of what the request has written; 0 if it has written nothing.
    static WRITTEN: Cell<u64>;
}

/// This server's part in a cluster of replicas.
pub(super) struct Replica {
    pub(super) node: Arc<Node>,
    /// How long a read waits for a position.
    read_wait: Duration,
    cluster: u128,
    sending: Sending,
}

/// The position and the age that a response tells.
struct Place {
    position: u64,
    age: Duration,
}

impl Replica {
    /// Writes, and returns what has become of each operation once this node has applied them.
    async fn write(&self, operations: Vec<Operation>) -> Result<Vec<Outcome>, ApiError> {
        let written = self.node.write(operations).await.map_err(refused)?;
        // Not on a task of a request when the server itself writes.
        let _ = WRITTEN.try_with(|position| position.set(written.position));
        Ok(written.outcomes)
    }

    /// As [`Replica::write`], of one operation.
    pub(super) async fn write_one(&self, operation: Operation) -> Result<Outcome, ApiError> {
        let outcomes = self.write(vec![operation]).await?;
        let outcome = outcomes.into_iter().next();
        outcome.ok_or_else(|| ApiError::new(500, 10001, "internal error"))
    }

    /// Answers a request when the position that it names is applied, and adds the headers that tell
    /// where this replica is. What a read sees is at least as new as they say.
    pub(super) async fn answer<T, E>(
        &self,
        answering: impl Future<Output = Result<(T, ApiResponse), E>>,
    ) -> Result<(T, ApiResponse), E> {
        let before = self.place();
        let run = async {
            let answered = answering.await;
            (WRITTEN.with(Cell::get), answered)
        };
        let (written, answered) = WRITTEN.scope(Cell::new(0), run).await;
        answered.map(|(operation, mut response)| {
            let position = if written > 0 { written } else { before.position };
            set_header(&mut response, POSITION, position.to_string().as_bytes());
            set_header(&mut response, AGE, before.age.as_millis().to_string().as_bytes());
            (operation, response)
        })
    }

    /// Waits until the position is applied that the head of a request names, if it names one.
    pub(super) async fn wait(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(named) = headers.get(&MIN_POSITION) else {
            return Ok(());
        };
        let position = named.to_str().ok().and_then(|text| text.trim().parse().ok());
        let position = position.ok_or_else(|| {
            let message = format!("{MIN_POSITION} must be a position, as {POSITION} of a response tells it");
            ApiError::new(400, 10001, message)
        })?;
        if self.node.wait_for(position, self.read_wait).await {
            return Ok(());
        }
        let message = format!(
            "this replica has applied position {}, and not yet {position}; try again",
            self.node.position()
        );
        Err(ApiError::new(503, 10001, message))
    }

    fn place(&self) -> Place {
        Place {
            position: self.node.position(),
            age: self.node.age(),
        }
    }
}

/// When a put expires that names this, or nothing.
pub(super) fn lifetime(expiration: Option<Expiration>) -> Lifetime {
    match expiration {
        None => Lifetime::Default,
        Some(Expiration::After(ttl)) => Lifetime::After(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        Some(Expiration::At(seconds)) => Lifetime::At(seconds.saturating_mul(1000)),
    }
}

/// The expiry of what was done, or the error of what was not. Those of conditions are for who knows
/// them.
pub(super) fn done(outcome: Outcome) -> Result<Option<u64>, ApiError> {
    match outcome {
        Outcome::Done { expiry_ms } => Ok(expiry_ms),
        Outcome::NotMet { .. } => Err(ApiError::new(412, 10412, "Precondition Failed")),
        Outcome::NoNamespace => Err(ApiError::new(404, 10013, "namespace not found")),
        Outcome::NameTaken => Err(ApiError::name_taken()),
        Outcome::Invalid => Err(ApiError::new(400, 10001, "the store takes no such key, value or name")),
    }
}

/// The error of a write of which the outcome is not known, or which was not done: the texts say
/// which.
fn refused(error: WriteError) -> ApiError {
    let status = match &error {
        WriteError::TooLong(_) => 413,
        WriteError::Mixed => 500,
        WriteError::QueueFull
        | WriteError::TimedOut
        | WriteError::TooLate
        | WriteError::Incomplete
        | WriteError::Refused(_)
        | WriteError::Stopped => 503,
    };
    ApiError::new(status, 10001, error.to_string())
}

fn not_a_replica() -> ApiError {
    ApiError::new(409, 10001, "this server is not a replica: it has no table [replica]")
}

#[cfg(test)]
pub(crate) mod tests;
