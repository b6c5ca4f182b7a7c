//! Access control: tokens, kept as digests only, and what each permits.

use std::net::IpAddr;

use embercask::{Namespace, Store};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::common::parse::parse_id;
use crate::planted::{Planted, planted};

/// A token in the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenSetting {
    /// Its name in logs.
    pub(crate) name: String,
    /// SHA-256 of the token, in hexadecimal.
    pub(crate) sha256: String,
    #[serde(default)]
    pub(crate) read_only: bool,
    /// Whether its client may administer the server too.
    #[serde(default)]
    pub(crate) admin: bool,
    /// The permitted namespaces, by name or id; all if left out.
    pub(crate) namespaces: Option<Vec<String>>,
}

/// What a client may do.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// The client's name in logs.
    name: String,
    read_only: bool,
    admin: bool,
    /// None for all.
    namespaces: Option<Vec<String>>,
    is_anonymous: bool,
}

impl Access {
    /// The access of every client of a server without tokens.
    fn full() -> Access {
        Access {
            name: "anonymous".to_owned(),
            read_only: false,
            admin: true,
            namespaces: None,
            is_anonymous: true,
        }
    }

    /// The client's name; None for the clients of a server without tokens.
    pub(super) fn token(&self) -> Option<&str> {
        (!self.is_anonymous).then_some(&self.name)
    }

    pub(super) fn check_write(&self) -> Result<(), ApiError> {
        if self.read_only && !planted(Planted::IgnoreReadOnly) {
            Err(denied())
        } else {
            Ok(())
        }
    }

    /// Whether the namespace with this name and id is permitted.
    pub(super) fn covers(&self, name: &str, id: u128) -> bool {
        let is_it = |given: &String| is_namespace(given, name, id);
        self.namespaces.as_ref().is_none_or(|all| all.iter().any(is_it)) || planted(Planted::IgnoreTokenNamespaces)
    }

    /// The namespace that was found under a name or id, if it is permitted. A client that may not
    /// see it gets the same error whether it exists or not.
    pub(super) fn see(
        &self,
        named: &str,
        found: Result<Option<Namespace>, ApiError>,
        unknown: impl Fn() -> ApiError,
    ) -> Result<Namespace, ApiError> {
        let is_named = |given: &String| given == named || given.eq_ignore_ascii_case(named) && parse_id(named).is_ok();
        let may_know = self.namespaces.as_ref().is_none_or(|all| all.iter().any(is_named));
        match found {
            Ok(Some(namespace)) if self.covers(&namespace.name(), namespace.id()) => Ok(namespace),
            Ok(Some(_)) => Err(denied()),
            _ if !may_know && !planted(Planted::TellAbsent) => Err(denied()),
            Ok(None) => Err(unknown()),
            Err(error) => Err(error),
        }
    }

    /// Checks that all namespaces are permitted, including future ones.
    pub(super) fn check_all(&self) -> Result<(), ApiError> {
        if self.namespaces.is_none() || planted(Planted::IgnoreTokenScope) {
            Ok(())
        } else {
            Err(denied())
        }
    }

    /// Checks that the client may administer the server.
    pub(super) fn check_admin(&self) -> Result<(), ApiError> {
        if self.admin || planted(Planted::AnyAdmin) {
            Ok(())
        } else {
            Err(ApiError::new(403, 10000, "this needs a token with `admin = true`"))
        }
    }
}

pub(super) fn denied() -> ApiError {
    ApiError::new(403, 10000, "Authentication error")
}

/// All tokens of a server.
#[derive(Default)]
pub(crate) struct Tokens {
    tokens: Vec<([u8; 32], Access)>,
}

impl Tokens {
    /// An error names the token that is wrong.
    pub(crate) fn new(settings: &[TokenSetting], plain: Option<&str>) -> Result<Tokens, String> {
        let mut tokens = Tokens::default();
        for setting in settings {
            let digest = parse_digest(setting.sha256.trim()).ok_or_else(|| {
                format!(
                    "the sha256 of the token \"{}\" is not 64 hexadecimal digits",
                    setting.name
                )
            })?;
            if setting.admin && (setting.read_only || setting.namespaces.is_some()) {
                return Err(format!(
                    "the token \"{}\" cannot be `admin` and `read_only` or for some `namespaces`",
                    setting.name
                ));
            }
            tokens.tokens.push((
                digest,
                Access {
                    name: setting.name.clone(),
                    read_only: setting.read_only,
                    admin: setting.admin,
                    namespaces: setting.namespaces.clone(),
                    is_anonymous: false,
                },
            ));
        }
        match plain {
            Some(plain) => tokens.and_plain("token", plain),
            None => Ok(tokens),
        }
    }

    /// These, and a token as clients send it, which has full access.
    pub(super) fn and_plain(mut self, name: &str, text: &str) -> Result<Tokens, String> {
        // Files and variables end with a newline, which no client sends.
        let token = match planted(Planted::KeepTokenNewline) {
            true => text,
            false => text.trim_start_matches('\u{feff}').trim(),
        };
        if token.len() < TOKEN_BYTES_MIN {
            return Err(format!("a token needs at least {TOKEN_BYTES_MIN} characters"));
        }
        if token.contains(char::is_control) && !planted(Planted::KeepTokenNewline) {
            return Err("a token is a single line, without control characters".to_owned());
        }
        self.tokens.push((
            digest(token.as_bytes()),
            Access {
                name: name.to_owned(),
                is_anonymous: false,
                ..Access::full()
            },
        ));
        Ok(self)
    }

    /// Warns of namespaces that tokens are for and that do not exist.
    pub(super) fn warn_of_unknown_namespaces(&self, store: &Store) {
        let known = match store.namespaces() {
            Ok(known) => known,
            Err(error) => return tracing::warn!(%error, "namespaces of tokens were not checked"),
        };
        for (_, access) in &self.tokens {
            for namespace in access.namespaces.iter().flatten() {
                if !known.iter().any(|info| is_namespace(namespace, &info.name, info.id)) {
                    // It may be created later, or the name may be wrong.
                    tracing::warn!(token = access.name, %namespace, "a token is for a namespace that does not exist");
                }
            }
        }
    }

    /// Each token as a configuration would contain it.
    #[cfg(any(test, fuzzing))]
    pub(super) fn described(&self) -> Vec<TokenSetting> {
        let describe = |(digest, access): &([u8; 32], Access)| TokenSetting {
            name: access.name.clone(),
            sha256: show_digest(digest),
            read_only: access.read_only,
            admin: access.admin,
            namespaces: access.namespaces.clone(),
        };
        self.tokens.iter().map(describe).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The access of the client that sent a request. `is_socket` if it came through a unix socket,
    /// which no web page can reach.
    pub(super) fn access(&self, headers: &HeaderMap, is_socket: bool) -> Result<Access, ApiError> {
        if self.tokens.is_empty() {
            // Without a token, others are kept out because they cannot reach the address. A web
            // page in a browser on this machine can, but its requests reveal its origin, or the
            // name by which it reached this server.
            return if is_socket || planted(Planted::AcceptPages) {
                Ok(Access::full())
            } else {
                check_no_page(headers).map(|()| Access::full())
            };
        }
        let given = bearer(headers).or_else(|| legacy_key(headers)).ok_or_else(denied)?;
        let given = digest(given);
        // Compares with all tokens, each in constant time.
        let mut found = None;
        for (token, access) in &self.tokens {
            if bool::from(token.ct_eq(&given)) || planted(Planted::AcceptAnyToken) {
                found = Some(access);
            }
        }
        let access = found.cloned().ok_or_else(denied)?;
        tracing::debug!(client = access.name, "authorized");
        Ok(access)
    }
}

/// Whether a setting names the namespace with this name and id.
fn is_namespace(given: &str, name: &str, id: u128) -> bool {
    given == name || given.eq_ignore_ascii_case(&format!("{id:032x}"))
}

/// Refuses what a web page from another site may have sent.
fn check_no_page(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    // DNS rebinding: a foreign name that points at this machine.
    if let Some(host) = text(HOST).filter(|host| !is_local(host)) {
        return Err(refused(&format!(
            "The Host \"{host:.100}\" is not this machine. Without a token only localhost and loopback addresses are \
             served: use one of them, or start the server with a token."
        )));
    }
    let is_cross_site = text(SEC_FETCH_SITE).is_some_and(|site| !matches!(site, "none" | "same-origin"));
    if headers.contains_key(ORIGIN) || is_cross_site {
        return Err(refused(
            "The request comes from a web page (it has an Origin, or Sec-Fetch-Site of another site), and those are \
             refused while the server has no token: start it with one.",
        ));
    }
    Ok(())
}

/// A refusal that no token of the client could change.
fn refused(message: &str) -> ApiError {
    ApiError::new(403, 10001, message)
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a host is this machine, by name or address; or `fake-host`, which workerd sends to any
/// service.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(host),
    };
    let is_loopback = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_loopback || name.eq_ignore_ascii_case("localhost") || name == "fake-host"
}

/// The shortest token accepted from the command line: too long to be guessed.
const TOKEN_BYTES_MIN: usize = 16;

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The key that clients send with an `X-Auth-Email`, which is ignored: there is one owner.
fn legacy_key(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get("x-auth-key").map(|key| key.as_bytes().trim_ascii())
}

pub(crate) fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |index: usize| char::from(*digits.get(index)?).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(digest)
}

/// A digest as in the configuration.
pub(crate) fn show_digest(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
