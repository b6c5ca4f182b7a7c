//! From the head of a request to the part of the server that answers it; and what needs no
//! namespace: health, metrics, the page.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Body;
use hyper::{HeaderMap, Method, Request, StatusCode};

use super::access::denied;
use super::blocking::blocking;
use super::body::{Disconnected, Unread};
use super::endpoint::{Endpoint, Protocol};
use super::error::ApiError;
use super::metrics::Answered;
use super::parse::head::{self, routed_method};
use super::replica::Replica;
use super::response::{ApiResponse, response, set_header, without_body};
use super::shared::Shared;
use super::{binding, page, rest};

/// Answers one request, with any type of body.
pub(super) async fn respond<B>(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    mut request: Request<B>,
) -> Result<ApiResponse, Disconnected>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let begun = Instant::now();
    let face = endpoint.protocol.name();
    let checked = head::check(&mut request);
    let is_head = request.method() == Method::HEAD;
    let answered = match checked {
        Ok(()) => match &shared.replica {
            Some(replica) => answer_once_applied(replica, &shared, &endpoint, request).await,
            None => answer(&shared, &endpoint, request).await,
        },
        Err(error) => {
            // Clients read the response only when they have sent the body.
            let drained = Unread::new(&shared, request.into_body()).finish().await;
            drained.map(|()| ("other", endpoint.protocol.refused(&error)))
        }
    };
    let answered = answered.map(|(operation, response)| match is_head {
        true => (operation, without_body(response)),
        false => (operation, response),
    });
    let took = begun.elapsed();
    match &answered {
        Ok((operation, response)) => {
            let bytes = response.body().size_hint().exact().unwrap_or(0);
            let status = response.status().as_u16();
            let answer = Answered { status, took, bytes };
            shared.metrics.answered(face, operation, &answer);
            tracing::debug!(face, operation, status, bytes, ?took, "answered");
        }
        Err(reason) => {
            shared.metrics.disconnected();
            tracing::debug!(face, %reason, "disconnected");
        }
    }
    answered.map(|(_, response)| with_retry_after(response))
}

/// As [`answer`], once the replica has applied what the request asks for.
async fn answer_once_applied<B>(
    replica: &Replica,
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    request: Request<B>,
) -> Result<(&'static str, ApiResponse), Disconnected>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    match replica.wait(request.headers()).await {
        Ok(()) => replica.answer(answer(shared, endpoint, request)).await,
        Err(error) => {
            let drained = Unread::new(shared, request.into_body()).finish().await;
            drained.map(|()| ("other", endpoint.protocol.refused(&error)))
        }
    }
}

/// The response to a request whose head is well-formed, and the operation's name.
async fn answer<B>(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    request: Request<B>,
) -> Result<(&'static str, ApiResponse), Disconnected>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let page = match &endpoint.protocol {
        Protocol::Binding { namespace } => {
            return binding::serve(shared, namespace.as_deref(), endpoint, request).await;
        }
        Protocol::Rest { page } => *page,
    };
    let is_get = routed_method(request.method()) == Method::GET;
    match request.uri().path() {
        "/healthz" | "/readyz" | "/metrics" if !is_get => {}
        "/" if page && !is_get => {}
        "/" if page => return Ok(("page", page::response())),
        "/healthz" => return Ok(("health", response(200, PLAIN, "ok\n"))),
        "/readyz" => return Ok(("health", ready(shared).await)),
        "/metrics" => return Ok(("metrics", numbers(shared, endpoint.is_socket, request.headers()).await)),
        _ => return rest::serve(shared, endpoint, request).await,
    }
    Unread::new(shared, request.into_body()).finish().await?;
    let error = ApiError::method_not_allowed("Method not allowed for this path", &["GET"]);
    Ok(("other", endpoint.protocol.refused(&error)))
}

/// Tells clients when to try again, if that makes sense.
pub(super) fn with_retry_after(mut response: ApiResponse) -> ApiResponse {
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        set_header(&mut response, "retry-after", b"1");
    }
    response
}

/// Whether a path of the REST API's address is about the server's health.
pub(super) fn is_health(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

pub(super) const PLAIN: Option<&str> = Some("text/plain; charset=utf-8");

async fn ready(shared: &Arc<Shared>) -> ApiResponse {
    let asked = Arc::clone(shared);
    match blocking(move || Ok((asked.unready(), asked.remark()))).await {
        Ok((None, None)) => response(200, PLAIN, "ready\n"),
        Ok((None, Some(remark))) => response(200, PLAIN, format!("ready\n{remark}\n")),
        Ok((Some(why), _)) => response(503, PLAIN, format!("{why}\n")),
        Err(error) => response(error.status, PLAIN, error.message),
    }
}

/// The metrics, for clients that may read everything.
async fn numbers(shared: &Arc<Shared>, is_socket: bool, headers: &HeaderMap) -> ApiResponse {
    let allowed = shared
        .tokens
        .access(headers, is_socket)
        .and_then(|access| access.check_all());
    match allowed {
        Ok(()) => {}
        Err(error) if error == denied() => return response(403, PLAIN, "a token is needed\n"),
        Err(error) => return response(error.status, PLAIN, format!("{}\n", error.message)),
    }
    let numbered = Arc::clone(shared);
    let text = blocking(move || {
        numbered.metrics.watchers.set(numbered.watchers.number());
        let text = numbered.metrics.text(&numbered.store, &numbered.namespace_limits);
        Ok(text + &numbered.replica.as_ref().map(Replica::metrics).unwrap_or_default())
    });
    match text.await {
        Ok(text) => response(200, Some("text/plain; version=0.0.4"), text),
        Err(error) => response(error.status, PLAIN, error.message),
    }
}
