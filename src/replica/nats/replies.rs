//! Requests, and the replies to them. The client has this as well, but never forgets a request
//! whose reply has not come, and a log without a quorum answers none for as long as it lasts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_nats::jetstream::stream::Config;
use async_nats::{Client, HeaderMap, Message, StatusCode, SubscribeError};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::lock;
use crate::log::LogError;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Message>>>>;

/// Who waits for which reply.
pub(super) struct Replies {
    inbox: String,
    next: AtomicU64,
    waiting: Waiting,
    task: JoinHandle<()>,
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forgets the request, however it ends.
struct Wait<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.number);
    }
}

impl Replies {
    pub(super) async fn new(client: &Client) -> Result<Replies, SubscribeError> {
        let inbox = client.new_inbox();
        let mut subscription = client.subscribe(format!("{inbox}.*")).await?;
        let waiting = Waiting::default();
        let task = tokio::spawn({
            let waiting = Arc::clone(&waiting);
            async move {
                while let Some(message) = subscription.next().await {
                    let number = message.subject.rsplit('.').next().and_then(|last| last.parse().ok());
                    let waiter = number.and_then(|number| lock(&waiting).remove(&number));
                    if let Some(waiter) = waiter {
                        // It may have stopped waiting.
                        let _ = waiter.send(message);
                    }
                }
            }
        });
        Ok(Replies {
            inbox,
            next: AtomicU64::new(0),
            waiting,
            task,
        })
    }

    /// Sends a message, and waits for the reply without a limit.
    pub(super) async fn request(
        &self,
        client: &Client,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Message, LogError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(number, sender);
        let _wait = Wait {
            waiting: &self.waiting,
            number,
        };
        let inbox = format!("{}.{number}", self.inbox);
        let gone = |error: &dyn std::fmt::Display| LogError::Unavailable(error.to_string());
        client
            .publish_with_reply_and_headers(subject, inbox, headers, body)
            .await
            .map_err(|error| gone(&error))?;
        let message = receiver.await.map_err(|_| gone(&"the connection has ended"))?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            let why = "the stream has no leader now, or there is no such stream";
            return Err(LogError::Unavailable(why.into()));
        }
        Ok(message)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }
}

/// The reply to a publication.
#[derive(Debug, Deserialize)]
pub(super) struct Acknowledgement {
    /// Of the entry that was appended now, or before under the same id.
    pub(super) seq: u64,
}

/// The reply to a question about a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamReply {
    pub(super) config: Config,
    pub(super) state: StreamState,
    #[serde(default)]
    pub(super) cluster: Option<StreamCluster>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamCluster {
    #[serde(default)]
    pub(super) leader: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    error: Option<ApiError>,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Another publication with this id has not been decided yet.
const DUPLICATE_IN_PROGRESS: u64 = 10_158;
const NO_STREAM: u64 = 10_059;

/// What a reply says, or `None` if it says that there is no such stream.
pub(super) fn parse_if_any<T: DeserializeOwned>(payload: &[u8]) -> Result<Option<T>, LogError> {
    match serde_json::from_slice::<Problem>(payload) {
        Ok(Problem {
            error: Some(ApiError {
                err_code: NO_STREAM, ..
            }),
        }) => Ok(None),
        _ => parse(payload).map(Some),
    }
}

/// What a reply says. Errors of the kind 4xx last; those of the kind 5xx pass.
pub(super) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, LogError> {
    let unreadable = |error| LogError::Unavailable(format!("an unreadable answer: {error}"));
    let problem: Problem = serde_json::from_slice(payload).map_err(unreadable)?;
    let Some(error) = problem.error else {
        return serde_json::from_slice(payload).map_err(unreadable);
    };
    let ApiError {
        code,
        err_code,
        description,
    } = error;
    let passes = code >= 500 || [408, 429].contains(&code) || err_code == DUPLICATE_IN_PROGRESS;
    let text = format!("{description} ({code}, {err_code})");
    Err(if passes {
        LogError::Unavailable(text)
    } else {
        LogError::Refused(text)
    })
}
