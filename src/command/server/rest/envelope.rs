//! The envelope of JSON responses.

use serde::Serialize;

use crate::server::error::ApiError;
use crate::server::response::{ApiResponse, explain, response};

/// The envelope of a JSON response.
#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    result: T,
    success: bool,
    errors: &'a [Problem<'a>],
    messages: &'a [Message<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Problem<'a> {
    code: u32,
    message: &'a str,
}

/// Something that the client should know, although the request succeeded.
#[derive(Serialize)]
struct Message<'a> {
    code: u32,
    message: &'a str,
}

pub(super) const JSON: Option<&str> = Some("application/json");

pub(super) fn success(result: &impl Serialize) -> ApiResponse {
    success_with_messages(result, &[])
}

/// A success that has done less than the client may expect.
pub(super) fn success_with_messages(result: &impl Serialize, messages: &[String]) -> ApiResponse {
    let messages: Vec<Message<'_>> = messages
        .iter()
        .map(|message| Message { code: 10001, message })
        .collect();
    envelope(200, result, (&[], &messages), None)
}

/// The work goes on after this response.
pub(super) fn accepted(result: &impl Serialize) -> ApiResponse {
    envelope(202, result, (&[], &[]), None)
}

pub(super) fn success_with(result: &impl Serialize, result_info: serde_json::Value) -> ApiResponse {
    envelope(200, result, (&[], &[]), Some(result_info))
}

/// As [`success_with`], without the response around it.
pub(super) fn success_json(result: &impl Serialize, result_info: serde_json::Value) -> Vec<u8> {
    json(result, (&[], &[]), Some(result_info))
}

pub(in crate::server) fn refused(error: &ApiError) -> ApiResponse {
    let problem = Problem {
        code: error.code,
        message: &error.message,
    };
    let mut response = envelope(error.status, &(), (&[problem], &[]), None);
    explain(&mut response, error);
    response
}

fn envelope(
    status: u16,
    result: &impl Serialize,
    told: (&[Problem<'_>], &[Message<'_>]),
    result_info: Option<serde_json::Value>,
) -> ApiResponse {
    response(status, JSON, json(result, told, result_info))
}

fn json(
    result: &impl Serialize,
    (errors, messages): (&[Problem<'_>], &[Message<'_>]),
    result_info: Option<serde_json::Value>,
) -> Vec<u8> {
    let envelope = Envelope {
        result,
        success: errors.is_empty(),
        errors,
        messages,
        result_info,
    };
    // Strings, numbers and JSON: serializing cannot fail.
    serde_json::to_vec(&envelope).unwrap_or_default()
}
