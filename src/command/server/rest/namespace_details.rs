//! What a namespace holds, and the lifetime of its puts that name none: not in Workers KV.

use std::time::Duration;

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
        blocking(move || {
            let count = namespace.list().prefix(prefix).count()?;
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
        blocking(move || {
            namespace.set_default_ttl(ttl)?;
            Ok(shown_ttl(namespace.default_ttl()))
        })
        .await
        .map_err(|error| error.of(OPERATION))
    }

    pub(super) async fn remove_default_ttl(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "remove default TTL";
        let namespace = self.namespace(OPERATION)?;
        blocking(move || Ok(namespace.set_default_ttl(None)?))
            .await
            .map_err(|error| error.of(OPERATION))?;
        Ok(shown_ttl(None))
    }
}
