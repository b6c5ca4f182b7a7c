//! Heads of requests: what HTTP requires of any request, before anything looks at its path.

use std::net::Ipv6Addr;

use hyper::header::{CONTENT_ENCODING, CONTENT_RANGE, HOST, HeaderName, TRANSFER_ENCODING};
use hyper::http::HeaderValue;
use hyper::{HeaderMap, Method, Request, Version};

use crate::planted::{Planted, planted};
use crate::server::error::ApiError;

/// Checks the head of a request. Afterwards its header `Host` is the host that the request is for,
/// also if only the URI names it.
pub(crate) fn check<B>(request: &mut Request<B>) -> Result<(), ApiError> {
    if !planted(Planted::AcceptAnyHost) {
        check_host(request)?;
    }
    check_codings(request.headers(), request.method())
}

/// The method whose rules hold: HEAD is GET, and its response that to GET without the body.
pub(crate) fn routed_method(method: &Method) -> &Method {
    if *method == Method::HEAD && !planted(Planted::RefuseHead) {
        return &Method::GET;
    }
    method
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::new(400, 10001, message)
}

/// One host, and the same in the URI if that is absolute: otherwise a proxy and this server could
/// read the request as for different hosts.
fn check_host<B>(request: &mut Request<B>) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = hosts.next();
    if hosts.next().is_some() {
        return Err(wrong("The request has more than one Host header: send one"));
    }
    if named.is_none() && request.version() != Version::HTTP_10 {
        return Err(wrong("The request has no Host header, which HTTP/1.1 requires"));
    }
    let read = |text: &str| {
        let scheme = request.uri().scheme_str();
        Host::of(text, scheme).ok_or_else(|| wrong(format!("\"{text:.100}\" is not a host: send a name or an address")))
    };
    let named = named.map(|value| read(value.to_str().unwrap_or("?"))).transpose()?;
    let Some(authority) = request.uri().authority() else {
        return Ok(());
    };
    let host = read(authority.as_str())?;
    if named.is_some_and(|named| named != host) {
        return Err(wrong(
            "The address in the request line is for another host than the Host header: send the path alone",
        ));
    }
    let value = HeaderValue::from_str(authority.as_str());
    request
        .headers_mut()
        .insert(HOST, value.map_err(|_| wrong("The address is not text"))?);
    Ok(())
}

/// A host and its port.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    /// In lower case.
    name: String,
    /// None for the usual port of the scheme.
    port: Option<u16>,
}

impl Host {
    /// None if it is malformed. Names of users are not part of a host.
    fn of(text: &str, scheme: Option<&str>) -> Option<Host> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<Ipv6Addr>().ok()?;
                (address, port)
            }
            None => {
                let colon = text.find(':').unwrap_or(text.len());
                let (name, port) = text.split_at_checked(colon)?;
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
                if name.is_empty() || !name.bytes().all(is_name) {
                    return None;
                }
                (name, port)
            }
        };
        let port = match port {
            "" | ":" => None,
            port => Some(port.strip_prefix(':').filter(|port| digits(port))?.parse().ok()?),
        };
        let usual = if scheme == Some("https") { 443 } else { 80 };
        Some(Host {
            name: name.to_ascii_lowercase(),
            port: port.filter(|port| *port != usual),
        })
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Bodies must be sent as they are, or in chunks: decoding them would be guessing, and storing them
/// encoded would give readers something else than was put.
fn check_codings(headers: &HeaderMap, method: &Method) -> Result<(), ApiError> {
    if planted(Planted::AcceptAnyCoding) {
        return Ok(());
    }
    // hyper itself refuses a list that does not end with `chunked`.
    let transfer: Vec<String> = tokens(headers, TRANSFER_ENCODING).collect();
    if transfer.iter().any(|coding| coding != "chunked") {
        let message = "The only known Transfer-Encoding is chunked: send the body without others";
        return Err(ApiError::new(501, 10001, message));
    }
    if transfer.len() > 1 {
        return Err(wrong("Transfer-Encoding names chunked twice: send it once"));
    }
    if *method == Method::GET || *method == Method::HEAD {
        return Ok(());
    }
    if let Some(coding) = tokens(headers, CONTENT_ENCODING).find(|coding| coding != "identity") {
        let message = format!("The Content-Encoding {coding:.50} is not supported: send the body without it");
        return Err(ApiError::new(415, 10001, message));
    }
    if *method == Method::PUT && headers.contains_key(CONTENT_RANGE) {
        // A part would replace the whole.
        return Err(wrong("Content-Range is not supported: send the whole value"));
    }
    Ok(())
}

/// The elements of a header that is a list, in lower case.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> {
    let values = headers.get_all(name).iter();
    values.flat_map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let tokens = text.split(',').map(|token| token.trim().to_owned());
        tokens.filter(|token| !token.is_empty()).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, target: &str, headers: &[(&str, &str)]) -> Result<String, u16> {
        let mut request = Request::builder().method("PUT").version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        check(&mut request).map_err(|error| error.status)?;
        let host = request.headers().get(HOST);
        Ok(host.map_or_else(String::new, |host| host.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_request_is_for_one_host() {
        let with = |target: &str, headers: &[(&str, &str)]| checked(Version::HTTP_11, target, headers);
        for host in [
            "localhost",
            "localhost:8787",
            "LOCALHOST:",
            "[::1]",
            "[::1]:1",
            "fake-host",
            "a_b.example:65535",
        ] {
            assert_eq!(with("/k", &[("host", host)]), Ok(host.to_owned()), "{host}");
        }
        for host in [
            "", " ", "a b", "a/b", "a:b", "a:1:2", ":80", "a:65536", "a:+1", "user@a", "[::1", "[::g]", "[::1]a",
            "a\u{fc}",
        ] {
            assert_eq!(with("/k", &[("host", host)]), Err(400), "{host}");
        }
        assert_eq!(with("/k", &[]), Err(400));
        assert_eq!(with("/k", &[("host", "a"), ("host", "a")]), Err(400));
        assert_eq!(checked(Version::HTTP_10, "/k", &[]), Ok(String::new()));
        assert_eq!(
            checked(Version::HTTP_10, "/k", &[("host", "a"), ("host", "b")]),
            Err(400)
        );
    }

    #[test]
    fn an_absolute_address_counts_as_the_host() {
        let with = |target: &str, host: &str| checked(Version::HTTP_11, target, &[("host", host)]);
        for (target, host) in [
            ("http://localhost:8787/k", "localhost:8787"),
            ("http://LocalHost/k", "localhost"),
            ("http://a:80/k", "a"),
            ("https://a/k", "a:443"),
            ("http://[::1]:5/k", "[::1]:5"),
        ] {
            assert!(with(target, host).is_ok(), "{target} {host}");
        }
        for (target, host) in [
            ("http://elsewhere.example/k", "localhost"),
            ("http://localhost/k", "elsewhere.example"),
            ("http://localhost:1/k", "localhost:2"),
            ("http://localhost:8787/k", "localhost"),
            ("http://user@localhost/k", "localhost"),
        ] {
            assert_eq!(with(target, host), Err(400), "{target} {host}");
        }
        assert_eq!(checked(Version::HTTP_11, "http://a/k", &[]), Err(400));
        assert_eq!(checked(Version::HTTP_10, "http://a:1/k", &[]), Ok("a:1".to_owned()));
    }

    #[test]
    fn bodies_have_no_codings() {
        let with = |name: &str, value: &str| checked(Version::HTTP_11, "/k", &[("host", "a"), (name, value)]).err();
        for (name, value, refused) in [
            ("content-encoding", "gzip", Some(415)),
            ("content-encoding", "identity, gzip", Some(415)),
            ("content-encoding", "GZIP", Some(415)),
            ("content-encoding", "zstd", Some(415)),
            ("content-encoding", "nonsense", Some(415)),
            ("content-encoding", "Identity", None),
            ("content-encoding", " , identity,", None),
            ("content-encoding", "", None),
            ("transfer-encoding", "chunked", None),
            ("transfer-encoding", "Chunked", None),
            ("transfer-encoding", "gzip, chunked", Some(501)),
            ("transfer-encoding", "gzip,chunked", Some(501)),
            ("transfer-encoding", "x;a=\"b\", chunked", Some(501)),
            ("transfer-encoding", "chunked, chunked", Some(400)),
            ("content-range", "bytes 0-1/2", Some(400)),
        ] {
            assert_eq!(with(name, value), refused, "{name}: {value}");
        }
    }
}
