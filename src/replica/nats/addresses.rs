//! Names of logs, and addresses of their servers. These may hold a password, so no error repeats
//! one.

use async_nats::ServerAddr;

use crate::log::LogError;

/// The name is a subject as well, and stands in subjects of the API.
pub(super) fn check_name(name: &str) -> Result<(), LogError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Err(LogError::Refused(format!(
            "a log cannot be called {name:?}: use up to 64 letters, digits, - and _"
        )));
    }
    Ok(())
}

pub(super) fn addresses(servers: &[String]) -> Result<Vec<ServerAddr>, LogError> {
    let mut addresses = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        let wrong = |why: &str| LogError::Refused(format!("server {} of the log: {why}", number.saturating_add(1)));
        let address: ServerAddr = server.parse().map_err(|error| wrong(&format!("{error}")))?;
        if !["nats", "tls"].contains(&address.scheme()) {
            return Err(wrong("its URL must begin with nats:// or tls://"));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(LogError::Refused("no server of the log is given".into()));
    }
    Ok(addresses)
}

/// User and password, which the client does not take from addresses by itself.
pub(super) fn user_and_password(servers: &[ServerAddr]) -> Result<Option<(String, String)>, LogError> {
    let mut all = servers.iter().map(|server| (server.username(), server.password()));
    let first = all.next().unwrap_or_default();
    if all.any(|other| other != first) {
        let why = "the URLs of its servers must have the same user and password";
        return Err(LogError::Refused(why.into()));
    }
    Ok(match first {
        (None, None) => None,
        (user, password) => Some((decoded(user.unwrap_or_default()), decoded(password.unwrap_or_default()))),
    })
}

/// Text of a URL without its percent signs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        match part.get(..2).map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
            }
            _ => {
                bytes.push(b'%');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
