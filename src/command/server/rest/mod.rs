//! The REST API v4, as used by wrangler and the official SDKs. `routes` has the table of routes.

mod account;
mod admin;
mod bulk;
pub(super) mod envelope;
mod namespace_details;
mod namespaces;
mod replica;
mod routes;
mod values;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use embercask::Namespace;
use hyper::http::request::Parts;
use hyper::{Method, Request};

use super::Endpoint;
use super::access::Access;
use super::body::{Disconnected, Unread, Work};
use super::conditions;
use super::error::ApiError;
use super::memory::Holder;
use super::parse::encoding::{Query, decode};
use super::parse::head::routed_method;
use super::parse::rules;
use super::response::ApiResponse;
use super::shared::Shared;
use crate::common::parse::parse_id;
use crate::planted::{Planted, planted};
use routes::Parameters;

/// Most bytes of a form besides its value: boundaries, heads and metadata.
const FORM_BYTES_MAX: u64 = 64 << 10;

/// Answers a request; returns the operation's name too, for the metrics.
pub(super) async fn serve<B>(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    request: Request<B>,
) -> Result<(&'static str, ApiResponse), Disconnected>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let mut unread = Unread::new(shared, body);
    let found = routes::find(&head.method, head.uri.path());
    let name = found.as_ref().map_or("other", |(route, _)| route.name);
    let answered = match (shared.tokens.access(&head.headers, endpoint.is_socket), found) {
        (Ok(access), Ok((route, parameters))) => {
            let context = RequestContext {
                shared,
                access: &access,
                holder: endpoint.holder(&access),
                head: &head,
                parameters,
            };
            let allowed = route.right.check(&access);
            if allowed.is_err() && planted(Planted::MemoryBeforeRights) {
                let _kept = unread.read(&context.holder, rules::VALUE_BYTES_MAX, Work::Value).await;
            }
            match allowed.and_then(|()| context.refuse_conditions()) {
                Ok(()) => (route.handler)(&context, &mut unread).await,
                Err(error) => Err(error),
            }
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    unread.finish().await?;
    Ok((name, answered.unwrap_or_else(|error| envelope::refused(&error))))
}

/// A request of an authorized client to an existing route.
struct RequestContext<'a> {
    shared: &'a Arc<Shared>,
    access: &'a Access,
    /// Whom memory is counted for.
    holder: Holder,
    head: &'a Parts,
    parameters: Parameters<'a>,
}

impl RequestContext<'_> {
    /// The namespace whose id is in the path, if the client may see it.
    fn namespace(&self, operation: &str) -> Result<Namespace, ApiError> {
        let found = match parse_id(self.parameters.id) {
            Ok(id) => self.shared.namespace_by_id(id)?,
            Err(_) => None,
        };
        let unknown = || ApiError::new(404, 10013, "namespace not found").of(operation);
        self.access.see(self.parameters.id, Ok(found), unknown)
    }

    /// The key in the path, decoded once.
    fn key(&self, operation: &str) -> Result<Vec<u8>, ApiError> {
        let key = decode(self.parameters.key, false).ok_or_else(rules::undecodable_key);
        key.and_then(|key| rules::check_key(&key).map(|()| key))
            .map_err(|error| error.of(operation))
    }

    /// Refuses the conditions of a write that is not of a single value.
    fn refuse_conditions(&self) -> Result<(), ApiError> {
        match self.parameters.key.is_empty() && routed_method(&self.head.method) != Method::GET {
            true => conditions::refuse(&self.head.headers),
            false => Ok(()),
        }
    }

    /// A query parameter that is a number above zero.
    fn page(&self, name: &str, default: usize) -> Result<usize, ApiError> {
        let Some(text) = self.parameter(name)? else {
            return Ok(default);
        };
        match text.parse() {
            Ok(number @ 1..) if !text.starts_with('+') => Ok(number),
            _ => Err(ApiError::new(400, 10001, format!("{name} must be a number above zero"))),
        }
    }

    /// A query parameter, perhaps empty.
    fn parameter(&self, name: &str) -> Result<Option<String>, ApiError> {
        let query = Query::new(self.head.uri.query());
        query.text(name).map_err(|_| rules::undecodable_parameter(name))
    }
}
