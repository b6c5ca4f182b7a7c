//! The REST API of Workers KV, call by call: single keys, and the conditions that `embercask serve`
//! judges beyond it.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use serde_json::value::RawValue;

use super::USE_STORE;
use super::address::encoded;
use super::api::{LIMIT_MIN, ListedKey};
use super::client::{Call, Client};
use super::connection::Answer;
use super::error::Error;
use crate::common::failure::Failure;
use crate::planted::{Planted, planted};

/// An entity tag that no value has.
const NO_TAG: HeaderValue = HeaderValue::from_static("\"none\"");

/// A key with all that it has.
pub(super) struct Tagged {
    pub(super) value: Bytes,
    pub(super) expiration: Option<u64>,
    pub(super) metadata: Option<Box<RawValue>>,
    /// None from a server that has none.
    pub(super) tag: Option<HeaderValue>,
}

/// When a put is done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Condition<'a> {
    #[default]
    None,
    /// If the key is absent.
    Absent,
    /// If value, metadata and expiry are still those of this entity tag.
    Unchanged(&'a HeaderValue),
    /// In any case; for the entity tag in the answer.
    Any,
}

/// What a put stores with the value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PutOptions<'a> {
    pub(super) expiration: Option<u64>,
    pub(super) expiration_ttl: Option<u64>,
    /// JSON.
    pub(super) metadata: Option<&'a [u8]>,
    pub(super) condition: Condition<'a>,
    /// A conditional put may be sent again if the connection fails: its own success may be what
    /// the condition finds then.
    pub(super) is_repeatable: bool,
}

impl Client {
    /// The value of a key, and when it expires.
    pub(super) fn value(&self, id: &str, key: &str) -> Result<(Bytes, Option<u64>), Error> {
        let answer = self.answer_with_value(&Call::new(Method::GET, value_path(id, key)))?;
        let expiration = expiration_of(&answer);
        Ok((answer.body, expiration))
    }

    /// A key with all that it has and its entity tag; None if it is absent.
    pub(super) fn tagged(&self, id: &str, key: &str) -> Result<Option<Tagged>, Error> {
        // Entity tags are in the answers to conditional requests.
        let call = Call::new(Method::GET, value_path(id, key)).header(IF_NONE_MATCH, NO_TAG);
        let read = || {
            let answer = self.answer_with_value(&call)?;
            Ok(Some(Tagged {
                tag: answer.headers.get(ETAG).cloned(),
                expiration: expiration_of(&answer),
                metadata: self.metadata(id, key)?,
                value: answer.body,
            }))
        };
        read().or_else(|error| match error {
            Error::Refused(refusal) if refusal.is_no_key() => Ok(None),
            error => Err(error),
        })
    }

    fn answer_with_value(&self, call: &Call) -> Result<Answer, Error> {
        let answer = self.send(call)?;
        let content_type = answer.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        // Values come as bytes of no type, so this is the page of a proxy or of a login.
        match content_type.is_some_and(|name| name.starts_with(b"text/html")) {
            true => Err(self.refused(&answer)),
            false => Ok(answer),
        }
    }

    /// A key as it is listed, without its value.
    pub(super) fn listed(&self, id: &str, key: &str) -> Result<Option<ListedKey>, Error> {
        // It is the first of those that begin with it.
        let page = self.keys(id, key, None, LIMIT_MIN)?;
        Ok(page.keys.into_iter().next().filter(|listed| listed.name == key))
    }

    /// The metadata of a key, if it has any.
    pub(super) fn metadata(&self, id: &str, key: &str) -> Result<Option<Box<RawValue>>, Error> {
        let path = format!("/{id}/metadata/{}", encoded(key.as_bytes()));
        let answer = self.send(&Call::new(Method::GET, path))?;
        Ok(self.read(&answer)?.result)
    }

    /// Puts a value; returns its entity tag if the put is conditional.
    pub(super) fn put(
        &self,
        id: &str,
        key: &str,
        value: impl Into<Bytes>,
        options: PutOptions<'_>,
    ) -> Result<Option<HeaderValue>, Error> {
        let mut path = value_path(id, key);
        if let Some(seconds) = options.expiration_ttl {
            path += &format!("?expiration_ttl={seconds}");
        } else if let Some(seconds) = options.expiration {
            path += &format!("?expiration={seconds}");
        }
        let mut call = Call::new(Method::PUT, path);
        match options.condition {
            Condition::None => {}
            Condition::Absent => call = call.header(IF_NONE_MATCH, HeaderValue::from_static("*")),
            Condition::Unchanged(tag) => call = call.header(IF_MATCH, tag.clone()),
            Condition::Any => call = call.header(IF_NONE_MATCH, NO_TAG),
        }
        if !matches!(options.condition, Condition::None) && !options.is_repeatable {
            call = call.once();
        }
        let value = value.into();
        let call = match options.metadata {
            None => call.body(HeaderValue::from_static("application/octet-stream"), value),
            Some(metadata) => {
                let (content_type, form) = form(&value, metadata)?;
                call.body(content_type, form)
            }
        };
        Ok(self.write(&call)?.headers.get(ETAG).cloned())
    }

    /// Refuses a flag or command that puts on a condition, unless the server judges conditions;
    /// others, among them Workers KV, ignore them and overwrite. One that judges them refuses a
    /// condition on a bulk request.
    pub(super) fn check_conditions(&self, id: &str, what: &str) -> Result<(), Error> {
        if self.judges_conditions.get() || planted(Planted::OverwriteUnjudged) {
            return Ok(());
        }
        let json = serde_json::json!({ "keys": ["a"] }).to_string().into_bytes();
        let call = Call::new(Method::POST, format!("/{id}/bulk/get")).json(json);
        match self.send(&call.header(IF_NONE_MATCH, HeaderValue::from_static("*"))) {
            Err(Error::Refused(refusal)) if refusal.status == 400 => {
                self.judges_conditions.set(true);
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => {
                let told = format!(
                    "{what} does not work with --url: {} does not judge conditions",
                    self.shown()
                );
                Err(Failure::usage(told, USE_STORE).into())
            }
        }
    }

    /// The failure of a command that needs them.
    pub(super) fn has_no_tags(&self, what: &str) -> Error {
        let told = format!("{what} does not work with --url: {} has no entity tags", self.shown());
        Failure::usage(told, USE_STORE).into()
    }

    /// Deletes a key, which may be absent.
    pub(super) fn delete(&self, id: &str, key: &str) -> Result<(), Error> {
        self.write(&Call::new(Method::DELETE, value_path(id, key)))?;
        Ok(())
    }

    /// Deletes a key that still has this entity tag; returns whether it had.
    pub(super) fn delete_unchanged(&self, id: &str, key: &str, tag: &HeaderValue) -> Result<bool, Error> {
        // Sent again after it was done, it would seem that another had deleted the key.
        let call = Call::new(Method::DELETE, value_path(id, key)).header(IF_MATCH, tag.clone());
        match self.write(&call.once()) {
            Ok(_) => Ok(true),
            Err(Error::Refused(refusal)) if refusal.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn value_path(id: &str, key: &str) -> String {
    format!("/{id}/values/{}", encoded(key.as_bytes()))
}

fn expiration_of(answer: &Answer) -> Option<u64> {
    answer.headers.get("expiration")?.to_str().ok()?.parse().ok()
}

/// A value and its metadata as a form, and the content type with its boundary.
fn form(value: &[u8], metadata: &[u8]) -> Result<(HeaderValue, Vec<u8>), Error> {
    let mut random = [0; 16];
    let failed = |told: String| Error::from(Failure::system(told, ""));
    getrandom::fill(&mut random).map_err(|error| failed(format!("the system has no random bytes: {error}")))?;
    let boundary = format!("embercask-{:032x}", u128::from_ne_bytes(random));
    let mut form = Vec::with_capacity(value.len() + metadata.len() + 512);
    let file = "; filename=\"blob\"\r\nContent-Type: application/octet-stream";
    for (name, more, content) in [("value", file, value), ("metadata", "", metadata)] {
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n");
        form.extend_from_slice(head.as_bytes());
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let content_type = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"));
    Ok((content_type.map_err(|error| failed(error.to_string()))?, form))
}
