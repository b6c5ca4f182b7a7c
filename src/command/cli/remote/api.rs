//! The REST API of Workers KV, call by call.

use std::collections::HashMap;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::address::encoded;
use super::client::{Call, Client};
use super::connection::Answer;
use super::error::Error;
use crate::common::failure::Failure;
use crate::planted::{Planted, planted};

/// Namespaces per page.
const NAMESPACES: usize = 1000;
/// The least that Workers KV takes as a limit.
pub(super) const LIMIT_MIN: usize = 10;
/// Most keys of a page, and of a bulk get.
pub(super) const PAGE_KEYS: usize = 1000;
pub(super) const GET_KEYS: usize = 100;

/// A namespace in a listing.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Info {
    pub(super) id: String,
    pub(super) title: String,
}

/// A page of keys.
pub(super) struct KeysPage {
    pub(super) keys: Vec<ListedKey>,
    /// Where the next page begins; None after the last one.
    pub(super) cursor: Option<String>,
}

/// A key in a listing.
#[derive(Debug, Deserialize)]
pub(super) struct ListedKey {
    pub(super) name: String,
    pub(super) expiration: Option<u64>,
    pub(super) metadata: Option<Box<RawValue>>,
}

/// A value in a bulk get, with U+FFFD for what is not UTF-8.
#[derive(Debug, Deserialize)]
pub(super) struct WithMetadata {
    pub(super) value: String,
    pub(super) metadata: Option<Box<RawValue>>,
    pub(super) expiration: Option<u64>,
}

/// A pair of a bulk put.
#[derive(Serialize)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a str,
    pub(super) value: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) base64: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiration_ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<&'a RawValue>,
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

#[derive(Deserialize)]
struct Envelope<T> {
    result: T,
    #[serde(default)]
    result_info: ResultInfo,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResultInfo {
    cursor: Option<String>,
    total_count: Option<usize>,
}

#[derive(Deserialize)]
struct Counted {
    count: u64,
}

#[derive(Deserialize)]
struct DefaultTtl {
    default_ttl: Option<u64>,
}

#[derive(Deserialize)]
struct Values {
    values: HashMap<String, Option<WithMetadata>>,
}

#[derive(Deserialize)]
struct Done {
    #[serde(default)]
    unsuccessful_keys: Vec<String>,
}

impl Client {
    fn read<T: for<'de> Deserialize<'de>>(&self, answer: &Answer) -> Result<Envelope<T>, Error> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            let told = format!(
                "{} does not answer as the REST API of Workers KV: {error}",
                self.shown()
            );
            Failure::usage(told, "give the address as `embercask serve` prints it").into()
        })
    }

    /// All namespaces that the token may see, sorted by title.
    pub(super) fn namespaces(&self) -> Result<Vec<Info>, Error> {
        let mut all: Vec<Info> = Vec::new();
        for page in 1.. {
            let path = format!("?per_page={NAMESPACES}&order=title&direction=asc&page={page}");
            let answer = self.send(&Call::new(Method::GET, path))?;
            let Envelope { result, result_info } = self.read::<Vec<Info>>(&answer)?;
            // A server that ignores the page must not be asked for ever.
            let is_again = result
                .first()
                .is_some_and(|first| all.iter().any(|info| info.id == first.id));
            if result.is_empty() || is_again {
                break;
            }
            all.extend(result);
            if result_info.total_count.is_some_and(|total| all.len() >= total) {
                break;
            }
        }
        all.sort_by(|a, b| a.title.cmp(&b.title));
        Ok(all)
    }

    pub(super) fn namespace_info(&self, id: &str) -> Result<Info, Error> {
        let answer = self.send(&Call::new(Method::GET, format!("/{}", encoded(id.as_bytes()))))?;
        Ok(self.read(&answer)?.result)
    }

    /// Not sent again if the connection fails: it may have created it.
    pub(super) fn create(&self, title: &str) -> Result<Info, Error> {
        let json = serde_json::json!({ "title": title }).to_string();
        let answer = self.send(&Call::new(Method::POST, "").json(json.into_bytes()).once())?;
        Ok(self.read(&answer)?.result)
    }

    pub(super) fn rename(&self, id: &str, title: &str) -> Result<(), Error> {
        let json = serde_json::json!({ "title": title }).to_string();
        self.send(&Call::new(Method::PUT, format!("/{id}")).json(json.into_bytes()))?;
        Ok(())
    }

    /// Not sent again if the connection fails: then it would not be found.
    pub(super) fn remove(&self, id: &str) -> Result<(), Error> {
        self.send(&Call::new(Method::DELETE, format!("/{id}")).once())?;
        Ok(())
    }

    /// The answer of a route that `embercask serve` has beyond Workers KV; None from other servers.
    fn beyond<T: for<'de> Deserialize<'de>>(&self, path: String) -> Result<Option<T>, Error> {
        match self.send(&Call::new(Method::GET, path)) {
            Ok(answer) => Ok(self.read(&answer).ok().map(|envelope| envelope.result)),
            Err(Error::Refused(refusal)) if matches!(refusal.status, 400 | 404 | 405) && !refusal.is_no_namespace() => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The number of keys with this prefix, if the server counts them.
    pub(super) fn count(&self, id: &str, prefix: &str) -> Result<Option<u64>, Error> {
        let path = format!("/{id}/count?prefix={}", encoded(prefix.as_bytes()));
        Ok(self.beyond::<Counted>(path)?.map(|counted| counted.count))
    }

    /// The lifetime of puts that name none, in seconds, if there is one and the server tells it.
    pub(super) fn default_ttl(&self, id: &str) -> Result<Option<u64>, Error> {
        let told = self.beyond::<DefaultTtl>(format!("/{id}/default_ttl"))?;
        Ok(told.and_then(|told| told.default_ttl))
    }

    pub(super) fn keys(&self, id: &str, prefix: &str, cursor: Option<&str>, limit: usize) -> Result<KeysPage, Error> {
        let mut path = format!("/{id}/keys?limit={limit}&prefix={}", encoded(prefix.as_bytes()));
        if let Some(cursor) = cursor {
            path += &format!("&cursor={}", encoded(cursor.as_bytes()));
        }
        let answer = self.send(&Call::new(Method::GET, path))?;
        let Envelope { result, result_info } = self.read::<Vec<ListedKey>>(&answer)?;
        Ok(KeysPage {
            keys: result,
            cursor: result_info.cursor.filter(|cursor| !cursor.is_empty()),
        })
    }

    /// The value of a key, and when it expires.
    pub(super) fn value(&self, id: &str, key: &str) -> Result<(Bytes, Option<u64>), Error> {
        let path = format!("/{id}/values/{}", encoded(key.as_bytes()));
        let answer = self.send(&Call::new(Method::GET, path))?;
        let expiration = answer.headers.get("expiration");
        let expiration = expiration.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        Ok((answer.body, expiration))
    }

    /// The value of a key, and its entity tag, if the server has any: they are in the answers to
    /// conditional requests.
    pub(super) fn value_with_tag(&self, id: &str, key: &str) -> Result<(Bytes, Option<HeaderValue>), Error> {
        let path = format!("/{id}/values/{}", encoded(key.as_bytes()));
        let call = Call::new(Method::GET, path).header(IF_NONE_MATCH, HeaderValue::from_static("\"none\""));
        let answer = self.send(&call)?;
        Ok((answer.body, answer.headers.get(ETAG).cloned()))
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

    pub(super) fn put(&self, id: &str, key: &str, value: Vec<u8>, options: PutOptions<'_>) -> Result<(), Error> {
        let mut path = format!("/{id}/values/{}", encoded(key.as_bytes()));
        if let Some(seconds) = options.expiration_ttl {
            path += &format!("?expiration_ttl={seconds}");
        } else if let Some(seconds) = options.expiration {
            path += &format!("?expiration={seconds}");
        }
        let mut call = Call::new(Method::PUT, path);
        match options.condition {
            Condition::None => {}
            Condition::Absent => {
                self.check_conditions(id)?;
                call = call.header(IF_NONE_MATCH, HeaderValue::from_static("*"));
            }
            Condition::Unchanged(tag) => call = call.header(IF_MATCH, tag.clone()),
        }
        if !matches!(options.condition, Condition::None) && !options.is_repeatable {
            call = call.once();
        }
        let call = match options.metadata {
            None => call.body(HeaderValue::from_static("application/octet-stream"), value),
            Some(metadata) => {
                let (content_type, form) = form(&value, metadata)?;
                call.body(content_type, form)
            }
        };
        self.send(&call)?;
        Ok(())
    }

    /// Refuses a conditional put unless the server judges conditions; others, among them Workers
    /// KV, ignore them and overwrite. One that judges them refuses a condition on a bulk request.
    fn check_conditions(&self, id: &str) -> Result<(), Error> {
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
                    "--if-absent does not work with --url: {} does not judge conditions",
                    self.shown()
                );
                Err(Failure::usage(told, "").into())
            }
        }
    }

    /// Deletes a key, which may be absent.
    pub(super) fn delete(&self, id: &str, key: &str) -> Result<(), Error> {
        let path = format!("/{id}/values/{}", encoded(key.as_bytes()));
        self.send(&Call::new(Method::DELETE, path))?;
        Ok(())
    }

    /// The values of at most [`GET_KEYS`] keys.
    pub(super) fn bulk_get(&self, id: &str, keys: &[&str]) -> Result<HashMap<String, Option<WithMetadata>>, Error> {
        let json = serde_json::json!({ "keys": keys, "type": "text", "withMetadata": true });
        let call = Call::new(Method::POST, format!("/{id}/bulk/get")).json(json.to_string().into_bytes());
        let answer = self.send(&call)?;
        Ok(self.read::<Values>(&answer)?.result.values)
    }

    pub(super) fn bulk_put(&self, id: &str, pairs: &[Pair<'_>]) -> Result<(), Error> {
        let json = serde_json::to_vec(pairs).map_err(Failure::from)?;
        self.bulk(Call::new(Method::PUT, format!("/{id}/bulk")).json(json))
    }

    pub(super) fn bulk_delete(&self, id: &str, keys: &[&str]) -> Result<(), Error> {
        let json = serde_json::to_vec(keys).map_err(Failure::from)?;
        self.bulk(Call::new(Method::POST, format!("/{id}/bulk/delete")).json(json))
    }

    fn bulk(&self, call: Call) -> Result<(), Error> {
        let answer = self.send(&call)?;
        let done = self.read::<Option<Done>>(&answer)?.result;
        match done.as_ref().and_then(|done| done.unsuccessful_keys.first()) {
            None => Ok(()),
            Some(key) => {
                let told = format!("{} has not written all keys, among them \"{key}\"", self.shown());
                Err(Failure::system(told, "try again").into())
            }
        }
    }
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
