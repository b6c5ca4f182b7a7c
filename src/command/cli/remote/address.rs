//! The address of a server.

use std::path::PathBuf;

use hyper::Uri;

use crate::common::failure::{Failure, Outcome};

/// The path of the REST API, unless the address has one.
pub(super) const BASE: &str = "/client/v4";

/// A server, and the path of its REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) endpoint: Endpoint,
    /// The path before all others, without a slash at its end.
    pub(super) base: String,
    /// The header `Host`.
    pub(super) host: String,
    /// As messages name it.
    pub(super) shown: String,
}

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

impl Address {
    pub(super) fn parse(url: &str) -> Outcome<Address> {
        // The address itself may contain a password, and is not shown.
        let wrong = |what: &str| {
            Failure::usage(
                format!("the address in --url {what}"),
                "write http://HOST:PORT, https://HOST, or unix:PATH, as `embercask serve` prints it",
            )
        };
        if let Some(path) = url.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(wrong("has no path after unix:"));
            }
            return Ok(Address {
                endpoint: Endpoint::Unix(PathBuf::from(path)),
                base: BASE.to_owned(),
                host: "localhost".to_owned(),
                shown: url.to_owned(),
            });
        }
        let uri: Uri = url.trim().parse().map_err(|_| wrong("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(wrong("has an unknown scheme")),
            None => return Err(wrong("has no scheme")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(Failure::usage(
                "the address in --url contains a user or password",
                "give a token in EMBERCASK_TOKEN or with --token-file",
            ));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(wrong("has a query or fragment"));
        }
        let base = match uri.path().trim_end_matches('/') {
            "" => BASE,
            base => base,
        };
        let host = authority.host();
        if host.is_empty() {
            return Err(wrong("has no host"));
        }
        // A port that is not a number is left out by the parser.
        if authority.as_str() != host && authority.port_u16().is_none() {
            return Err(wrong("has no such port"));
        }
        let scheme = if tls { "https" } else { "http" };
        Ok(Address {
            endpoint: Endpoint::Tcp {
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
                tls,
            },
            base: base.to_owned(),
            host: authority.as_str().to_owned(),
            shown: format!("{scheme}://{authority}"),
        })
    }

    /// Whether others could read what is sent: it is neither encrypted nor stays on this machine.
    pub(super) fn is_open(&self) -> bool {
        match &self.endpoint {
            Endpoint::Tcp { host, tls: false, .. } => {
                let address: Option<std::net::IpAddr> = host.parse().ok();
                host != "localhost" && !address.is_some_and(|address| address.is_loopback())
            }
            Endpoint::Tcp { tls: true, .. } | Endpoint::Unix(_) => false,
        }
    }
}

/// A segment of a path, or a value in a query: everything is escaped that could mean something
/// else there. A key of dots alone would otherwise be taken for navigation.
pub(super) fn encoded(bytes: &[u8]) -> String {
    use std::fmt::Write;

    let is_dots = bytes.iter().all(|byte| *byte == b'.');
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'.' if is_dots => text.push_str("%2E"),
            b'-' | b'_' | b'.' | b'~' => text.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_host_port_and_path() {
        let parsed = |url| Address::parse(url).ok();
        let tcp = |host: &str, port, tls| Endpoint::Tcp {
            host: host.to_owned(),
            port,
            tls,
        };
        for (url, endpoint, base) in [
            ("http://127.0.0.1:8787", tcp("127.0.0.1", 8787, false), BASE),
            ("http://localhost:1/", tcp("localhost", 1, false), BASE),
            ("http://[::1]:8787/client/v4", tcp("::1", 8787, false), BASE),
            ("https://kv.example", tcp("kv.example", 443, true), BASE),
            ("http://kv.example/a/b/", tcp("kv.example", 80, false), "/a/b"),
            ("unix:/run/a b.socket", Endpoint::Unix("/run/a b.socket".into()), BASE),
        ] {
            let address = parsed(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!((address.endpoint, &*address.base), (endpoint, base), "{url}");
        }
        for wrong in [
            "",
            "localhost:8787",
            "127.0.0.1:8787",
            "ftp://host",
            "http://",
            "http://host/?a=b",
            "http://host/#a",
            "http://user:secret@host",
            "unix:",
            "http://host:99999",
            "http://a b",
            "/path",
        ] {
            assert!(parsed(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_others_could_read_is_known() {
        let is_open = |url| Address::parse(url).unwrap().is_open();
        for url in [
            "http://localhost:1",
            "http://127.1.2.3",
            "http://[::1]",
            "https://a.example",
            "unix:a",
        ] {
            assert!(!is_open(url), "{url}");
        }
        assert!(is_open("http://a.example") && is_open("http://192.0.2.1"));
    }

    #[test]
    fn a_segment_means_its_bytes() {
        assert_eq!(encoded("a/b%c d+e?ü~".as_bytes()), "a%2Fb%25c%20d%2Be%3F%C3%BC~");
        assert_eq!(
            (encoded(b"."), encoded(b".."), encoded(b"a.b")),
            ("%2E".into(), "%2E%2E".into(), "a.b".into())
        );
    }
}
