//! Where bulk writes and imports go to.

use std::time::Duration;

use embercask::{Durability, Error, ErrorKind, Namespace, PutOptions, Store};

use super::writer::{Change, Lifetime, Write};
use crate::common::failure::{Failure, Outcome};

/// A store.
pub(crate) enum Destination {
    Store { store: Store, durability: Durability },
}

/// A namespace of a destination.
#[derive(Clone)]
pub(crate) enum Place {
    Store(Namespace),
}

/// Why writes were not done.
pub(crate) enum Refused {
    /// One of them is invalid, so none was done. Alone, it would be named.
    Invalid(Failure),
    Other(Failure),
}

impl Refused {
    pub(crate) fn into_failure(self) -> Failure {
        let (Refused::Invalid(failure) | Refused::Other(failure)) = self;
        failure
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        match error.kind() {
            ErrorKind::InvalidInput => Refused::Invalid(error.into()),
            _ => Refused::Other(error.into()),
        }
    }
}

impl Place {
    /// Whether it has this key.
    pub(crate) fn contains(&self, key: &[u8]) -> Outcome<bool> {
        match self {
            Place::Store(namespace) => Ok(namespace.contains(key)?),
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> u128 {
        match self {
            Place::Store(namespace) => namespace.id(),
        }
    }
}

impl Destination {
    pub(crate) fn store(store: Store, durability: Durability) -> Destination {
        Destination::Store { store, durability }
    }

    /// What tells this destination from others, and its newest sequence, which is lower in an older
    /// copy of it.
    pub(crate) fn identity(&self) -> (String, u64) {
        match self {
            Destination::Store { store, .. } => (format!("{:032x}", store.id()), store.stats().last_sequence),
        }
    }

    /// The time by which keys expire.
    pub(crate) fn now_ms(&self) -> u64 {
        match self {
            Destination::Store { store, .. } => store.now_ms(),
        }
    }

    /// The namespace with this name, created if there is none.
    pub(crate) fn namespace(&self, name: &str) -> Outcome<Place> {
        match self {
            Destination::Store { store, .. } => Ok(Place::Store(store.namespace(name)?)),
        }
    }

    /// The namespace with this name. It is created with this id if there is none, and with another
    /// one if the id is taken. Its default lifetime is set, with `keep_default_ttl` only if it has
    /// none.
    pub(crate) fn declare(
        &self,
        name: &str,
        id: Option<u128>,
        default_ttl: Option<Duration>,
        keep_default_ttl: bool,
    ) -> Outcome<Place> {
        let Destination::Store { store, .. } = self;
        let namespace = match (store.open_namespace(name), id) {
            (Err(error), Some(id)) if error.kind() == ErrorKind::NotFound && store.namespace_by_id(id)?.is_none() => {
                store.create_namespace_with_id(name, id)?
            }
            (Err(error), _) if error.kind() == ErrorKind::NotFound => store.namespace(name)?,
            (namespace, _) => namespace?,
        };
        let had = namespace.default_ttl();
        if default_ttl.is_some() && default_ttl != had && !(keep_default_ttl && had.is_some()) {
            namespace.set_default_ttl(default_ttl)?;
        }
        Ok(Place::Store(namespace))
    }

    /// Does all writes, or none if one is invalid.
    pub(crate) fn write_all(&self, writes: &[Write]) -> Result<(), Refused> {
        let Destination::Store { store, durability } = self;
        let mut batch = store.batch();
        batch.durability(*durability);
        for Write {
            namespace, key, change, ..
        } in writes
        {
            let Place::Store(namespace) = namespace;
            match change {
                Change::Put {
                    value,
                    lifetime,
                    metadata,
                } => batch.put_with(namespace, key, value, &options(*lifetime, metadata.as_deref())),
                Change::Delete => batch.delete(namespace, key),
            };
        }
        Ok(batch.commit().map(drop)?)
    }

    /// Does one write.
    pub(crate) fn write(&self, write: &Write) -> Result<(), Refused> {
        let Destination::Store { durability, .. } = self;
        let Place::Store(namespace) = &write.namespace;
        match &write.change {
            Change::Put {
                value,
                lifetime,
                metadata,
            } => {
                let options = options(*lifetime, metadata.as_deref()).durability(*durability);
                namespace.put_with(&write.key, value, options)?;
            }
            Change::Delete => drop(namespace.delete_with(&write.key, None, Some(*durability))?),
        }
        Ok(())
    }

    /// Makes durable what is written so far, whatever its class.
    pub(crate) fn sync(&self) -> Outcome {
        match self {
            Destination::Store { store, .. } => Ok(store.sync()?),
        }
    }

    /// Whether a write is durable once it is done.
    pub(crate) fn is_synced(&self) -> bool {
        match self {
            Destination::Store { durability, .. } => *durability == Durability::Sync,
        }
    }
}

fn options(lifetime: Lifetime, metadata: Option<&[u8]>) -> PutOptions {
    let options = match lifetime {
        Lifetime::Default => PutOptions::new(),
        Lifetime::Forever => PutOptions::new().forever(),
        Lifetime::For(ttl) => PutOptions::new().ttl(ttl),
        Lifetime::UntilMs(expiry_ms) => PutOptions::new().expires_at_ms(expiry_ms),
        Lifetime::UntilSeconds(seconds) => PutOptions::new().expiration(seconds),
    };
    match metadata {
        Some(metadata) => options.metadata(metadata),
        None => options,
    }
}
