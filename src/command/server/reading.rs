//! The response to a read of one value, in both protocols.

use embercask::Value;
use hyper::Method;
use hyper::http::request::Parts;

use super::conditions::{Conditions, NotRead};
use super::error::ApiError;
use super::etag::{Etag, UNASKED_BYTES_MAX};
use super::response::{ApiResponse, response, set_etag, value_response};

/// What a request asks of the value besides its key.
pub(super) struct Reading {
    conditions: Conditions,
    is_head: bool,
}

impl Reading {
    pub(super) fn of(head: &Parts) -> Result<Reading, ApiError> {
        Ok(Reading {
            conditions: Conditions::of(&head.headers)?,
            is_head: head.method == Method::HEAD,
        })
    }

    /// Whether the response has an entity tag.
    fn has_etag(&self, value: &Value) -> bool {
        self.is_head || !self.conditions.are_none() || value.len() <= UNASKED_BYTES_MAX
    }

    /// May take some time: the digest of a long value.
    pub(super) fn response(&self, value: Value) -> Result<ApiResponse, ApiError> {
        if !self.has_etag(&value) {
            return Ok(value_response(value));
        }
        let etag = Etag::of_value(&value);
        let mut response = match self.conditions.check_read(etag) {
            Ok(()) => value_response(value),
            Err(NotRead::NotModified) => response(304, None, ""),
            Err(NotRead::PreconditionFailed) => return Err(self.conditions.not_met(true)),
        };
        set_etag(&mut response, etag);
        Ok(response)
    }
}
