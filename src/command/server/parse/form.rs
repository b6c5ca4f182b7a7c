//! Bodies in multipart/form-data (RFC 7578). What claims to be a form and is not one is an error:
//! as a raw body, its framing would become part of the value.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use memchr::memmem;

use super::ignored::Ignored;
use super::parameters::WithParameters;
use super::rules;
use crate::planted::{Planted, planted};
use crate::server::error::ApiError;

/// The parts of a put.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) value: Bytes,
    pub(crate) metadata: Option<Bytes>,
    /// What the client should know, although the form could be read.
    pub(crate) messages: Vec<String>,
}

/// Longest head of a part, in bytes: it is read as a whole.
const HEAD_BYTES_MAX: usize = 16 << 10;

fn unreadable(what: &str) -> ApiError {
    ApiError::new(400, 10012, format!("the multipart body could not be parsed: {what}"))
}

/// Whether the client means a form, in whatever spelling.
fn claims_form(content_type: &str) -> bool {
    let text = content_type.to_ascii_lowercase().replace(char::is_whitespace, "");
    text.starts_with("multipart")
        || ["multipart/", "form-data", ";boundary="]
            .iter()
            .any(|word| text.contains(word))
}

/// The boundary, if the body claims to be a form; an error if it cannot be one.
pub(crate) fn boundary(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let values = headers.get_all(CONTENT_TYPE).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    if !values.iter().any(|value| claims_form(value)) || planted(Planted::StoreFraming) {
        return Ok(None);
    }
    let [value] = &values[..] else {
        return Err(unreadable("there are several Content-Type headers: send one"));
    };
    let of_type = |what: &str| unreadable(&format!("in its Content-Type {what}"));
    let read = WithParameters::read(value).map_err(of_type)?;
    if read.kind != "multipart/form-data" {
        let what = format!(
            "its Content-Type is \"{:.100}\": send a form as multipart/form-data, or a raw value as another type",
            read.kind
        );
        return Err(unreadable(&what));
    }
    let boundary = read.get("boundary").map_err(of_type)?.unwrap_or_default();
    if boundary.is_empty() {
        return Err(unreadable(
            "its Content-Type has no boundary: let the client library that makes the form set the header",
        ));
    }
    let is_printable = boundary.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_printable || boundary.ends_with(' ') {
        return Err(unreadable("the boundary in its Content-Type is not printable ASCII"));
    }
    Ok(Some(boundary.to_owned()))
}

/// Reads a form. Parts with other names are ignored, and told.
pub(crate) fn read(body: &Bytes, boundary: &str) -> Result<Form, ApiError> {
    let (mut value, mut metadata) = (None, None);
    let mut ignored = Ignored::default();
    for part in Parts::of(body, boundary)? {
        let (name, content) = part.map_err(unreadable)?;
        let earlier = match &name[..] {
            "value" => value.replace(content),
            "metadata" => metadata.replace(content),
            name if is_member_of_metadata(name) => {
                return Err(not_json(
                    "the client has taken an object apart, into parts such as metadata[a]; send one part",
                ));
            }
            name => {
                ignored.add(name);
                None
            }
        };
        if earlier.is_some() {
            return Err(unreadable("it has two parts of the same name: send one"));
        }
    }
    let Some(value) = value else {
        let message = "the multipart field \"value\" is missing: send its bytes, or text, as one part of this name";
        return Err(ApiError::new(400, 10047, message));
    };
    Ok(Form {
        value,
        metadata,
        messages: ignored.messages(told, "parts were ignored"),
    })
}

/// Whether a part is a member of metadata that the client took apart, such as `metadata[a]`: what
/// was a number is text there, so they cannot be put together again.
fn is_member_of_metadata(name: &str) -> bool {
    name.strip_prefix("metadata")
        .is_some_and(|rest| rest.starts_with(['[', '.']))
}

/// The message about a part that was ignored.
fn told(name: &str) -> String {
    let hint = match name {
        "expiration" | "expiration_ttl" => ": give it as a parameter of the address",
        _ => "",
    };
    format!("the part {name} was ignored{hint}")
}

fn not_json(what: &str) -> ApiError {
    let message =
        format!("metadata must be valid json: {what} with JSON text, such as that of JSON.stringify(metadata)");
    ApiError::new(400, 10147, message)
}

/// As [`rules::check_metadata`], with a hint for those who make forms.
pub(crate) fn check_metadata(metadata: &[u8]) -> Result<Option<&[u8]>, ApiError> {
    if metadata.is_empty() && !planted(Planted::AcceptAnyMetadata) {
        return Err(not_json("the part is empty; leave it out, or send it"));
    }
    rules::check_metadata(metadata).map_err(|error| match error.status {
        400 => not_json("send the part"),
        _ => error,
    })
}

/// The parts of a body: name and content.
struct Parts<'a> {
    body: &'a Bytes,
    /// The line break and the boundary at the end of each part.
    delimiter: String,
    /// Behind the last delimiter.
    at: usize,
    is_done: bool,
}

impl<'a> Parts<'a> {
    fn of(body: &'a Bytes, boundary: &str) -> Result<Parts<'a>, ApiError> {
        let first = format!("--{boundary}");
        let breaks = if body.starts_with(b"\r\n") { 2 } else { 0 };
        if !body
            .get(breaks..)
            .is_some_and(|rest| rest.starts_with(first.as_bytes()))
        {
            return Err(unreadable("it does not begin with the boundary of its Content-Type"));
        }
        Ok(Parts {
            body,
            at: breaks + first.len(),
            delimiter: format!("\n{first}"),
            is_done: false,
        })
    }

    fn rest(&self, from: usize) -> &'a [u8] {
        self.body.get(from..).unwrap_or_default()
    }

    /// None behind the last part.
    fn part(&mut self) -> Result<Option<(String, Bytes)>, &'static str> {
        let rest = self.rest(self.at);
        if let Some(behind) = rest.strip_prefix(b"--") {
            let is_end = behind.iter().all(u8::is_ascii_whitespace);
            return if is_end {
                Ok(None)
            } else {
                Err("something follows its last boundary")
            };
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let head_at = self.at + padding;
        let rest = self.rest(head_at);
        if !rest.starts_with(b"\r\n") {
            let is_cut = rest.len() < 2;
            return Err(if is_cut {
                CUT_OFF
            } else {
                "a boundary is not alone on a line that ends with CR LF"
            });
        }
        let heads = rest.get(..HEAD_BYTES_MAX).unwrap_or(rest);
        let head_length = memmem::find(heads, b"\r\n\r\n").ok_or("the head of a part does not end in 16 KiB")?;
        let name = part_name(rest.get(2..head_length).unwrap_or_default())?;
        // From the line break before the content: a boundary right behind the head ends no content.
        let content_at = head_at + head_length + 4;
        let found = memmem::find(self.rest(content_at - 1), self.delimiter.as_bytes()).ok_or(CUT_OFF)?;
        let end = (content_at + found).checked_sub(2).filter(|end| *end >= content_at);
        let end = end.filter(|end| self.body.get(*end) == Some(&b'\r'));
        let end = end.ok_or("a boundary does not follow a line that ends with CR LF")?;
        self.at = end + 1 + self.delimiter.len();
        Ok(Some((name, self.body.slice(content_at..end))))
    }
}

const CUT_OFF: &str = "it is cut off, since its last boundary is missing";

impl Iterator for Parts<'_> {
    type Item = Result<(String, Bytes), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let part = self.part().transpose();
        self.is_done = !matches!(part, Some(Ok(_)));
        part
    }
}

/// The name in the head of a part whose content is the bytes of a field.
fn part_name(head: &[u8]) -> Result<String, &'static str> {
    let mut name = None;
    let text = String::from_utf8_lossy(head);
    for line in text.split("\r\n") {
        let (header, value) = line
            .split_once(':')
            .ok_or("a line in the head of a part is no header")?;
        let is = |usual: &[&str]| usual.iter().any(|usual| value.trim().eq_ignore_ascii_case(usual));
        match &header.to_ascii_lowercase()[..] {
            "content-disposition" => {
                let read = WithParameters::read(value)?;
                if read.kind != "form-data" || name.is_some() {
                    return Err("a part has another Content-Disposition than one form-data");
                }
                name = read.get("name")?.map(str::to_owned);
            }
            "content-transfer-encoding" if !is(&["7bit", "8bit", "binary"]) => {
                return Err("a part has a Content-Transfer-Encoding: send its bytes as they are");
            }
            "content-encoding" if !is(&["identity"]) => {
                return Err("a part has a Content-Encoding: send its bytes as they are");
            }
            "content-type" if claims_form(value) => return Err("a part is a form itself"),
            _ => {}
        }
    }
    name.ok_or("a part has no name in its Content-Disposition")
}

#[cfg(test)]
mod tests;
