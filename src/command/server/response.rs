//! Responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use embercask::Value;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc::Receiver;

use super::error::ApiError;
use super::etag::Etag;
use super::watching::Events;

pub(super) type ApiResponse = Response<ApiBody>;

/// The body of a response.
pub(super) enum ApiBody {
    /// In memory, or where the store holds it.
    Whole(Full<Bytes>),
    Events(Box<Events>),
    /// As they are made.
    Pieces(Receiver<Bytes>),
}

impl Default for ApiBody {
    fn default() -> ApiBody {
        ApiBody::Whole(Full::default())
    }
}

impl Body for ApiBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            ApiBody::Whole(body) => Pin::new(body).poll_frame(context),
            ApiBody::Events(events) => framed(events.poll_bytes(context)),
            ApiBody::Pieces(pieces) => framed(pieces.poll_recv(context)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ApiBody::Whole(body) => body.is_end_stream(),
            ApiBody::Events(_) | ApiBody::Pieces(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ApiBody::Whole(body) => body.size_hint(),
            ApiBody::Events(_) | ApiBody::Pieces(_) => SizeHint::default(),
        }
    }
}

fn framed(bytes: Poll<Option<Bytes>>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
    bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
}

/// A response with a body in memory.
pub(super) fn response(status: u16, content_type: Option<&'static str>, body: impl Into<Bytes>) -> ApiResponse {
    let mut response = Response::new(ApiBody::Whole(Full::new(body.into())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(content_type) = content_type {
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// A response with a value, or a part of one, as its body, sent from where the store holds it
/// without a copy.
pub(super) fn value_response(status: u16, value: Value) -> ApiResponse {
    struct Owner(Value);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }
    let mut response = response(
        status,
        Some("application/octet-stream"),
        Bytes::from_owner(Owner(value)),
    );
    // A browser must not run what a client has stored.
    set_header(&mut response, "x-content-type-options", b"nosniff");
    response
}

/// A response that goes on until its events end.
pub(super) fn events_response(events: Events) -> ApiResponse {
    let mut response = Response::new(ApiBody::Events(Box::new(events)));
    let content_type = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A response whose body is made while it is sent.
pub(super) fn pieces_response(content_type: &'static str, pieces: Receiver<Bytes>) -> ApiResponse {
    let mut response = Response::new(ApiBody::Pieces(pieces));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Sets a header; leaves it out if the value is not valid in a header.
pub(super) fn set_header(response: &mut ApiResponse, name: &'static str, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

pub(super) fn set_etag(response: &mut ApiResponse, etag: Etag) {
    if let Ok(etag) = HeaderValue::from_str(&etag.to_string()) {
        response.headers_mut().insert(ETAG, etag);
    }
}

/// The response to HEAD: that to GET, without its body.
pub(super) fn without_body(response: ApiResponse) -> ApiResponse {
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| ApiBody::default());
    let has_length = !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(length) = length.filter(|_| has_length) {
        set_header(&mut response, "content-length", length.to_string().as_bytes());
    }
    response
}

pub(super) fn to_json(json: impl std::io::Write, value: &impl serde::Serialize) -> Result<(), ApiError> {
    serde_json::to_writer(json, value).map_err(|_| ApiError::new(500, 10001, "internal error"))
}

/// Sets the headers that belong to an error.
pub(super) fn explain(response: &mut ApiResponse, error: &ApiError) {
    if let Some(length) = error.length {
        set_header(response, "content-range", format!("bytes */{length}").as_bytes());
    }
    if let Some(allow) = &error.allow {
        set_header(response, "allow", allow.as_bytes());
    }
    if error.status == 415 {
        set_header(response, "accept-encoding", b"identity");
    }
}
