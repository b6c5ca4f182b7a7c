//! The REST API v4, as wrangler and the official SDKs speak it.

mod bulk;
mod namespaces;
mod values;

use std::sync::Arc;

use bytes::Bytes;
use embercask::Namespace;
use hyper::http::request::Parts;
use hyper::{Method, Request};
use serde::Serialize;

use super::access::{Access, denied};
use super::body::Body;
use super::body::Disconnected;
use super::error::ApiError;
use super::parse::encoding::{Query, decode};
use super::parse::{bulk as bulk_bodies, rules};
use super::response::ApiResponse;
use super::response::response;
use super::shared::Shared;
use crate::common::text::parse_id;

/// What stands before all routes.
const BASE: &str = "/client/v4/";
/// Bytes of the largest body: that of a bulk put.
const BULK_BODY_BYTES_MAX: usize = 100 << 20;
/// Bytes of a form besides its value: boundaries, heads and metadata.
const FORM_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a body with a value.
const VALUE_BODY_BYTES_MAX: usize = rules::VALUE_BYTES_MAX + FORM_BYTES_MAX as usize;
/// Bytes of any other body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Answers a request; says what it was, for the metrics.
pub(super) async fn serve<B>(
    shared: &Arc<Shared>,
    is_socket: bool,
    request: Request<B>,
) -> Result<(&'static str, ApiResponse), Disconnected>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    let access = shared.tokens.access(&head.headers, is_socket);
    let route = Route::of(&head);
    let (keep_max, times) = match (&access, &route) {
        (Ok(_), Ok(route)) => route.body_bytes_max(),
        _ => (0, 1),
    };
    let body = shared.read_body(body, keep_max, times).await?;
    let name = route.as_ref().map_or("other", |route| route.name());
    let answered = match (access, route) {
        (Ok(access), Ok(route)) => {
            let context = RequestContext {
                shared,
                access: &access,
                head: &head,
            };
            context.run(route, body).await
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    Ok((name, answered.unwrap_or_else(|error| refused(&error))))
}

/// What is asked for. Ids and keys are as the path has them.
#[derive(Clone, Copy)]
enum Route<'a> {
    Verify,
    User,
    Accounts,
    Memberships,
    Statistics,
    ListNamespaces,
    CreateNamespace,
    Namespace(&'a str),
    RenameNamespace(&'a str),
    RemoveNamespace(&'a str),
    ListKeys(&'a str),
    Get(&'a str, &'a str),
    Metadata(&'a str, &'a str),
    Put(&'a str, &'a str),
    Delete(&'a str, &'a str),
    BulkPut(&'a str),
    BulkDelete(&'a str),
    BulkGet(&'a str),
}

impl<'a> Route<'a> {
    /// By method and raw path: what is escaped in a key never takes part in it.
    fn of(head: &'a Parts) -> Result<Route<'a>, ApiError> {
        let unknown = || {
            ApiError::new(
                404,
                7003,
                "Could not route to this path, perhaps your object identifier is invalid?",
            )
        };
        let path = head.uri.path().strip_prefix(BASE).ok_or_else(unknown)?;
        let segments: Vec<&str> = path.split('/').collect();
        let method = &head.method;
        let by = |routes: &[(Method, Route<'a>)]| {
            let found = routes.iter().find(|(allowed, _)| allowed == method);
            found
                .map(|(_, route)| *route)
                .ok_or_else(|| ApiError::new(405, 10405, "Method not allowed for this path"))
        };
        const GET: Method = Method::GET;
        match segments[..] {
            ["user", "tokens", "verify"] => by(&[(GET, Route::Verify)]),
            ["user"] => by(&[(GET, Route::User)]),
            ["accounts"] => by(&[(GET, Route::Accounts)]),
            ["memberships"] => by(&[(GET, Route::Memberships)]),
            ["embercask", "statistics"] => by(&[(GET, Route::Statistics)]),
            ["accounts", _, "storage", "kv", "namespaces", ref rest @ ..] => match *rest {
                [] => by(&[(GET, Route::ListNamespaces), (Method::POST, Route::CreateNamespace)]),
                [id] => by(&[
                    (GET, Route::Namespace(id)),
                    (Method::PUT, Route::RenameNamespace(id)),
                    (Method::DELETE, Route::RemoveNamespace(id)),
                ]),
                [id, "keys"] => by(&[(GET, Route::ListKeys(id))]),
                [id, "values", key] => by(&[
                    (GET, Route::Get(id, key)),
                    (Method::PUT, Route::Put(id, key)),
                    (Method::DELETE, Route::Delete(id, key)),
                ]),
                [id, "metadata", key] => by(&[(GET, Route::Metadata(id, key))]),
                [id, "bulk"] => by(&[
                    (Method::PUT, Route::BulkPut(id)),
                    (Method::DELETE, Route::BulkDelete(id)),
                ]),
                [id, "bulk", "delete"] => by(&[(Method::POST, Route::BulkDelete(id))]),
                [id, "bulk", "get"] => by(&[(Method::POST, Route::BulkGet(id))]),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

impl Route<'_> {
    /// What metrics call it.
    fn name(self) -> &'static str {
        match self {
            Route::Verify | Route::User | Route::Accounts | Route::Memberships => "account",
            Route::Statistics => "statistics",
            Route::ListNamespaces => "list_namespaces",
            Route::CreateNamespace => "create_namespace",
            Route::Namespace(_) => "get_namespace",
            Route::RenameNamespace(_) => "rename_namespace",
            Route::RemoveNamespace(_) => "remove_namespace",
            Route::ListKeys(_) => "list",
            Route::Get(..) => "get",
            Route::Metadata(..) => "metadata",
            Route::Put(..) => "put",
            Route::Delete(..) => "delete",
            Route::BulkPut(_) => "bulk_put",
            Route::BulkDelete(_) => "bulk_delete",
            Route::BulkGet(_) => "bulk_get",
        }
    }

    /// Bytes of the largest body, and how many times as much what is made of it may take.
    fn body_bytes_max(self) -> (usize, usize) {
        match self {
            // A form is copied, and its value again.
            Route::Put(..) => (VALUE_BODY_BYTES_MAX, 3),
            // Strings are made of it, and a batch of them.
            Route::BulkPut(_) | Route::BulkDelete(_) => (BULK_BODY_BYTES_MAX, 3),
            Route::BulkGet(_) => (bulk_bodies::GET_BODY_BYTES_MAX, 3),
            _ => (BODY_BYTES_MAX, 2),
        }
    }
}

/// A request that may be one of this client's.
struct RequestContext<'a> {
    shared: &'a Arc<Shared>,
    access: &'a Access,
    head: &'a Parts,
}

impl RequestContext<'_> {
    async fn run(&self, route: Route<'_>, body: Body) -> Result<ApiResponse, ApiError> {
        match route {
            Route::Verify => Ok(success(&serde_json::json!({ "id": IDENTITY, "status": "active" }))),
            Route::User => Ok(success(
                &serde_json::json!({ "id": IDENTITY, "email": "owner@localhost" }),
            )),
            Route::Accounts => self.only(account()),
            Route::Memberships => {
                self.only(serde_json::json!({ "id": IDENTITY, "status": "accepted", "account": account() }))
            }
            Route::Statistics => self.statistics().await,
            Route::ListNamespaces => self.list_namespaces().await,
            Route::CreateNamespace => self.create_namespace(&body).await,
            Route::Namespace(id) => {
                let namespace = self.namespace(id, "get namespace")?;
                Ok(success(&namespaces::shown(&namespace)))
            }
            Route::RenameNamespace(id) => self.rename_namespace(id, &body).await,
            Route::RemoveNamespace(id) => self.remove_namespace(id).await,
            Route::ListKeys(id) => self.list_keys(id).await,
            Route::Get(id, key) => self.get(id, key).await,
            Route::Metadata(id, key) => self.metadata(id, key).await,
            Route::Put(id, key) => self.put(id, key, body).await,
            Route::Delete(id, key) => self.delete(id, key).await,
            Route::BulkPut(id) => self.bulk_put(id, body).await,
            Route::BulkDelete(id) => self.bulk_delete(id, body).await,
            Route::BulkGet(id) => self.bulk_get(id, body).await,
        }
    }

    /// A list of one. Clients ask for pages until one is empty.
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

    /// A number of the query, above zero.
    fn page(&self, name: &str, default: usize) -> Result<usize, ApiError> {
        let Some(text) = self.parameter(name)? else {
            return Ok(default);
        };
        match text.parse() {
            Ok(number @ 1..) => Ok(number),
            _ => Err(ApiError::new(400, 10001, format!("{name} must be a number above zero"))),
        }
    }

    /// The namespace of an id in the path, if the client may see it.
    fn namespace(&self, id: &str, operation: &str) -> Result<Namespace, ApiError> {
        let unknown = || ApiError::new(404, 10013, "namespace not found").of(operation);
        let found = self
            .shared
            .store
            .namespace_by_id(parse_id(id).map_err(|_| unknown())?)?;
        let namespace = found.ok_or_else(unknown)?;
        if self.access.covers(&namespace.name(), namespace.id()) {
            Ok(namespace)
        } else {
            Err(denied())
        }
    }

    /// The same, to be changed.
    fn writable(&self, id: &str, operation: &str) -> Result<Namespace, ApiError> {
        self.access.check_write()?;
        self.namespace(id, operation)
    }

    /// A parameter of the query; None if it is absent or empty.
    fn parameter(&self, name: &str) -> Result<Option<String>, ApiError> {
        let query = Query::new(self.head.uri.query());
        query.filled(name).map_err(|_| rules::undecodable_parameter(name))
    }
}

/// The key in a path, decoded once.
fn key(raw: &str, operation: &str) -> Result<Vec<u8>, ApiError> {
    let key = decode(raw, false).ok_or_else(rules::undecodable_key);
    key.and_then(|key| rules::check_key(&key).map(|()| key))
        .map_err(|error| error.of(operation))
}

/// There is one account, whatever a client calls it.
const IDENTITY: &str = "00000000000000000000000000000001";

fn account() -> serde_json::Value {
    serde_json::json!({ "id": IDENTITY, "name": "embercask" })
}

/// What every answer is in.
#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    result: T,
    success: bool,
    errors: &'a [Problem<'a>],
    messages: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Problem<'a> {
    code: u32,
    message: &'a str,
}

const JSON: Option<&str> = Some("application/json");

fn success(result: &impl Serialize) -> ApiResponse {
    envelope(200, result, &[], None)
}

fn success_with(result: &impl Serialize, result_info: serde_json::Value) -> ApiResponse {
    envelope(200, result, &[], Some(result_info))
}

fn refused(error: &ApiError) -> ApiResponse {
    let problem = Problem {
        code: error.code,
        message: &error.message,
    };
    envelope(error.status, &(), &[problem], None)
}

fn envelope(
    status: u16,
    result: &impl Serialize,
    errors: &[Problem<'_>],
    result_info: Option<serde_json::Value>,
) -> ApiResponse {
    let envelope = Envelope {
        result,
        success: errors.is_empty(),
        errors,
        messages: [],
        result_info,
    };
    // Of strings, numbers and JSON: nothing that could not be written.
    let json = serde_json::to_vec(&envelope).unwrap_or_default();
    response(status, JSON, json)
}
