//! The binding protocol: what `workerd` sends to the service behind a `kvNamespace` binding. Its
//! requests do not name their namespace: a header added by workerd's configuration does, or the
//! listener is for one namespace.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use embercask::{Namespace, Page, Value};
use hyper::ext::ReasonPhrase;
use hyper::http::request::Parts;
use hyper::{Method, Request};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Endpoint;
use super::access::Access;
use super::blocking::blocking;
use super::body::{Disconnected, Unread, Work};
use super::conditions::Conditions;
use super::error::ApiError;
use super::listing::{ListedKey, listed, page, response_bytes};
use super::memory::Holder;
use super::parse::bulk::{self, Shown};
use super::parse::encoding::{Query, decode};
use super::parse::form;
use super::parse::head::routed_method;
use super::parse::rules::{self, ExpiryRules};
use super::reading::{self, METADATA_HEADER, Reading};
use super::response::{ApiResponse, explain, response, set_etag, to_json};
use super::shared::{Shared, Unexpired};
use super::writing::{self, Put};
use crate::planted::{Planted, planted};

/// The header that names the namespace, by id or name.
const NAMESPACE_HEADER: &str = "x-kv-namespace";
const EXPIRATION_HEADER: &str = "cf-expiration";
/// Longest reason phrase, in characters.
const REASON_CHARACTERS_MAX: usize = 512;
/// Longest body of a put that is kept, in bytes.
const PUT_BYTES_MAX: usize = rules::VALUE_BYTES_MAX + (64 << 10);
/// The error code for a wrong or missing namespace.
const NO_NAMESPACE: u32 = 10013;

/// Answers a request; returns the operation's name too, for the metrics.
pub(super) async fn serve<B>(
    shared: &Arc<Shared>,
    fixed_namespace: Option<&str>,
    endpoint: &Endpoint,
    request: Request<B>,
) -> Result<(&'static str, ApiResponse), Disconnected>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let mut unread = Unread::new(shared, body);
    let (name, plan) = match (routed_method(&head.method), head.uri.path()) {
        (&Method::GET, "/") => ("list", list_plan(&head)),
        (&Method::GET, _) => ("get", get_plan(&head)),
        (&Method::PUT, _) => ("put", put_plan(&head, shared.expiry_rules())),
        (&Method::DELETE, _) => ("delete", delete_plan(&head)),
        (&Method::POST, "/bulk/get") => ("bulk_get", Ok(Plan::GetMany)),
        (_, path) => ("other", Err(method_not_allowed(path))),
    };
    let allowed = shared
        .tokens
        .access(&head.headers, endpoint.is_socket)
        .and_then(|access| {
            let namespace = namespace(shared, fixed_namespace, &access, &head, &plan)?;
            Ok((namespace, endpoint.holder(&access)))
        });
    let answered = match (allowed, plan) {
        (Ok((namespace, holder)), Ok(plan)) => run(shared, (namespace, holder), plan, &mut unread).await,
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    unread.finish().await?;
    Ok((name, answered.unwrap_or_else(|error| refused(&error))))
}

fn method_not_allowed(path: &str) -> ApiError {
    let methods: &[&str] = match path {
        "/" => &["GET"],
        "/bulk/get" => &["GET", "PUT", "DELETE", "POST"],
        _ => &["GET", "PUT", "DELETE"],
    };
    ApiError::method_not_allowed("Method Not Allowed", methods)
}

/// The operation requested, as far as the head tells.
enum Plan {
    Get {
        key: Vec<u8>,
        reading: Reading,
    },
    Put(Put),
    Delete {
        key: Vec<u8>,
        conditions: Conditions,
    },
    List {
        limit: usize,
        prefix: Vec<u8>,
        cursor: Option<String>,
    },
    GetMany,
}

impl Plan {
    fn is_write(&self) -> bool {
        matches!(self, Plan::Put(_) | Plan::Delete { .. })
    }
}

/// The namespace of the request, if the client may do the operation there.
fn namespace(
    shared: &Shared,
    fixed: Option<&str>,
    access: &Access,
    head: &Parts,
    plan: &Result<Plan, ApiError>,
) -> Result<Namespace, ApiError> {
    if plan.as_ref().is_ok_and(Plan::is_write) {
        access.check_write()?;
    }
    let named = match fixed {
        Some(fixed) => fixed,
        None => head
            .headers
            .get(NAMESPACE_HEADER)
            .and_then(|name| std::str::from_utf8(name.as_bytes()).ok())
            .ok_or_else(|| ApiError::new(400, NO_NAMESPACE, "The header X-KV-Namespace does not name a namespace"))?,
    };
    let unknown = || ApiError::new(400, NO_NAMESPACE, "There is no such namespace");
    access.see(named, shared.namespace(named), unknown)
}

/// The key in the path: one segment, decoded once if the client says that it is encoded.
fn key(head: &Parts) -> Result<Vec<u8>, ApiError> {
    let path = head.uri.path();
    let raw = path.strip_prefix('/').unwrap_or(path);
    let query = Query::new(head.uri.query());
    let is_encoded = query.text("urlencoded").ok().flatten();
    let key = if is_encoded.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        decode(raw, false).ok_or_else(rules::undecodable_key)?
    } else {
        raw.as_bytes().to_vec()
    };
    rules::check_key(&key)?;
    Ok(key)
}

fn parameter(head: &Parts, name: &str) -> Result<Option<String>, ApiError> {
    let query = Query::new(head.uri.query());
    query.text(name).map_err(|_| rules::undecodable_parameter(name))
}

fn get_plan(head: &Parts) -> Result<Plan, ApiError> {
    let key = key(head)?;
    rules::check_cache_ttl(parameter(head, "cache_ttl")?.as_deref())?;
    let reading = Reading::of(head)?;
    Ok(Plan::Get { key, reading })
}

fn put_plan(head: &Parts, expiry_rules: ExpiryRules) -> Result<Plan, ApiError> {
    let key = key(head)?;
    if form::boundary(&head.headers)?.is_some() {
        let message = "A form is not a value: send the value as it is, or the form to the REST API";
        return Err(ApiError::new(400, 10012, message));
    }
    let (expiration, ttl) = (parameter(head, "expiration")?, parameter(head, "expiration_ttl")?);
    let expiration = rules::expiration(expiration.as_deref(), ttl.as_deref(), expiry_rules)?;
    let metadata = head.headers.get(METADATA_HEADER).map(|value| value.as_bytes());
    let metadata = metadata.map(rules::check_metadata).transpose()?.flatten();
    Ok(Plan::Put(Put {
        key,
        expiration,
        metadata: metadata.map(<[u8]>::to_vec),
        conditions: Conditions::of(&head.headers)?,
    }))
}

fn delete_plan(head: &Parts) -> Result<Plan, ApiError> {
    let key = key(head)?;
    let conditions = Conditions::of(&head.headers)?;
    Ok(Plan::Delete { key, conditions })
}

fn list_plan(head: &Parts) -> Result<Plan, ApiError> {
    let limit = parameter(head, "key_count_limit")?;
    let prefix = Query::new(head.uri.query()).get("prefix");
    let prefix = prefix
        .map_err(|_| rules::undecodable_parameter("prefix"))?
        .unwrap_or_default();
    rules::check_prefix(&prefix)?;
    Ok(Plan::List {
        limit: rules::page_limit(limit.as_deref(), "key_count_limit")?,
        prefix,
        cursor: parameter(head, "cursor")?.filter(|cursor| !cursor.is_empty()),
    })
}

async fn run(
    shared: &Arc<Shared>,
    (namespace, holder): (Namespace, Holder),
    plan: Plan,
    unread: &mut Unread<'_>,
) -> Result<ApiResponse, ApiError> {
    match plan {
        Plan::Get { key, reading } => {
            let answer = move |value: Option<Value>| reading.response(value.ok_or_else(not_found)?, EXPIRATION_HEADER);
            reading::get(shared, namespace, key, answer).await
        }
        Plan::Put(put) => {
            let mut body = unread.read(&holder, PUT_BYTES_MAX, Work::Value).await?;
            rules::check_value(body.length)?;
            let value = body.take_whole().ok_or_else(|| rules::value_too_long(body.length))?;
            let etag = put.run(shared, namespace, value, body).await?;
            let mut response = response(200, None, "");
            if let Some(etag) = etag {
                set_etag(&mut response, etag);
            }
            Ok(response)
        }
        Plan::Delete { key, conditions } => {
            writing::delete(shared, namespace, key, conditions).await?;
            Ok(response(200, None, ""))
        }
        Plan::List { limit, prefix, cursor } => {
            let memory = shared.body_memory.for_response(&holder, response_bytes(limit)).await?;
            let unexpired = shared.unexpired();
            let json = blocking(move || {
                let page = page(&namespace, limit, &prefix, cursor)?;
                Ok(memory.response(list(&page, unexpired)?))
            });
            let json = json.await?;
            Ok(response(200, Some("application/json"), json))
        }
        Plan::GetMany => {
            let body = unread.read(&holder, bulk::GET_BODY_BYTES_MAX, Work::Small).await?;
            let json = shared.many(&holder, (namespace, body), ["", ""], with_metadata).await?;
            Ok(response(200, Some("application/json"), json))
        }
    }
}

fn not_found() -> ApiError {
    ApiError::new(404, 10009, "Not Found")
}

#[derive(Serialize)]
struct Listed<'a> {
    /// Metadata is JSON in a string, which workerd parses.
    keys: Vec<ListedKey<'a, String>>,
    list_complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
}

fn list(page: &Page, unexpired: Unexpired) -> Result<Vec<u8>, ApiError> {
    let keys = listed(page, unexpired, |json| json.get().to_owned());
    let listed = Listed {
        list_complete: page.is_last() || (keys.is_empty() && planted(Planted::EndAtEmptyPage)),
        keys,
        cursor: page.cursor(),
    };
    let mut json = Vec::new();
    to_json(&mut json, &listed)?;
    Ok(json)
}

/// A key that is there, in the response to a bulk get.
#[derive(Serialize)]
struct WithMetadata<'a> {
    value: &'a Shown<'a>,
    metadata: Option<Box<RawValue>>,
}

fn with_metadata(json: &mut dyn Write, value: &Value, shown: &Shown<'_>) -> Result<(), ApiError> {
    let metadata = rules::metadata_json(value.metadata());
    to_json(json, &WithMetadata { value: shown, metadata })
}

/// An error response. workerd shows JavaScript only the reason phrase.
pub(super) fn refused(error: &ApiError) -> ApiResponse {
    // 404 would mean an absent key, so a missing namespace is 400.
    let status = if error.code == NO_NAMESPACE { 400 } else { error.status };
    let mut response = response(status, Some("text/plain;charset=UTF-8"), error.message.clone());
    let printable = |character: char| match character {
        _ if character.is_ascii_graphic() => character,
        _ if character.is_ascii() => ' ',
        _ => '?',
    };
    explain(&mut response, error);
    let reason = error.message.chars().map(printable);
    let reason: String = reason.take(REASON_CHARACTERS_MAX).collect();
    if let Ok(reason) = ReasonPhrase::try_from(reason.into_bytes()) {
        response.extensions_mut().insert(reason);
    }
    response
}
