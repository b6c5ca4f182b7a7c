//! Many keys in one request: put, delete, get.

use std::io::{Read, Write};

use embercask::Value;
use serde::Serialize;
use serde_json::value::RawValue;

use super::RequestContext;
use super::envelope::{JSON, success_with_messages};
use crate::server::blocking::blocking;
use crate::server::body::{Body, Unread, Work, too_large};
use crate::server::error::ApiError;
use crate::server::parse::bulk::{self, Shown};
use crate::server::parse::ignored::Ignored;
use crate::server::parse::rules;
use crate::server::response::{ApiResponse, response, to_json};

/// Longest body of a bulk put or delete, in bytes.
const BULK_BYTES_MAX: usize = 100 << 20;

#[derive(Serialize)]
struct WithMetadata<'a> {
    value: &'a Shown<'a>,
    metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
}

fn with_metadata(json: &mut dyn Write, value: &Value, shown: &Shown<'_>) -> Result<(), ApiError> {
    let with_metadata = WithMetadata {
        value: shown,
        metadata: rules::metadata_json(value.metadata()),
        expiration: value.expiry_ms().map(rules::expiration_seconds),
    };
    to_json(json, &with_metadata)
}

fn whole(body: &mut Body) -> Result<impl Read, ApiError> {
    body.reader().ok_or_else(too_large)
}

fn done(items: usize, messages: &[String]) -> ApiResponse {
    let result = serde_json::json!({ "successful_key_count": items, "unsuccessful_keys": [] });
    success_with_messages(&result, messages)
}

/// The message about a property that pairs do not have.
fn told(name: &str) -> String {
    format!("the property \"{name}\" of a pair is unknown, and was ignored")
}

impl RequestContext<'_> {
    /// Puts all pairs, or none.
    pub(super) async fn bulk_put(&self, unread: &mut Unread<'_>) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "bulk put";
        let namespace = self.namespace(OPERATION)?;
        let mut body = unread.read(&self.holder, BULK_BYTES_MAX, Work::Bulk).await?;
        let all_done =
            |(puts, ignored): (usize, Ignored)| done(puts, &ignored.messages(told, "unknown properties were ignored"));
        if let Some(replica) = &self.shared.replica {
            let put = replica.put_many(namespace.id(), body, self.shared.expiry_rules()).await;
            return put.map(all_done).map_err(|error| error.of(OPERATION));
        }
        let shared = self.shared.clone();
        let answered = blocking(move || {
            let mut batch = shared.store.batch();
            batch.durability(shared.durability);
            let (puts, ignored) = bulk::puts(whole(&mut body)?, shared.expiry_rules(), |put| {
                let options = shared.put_options(put.expiration, put.metadata.as_deref());
                batch.put_with(&namespace, &put.key, &put.value, options);
            })?;
            if puts > 0 {
                batch.commit()?;
            }
            Ok(all_done((puts, ignored)))
        });
        answered.await.map_err(|error| error.of(OPERATION))
    }

    /// Deletes all keys, or none.
    pub(super) async fn bulk_delete(&self, unread: &mut Unread<'_>) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "bulk remove keys";
        let namespace = self.namespace(OPERATION)?;
        let mut body = unread.read(&self.holder, BULK_BYTES_MAX, Work::Bulk).await?;
        if let Some(replica) = &self.shared.replica {
            let deleted = replica.delete_many(namespace.id(), body).await;
            return deleted
                .map(|names| done(names, &[]))
                .map_err(|error| error.of(OPERATION));
        }
        let shared = self.shared.clone();
        let answered = blocking(move || {
            let mut batch = shared.store.batch();
            batch.durability(shared.durability);
            let names = bulk::names(whole(&mut body)?, |name| {
                batch.delete(&namespace, name);
            })?;
            if names > 0 {
                batch.commit()?;
            }
            Ok(done(names, &[]))
        });
        answered.await.map_err(|error| error.of(OPERATION))
    }

    pub(super) async fn bulk_get(&self, unread: &mut Unread<'_>) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "bulk get keys";
        let namespace = self.namespace(OPERATION)?;
        let body = unread.read(&self.holder, bulk::GET_BODY_BYTES_MAX, Work::Small).await?;
        let many = self
            .shared
            .many(&self.holder, (namespace, body), AROUND_VALUES, with_metadata);
        let json = many.await.map_err(|error| error.of(OPERATION))?;
        Ok(response(200, JSON, json))
    }
}

/// The envelope, as text around the values.
const AROUND_VALUES: [&str; 2] = [
    r#"{"result":{"values":"#,
    r#"},"success":true,"errors":[],"messages":[]}"#,
];
