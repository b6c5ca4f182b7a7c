//! The web page: one file, without anything from elsewhere.

use super::shared::{self, Answer, set_header};

/// Nothing but what this server sends may run or be shown, and nobody may frame it.
const POLICY: &[u8] = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src blob: data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn answer() -> Answer {
    let mut answer = shared::answer(200, Some("text/html; charset=utf-8"), include_str!("page.html"));
    set_header(&mut answer, "content-security-policy", POLICY);
    set_header(&mut answer, "x-content-type-options", b"nosniff");
    set_header(&mut answer, "referrer-policy", b"no-referrer");
    set_header(&mut answer, "cache-control", b"no-cache");
    answer
}
