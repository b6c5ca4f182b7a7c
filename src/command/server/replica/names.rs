//! Namespaces of all replicas.

use std::time::Duration;

use embercask_replica::entry::Operation;

use super::{Replica, done};
use crate::server::error::ApiError;

impl Replica {
    /// Creates a namespace on all replicas; returns its id.
    pub(in crate::server) async fn create_namespace(&self, name: &str) -> Result<u128, ApiError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|_| ApiError::new(500, 10001, "the system has no random numbers"))?;
        let id = u128::from_le_bytes(bytes);
        let name = name.to_owned();
        done(self.write_one(Operation::CreateNamespace { id, name }).await?)?;
        Ok(id)
    }

    pub(in crate::server) async fn rename_namespace(&self, id: u128, name: &str) -> Result<(), ApiError> {
        let name = name.to_owned();
        done(self.write_one(Operation::RenameNamespace { id, name }).await?).map(drop)
    }

    pub(in crate::server) async fn drop_namespace(&self, id: u128) -> Result<(), ApiError> {
        done(self.write_one(Operation::DropNamespace { id }).await?).map(drop)
    }

    pub(in crate::server) async fn set_default_ttl(
        &self,
        namespace: u128,
        ttl: Option<Duration>,
    ) -> Result<(), ApiError> {
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        done(self.write_one(Operation::SetDefaultTtl { namespace, ttl_ms }).await?).map(drop)
    }
}
