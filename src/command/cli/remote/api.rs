//! The REST API of Workers KV, call by call: namespaces, listings and many keys at a time.

use std::collections::HashMap;

use hyper::Method;
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

#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) result: T,
    #[serde(default)]
    result_info: ResultInfo,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResultInfo {
    cursor: Option<String>,
    total_count: Option<usize>,
}

/// What the API answers to a write.
#[derive(Deserialize)]
struct Written {
    success: bool,
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
    pub(super) fn read<T: for<'de> Deserialize<'de>>(&self, answer: &Answer) -> Result<Envelope<T>, Error> {
        serde_json::from_slice(&answer.body).map_err(|_| self.refused(answer))
    }

    /// Sends a write. A status of success is not enough: a proxy or the page of a login may have
    /// answered instead of the API, and then nothing is written.
    pub(super) fn write(&self, call: &Call) -> Result<Answer, Error> {
        let answer = self.send(call)?;
        match serde_json::from_slice(&answer.body) {
            Ok(Written { success: true }) => Ok(answer),
            _ if planted(Planted::TrustAnyAnswer) => Ok(answer),
            _ => Err(self.refused(&answer)),
        }
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
        self.write(&Call::new(Method::PUT, format!("/{id}")).json(json.into_bytes()))?;
        Ok(())
    }

    /// Not sent again if the connection fails: then it would not be found.
    pub(super) fn remove(&self, id: &str) -> Result<(), Error> {
        self.write(&Call::new(Method::DELETE, format!("/{id}")).once())?;
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

    /// Sets the lifetime of puts that name none. The server may refuse it, or have none.
    pub(super) fn put_default_ttl(&self, id: &str, seconds: u64) -> Result<(), Error> {
        let json = serde_json::json!({ "default_ttl": seconds }).to_string();
        let path = format!("/{id}/default_ttl");
        self.write(&Call::new(Method::PUT, path).json(json.into_bytes()))?;
        Ok(())
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
        let answer = self.write(&call)?;
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
