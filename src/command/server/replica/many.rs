//! Bulk writes of a replica: one entry each, so that all of it is seen at once.

use embercask_replica::entry::{Conditions, Operation};

use super::{Replica, done, lifetime};
use crate::server::blocking::blocking;
use crate::server::body::{Body, too_large};
use crate::server::error::ApiError;
use crate::server::parse::bulk;
use crate::server::parse::ignored::Ignored;
use crate::server::parse::rules::ExpiryRules;

impl Replica {
    /// Puts all pairs of a body, or none; returns their number and their unknown properties.
    pub(in crate::server) async fn put_many(
        &self,
        namespace: u128,
        mut body: Body,
        rules: ExpiryRules,
    ) -> Result<(usize, Ignored), ApiError> {
        let (operations, ignored, body) = blocking(move || {
            let mut operations = Vec::new();
            let (_, ignored) = bulk::puts(body.reader().ok_or_else(too_large)?, rules, |put| {
                operations.push(Operation::Put {
                    namespace,
                    key: put.key.into(),
                    value: put.value.into(),
                    metadata: put.metadata.map(Into::into),
                    lifetime: lifetime(put.expiration),
                    conditions: Conditions::default(),
                });
            })?;
            Ok((operations, ignored, body))
        })
        .await?;
        self.all(operations, body).await.map(|number| (number, ignored))
    }

    /// Deletes all keys of a body, or none; returns their number.
    pub(in crate::server) async fn delete_many(&self, namespace: u128, mut body: Body) -> Result<usize, ApiError> {
        let (operations, body) = blocking(move || {
            let mut operations = Vec::new();
            bulk::names(body.reader().ok_or_else(too_large)?, |name| {
                operations.push(Operation::Delete {
                    namespace,
                    key: name.into(),
                    conditions: Conditions::default(),
                });
            })?;
            Ok((operations, body))
        })
        .await?;
        self.all(operations, body).await
    }

    /// Writes them; the memory of the body is held until that is done.
    async fn all(&self, operations: Vec<Operation>, body: Body) -> Result<usize, ApiError> {
        let _until_it_is_done = body;
        let number = operations.len();
        if number > 0 {
            for outcome in self.write(operations).await? {
                done(outcome)?;
            }
        }
        Ok(number)
    }
}
