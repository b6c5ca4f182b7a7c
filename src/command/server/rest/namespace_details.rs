//! What a namespace holds, and the lifetime of its puts that name none: not in Workers KV.

use std::ops::ControlFlow;
use std::time::Duration;

use embercask::Namespace;
use serde::Deserialize;
use serde_json::json;

use super::RequestContext;
use super::envelope::success;
use crate::common::objects::Object;
use crate::server::blocking::blocking;
use crate::server::body::{SMALL_BYTES_MAX, Unread, Work};
use crate::server::error::ApiError;
use crate::server::parse::rules;
use crate::server::response::ApiResponse;
use crate::server::shared::Unexpired;

#[derive(Deserialize)]
struct Given {
    /// Seconds, or null for none.
    default_ttl: serde_json::Value,
}

fn shown_ttl(ttl: Option<Duration>) -> ApiResponse {
    // Rounded up, as expiries are; other programs may set parts of seconds.
    let seconds = ttl.map(|ttl| ttl.as_millis().div_ceil(1000) as u64);
    success(&json!({ "default_ttl": seconds }))
}

/// The keys with this prefix that readers see.
fn count(namespace: &Namespace, prefix: &str, unexpired: Unexpired) -> Result<u64, ApiError> {
    let list = namespace.list().prefix(prefix);
    if unexpired.is_of_store() {
        return Ok(list.count()?);
    }
    let mut count = 0;
    let _whole = list.walk().for_each(|entry| {
        count += u64::from(unexpired.has(entry.expiry_ms()));
        ControlFlow::<()>::Continue(())
    })?;
    Ok(count)
}

impl RequestContext<'_> {
    pub(super) async fn namespace_statistics(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "namespace statistics";
        let namespace = self.namespace(OPERATION)?;
        blocking(move || {
            let stats = namespace.stats()?;
            Ok(success(&json!({
                "id": format!("{:032x}", stats.id),
                "title": stats.name,
                "keys": stats.keys,
                "live_bytes": stats.live_bytes,
                "max_bytes": stats.max_bytes,
            })))
        })
        .await
        .map_err(|error| error.of(OPERATION))
    }

    /// Unlike the statistics, without keys that have expired.
    pub(super) async fn count_keys(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "count keys";
        let namespace = self.namespace(OPERATION)?;
        let prefix = self.parameter("prefix")?.unwrap_or_default();
        rules::check_prefix(prefix.as_bytes()).map_err(|error| error.of(OPERATION))?;
        let unexpired = self.shared.unexpired();
        blocking(move || {
            let count = count(&namespace, &prefix, unexpired)?;
            Ok(success(&json!({ "count": count })))
        })
        .await
        .map_err(|error| error.of(OPERATION))
    }

    pub(super) async fn default_ttl(&self) -> Result<ApiResponse, ApiError> {
        Ok(shown_ttl(self.namespace("get default TTL")?.default_ttl()))
    }

    pub(super) async fn set_default_ttl(&self, unread: &mut Unread<'_>) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "set default TTL";
        let namespace = self.namespace(OPERATION)?;
        let wrong = || {
            let message = "the body must be {\"default_ttl\": SECONDS}, or null instead of the seconds";
            ApiError::new(400, 10012, message).of(OPERATION)
        };
        let mut body = unread.read(&self.holder, SMALL_BYTES_MAX, Work::Small).await?;
        let body = body.take_whole().ok_or_else(wrong)?;
        let Object::<Given>(given) = serde_json::from_slice(&body).map_err(|_| wrong())?;
        let ttl = match given.default_ttl {
            serde_json::Value::Null => None,
            serde_json::Value::Number(seconds) => {
                let ttl = rules::ttl("default_ttl", &seconds.to_string(), self.shared.expiry_rules());
                Some(ttl.map_err(|error| error.of(OPERATION))?)
            }
            _ => return Err(wrong()),
        };
        self.change_default_ttl(namespace, ttl)
            .await
            .map_err(|error| error.of(OPERATION))
    }

    pub(super) async fn remove_default_ttl(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "remove default TTL";
        let namespace = self.namespace(OPERATION)?;
        self.change_default_ttl(namespace, None)
            .await
            .map_err(|error| error.of(OPERATION))
    }

    async fn change_default_ttl(&self, namespace: Namespace, ttl: Option<Duration>) -> Result<ApiResponse, ApiError> {
        if let Some(replica) = &self.shared.replica {
            replica.set_default_ttl(namespace.id(), ttl).await?;
            return Ok(shown_ttl(ttl));
        }
        blocking(move || {
            namespace.set_default_ttl(ttl)?;
            Ok(shown_ttl(namespace.default_ttl()))
        })
        .await
    }
}
