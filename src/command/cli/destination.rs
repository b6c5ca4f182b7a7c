//! Where bulk writes and imports go to.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use embercask::{Durability, Error, ErrorKind, Namespace, PutOptions, Store};

use super::remote::{self, Client, writes};
use super::writer::{Change, Lifetime, Write};
use crate::common::failure::{Failure, Outcome};

/// A store, or a server.
pub(crate) enum Destination {
    Store { store: Store, durability: Durability },
    Server(Rc<Client>),
}

/// A namespace of a destination.
#[derive(Clone)]
pub(crate) enum Place {
    Store(Namespace),
    Server(remote::Namespace),
}

/// Why writes were not done.
pub(crate) enum Refused {
    /// One of them is invalid, so none was done. Alone, it would be named.
    Invalid(Failure),
    /// One of them expires too soon for the server.
    Expiry(Failure),
    Other(Failure),
}

impl Refused {
    pub(crate) fn into_failure(self) -> Failure {
        let (Refused::Invalid(failure) | Refused::Expiry(failure) | Refused::Other(failure)) = self;
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
    fn of_store(&self) -> Outcome<&Namespace> {
        match self {
            Place::Store(namespace) => Ok(namespace),
            Place::Server(namespace) => Err(Failure::usage(
                format!("the namespace \"{}\" is not of this store", namespace.name),
                "",
            )),
        }
    }
}

impl Destination {
    pub(crate) fn store(store: Store, durability: Durability) -> Destination {
        Destination::Store { store, durability }
    }

    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Destination::Server(_))
    }

    /// What tells this destination from others, and its newest sequence, which is lower in an older
    /// copy of it. Those of a server are not known: it is told by its address.
    pub(crate) fn identity(&self) -> (String, u64) {
        match self {
            Destination::Store { store, .. } => (format!("{:032x}", store.id()), store.stats().last_sequence),
            Destination::Server(client) => (client.identity(), 0),
        }
    }

    /// The time by which keys expire.
    pub(crate) fn now_ms(&self) -> u64 {
        match self {
            Destination::Store { store, .. } => store.now_ms(),
            Destination::Server(_) => writes::now_ms(),
        }
    }

    /// What was not imported because it has expired.
    pub(crate) fn expired(&self) -> &'static str {
        match self {
            Destination::Store { .. } => "had expired",
            Destination::Server(_) => "had expired, or will too soon for the server",
        }
    }

    /// The namespace with this name, created if there is none.
    pub(crate) fn namespace(&self, name: &str) -> Outcome<Place> {
        match self {
            Destination::Store { store, .. } => Ok(Place::Store(store.namespace(name)?)),
            Destination::Server(client) => Ok(Place::Server(remote::found_or_created(client, name)?)),
        }
    }

    /// The namespace with this name. It is created with this id if there is none, and with another
    /// one if the id is taken, or on a server. Its default lifetime is set, with `keep_default_ttl`
    /// only if it has none; on a server by [`Destination::set_default_ttl`].
    pub(crate) fn declare(
        &self,
        name: &str,
        id: Option<u128>,
        default_ttl: Option<Duration>,
        keep_default_ttl: bool,
    ) -> Outcome<Place> {
        let store = match self {
            Destination::Store { store, .. } => store,
            Destination::Server(_) => return self.namespace(name),
        };
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

    /// Sets the default lifetime of a namespace on a server; in a store it is set already.
    pub(crate) fn set_default_ttl(&self, place: &Place, ttl: Duration, keep: bool) -> Outcome {
        match (self, place) {
            (Destination::Server(client), Place::Server(namespace)) => client.set_default_ttl(namespace, ttl, keep),
            _ => Ok(()),
        }
    }

    /// Does all writes, or none if one is invalid.
    pub(crate) fn write_all(&self, writes: &[Write]) -> Result<(), Refused> {
        let (store, durability) = match self {
            Destination::Store { store, durability } => (store, *durability),
            Destination::Server(client) => return client.write_all(writes),
        };
        let mut batch = store.batch();
        batch.durability(durability);
        for Write {
            namespace, key, change, ..
        } in writes
        {
            let namespace = namespace.of_store().map_err(Refused::Other)?;
            match change {
                Change::Put {
                    value,
                    lifetime,
                    metadata,
                } => batch.put_with(namespace, key, value, options(*lifetime, metadata.as_deref())),
                Change::Delete => batch.delete(namespace, key),
            };
        }
        Ok(batch.commit().map(drop)?)
    }

    /// Does one write.
    pub(crate) fn write(&self, write: &Write) -> Result<(), Refused> {
        let durability = match self {
            Destination::Store { durability, .. } => *durability,
            Destination::Server(client) => return client.write_all(std::slice::from_ref(write)),
        };
        let namespace = write.namespace.of_store().map_err(Refused::Other)?;
        match &write.change {
            Change::Put {
                value,
                lifetime,
                metadata,
            } => {
                let options = options(*lifetime, metadata.as_deref()).durability(durability);
                namespace.put_with(&write.key, value, options)?;
            }
            Change::Delete => drop(namespace.delete_with(&write.key, None, Some(durability))?),
        }
        Ok(())
    }

    /// The puts of keys that are absent, and the number of the others. On a server, all of them,
    /// and whether a key is absent is decided with its put.
    pub(crate) fn absent(&self, writes: Vec<Write>) -> Outcome<(Vec<Write>, u64)> {
        if self.is_server() {
            return Ok((writes, 0));
        }
        // No other process writes to the store meanwhile. A batch may contain a key twice.
        let mut put = HashSet::new();
        let (mut absent, mut present) = (Vec::with_capacity(writes.len()), 0);
        for write in writes {
            let namespace = write.namespace.of_store()?;
            if namespace.contains(&write.key)? || !put.insert((namespace.id(), write.key.clone())) {
                present += 1;
            } else {
                absent.push(write);
            }
        }
        Ok((absent, present))
    }

    /// Does a put if the key is absent; returns whether it was. None if [`Destination::absent`] has
    /// decided that.
    pub(crate) fn put_if_absent(&self, write: &Write) -> Option<Result<bool, Refused>> {
        match self {
            Destination::Store { .. } => None,
            Destination::Server(client) => Some(client.put_if_absent(write)),
        }
    }

    /// Makes durable what is written so far, whatever its class. A server does that by itself.
    pub(crate) fn sync(&self) -> Outcome {
        match self {
            Destination::Store { store, .. } => Ok(store.sync()?),
            Destination::Server(_) => Ok(()),
        }
    }

    /// Whether a write is durable once it is done.
    pub(crate) fn is_synced(&self) -> bool {
        match self {
            Destination::Store { durability, .. } => *durability == Durability::Sync,
            Destination::Server(_) => true,
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
