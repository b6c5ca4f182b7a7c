//! The web page: one file without external resources.

use super::response::{self, ApiResponse, set_header};

/// Only content from this server may run or be shown, and the page must not be framed.
const POLICY: &[u8] = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src blob: data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn response() -> ApiResponse {
    let mut response = response::response(200, Some("text/html; charset=utf-8"), include_str!("page.html"));
    set_header(&mut response, "content-security-policy", POLICY);
    set_header(&mut response, "x-content-type-options", b"nosniff");
    set_header(&mut response, "referrer-policy", b"no-referrer");
    set_header(&mut response, "cache-control", b"no-cache");
    response
}
