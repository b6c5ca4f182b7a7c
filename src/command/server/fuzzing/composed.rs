//! Requests composed from a fuzzer's bytes.

use super::second::Rights;
use crate::server::Protocol;
use crate::server::etag::Etag;
use embercask::testing::input::Input;

pub(super) const ALL: &str = "a token for everything";
pub(super) const READER: &str = "a token for reading";
const BOUNDARY: &str = "xYz";

/// A request, and the facts that the second server needs about it.
pub(super) struct Composed {
    pub(super) protocol: Protocol,
    pub(super) is_socket: bool,
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) headers: Vec<(&'static str, Vec<u8>)>,
    pub(super) rights: Rights,
    pub(super) body: Vec<u8>,
    pub(super) form: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Composed {
    pub(super) fn of(input: &mut Input<'_>, has_tokens: bool) -> Composed {
        let (face, from) = (input.u8(), input.u8());
        let method = input.choose(&["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"]);
        let protocol = match face & 3 {
            0 => Protocol::Binding { namespace: None },
            1 => Protocol::Binding {
                namespace: Some("A".into()),
            },
            _ => Protocol::Rest { page: face & 4 != 0 },
        };
        let is_socket = face & 8 != 0;
        let mut headers = Vec::new();
        let rights = client(from, has_tokens, is_socket, &mut headers);
        let target = match protocol {
            Protocol::Binding { .. } => binding_target(face >> 4 & 3, input),
            Protocol::Rest { .. } => rest_target(input),
        };
        let target = with_query(target, input);
        if face & 3 == 0 && from & 0x40 == 0 {
            headers.push((
                "x-kv-namespace",
                [&b"A"[..], b"B", b"00000000000000000000000000000001", b"C"][input.below(4)].to_vec(),
            ));
        }
        if from & 0x20 != 0 {
            let length = usize::from(input.u8());
            headers.push(("cf-kv-metadata", input.bytes(length).to_vec()));
        }
        if from & 0x80 != 0 {
            let name = input.choose(&["if-match", "if-none-match"]);
            headers.push((name, condition(input)));
        }
        if from & 0x1f == 0x1d {
            headers.push(match from & 0x20 {
                0 => ("host", b"localhost:8787".to_vec()),
                _ => ("content-encoding", b"gzip".to_vec()),
            });
        }
        let length = usize::from(input.u16() % 2048);
        let mut body = input.bytes(length).to_vec();
        let mut form = None;
        match input.below(8) {
            0 => headers.push(("content-type", b"multipart/form-data".to_vec())),
            1 => headers.push(("content-type", b"application/json".to_vec())),
            2 | 3 => {
                let metadata = (input.u8() & 1 != 0).then(|| input.bytes(8).to_vec());
                let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
                headers.push(("content-type", content_type.into_bytes()));
                let value = std::mem::take(&mut body);
                body = form_body(&value, metadata.as_deref());
                form = Some((value, metadata));
            }
            _ => {}
        }
        Composed {
            protocol,
            is_socket,
            method,
            target,
            headers,
            rights,
            body,
            form,
        }
    }

    /// Whether HTTP, or this server, allows no such head: there is one host, and bodies have no
    /// coding.
    pub(super) fn has_bad_head(&self) -> bool {
        let count = |name: &str| self.headers.iter().filter(|(known, _)| *known == name).count();
        let has_coding = count("content-encoding") > 0 && !matches!(self.method, "GET" | "HEAD");
        count("host") != 1 || has_coding
    }

    /// Whether the form contains its own boundary, as no client's form does; or the request changes
    /// what the second server does not know.
    pub(super) fn is_unclear(&self) -> bool {
        if self.target.contains("default_ttl") && !matches!(self.method, "GET" | "HEAD") {
            return true;
        }
        // Goes on without end.
        if self.target.starts_with("/admin/watch") {
            return true;
        }
        let delimiter = format!("\n--{BOUNDARY}");
        let holds = |bytes: &[u8]| {
            let framed = [b"\r\n", bytes, b"\r\n"].concat();
            framed
                .windows(delimiter.len())
                .any(|window| window == delimiter.as_bytes())
        };
        self.form
            .as_ref()
            .is_some_and(|(value, metadata)| holds(value) || metadata.as_deref().is_some_and(holds))
    }
}

fn with_query(target: String, input: &mut Input<'_>) -> String {
    let query = text(input);
    let usual = [
        "",
        "expiration_ttl=60",
        "urlencoded=true",
        "prefix=k&limit=2",
        "expiration=1700000060",
    ];
    match input.below(8) {
        0 => target,
        number @ 1..5 => format!("{target}?{}&{query}", usual[number]),
        _ => format!("{target}?{query}"),
    }
}

/// A form with a value, and perhaps metadata.
fn form_body(value: &[u8], metadata: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in [("value", Some(value)), ("metadata", metadata)] {
        if let Some(content) = content {
            let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(&[head.as_bytes(), content, b"\r\n"].concat());
        }
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// What a condition names: often the tag of an empty value or of a short one.
fn condition(input: &mut Input<'_>) -> Vec<u8> {
    let tag = |value: &[u8]| Etag::of(value, None, None).to_string();
    let given = match input.below(8) {
        0 | 1 => "*".to_owned(),
        2 => tag(b""),
        3 => format!("W/{}", tag(b"")),
        4 => {
            let length = input.below(3);
            tag(input.bytes(length))
        }
        5 => format!("\"a,b\" , {}", tag(b"")),
        _ => {
            let length = usize::from(input.u8() % 16);
            let printable = input.bytes(length).iter().map(|byte| char::from(b' ' + byte % 95));
            printable.collect()
        }
    };
    given.into_bytes()
}

fn text(input: &mut Input<'_>) -> String {
    let length = usize::from(input.u8() % 64);
    String::from_utf8_lossy(input.bytes(length)).into_owned()
}

/// Adds a client's credentials, and returns its rights.
fn client(from: u8, has_tokens: bool, is_socket: bool, headers: &mut Vec<(&'static str, Vec<u8>)>) -> Rights {
    if has_tokens {
        headers.push(("host", b"fake-host".to_vec()));
        let (header, value, rights) = match from & 7 {
            0 => return Rights::Nothing,
            1 => ("authorization", format!("Bearer {READER}"), Rights::Reader),
            2 => ("authorization", format!("Bearer {ALL}x"), Rights::Nothing),
            3 => ("authorization", format!("Basic {ALL}"), Rights::Nothing),
            4 => ("x-auth-key", ALL.to_owned(), Rights::All),
            _ => ("authorization", format!("bEARER  {ALL} "), Rights::All),
        };
        headers.push((header, value.into_bytes()));
        return rights;
    }
    let (header, value, is_page) = match from & 7 {
        0 => ("host", "elsewhere.example", true),
        1 => ("origin", "http://127.0.0.1", true),
        2 => ("sec-fetch-site", "cross-site", true),
        3 => ("host", "[::1]:8787", false),
        _ => ("host", "localhost:8787", false),
    };
    headers.push((header, value.into()));
    if header != "host" {
        headers.push(("host", b"127.0.0.1".to_vec()));
    }
    if is_page && !is_socket {
        Rights::Nothing
    } else {
        Rights::All
    }
}

fn binding_target(how: u8, input: &mut Input<'_>) -> String {
    match how {
        0 => "/".to_owned(),
        1 => "/bulk/get".to_owned(),
        _ => format!("/{}", text(input)),
    }
}

fn rest_target(input: &mut Input<'_>) -> String {
    let ids = [
        "00000000000000000000000000000001",
        "00000000000000000000000000000002",
        "0000000000000000000000000000000a",
    ];
    let (route, id) = (input.below(22), input.choose(&ids));
    let namespaces = "/client/v4/accounts/any/storage/kv/namespaces";
    match route {
        0 => namespaces.to_owned(),
        1 => format!("{namespaces}/{id}"),
        2 => format!("{namespaces}/{id}/keys"),
        3..=5 => format!("{namespaces}/{id}/values/{}", text(input)),
        6 => format!("{namespaces}/{id}/metadata/{}", text(input)),
        7 | 8 => format!("{namespaces}/{id}/bulk"),
        9 => format!("{namespaces}/{id}/bulk/delete"),
        10 => format!("{namespaces}/{id}/bulk/get"),
        11 => format!("{namespaces}/{}", text(input)),
        12 => "/client/v4/user/tokens/verify".to_owned(),
        13 => "/client/v4/accounts".to_owned(),
        14 => "/client/v4/embercask/statistics".to_owned(),
        15 => "/metrics".to_owned(),
        16 => "/healthz".to_owned(),
        17 => format!("/client/v4/{}", text(input)),
        18 => "/".to_owned(),
        20 => "/admin/compact".to_owned(),
        21 => format!(
            "/admin/{}",
            input.choose(&["statistics", "checkpoint", "reload-tokens"])
        ),
        _ => format!("/{}", text(input)),
    }
}
