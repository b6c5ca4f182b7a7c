//! Reading a stream with a pull consumer of its own, without acknowledgements. After any trouble
//! the reader is given up and another one made: the client's ordered consumer, which does so
//! itself, has hung for 18 s after a server was killed.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{Context, Message};
use futures_util::{FutureExt, StreamExt};

use crate::log::{Delivery, LogError, LogReader, Pending};

/// Without an entry the server says each second that it is there. The reader ends when two of
/// these are missing.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What may be under way at once. It is what a link of 100 ms needs for 40 MB/s, and what one of
/// 4 Mbit/s carries in the 10 s after which a server gives up a client that reads too slowly.
const BYTES_UNDER_WAY: usize = 4 << 20;
const ENTRIES_UNDER_WAY: usize = 2_000;

/// What [`LogReader::next`] returns at most.
const MOST_BYTES: usize = 1 << 20;
const MOST_ENTRIES: usize = 1_000;

pub(super) struct NatsReader {
    messages: pull::Stream,
    /// Position after the last one that was returned.
    next: u64,
    /// Came after entries that had to be returned first.
    error: Option<LogError>,
}

impl NatsReader {
    pub(super) async fn open(context: &Context, stream: &str, position: u64) -> Result<NatsReader, LogError> {
        let consumer = context
            .create_consumer_on_stream(consumer(position), stream)
            .await
            .map_err(|error| LogError::Unavailable(format!("cannot make a reader: {error}")))?;
        let messages = consumer
            .stream()
            .heartbeat(HEARTBEAT)
            .expires(Duration::from_secs(30))
            .max_messages_per_batch(ENTRIES_UNDER_WAY)
            .max_bytes_per_batch(BYTES_UNDER_WAY)
            .messages()
            .await
            .map_err(|error| LogError::Unavailable(format!("cannot read: {error}")))?;
        Ok(NatsReader {
            messages,
            next: position,
            error: None,
        })
    }

    async fn wait(&mut self) -> Result<Vec<Delivery>, LogError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut deliveries = Vec::new();
        let mut bytes = 0_usize;
        while bytes < MOST_BYTES && deliveries.len() < MOST_ENTRIES {
            let next = if deliveries.is_empty() {
                self.messages.next().await
            } else {
                match self.messages.next().now_or_never() {
                    Some(next) => next,
                    None => break,
                }
            };
            match taken(next) {
                // A consumer that has lost its place, as when its server was away, begins
                // again.
                Ok(delivery) if delivery.position < self.next => {}
                Ok(delivery) => {
                    self.next = delivery.position.saturating_add(1);
                    bytes = bytes.saturating_add(delivery.bytes.len());
                    deliveries.push(delivery);
                }
                Err(error) if deliveries.is_empty() => return Err(error),
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        Ok(deliveries)
    }
}

impl LogReader for NatsReader {
    fn next(&mut self) -> Pending<'_, Result<Vec<Delivery>, LogError>> {
        Box::pin(self.wait())
    }
}

fn consumer(position: u64) -> pull::Config {
    pull::Config {
        description: Some("a replica of embercask".into()),
        // The first sequence is 1; the server takes 0 for "not given".
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: position.max(1),
        },
        ack_policy: AckPolicy::None,
        // It ends with the server that holds it, and by itself soon after its node.
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: Duration::from_secs(30),
        ..pull::Config::default()
    }
}

type Next = Option<Result<Message, async_nats::jetstream::consumer::pull::MessagesError>>;

fn taken(next: Next) -> Result<Delivery, LogError> {
    let broken = |why: String| LogError::Unavailable(format!("the reader has ended: {why}"));
    let message = match next {
        Some(Ok(message)) => message,
        Some(Err(error)) => return Err(broken(error.to_string())),
        None => return Err(broken("the connection is closed".into())),
    };
    let info = message.info().map_err(|error| broken(error.to_string()))?;
    let position = info.stream_sequence;
    let stamp_ms = u64::try_from(info.published.unix_timestamp_nanos().max(0) / 1_000_000).unwrap_or(u64::MAX);
    Ok(Delivery {
        position,
        stamp_ms,
        bytes: message.message.payload,
    })
}
