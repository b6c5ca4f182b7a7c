//! What a replica tells of itself, and the checkpoint from which a new one is made.

use hyper::Method;

use super::RequestContext;
use super::envelope::success;
use super::routes::{
    Right::{Admin, ReadAll},
    Route, call, route,
};
use crate::server::error::ApiError;
use crate::server::replica::{checkpoint, report};
use crate::server::response::ApiResponse;

/// The prefix of its paths.
pub(super) const BASE: &str = "/replica/";

#[rustfmt::skip]
pub(super) static ROUTES: &[Route] = &[
    route(Method::GET, "status",     "replica_status",     ReadAll, call!(replica_status)),
    route(Method::GET, "digest",     "replica_digest",     ReadAll, call!(replica_digest)),
    route(Method::GET, "checkpoint", "replica_checkpoint", Admin,   call!(replica_checkpoint)),
];

impl RequestContext<'_> {
    async fn replica_status(&self) -> Result<ApiResponse, ApiError> {
        Ok(success(&report::status(self.shared)?))
    }

    async fn replica_digest(&self) -> Result<ApiResponse, ApiError> {
        let number = |name: &str| {
            let text = self.parameter(name)?;
            let number = text.map(|text| text.parse::<u64>()).transpose();
            number.map_err(|_| ApiError::new(400, 10001, format!("{name} must be a number")))
        };
        let (position, horizon_ms) = (number("position")?, number("horizon_ms")?.unwrap_or(0));
        Ok(success(&report::digest(self.shared, position, horizon_ms).await?))
    }

    async fn replica_checkpoint(&self) -> Result<ApiResponse, ApiError> {
        checkpoint::send(self.shared).await
    }
}
