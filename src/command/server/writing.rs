//! Writes of one key, in both protocols.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use embercask::{Namespace, PutOptions};
use embercask_replica::entry::{Operation, Outcome};

use super::blocking::{AT_ONCE_BYTES_MAX, blocking};
use super::body::Body;
use super::conditions::Conditions;
use super::error::ApiError;
use super::etag::{Etag, UNASKED_BYTES_MAX};
use super::parse::rules::Expiration;
use super::replica::{Replica, done, lifetime};
use super::shared::Shared;

/// A put of one value, besides the value.
pub(super) struct Put {
    pub(super) key: Vec<u8>,
    pub(super) expiration: Option<Expiration>,
    pub(super) metadata: Option<Vec<u8>>,
    pub(super) conditions: Conditions,
}

/// When a key expires that is put now.
enum Expiry {
    At(Option<u64>),
    /// The store alone can say: the lifetime is so short that it might be over before the put.
    Unknown,
}

impl Put {
    /// Returns the entity tag of what was written, for values of up to 1 MiB and for puts with a
    /// condition. The memory of `body` is held until the put is done.
    pub(super) async fn run<V>(
        self,
        shared: &Arc<Shared>,
        namespace: Namespace,
        value: V,
        body: Body,
    ) -> Result<Option<Etag>, ApiError>
    where
        V: AsRef<[u8]> + Send + 'static,
    {
        if let Some(replica) = &shared.replica {
            let _until_it_is_done = body;
            return self.replicate(replica, namespace.id(), Bytes::from_owner(value)).await;
        }
        if value.as_ref().len() <= AT_ONCE_BYTES_MAX && self.conditions.are_of_the_store() {
            let _until_it_is_done = body;
            let value = value.as_ref();
            let (options, expiry) = self.options(shared, &namespace);
            let put = self.conditions.put_async(&namespace, &self.key, value, options);
            return put.await.map(|()| self.told(value, &expiry));
        }
        let shared = Arc::clone(shared);
        blocking(move || {
            let _until_it_is_done = body;
            let value = value.as_ref();
            let (options, expiry) = self.options(&shared, &namespace);
            self.conditions.put(&namespace, &self.key, value, options)?;
            Ok(self.told(value, &expiry))
        })
        .await
    }

    /// As [`Put::run`], on all replicas.
    async fn replicate(self, replica: &Replica, namespace: u128, value: Bytes) -> Result<Option<Etag>, ApiError> {
        let put = Operation::Put {
            namespace,
            key: self.key.clone().into(),
            value: value.clone(),
            metadata: self.metadata.clone().map(Bytes::from),
            lifetime: lifetime(self.expiration),
            conditions: self.conditions.replicated(),
        };
        let expiry_ms = self.conditions.done(replica.write_one(put).await?)?;
        match self.is_told(&value) {
            // The digest of a long value takes some time.
            true => blocking(move || Ok(Some(self.etag(&value, expiry_ms)))).await,
            false => Ok(None),
        }
    }

    /// The expiry is known before the put, since the tag of what was written includes it.
    fn options(&self, shared: &Shared, namespace: &Namespace) -> (PutOptions, Expiry) {
        let options = shared.put_options(None, self.metadata.as_deref());
        let expiry = self.expiry(shared, namespace);
        let options = match expiry {
            Expiry::At(Some(expiry_ms)) => options.expires_at_ms(expiry_ms),
            Expiry::At(None) => options.forever(),
            Expiry::Unknown => options,
        };
        (options, expiry)
    }

    /// The entity tag of what was written, if it is told.
    fn told(&self, value: &[u8], expiry: &Expiry) -> Option<Etag> {
        match expiry {
            Expiry::At(expiry_ms) if self.is_told(value) => Some(self.etag(value, *expiry_ms)),
            _ => None,
        }
    }

    fn is_told(&self, value: &[u8]) -> bool {
        value.len() <= UNASKED_BYTES_MAX || !self.conditions.are_none()
    }

    fn etag(&self, value: &[u8], expiry_ms: Option<u64>) -> Etag {
        Etag::of(value, self.metadata.as_deref(), expiry_ms)
    }

    fn expiry(&self, shared: &Shared, namespace: &Namespace) -> Expiry {
        let after = |ttl: Duration| {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            Expiry::At(Some(shared.store.now_ms().saturating_add(ttl_ms)))
        };
        match (self.expiration, namespace.default_ttl()) {
            (Some(Expiration::After(ttl)), _) => after(ttl),
            (Some(Expiration::At(seconds)), _) => Expiry::At(Some(seconds.saturating_mul(1000))),
            (None, None) => Expiry::At(None),
            (None, Some(ttl)) if ttl >= Duration::from_secs(1) => after(ttl),
            (None, Some(_)) => Expiry::Unknown,
        }
    }
}

impl Conditions {
    /// The expiry of what was done on all replicas, or the error.
    fn done(&self, outcome: Outcome) -> Result<Option<u64>, ApiError> {
        match outcome {
            Outcome::NotMet { is_there } => Err(self.not_met(is_there)),
            outcome => done(outcome),
        }
    }
}

/// Deletes a key if the conditions hold.
pub(super) async fn delete(
    shared: &Arc<Shared>,
    namespace: Namespace,
    key: Vec<u8>,
    conditions: Conditions,
) -> Result<(), ApiError> {
    if let Some(replica) = &shared.replica {
        let delete = Operation::Delete {
            namespace: namespace.id(),
            key: key.into(),
            conditions: conditions.replicated(),
        };
        return conditions.done(replica.write_one(delete).await?).map(drop);
    }
    conditions.delete_async(namespace, key, shared.durability).await
}
