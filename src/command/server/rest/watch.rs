//! Watching a namespace.

use super::RequestContext;
use crate::server::blocking::blocking;
use crate::server::error::ApiError;
use crate::server::parse::encoding::Query;
use crate::server::parse::rules;
use crate::server::response::{ApiResponse, events_response, set_header};
use crate::server::watching::{Events, HEARTBEAT};

impl RequestContext<'_> {
    /// The changes of a namespace, as server-sent events.
    pub(super) async fn watch(&self) -> Result<ApiResponse, ApiError> {
        let named = self.parameter("namespace")?.filter(|named| !named.is_empty());
        let named = named
            .ok_or_else(|| ApiError::new(400, 10001, "the parameter namespace must name one, by its id or title"))?;
        let prefix = Query::new(self.head.uri.query()).get("prefix");
        let prefix = prefix
            .map_err(|_| rules::undecodable_parameter("prefix"))?
            .unwrap_or_default();
        rules::check_prefix(&prefix)?;
        let place = self.shared.watchers.place()?;
        let unknown = || ApiError::new(404, 10013, "namespace not found");
        let namespace = self.shared.namespace(&named)?.ok_or_else(unknown)?;
        let watch = blocking(move || Ok(namespace.watch(prefix)?)).await?;
        let events = Events::new(watch, HEARTBEAT, self.shared.closing(), Some(place));
        let mut response = events_response(events);
        set_header(&mut response, "cache-control", b"no-store");
        Ok(response)
    }
}
