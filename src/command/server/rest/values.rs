//! Single keys: get, metadata, put, delete; and listings.

use bytes::Bytes;

use super::envelope::{JSON, success, success_json, success_with_messages};
use super::{FORM_BYTES_MAX, RequestContext};
use crate::server::blocking::blocking;
use crate::server::body::{Unread, Work};
use crate::server::conditions::Conditions;
use crate::server::error::ApiError;
use crate::server::listing::{listed, page, response_bytes};
use crate::server::parse::encoding::Query;
use crate::server::parse::form::{self, Form};
use crate::server::parse::ignored::Ignored;
use crate::server::parse::rules;
use crate::server::reading::{self, Reading};
use crate::server::response::{ApiResponse, response, set_etag};
use crate::server::writing::{self, Put};

fn not_found(operation: &str) -> ApiError {
    ApiError::new(404, 10009, "key not found").of(operation)
}

impl RequestContext<'_> {
    pub(super) async fn get(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "get";
        let namespace = self.namespace(OPERATION)?;
        let key = self.key(OPERATION)?;
        let reading = Reading::of(self.head).map_err(|error| error.of(OPERATION))?;
        reading::get(self.shared, namespace, key, move |value| {
            let value = value.ok_or_else(|| not_found(OPERATION))?;
            reading.response(value, "expiration")
        })
        .await
    }

    pub(super) async fn metadata(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "get metadata";
        let namespace = self.namespace(OPERATION)?;
        let key = self.key(OPERATION)?;
        reading::get(self.shared, namespace, key, |value| {
            let value = value.ok_or_else(|| not_found(OPERATION))?;
            Ok(success(&rules::metadata_json(value.metadata())))
        })
        .await
    }

    pub(super) async fn put(&self, unread: &mut Unread<'_>) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "put";
        let namespace = self.namespace(OPERATION)?;
        let key = self.key(OPERATION)?;
        let of_operation = |error: ApiError| error.of(OPERATION);
        let (expiration, ttl) = (self.parameter("expiration")?, self.parameter("expiration_ttl")?);
        let expiration = rules::expiration(expiration.as_deref(), ttl.as_deref(), self.shared.expiry_rules())
            .map_err(of_operation)?;
        let conditions = Conditions::of(&self.head.headers).map_err(of_operation)?;
        let boundary = form::boundary(&self.head.headers).map_err(of_operation)?;
        let framing = if boundary.is_some() { FORM_BYTES_MAX } else { 0 };
        let most = rules::VALUE_BYTES_MAX + FORM_BYTES_MAX as usize;
        let mut body = unread
            .read(&self.holder, most, Work::Value)
            .await
            .map_err(of_operation)?;
        // A body that is too long was not kept, so refuse it before reading it.
        rules::check_value(body.length.saturating_sub(framing)).map_err(of_operation)?;
        let whole = body.take_whole();
        let whole = whole.ok_or_else(|| rules::value_too_long(body.length).of(OPERATION))?;
        let bytes = Bytes::from(whole);
        let Form {
            value,
            metadata,
            messages: of_form,
        } = match boundary {
            Some(boundary) => form::read(&bytes, &boundary).map_err(of_operation)?,
            // Any other body is the value itself.
            None => Form {
                value: bytes,
                metadata: None,
                messages: Vec::new(),
            },
        };
        let metadata = metadata.as_deref().map(form::check_metadata).transpose();
        rules::check_value(value.len() as u64).map_err(of_operation)?;
        let put = Put {
            key,
            expiration,
            metadata: metadata.map_err(of_operation)?.flatten().map(<[u8]>::to_vec),
            conditions,
        };
        let etag = put.run(self.shared, namespace, value, body).await?;
        let messages = [of_form, self.unknown_parameters()].concat();
        let mut response = success_with_messages(&(), &messages);
        if let Some(etag) = etag {
            set_etag(&mut response, etag);
        }
        Ok(response)
    }

    /// Messages about the parameters of a put that it does not have.
    fn unknown_parameters(&self) -> Vec<String> {
        let mut ignored = Ignored::default();
        for name in Query::new(self.head.uri.query()).names() {
            if !["expiration", "expiration_ttl"].contains(&&*name) {
                ignored.add(&name);
            }
        }
        let tell = |name: &str| format!("the parameter {name} is unknown, and was ignored");
        ignored.messages(tell, "parameters were ignored")
    }

    pub(super) async fn delete(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "remove key";
        let namespace = self.namespace(OPERATION)?;
        let key = self.key(OPERATION)?;
        let conditions = Conditions::of(&self.head.headers).map_err(|error| error.of(OPERATION))?;
        writing::delete(self.shared, namespace, key, conditions).await?;
        Ok(success(&()))
    }

    pub(super) async fn list_keys(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "list keys";
        let namespace = self.namespace(OPERATION)?;
        let of_operation = |error: ApiError| error.of(OPERATION);
        let limit = rules::page_limit(self.parameter("limit")?.as_deref(), "limit").map_err(of_operation)?;
        let prefix = self.parameter("prefix")?.unwrap_or_default();
        rules::check_prefix(prefix.as_bytes()).map_err(of_operation)?;
        let cursor = self.parameter("cursor")?.filter(|cursor| !cursor.is_empty());
        let memory = self
            .shared
            .body_memory
            .for_response(&self.holder, response_bytes(limit));
        let memory = memory.await.map_err(of_operation)?;
        let unexpired = self.shared.unexpired();
        blocking(move || {
            let page = page(&namespace, limit, prefix.as_bytes(), cursor)?;
            let keys = listed(&page, unexpired, |json| json);
            let info = serde_json::json!({ "count": keys.len(), "cursor": page.cursor().unwrap_or_default() });
            Ok(response(200, JSON, memory.response(success_json(&keys, info))))
        })
        .await
        .map_err(of_operation)
    }
}
