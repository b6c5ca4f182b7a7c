//! Many keys in one request: put, delete, get.

use serde::Serialize;
use serde_json::value::RawValue;

use super::RequestContext;
use super::envelope::{JSON, success};
use crate::server::blocking::blocking;
use crate::server::body::Body;
use crate::server::error::ApiError;
use crate::server::parse::{bulk, rules};
use crate::server::response::{ApiResponse, response, to_json};

#[derive(Serialize)]
struct WithMetadata {
    value: Box<RawValue>,
    metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
}

fn whole(body: &Body) -> Result<&[u8], ApiError> {
    let too_large = || ApiError::new(413, 10012, "the request body is too large");
    body.whole().ok_or_else(too_large)
}

fn done(items: usize) -> ApiResponse {
    success(&serde_json::json!({ "successful_key_count": items, "unsuccessful_keys": [] }))
}

impl RequestContext<'_> {
    /// Puts all pairs, or none.
    pub(super) async fn bulk_put(&self, body: Body) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "bulk put";
        let namespace = self.namespace(OPERATION)?;
        let shared = self.shared.clone();
        let answered = blocking(move || {
            let mut body = body;
            let puts = bulk::puts(whole(&body)?, shared.expiry_rules())?;
            // The pairs are copies. Frees the body but keeps its memory permit, which covers them
            // and the batch.
            body.bytes = Vec::new();
            let mut batch = shared.store.batch();
            batch.durability(shared.durability);
            for put in &puts {
                let options = shared.put_options(put.expiration, put.metadata.as_deref());
                batch.put_with(&namespace, &put.key, &put.value, options);
            }
            if !puts.is_empty() {
                batch.commit()?;
            }
            Ok(done(puts.len()))
        });
        answered.await.map_err(|error| error.of(OPERATION))
    }

    /// Deletes all keys, or none.
    pub(super) async fn bulk_delete(&self, body: Body) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "bulk remove keys";
        let namespace = self.namespace(OPERATION)?;
        let shared = self.shared.clone();
        let answered = blocking(move || {
            let names = bulk::names(whole(&body)?)?;
            let mut batch = shared.store.batch();
            batch.durability(shared.durability);
            for name in &names {
                batch.delete(&namespace, name);
            }
            if !names.is_empty() {
                batch.commit()?;
            }
            Ok(done(names.len()))
        });
        answered.await.map_err(|error| error.of(OPERATION))
    }

    pub(super) async fn bulk_get(&self, body: Body) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "bulk get keys";
        let namespace = self.namespace(OPERATION)?;
        let shared = self.shared.clone();
        let answered = blocking(move || {
            let request = bulk::get(whole(&body)?)?;
            // Releases the memory of the body before waiting for that of the response.
            drop(body);
            shared.many(&namespace, &request, AROUND_VALUES, |json, value| {
                let shown = request.kind.show(value)?;
                if !request.with_metadata {
                    return to_json(json, &shown);
                }
                let with_metadata = WithMetadata {
                    value: shown,
                    metadata: rules::metadata_json(value.metadata()),
                    expiration: value.expiry_ms().map(rules::expiration_seconds),
                };
                to_json(json, &with_metadata)
            })
        });
        let json = answered.await.map_err(|error| error.of(OPERATION))?;
        Ok(response(200, JSON, json))
    }
}

/// The envelope, as text around the values.
const AROUND_VALUES: [&str; 2] = [
    r#"{"result":{"values":"#,
    r#"},"success":true,"errors":[],"messages":[]}"#,
];
