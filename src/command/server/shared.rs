//! The state shared by all connections.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use embercask::{Durability, ErrorKind, Namespace, PutOptions, Store};
use tokio::sync::watch;

use super::access::Tokens;
use super::administration::Administration;
use super::error::ApiError;
use super::limits::NamespaceLimits;
use super::memory::BodyMemory;
use super::metrics::Metrics;
use super::parse::rules::{Expiration, ExpiryRules, TTL_SECONDS_MIN};
#[cfg(unix)]
use super::permissions;
use super::readiness;
use super::reload::CurrentTokens;
use super::replica::Replica;
use super::watching::Watchers;
use crate::common::parse::parse_id;
use crate::common::reserved::is_reserved;

/// What has not expired for readers. The store hides what has expired by its own clock; that of a
/// replica stands still while no entry comes, and then readers see less.
#[derive(Clone, Copy)]
pub(super) struct Unexpired(Option<u64>);

impl Unexpired {
    /// Whether readers see what has this expiry, and what the store shows.
    pub(super) fn has(self, expiry_ms: Option<u64>) -> bool {
        match (self.0, expiry_ms) {
            (Some(now_ms), Some(expiry_ms)) => expiry_ms > now_ms,
            _ => true,
        }
    }

    /// Whether the store hides all that has expired.
    pub(super) fn is_of_store(self) -> bool {
        self.0.is_none()
    }
}

/// The state shared by all connections.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) tokens: CurrentTokens,
    pub(super) durability: Durability,
    pub(super) metrics: Metrics,
    pub(super) body_memory: BodyMemory,
    /// Held while names of namespaces change, so that an id refers to one namespace from look-up to
    /// change.
    pub(super) names: Mutex<()>,
    pub(super) namespace_limits: NamespaceLimits,
    pub(super) administration: Administration,
    /// Shortest lifetime of a put.
    ttl_seconds_min: u64,
    pub(super) watchers: Watchers,
    /// Where writes go instead of the store, if the store is a replica.
    pub(super) replica: Option<Replica>,
    closing: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(
        store: Store,
        tokens: Tokens,
        durability: Durability,
        body_memory_bytes: usize,
        body_timeout: Duration,
    ) -> Shared {
        Shared {
            store,
            tokens: CurrentTokens::new(tokens),
            durability,
            metrics: Metrics::new(),
            body_memory: BodyMemory::new(body_memory_bytes, body_timeout),
            names: Mutex::new(()),
            namespace_limits: NamespaceLimits::default(),
            administration: Administration::default(),
            ttl_seconds_min: TTL_SECONDS_MIN,
            watchers: Watchers::default(),
            replica: None,
            closing: watch::Sender::new(false),
        }
    }

    pub(super) fn with_namespace_limits(self, namespace_limits: NamespaceLimits) -> Shared {
        Shared {
            namespace_limits,
            ..self
        }
    }

    pub(super) fn with_replica(self, replica: Option<Replica>) -> Shared {
        Shared { replica, ..self }
    }

    pub(super) fn with_checkpoint_directory(mut self, directory: Option<PathBuf>) -> Shared {
        self.administration.checkpoint_directory = directory;
        self
    }

    /// Reads the tokens again, and logs the outcome.
    pub(super) fn reload_tokens(&self) -> Result<usize, String> {
        let reloaded = self.tokens.reload();
        match &reloaded {
            Ok(number) => {
                tracing::info!(number, "tokens were read again");
                self.tokens.warn_of_unknown_namespaces(&self.store);
                #[cfg(unix)]
                if *number > 0 {
                    // These may be the first tokens of the server.
                    permissions::restrict();
                    permissions::tighten_store(self.store.directory());
                }
            }
            Err(error) => tracing::error!(%error, "the tokens stay as they were"),
        }
        reloaded
    }

    pub(super) fn with_ttl_seconds_min(self, ttl_seconds_min: u64) -> Shared {
        Shared {
            ttl_seconds_min,
            ..self
        }
    }

    /// What the expiry of a put now is checked by.
    pub(super) fn expiry_rules(&self) -> ExpiryRules {
        ExpiryRules {
            now_ms: self.unexpired().0.unwrap_or_else(|| self.store.now_ms()),
            ttl_seconds_min: self.ttl_seconds_min,
        }
    }

    /// What readers see now. Ask before the store is asked.
    pub(super) fn unexpired(&self) -> Unexpired {
        Unexpired(self.replica.as_ref().map(|replica| replica.node.now_ms()))
    }

    /// From now on the server is not ready.
    pub(super) fn begin_closing(&self) {
        self.closing.send_replace(true);
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Tells those who wait for the server to stop.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Why the server cannot take requests now; None if it can.
    pub(super) fn unready(&self) -> Option<String> {
        if self.is_closing() {
            return Some("shutting down".to_owned());
        }
        let refused = readiness::refuses_writes(&self.store).map(str::to_owned);
        refused.or_else(|| self.replica.as_ref()?.unready())
    }

    /// What the server tells beside being ready.
    pub(super) fn remark(&self) -> Option<String> {
        self.replica.as_ref()?.remark()
    }

    /// Options of a put.
    pub(super) fn put_options(&self, expiration: Option<Expiration>, metadata: Option<&[u8]>) -> PutOptions {
        let mut options = PutOptions::new().durability(self.durability);
        options = match expiration {
            Some(Expiration::After(ttl)) => options.ttl(ttl),
            Some(Expiration::At(seconds)) => options.expiration(seconds),
            None => options,
        };
        if let Some(metadata) = metadata {
            options = options.metadata(metadata);
        }
        options
    }

    /// The namespace with this id, if clients may know of it.
    pub(super) fn namespace_by_id(&self, id: u128) -> Result<Option<Namespace>, ApiError> {
        match is_reserved(id) {
            true => Ok(None),
            false => Ok(self.store.namespace_by_id(id)?),
        }
    }

    /// The namespace with this id or, if there is none, with this name.
    pub(super) fn namespace(&self, id_or_name: &str) -> Result<Option<Namespace>, ApiError> {
        if let Ok(id) = parse_id(id_or_name)
            && let Some(namespace) = self.namespace_by_id(id)?
        {
            return Ok(Some(namespace));
        }
        match self.store.open_namespace(id_or_name) {
            Ok(namespace) => Ok(Some(namespace).filter(|namespace| !is_reserved(namespace.id()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
