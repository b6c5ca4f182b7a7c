//! Watching a namespace over HTTP: its changes as server-sent events.
//!
//! A watcher takes no thread: the task of its connection is woken by the writes that it is told of,
//! by the next heartbeat, and when the server stops.

use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use embercask::{Event, Watch};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::error::ApiError;
use super::parse::rules::expiration_seconds;
use crate::planted::{Planted, planted};

/// Most watchers at a time: each keeps a connection, and up to 1,024 events that wait.
const WATCHERS_MAX: usize = 64;
/// So that proxies and clients notice when the other side is gone.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events are sent together up to about this many bytes.
const FRAME_BYTES: usize = 16 << 10;

/// The watchers of a server.
pub(super) struct Watchers {
    places: Arc<Semaphore>,
}

impl Default for Watchers {
    fn default() -> Watchers {
        Watchers {
            places: Arc::new(Semaphore::new(WATCHERS_MAX)),
        }
    }
}

impl Watchers {
    /// How many there are.
    pub(super) fn number(&self) -> i64 {
        let taken = WATCHERS_MAX.saturating_sub(self.places.available_permits());
        i64::try_from(taken).unwrap_or(i64::MAX)
    }

    /// A place for one more, taken until it is dropped.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("there are {WATCHERS_MAX} watchers, and may be no more; end one of them");
            ApiError::new(503, 10001, message)
        })
    }
}

/// The body of a response: events until the namespace is dropped, the server stops, or the client
/// is gone.
pub(super) struct Events {
    watch: Watch,
    /// Sent first.
    greeting: Option<Bytes>,
    heartbeat: Interval,
    stopping: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    is_over: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Events {
    /// Must be called on the runtime.
    pub(super) fn new(
        watch: Watch,
        heartbeat: Duration,
        mut closing: watch::Receiver<bool>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Events {
        let greeting = text("watching", &json!({ "sequence": watch.sequence() }));
        let mut heartbeat = interval_at(Instant::now() + heartbeat, heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Events {
            watch,
            greeting: Some(greeting.into()),
            heartbeat,
            stopping: Box::pin(async move {
                // An error means that the server is gone.
                let _ = closing.wait_for(|is_closing| *is_closing).await;
            }),
            is_over: false,
            _place: place,
        }
    }

    /// The next bytes; None at the end.
    pub(super) fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(greeting) = self.greeting.take() {
            return Poll::Ready(Some(greeting));
        }
        // Not asked again once it has said so.
        self.is_over = self.is_over || !planted(Planted::WatchOn) && self.stopping.as_mut().poll(context).is_ready();
        if self.is_over {
            return Poll::Ready(None);
        }
        match self.watch.poll_next(context) {
            Poll::Ready(Some(event)) => {
                self.heartbeat.reset();
                return Poll::Ready(Some(self.together(&event)));
            }
            Poll::Ready(None) => {
                self.is_over = true;
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        self.heartbeat
            .poll_tick(context)
            .map(|_| Some(Bytes::from_static(b":\n\n")))
    }

    /// An event, and those that wait behind it.
    fn together(&mut self, event: &Event) -> Bytes {
        let mut all = shown(event);
        while all.len() < FRAME_BYTES
            && let Some(event) = self.watch.try_next()
        {
            all.push_str(&shown(&event));
        }
        all.into()
    }
}

/// An event as text.
fn shown(event: &Event) -> String {
    let mut data = Map::new();
    if let Some(key) = event.key() {
        match std::str::from_utf8(key) {
            Ok(key) => data.insert("key".to_owned(), key.into()),
            Err(_) => data.insert("key_base64".to_owned(), BASE64_STANDARD.encode(key).into()),
        };
    }
    let number = if matches!(event, Event::Missed { .. }) {
        "up_to"
    } else {
        "sequence"
    };
    data.insert(number.to_owned(), event.sequence().into());
    let name = match event {
        Event::Put { expiry_ms, .. } => {
            if let Some(expiry_ms) = expiry_ms {
                data.insert("expiration".to_owned(), expiration_seconds(*expiry_ms).into());
            }
            "put"
        }
        Event::Delete { .. } => "delete",
        Event::Expired { .. } => "expire",
        Event::Dropped { .. } => "dropped",
        Event::Missed { .. } => "missed",
        // A kind that a later version of the store tells: the client must read the namespace again.
        _ => "missed",
    };
    text(name, &Value::Object(data))
}

fn text(name: &str, data: &Value) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail. JSON has no line breaks of its own.
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
    text
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use embercask::{Namespace, PutOptions, Store, WatchOptions};

    use super::*;

    struct Watched {
        namespace: Namespace,
        events: Events,
        closing: watch::Sender<bool>,
        _store: Store,
    }

    impl Watched {
        fn new(capacity: usize, heartbeat: Duration) -> Watched {
            let store = Store::in_memory().unwrap();
            let namespace = store.namespace("N").unwrap();
            let watched = namespace
                .watch_with("", WatchOptions::new().capacity(capacity))
                .unwrap();
            let (closing, is_closing) = watch::channel(false);
            Watched {
                namespace,
                events: Events::new(watched, heartbeat, is_closing, None),
                closing,
                _store: store,
            }
        }

        /// What can be sent now; None at the end.
        fn now(&mut self) -> Poll<Option<String>> {
            let polled = self.events.poll_bytes(&mut Context::from_waker(Waker::noop()));
            polled.map(|bytes| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
        }

        fn sent(&mut self) -> String {
            match self.now() {
                Poll::Ready(Some(sent)) => sent,
                other => panic!("{other:?}"),
            }
        }
    }

    fn on_runtime(test: impl FnOnce()) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().unwrap();
        let _entered = runtime.enter();
        test();
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn each_change_is_an_event_with_its_key_and_sequence() {
        on_runtime(|| {
            let mut at = Watched::new(10, HOUR);
            let greeting = at.sent();
            assert!(
                greeting.starts_with("event: watching\ndata: {\"sequence\":"),
                "{greeting}"
            );
            assert!(at.now().is_pending());
            let options = PutOptions::new().expires_at_ms(4_000_000_000_001);
            let first = at.namespace.put_with("a\nb", "v", options).unwrap();
            let second = at.namespace.put([0xff], "v").unwrap();
            at.namespace.delete("a\nb").unwrap();
            let expected = format!(
                "event: put\ndata: {{\"expiration\":4000000001,\"key\":\"a\\nb\",\"sequence\":{first}}}\n\n\
                 event: put\ndata: {{\"key_base64\":\"/w==\",\"sequence\":{second}}}\n\n\
                 event: delete\ndata: {{\"key\":\"a\\nb\",\"sequence\":{}}}\n\n",
                second + 1
            );
            assert_eq!(at.sent(), expected);
            assert!(at.now().is_pending());
            let (store, name) = (at.namespace.store().clone(), at.namespace.name());
            store.drop_namespace(&name).unwrap();
            assert!(at.sent().starts_with("event: dropped\n"));
            assert_eq!(at.now(), Poll::Ready(None));
        });
    }

    #[test]
    fn a_watcher_that_is_too_slow_is_told_that_it_has_missed_some() {
        on_runtime(|| {
            let mut at = Watched::new(1, HOUR);
            at.sent();
            let first = at.namespace.put("a", "v").unwrap();
            at.namespace.put("b", "v").unwrap();
            let last = at.namespace.put("c", "v").unwrap();
            let expected = format!(
                "event: put\ndata: {{\"key\":\"a\",\"sequence\":{first}}}\n\nevent: missed\ndata: {{\"up_to\":{last}}}\n\n"
            );
            assert_eq!(at.sent(), expected);
            at.namespace.put("d", "v").unwrap();
            assert!(at.sent().contains("\"d\""));
        });
    }

    #[test]
    fn watching_ends_when_the_server_stops() {
        on_runtime(|| {
            let mut at = Watched::new(10, HOUR);
            at.sent();
            assert!(at.now().is_pending());
            at.namespace.put("a", "v").unwrap();
            at.closing.send_replace(true);
            assert_eq!(at.now(), Poll::Ready(None));
            assert_eq!(at.now(), Poll::Ready(None));
        });
    }

    #[test]
    fn a_comment_is_sent_while_there_is_nothing_to_tell() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap().block_on(async {
            let mut at = Watched::new(10, Duration::from_millis(1));
            at.sent();
            for _ in 0..2 {
                let sent = std::future::poll_fn(|context| at.events.poll_bytes(context)).await;
                assert_eq!(sent.unwrap(), ":\n\n");
            }
        });
    }
}
