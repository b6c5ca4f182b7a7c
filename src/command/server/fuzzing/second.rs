//! A second, simple server: what each request should do, according to the documentation of Workers
//! KV and of this server.

use std::collections::BTreeMap;

use super::bulk::{self, Expiry};
use super::escapes::{decode, parse_id};
use crate::common::fuzzing::json::{self, Node, Others, Wrong};
use crate::common::fuzzing::{Kept, Keys, NOW_MS};

/// A request as received.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) rights: Rights,
    /// Binding protocol only: the name or id of the namespace.
    pub(super) namespace: Option<&'a [u8]>,
    pub(super) metadata: Option<&'a [u8]>,
    pub(super) if_match: Option<&'a [u8]>,
    pub(super) if_none_match: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
    /// Value and metadata, if the body is a form of them.
    pub(super) form: Option<(&'a [u8], Option<&'a [u8]>)>,
    /// Whether its Content-Type is that of a form.
    pub(super) claims_form: bool,
    pub(super) has_page: bool,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    Nothing,
    /// Read the namespace `A`.
    Reader,
    All,
}

/// The effect of an accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Answers something, and changes nothing.
    Answers,
    /// The same, or refuses: the second server cannot tell.
    Perhaps,
    Shows(Kept),
    Lists(Vec<String>),
    Values(BTreeMap<String, Option<String>>),
    Puts(u128, Vec<(Vec<u8>, Kept)>),
    Deletes(u128, Vec<Vec<u8>>),
    Creates(String),
    Renames(u128, String),
    Removes(u128),
}

/// Namespaces by id, with name and content.
pub(super) type World = BTreeMap<u128, (String, Keys)>;

fn key(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let is_key = std::str::from_utf8(&bytes).is_ok_and(bulk::is_key);
    is_key.then_some(bytes)
}

/// Metadata: JSON of at most 1,024 bytes; `null` means none.
#[expect(clippy::option_option, reason = "none is not the same as wrong")]
fn metadata(given: Option<&[u8]>) -> Option<Option<Vec<u8>>> {
    let Some(given) = given else { return Some(None) };
    let node = json::parse(given).ok()?;
    let is_good = given.len() <= 1024 && std::str::from_utf8(given).is_ok();
    is_good.then(|| (!matches!(node.value, json::Value::Null)).then(|| given.to_vec()))
}

fn expiry_ms(expiry: Expiry) -> u64 {
    match expiry {
        Expiry::After(seconds) => NOW_MS + seconds * 1000,
        Expiry::At(seconds) => seconds.saturating_mul(1000),
    }
}

impl Asked<'_> {
    /// A parameter, decoded; None if it is malformed.
    #[expect(clippy::option_option, reason = "absent is not the same as wrong")]
    fn bytes(&self, name: &str) -> Option<Option<Vec<u8>>> {
        for pair in self.query.split('&') {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            if decode(found, true).as_deref() == Some(name.as_bytes()) {
                return decode(value, true).map(Some);
            }
        }
        Some(None)
    }

    /// A parameter as text.
    #[expect(clippy::option_option, reason = "absent is not the same as wrong")]
    fn text(&self, name: &str) -> Option<Option<String>> {
        match self.bytes(name)? {
            Some(bytes) => String::from_utf8(bytes).ok().map(Some),
            None => Some(None),
        }
    }

    pub(super) fn number(&self, name: &str, usual: i64, allowed: impl Fn(i64) -> bool) -> Option<i64> {
        let number = match self.text(name)? {
            Some(text) => text.parse().ok().filter(|_| !text.starts_with('+'))?,
            None => usual,
        };
        allowed(number).then_some(number)
    }

    fn expiry_ms(&self) -> Option<Option<u64>> {
        let (at, ttl) = (self.text("expiration")?, self.text("expiration_ttl")?);
        let expiry = match (at, ttl) {
            (_, Some(ttl)) => {
                let seconds = bulk::seconds(&ttl).filter(|seconds| *seconds >= 60)?;
                Some(Expiry::After(seconds))
            }
            (Some(at), None) => {
                let earliest = NOW_MS / 1000 + 60;
                let seconds = bulk::seconds(&at).filter(|seconds| *seconds >= earliest)?;
                Some(Expiry::At(seconds))
            }
            (None, None) => None,
        };
        Some(expiry.map(expiry_ms))
    }

    /// The namespace of this id, if the client may see it.
    fn see(&self, world: &World, id: Option<u128>) -> Option<u128> {
        let id = id.filter(|id| world.contains_key(id))?;
        let may = self.rights == Rights::All || self.rights == Rights::Reader && world[&id].0 == "A";
        may.then_some(id)
    }

    fn title(&self) -> Option<String> {
        let body = json::parse(self.body).ok()?;
        let body = body.members(|name| name == "title", Others::MeanNothing)?;
        let title = body.text("title")??;
        (1..=512).contains(&title.chars().count()).then_some(title)
    }

    fn list(&self, keys: &Keys, limit: i64, prefix: &[u8]) -> Option<Does> {
        if self.text("cursor")?.is_some_and(|cursor| !cursor.is_empty()) {
            return Some(Does::Perhaps);
        }
        let found = keys.keys().filter(|key| key.starts_with(prefix)).take(limit as usize);
        // Keys that are not text are not shown, but count for the limit.
        Some(Does::Lists(
            found.filter_map(|key| String::from_utf8(key.clone()).ok()).collect(),
        ))
    }

    fn get_many(&self, keys: &Keys) -> Option<Does> {
        let body = json::parse(self.body).ok()?;
        let (names, is_json, with_metadata) = bulk::get(&body)?;
        let mut values = BTreeMap::new();
        for name in names {
            let value = keys.get(name.as_bytes()).map(|kept| kept.value.as_slice());
            if is_json && let Some(value) = value {
                match json::parse(value) {
                    Ok(_) if std::str::from_utf8(value).is_ok() => {}
                    Err(Wrong::TooDeep) => return Some(Does::Perhaps),
                    _ => return None,
                }
            }
            values.insert(name, value.map(|value| String::from_utf8_lossy(value).into_owned()));
        }
        Some(if is_json || with_metadata {
            Does::Answers
        } else {
            Does::Values(values)
        })
    }

    /// What the binding protocol does; None if it refuses.
    pub(super) fn binding(&self, world: &World) -> Option<Does> {
        let named = std::str::from_utf8(self.namespace?).ok()?;
        let by_name = || world.iter().find(|(_, (name, _))| name == named).map(|(id, _)| *id);
        let id = parse_id(named).filter(|id| world.contains_key(id)).or_else(by_name);
        let id = self.see(world, id)?;
        let keys = &world[&id].1;
        let raw = self.path.strip_prefix('/')?;
        let is_encoded = self
            .bytes("urlencoded")
            .flatten()
            .and_then(|value| String::from_utf8(value).ok());
        let named = || {
            let is_encoded = is_encoded
                .as_ref()
                .is_some_and(|value| value.eq_ignore_ascii_case("true"));
            key(if is_encoded { decode(raw, false)? } else { raw.into() })
        };
        let may_write = self.rights == Rights::All;
        match self.routed() {
            "GET" if raw.is_empty() => {
                let prefix = self.bytes("prefix")?.unwrap_or_default();
                let limit = self.number("key_count_limit", 1000, |limit| (1..=1000).contains(&limit))?;
                self.list(keys, limit, &prefix).filter(|_| prefix.len() <= 512)
            }
            "GET" => {
                let key = named()?;
                self.number("cache_ttl", 30, |seconds| seconds >= 30)?;
                self.if_holds(keys.get(&key))?;
                keys.get(&key).cloned().map(Does::Shows)
            }
            "PUT" if may_write && !self.claims_form => {
                self.if_holds(keys.get(&named()?))?;
                let kept = Kept {
                    value: self.body.to_vec(),
                    expiry_ms: self.expiry_ms()?,
                    metadata: metadata(self.metadata)?,
                };
                Some(Does::Puts(id, vec![(named()?, kept)]))
            }
            "DELETE" if may_write => {
                self.if_holds(keys.get(&named()?))?;
                Some(Does::Deletes(id, vec![named()?]))
            }
            "POST" if raw == "bulk/get" => self.get_many(keys),
            _ => None,
        }
    }

    /// What the REST API does; None if it refuses.
    pub(super) fn rest(&self, world: &World) -> Option<Does> {
        let is_get = self.routed() == "GET";
        match self.path {
            "/" if is_get && self.has_page => return Some(Does::Answers),
            "/healthz" | "/readyz" if is_get => return Some(Does::Answers),
            "/metrics" if is_get => return (self.rights == Rights::All).then_some(Does::Answers),
            _ if self.rights == Rights::Nothing => return None,
            _ => {}
        }
        if self.path.starts_with("/admin/") {
            return self.if_unconditional().and_then(|()| self.admin());
        }
        let segments: Vec<&str> = self.path.strip_prefix("/client/v4/")?.split('/').collect();
        if segments.get(6) != Some(&"values") {
            self.if_unconditional()?;
        }
        let rest = match &segments[..] {
            ["user", "tokens", "verify"] | ["user"] if is_get => return Some(Does::Answers),
            ["accounts" | "memberships"] if is_get => return self.page("page").map(|_| Does::Answers),
            ["embercask", "statistics"] if is_get => return self.all().map(|()| Does::Answers),
            ["accounts", _, "storage", "kv", "namespaces", rest @ ..] => rest,
            _ => return None,
        };
        let Some((id, rest)) = rest.split_first() else {
            return self.rest_of_all(world);
        };
        let id = self.see(world, parse_id(id))?;
        match rest {
            ["bulk", ..] => self.rest_of_bulk(id, &world[&id].1, rest),
            _ => self.rest_of_one(world, id, rest),
        }
    }

    /// HEAD does what GET does.
    pub(super) fn routed(&self) -> &str {
        if self.method == "HEAD" { "GET" } else { self.method }
    }

    /// A page number, or number of entries per page.
    fn page(&self, name: &str) -> Option<usize> {
        match self.text(name)? {
            Some(text) => text
                .parse::<usize>()
                .ok()
                .filter(|page| *page >= 1 && !text.starts_with('+')),
            None => Some(1),
        }
    }

    /// For what only a client with all rights may do.
    pub(super) fn all(&self) -> Option<()> {
        (self.rights == Rights::All).then_some(())
    }

    /// What the REST API does with the namespaces as a whole.
    fn rest_of_all(&self, world: &World) -> Option<Does> {
        match self.routed() {
            "GET" => {
                let _ = (
                    self.page("page")?,
                    self.page("per_page")?,
                    self.text("order")?,
                    self.text("direction")?,
                );
                Some(Does::Answers)
            }
            "POST" => {
                self.all()?;
                let title = self.title()?;
                let is_new = !world.values().any(|(name, _)| *name == title);
                is_new.then_some(Does::Creates(title))
            }
            _ => None,
        }
    }

    /// What the REST API does with a namespace, or one of its keys.
    fn rest_of_one(&self, world: &World, id: u128, rest: &[&str]) -> Option<Does> {
        let keys = &world[&id].1;
        let named = |raw: &str| key(decode(raw, false)?);
        match (self.routed(), rest) {
            ("GET", []) => Some(Does::Answers),
            ("PUT", []) => {
                self.all()?;
                let title = self.title()?;
                let is_free = !world.iter().any(|(other, (name, _))| *name == title && *other != id);
                is_free.then_some(Does::Renames(id, title))
            }
            ("DELETE", []) => self.all().map(|()| Does::Removes(id)),
            ("GET", ["keys"]) => {
                let prefix = self.text("prefix")?.unwrap_or_default();
                let limit = self.number("limit", 1000, |limit| (1..=1000).contains(&limit))?;
                self.list(keys, limit, prefix.as_bytes())
                    .filter(|_| prefix.len() <= 512)
            }
            ("GET", ["statistics" | "default_ttl"]) => Some(Does::Answers),
            ("GET", ["count"]) => {
                let prefix = self.text("prefix")?.unwrap_or_default();
                (prefix.len() <= 512).then_some(Does::Answers)
            }
            ("GET", ["values", raw]) => {
                self.if_holds(keys.get(&named(raw)?))?;
                keys.get(&named(raw)?).cloned().map(Does::Shows)
            }
            ("GET", ["metadata", raw]) => keys.get(&named(raw)?).map(|_| Does::Answers),
            ("PUT", ["values", raw]) => {
                self.all()?;
                self.if_holds(keys.get(&named(raw)?))?;
                let (value, given) = match self.form {
                    Some(form) => form,
                    None if self.claims_form => return None,
                    None => (self.body, None),
                };
                let kept = Kept {
                    value: value.to_vec(),
                    expiry_ms: self.expiry_ms()?,
                    metadata: metadata(given)?,
                };
                Some(Does::Puts(id, vec![(named(raw)?, kept)]))
            }
            ("DELETE", ["values", raw]) => {
                self.all()?;
                self.if_holds(keys.get(&named(raw)?))?;
                Some(Does::Deletes(id, vec![named(raw)?]))
            }
            _ => None,
        }
    }

    /// What the REST API does with many keys of a namespace.
    fn rest_of_bulk(&self, id: u128, keys: &Keys, rest: &[&str]) -> Option<Does> {
        match (self.routed(), rest) {
            ("PUT", ["bulk"]) => {
                self.all()?;
                let puts = bulk::puts(&self.json()?)?.into_iter();
                let puts = puts.map(|(key, value, expiry, metadata)| {
                    let expiry_ms = expiry.map(expiry_ms);
                    (
                        key.into_bytes(),
                        Kept {
                            value,
                            expiry_ms,
                            metadata,
                        },
                    )
                });
                Some(Does::Puts(id, puts.collect()))
            }
            ("DELETE", ["bulk"]) | ("POST", ["bulk", "delete"]) => {
                self.all()?;
                let names = bulk::names(&self.json()?)?;
                Some(Does::Deletes(id, names.into_iter().map(String::into_bytes).collect()))
            }
            ("POST", ["bulk", "get"]) => self.get_many(keys),
            _ => None,
        }
    }

    fn json(&self) -> Option<Node<'_>> {
        json::parse(self.body).ok()
    }
}
