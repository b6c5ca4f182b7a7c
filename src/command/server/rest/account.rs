//! The only account and its owner, which clients request before anything else.

use super::RequestContext;
use super::envelope::{success, success_with};
use crate::server::error::ApiError;
use crate::server::response::ApiResponse;

/// The id of the only account; clients may use any.
const IDENTITY: &str = "00000000000000000000000000000001";

fn account() -> serde_json::Value {
    serde_json::json!({ "id": IDENTITY, "name": "embercask" })
}

impl RequestContext<'_> {
    pub(super) async fn verify_token(&self) -> Result<ApiResponse, ApiError> {
        // What the token permits, so that the page offers nothing else, and the shortest lifetime.
        // Other clients ignore it.
        let access = serde_json::json!({
            "write": self.access.check_write().is_ok(),
            "all_namespaces": self.access.check_all().is_ok(),
        });
        let minimum_ttl = self.shared.expiry_rules().ttl_seconds_min;
        Ok(success(&serde_json::json!({
            "id": IDENTITY, "status": "active", "access": access, "minimum_ttl": minimum_ttl,
        })))
    }

    pub(super) async fn user(&self) -> Result<ApiResponse, ApiError> {
        Ok(success(
            &serde_json::json!({ "id": IDENTITY, "email": "owner@localhost" }),
        ))
    }

    pub(super) async fn accounts(&self) -> Result<ApiResponse, ApiError> {
        self.only(account())
    }

    pub(super) async fn memberships(&self) -> Result<ApiResponse, ApiError> {
        self.only(serde_json::json!({ "id": IDENTITY, "status": "accepted", "account": account() }))
    }

    /// A list of one item. Clients request pages until one is empty.
    fn only(&self, item: serde_json::Value) -> Result<ApiResponse, ApiError> {
        let page = self.page("page", 1)?;
        let listed = if page == 1 { vec![item] } else { Vec::new() };
        let info = serde_json::json!({
            "page": page,
            "per_page": 20,
            "count": listed.len(),
            "total_count": 1,
            "total_pages": 1,
        });
        Ok(success_with(&listed, info))
    }
}
