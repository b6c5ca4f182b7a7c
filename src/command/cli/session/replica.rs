//! Stores and servers of replicas.

use embercask::{Options, Store};
use embercask_replica::clock::LogClock;

use super::Session;
use crate::cli::remote::Client;
use crate::cli::replica;
use crate::common::failure::Outcome;

impl Session {
    /// The store of a replica, which must exist; at the time of its log.
    pub(crate) fn store_of_replica(&self) -> Outcome<Store> {
        self.open(Options::default().create(false).clock(LogClock::new()))
    }

    #[cfg(feature = "replica")]
    /// The store for a command that makes a replica of it; created if there is none.
    pub(crate) fn store_to_init(&self) -> Outcome<Store> {
        self.open(Options::default().create(true))
    }

    /// The store for a command that writes, which no replica is for.
    pub(super) fn open_to_write(&self, options: Options) -> Outcome<Store> {
        let store = self.open(options)?;
        replica::refuse_write(&store)?;
        Ok(store)
    }

    /// Makes clients of this server.
    pub(crate) fn client_maker(&self, url: &str) -> impl FnOnce() -> Outcome<Client> + Send + use<> {
        let (remote, url, quiet, wait) = (self.remote.clone(), url.to_owned(), self.quiet, self.wait);
        move || Client::new(&remote, &url, quiet, wait)
    }
}
