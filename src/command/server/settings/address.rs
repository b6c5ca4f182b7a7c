//! Addresses of listeners.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
#[cfg(unix)]
use std::path::PathBuf;

use crate::common::failure::{Failure, Outcome};
use crate::common::text::quoted;

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

const LOOKS_LIKE: &str = "an address looks like 127.0.0.1:8787, localhost:8787, [::1]:8787 or unix:/run/kv.socket";

/// As it is given.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(formatter, "{address}"),
            #[cfg(unix)]
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl Address {
    pub(super) fn parse(text: &str) -> Outcome<Address> {
        let wrong = |hint: &str| {
            Err(Failure::usage(
                format!("{} is not an address", quoted(text.as_bytes())),
                hint,
            ))
        };
        #[cfg(unix)]
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() || path.contains('\0') {
                return wrong("unix: is followed by the path of the socket, as in unix:/run/kv.socket");
            }
            return Ok(Address::Unix(path.into()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Address::Tcp(address));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong(LOOKS_LIKE);
        };
        // A number may have a sign, a port has none.
        let port = port.parse::<u16>().ok().filter(|_| !port.starts_with('+'));
        match port {
            // By the standard (RFC 6761), whatever a resolver says.
            Some(port) if host.eq_ignore_ascii_case("localhost") => {
                Ok(Address::Tcp((Ipv4Addr::LOCALHOST, port).into()))
            }
            Some(_) if is_name(host) => wrong(
                "of names only localhost is known; give the IP address that belongs to the name, or 0.0.0.0 for all",
            ),
            Some(_) if host.is_empty() => wrong("127.0.0.1 is this machine only, 0.0.0.0 all addresses"),
            _ => wrong(LOOKS_LIKE),
        }
    }

    /// None for no listener.
    pub(super) fn parse_or_off(text: &str) -> Outcome<Option<Address>> {
        if text == "off" {
            Ok(None)
        } else {
            Address::parse(text).map(Some)
        }
    }

    /// Whether only this machine can reach it.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().is_loopback(),
            #[cfg(unix)]
            Address::Unix(_) => true,
        }
    }
}

fn is_name(host: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    host.bytes().any(|byte| byte.is_ascii_alphabetic()) && host.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_localhost_or_sockets_with_a_path() {
        for (text, address) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("localhost:8787", "127.0.0.1:8787"),
            ("LocalHost:0", "127.0.0.1:0"),
            ("[::1]:8787", "[::1]:8787"),
            ("0.0.0.0:80", "0.0.0.0:80"),
        ] {
            let expected = Address::Tcp(address.parse().unwrap());
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        }
        assert!(Address::parse("localhost:1").unwrap().is_local());
        #[cfg(unix)]
        assert_eq!(Address::parse("unix:kv").unwrap(), Address::Unix("kv".into()));
    }

    #[test]
    fn what_is_no_address_is_told_what_one_looks_like() {
        for (text, hint) in [
            ("unix:", "path of the socket"),
            ("unix:a\0b", "path of the socket"),
            ("", "looks like"),
            ("localhost", "looks like"),
            ("8787", "looks like"),
            ("http://127.0.0.1:8787", "looks like"),
            ("::1:8787", "looks like"),
            ("127.0.0.1", "looks like"),
            ("localhost:", "looks like"),
            ("localhost:65536", "looks like"),
            ("localhost:+1", "looks like"),
            ("localhost:-1", "looks like"),
            (":8787", "0.0.0.0 all"),
            ("db.example:8787", "only localhost"),
            ("localhost.example:8787", "only localhost"),
            ("store.localhost:8787", "only localhost"),
        ] {
            let Err(Failure::Told { hint: told, .. }) = Address::parse(text) else {
                panic!("{text:?} is accepted")
            };
            assert!(told.contains(hint), "{text:?}: {told}");
        }
    }
}
