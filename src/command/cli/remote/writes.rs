//! Writes of bulk files and imports.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;

use super::api::Pair;
use super::client::Client;
use super::error::Error;
use super::single::{Condition, PutOptions};
use super::{Namespace, text};
use crate::cli::destination::{Place, Refused};
use crate::cli::writer::{Change, Lifetime, Write};
use crate::common::base64;
use crate::common::failure::{Failure, Outcome};

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        match error {
            Error::Refused(refusal) if refusal.is_expiration() => Refused::Expiry(Error::Refused(refusal).into()),
            Error::Refused(refusal) if refusal.is_invalid() => Refused::Invalid(Error::Refused(refusal).into()),
            error => Refused::Other(error.into()),
        }
    }
}

/// The time of this machine.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Client {
    /// Does all writes, with a request for each run of puts or deletes in one namespace. The server
    /// does all of a request or nothing.
    pub(crate) fn write_all(&self, writes: &[Write]) -> Result<(), Refused> {
        let is_put = |write: &Write| matches!(write.change, Change::Put { .. });
        let runs = writes.chunk_by(|a, b| id(a) == id(b) && is_put(a) == is_put(b));
        for run in runs {
            let Some(first) = run.first() else { continue };
            if is_put(first) {
                let pairs: Vec<Pair<'_>> = run.iter().map(pair).collect::<Outcome<_>>().map_err(Refused::Invalid)?;
                self.bulk_put(id(first), &pairs)?;
            } else {
                let keys = run.iter().map(|write| text(&write.key));
                let keys: Vec<&str> = keys.collect::<Outcome<_>>().map_err(Refused::Invalid)?;
                self.bulk_delete(id(first), &keys)?;
            }
        }
        Ok(())
    }

    /// Sets the default lifetime of a namespace, with `keep` only if it has none. A server that
    /// refuses it, or has none, is told of.
    pub(crate) fn set_default_ttl(&self, namespace: &Namespace, ttl: Duration, keep: bool) -> Outcome {
        if keep && self.default_ttl(&namespace.id)?.is_some() {
            return Ok(());
        }
        let seconds = u64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        match self.put_default_ttl(&namespace.id, seconds) {
            Ok(()) => Ok(()),
            Err(Error::Refused(refusal)) if refusal.is_invalid() || matches!(refusal.status, 404 | 405) => {
                let why = match refusal.message.as_str() {
                    "" => "the server has none",
                    message => message,
                };
                self.note(&format!(
                    "The default lifetime of \"{}\" is not set: {why}",
                    namespace.name
                ));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Does a put if its key is absent, and returns whether it was. Repeating it does no harm: then
    /// the key is there.
    pub(crate) fn put_if_absent(&self, write: &Write) -> Result<bool, Refused> {
        let Change::Put { value, .. } = &write.change else {
            return Ok(true);
        };
        let key = text(&write.key).map_err(Refused::Invalid)?;
        let pair = pair(write).map_err(Refused::Invalid)?;
        let options = PutOptions {
            expiration: pair.expiration,
            expiration_ttl: pair.expiration_ttl,
            metadata: pair.metadata.map(|json| json.get().as_bytes()),
            condition: Condition::Absent,
            is_repeatable: true,
        };
        self.check_conditions(id(write), "--if-absent")?;
        match self.put(id(write), key, value.clone(), options) {
            Ok(_) => Ok(true),
            Err(Error::Refused(refusal)) if refusal.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The id of the namespace.
fn id(write: &Write) -> &str {
    match &write.namespace {
        Place::Server(namespace) => &namespace.id,
        // No write mixes stores and servers.
        Place::Store(_) => "",
    }
}

/// The pair for a put.
fn pair(write: &Write) -> Outcome<Pair<'_>> {
    let key = text(&write.key)?;
    let Change::Put {
        value,
        lifetime,
        metadata,
    } = &write.change
    else {
        return Err(Failure::usage("this is not a put", ""));
    };
    let (value, base64) = match std::str::from_utf8(value) {
        Ok(text) => (Cow::Borrowed(text), false),
        Err(_) => (Cow::Owned(base64::encode(value)), true),
    };
    let (expiration, expiration_ttl) = match lifetime {
        Lifetime::Default | Lifetime::Forever => (None, None),
        Lifetime::For(ttl) => (None, Some(ttl.as_secs())),
        Lifetime::UntilMs(ms) => (Some(ms.div_ceil(1000)), None),
        Lifetime::UntilSeconds(seconds) => (Some(*seconds), None),
    };
    let metadata = metadata.as_ref().map(|json| {
        let json: Option<&RawValue> = serde_json::from_slice(json).ok();
        json.filter(|json| json.get() != "null")
            .ok_or_else(|| Failure::usage("its metadata is not JSON, or null, which the REST API cannot store", ""))
    });
    Ok(Pair {
        key,
        value,
        base64,
        expiration,
        expiration_ttl,
        metadata: metadata.transpose()?,
    })
}
