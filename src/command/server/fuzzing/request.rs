//! Requests through routing, both protocols and all of their parsers, on a store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use embercask::Durability;
use embercask::storage::MemStorage;
use http_body_util::{BodyExt, Full};
use hyper::http::response::Parts;
use hyper::{Request, Uri};
use tokio::runtime::Runtime;

use super::composed::{ALL, Composed, READER};
use super::second::{Asked, Does, World};
use crate::common::fuzzing::json::{self, Others, Wrong};
use crate::common::fuzzing::{Keys, content, open};
use crate::server::access::{TokenSetting, Tokens, digest, show_digest};
use crate::server::respond::respond;
use crate::server::shared::Shared;
use crate::server::{Endpoint, Protocol};
use embercask::testing::input::Input;

/// The statuses of a sound store and an idle server: done, not modified, bad request, forbidden,
/// not found, method not allowed, precondition failed, too large, too long, in a
/// coding.
const STATUSES: [u16; 10] = [200, 304, 400, 403, 404, 405, 412, 413, 414, 415];

/// Up to 12 requests in sequence: each is answered as by a second server, with an expected status
/// and valid JSON, and the store has everything acknowledged, also after a crash.
pub fn server_request(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    let disk = MemStorage::new();
    let store = open(&disk);
    let mut world = World::new();
    for (id, name) in [(1, "A"), (2, "B")] {
        store.create_namespace_with_id(name, id).unwrap();
        world.insert(id, (name.to_owned(), Keys::new()));
    }
    let has_tokens = how & 1 != 0;
    let memory = 100 << 20;
    let shared = Shared::new(
        store.clone(),
        tokens(has_tokens),
        Durability::Os,
        memory,
        Duration::from_secs(30),
    );
    let shared = Arc::new(shared);
    let mut left = 12;
    while !input.is_empty() && left > 0 {
        left -= 1;
        let request = Composed::of(&mut input, has_tokens);
        if answered(&shared, &mut world, request).is_none() {
            return;
        }
    }
    let expected: BTreeMap<String, Keys> = world.into_values().collect();
    assert_eq!(content(&store), expected);
    if how & 2 != 0 {
        let crashed = open(&disk.crash_process());
        assert_eq!(content(&crashed), expected, "after a crash");
    }
}

fn tokens(are_some: bool) -> Tokens {
    if !are_some {
        return Tokens::default();
    }
    let reader = TokenSetting {
        name: "reader".to_owned(),
        sha256: show_digest(&digest(READER.as_bytes())),
        read_only: true,
        admin: false,
        namespaces: Some(vec!["A".to_owned()]),
    };
    Tokens::new(&[reader], Some(ALL)).unwrap()
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    })
}

/// Sends a request, and compares the response. None if it cannot be judged; then later ones cannot
/// either.
fn answered(shared: &Arc<Shared>, world: &mut World, composed: Composed) -> Option<()> {
    let request = match request(&composed) {
        Ok(request) => request,
        Err(judged) => return judged,
    };
    let uri = request.uri().clone();
    let asked = asked(&composed, &uri);
    let is_rest = matches!(composed.protocol, Protocol::Rest { .. });
    let does = match is_rest {
        _ if composed.has_bad_head() => None,
        true => asked.rest(world),
        false => asked.binding(world),
    };
    let endpoint = Endpoint {
        protocol: composed.protocol.clone(),
        is_socket: composed.is_socket,
        ..composed.protocol.clone().into()
    };
    let (head, body) = sent(shared, endpoint, request);
    let status = head.status.as_u16();
    let told = || {
        format!(
            "{} {}: {status} {}, {does:?}",
            asked.method,
            composed.target,
            String::from_utf8_lossy(&body)
        )
    };
    assert!(STATUSES.contains(&status), "{}", told());
    match does {
        Some(Does::Perhaps) => {}
        _ => assert_eq!(status == 200, does.is_some(), "{}", told()),
    }
    if composed.method == "HEAD" {
        // Without a body there is nothing else to compare, and HEAD changes nothing.
        assert!(
            body.is_empty() && (status == 304 || head.headers.contains_key("content-length")),
            "{}",
            told()
        );
        return Some(());
    }
    let is_json = head
        .headers
        .get("content-type")
        .is_some_and(|value| value == "application/json");
    let parsed = match json::parse(&body) {
        Err(Wrong::TooDeep) if is_json => return None,
        parsed => parsed.ok().filter(|_| is_json),
    };
    assert_eq!(parsed.is_some(), is_json, "{}", told());
    let answer = Answer {
        head: &head,
        body: &body,
        parsed: parsed.as_ref(),
        is_rest,
    };
    let is_api = is_rest && asked.path.starts_with("/client/v4/");
    if is_api && status != 304 && !matches!(does, Some(Does::Shows(_))) {
        answer.check_envelope(told);
    }
    answer.apply(world, does);
    Some(())
}

/// The request, unless it cannot be judged, or is not valid HTTP and so is not sent.
fn request(composed: &Composed) -> Result<Request<Full<Bytes>>, Option<()>> {
    let too_deep = |bytes: &[u8]| json::parse(bytes).err() == Some(Wrong::TooDeep);
    if composed.is_unclear() || too_deep(&composed.body) {
        return Err(None);
    }
    let mut request = Request::builder().method(composed.method).uri(&composed.target);
    for (name, value) in &composed.headers {
        if too_deep(value) {
            return Err(None);
        }
        request = request.header(*name, &value[..]);
    }
    let body = Full::new(Bytes::from(composed.body.clone()));
    request.body(body).map_err(|_| Some(()))
}

/// The request as the second server reads it.
fn asked<'a>(composed: &'a Composed, uri: &'a Uri) -> Asked<'a> {
    let header = |name: &str| {
        composed
            .headers
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| &value[..])
    };
    let fixed = matches!(composed.protocol, Protocol::Binding { namespace: Some(_) });
    let form = composed.form.as_ref();
    Asked {
        method: composed.method,
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        rights: composed.rights,
        namespace: if fixed { Some(b"A") } else { header("x-kv-namespace") },
        metadata: header("cf-kv-metadata"),
        if_match: header("if-match"),
        if_none_match: header("if-none-match"),
        body: &composed.body,
        form: form.map(|(value, metadata)| (&value[..], metadata.as_deref())),
        claims_form: header("content-type").is_some_and(|value| value.starts_with(b"multipart")),
        has_page: matches!(composed.protocol, Protocol::Rest { page: true }),
    }
}

/// Sends a request, and waits for all of the response.
fn sent(shared: &Arc<Shared>, endpoint: Endpoint, request: Request<Full<Bytes>>) -> (Parts, Bytes) {
    runtime().block_on(async {
        let response = respond(Arc::clone(shared), endpoint, request)
            .await
            .expect("the body is complete");
        let (head, body) = response.into_parts();
        (head, body.collect().await.unwrap().to_bytes())
    })
}

/// A response, and its body as JSON if it is that.
struct Answer<'a> {
    head: &'a Parts,
    body: &'a Bytes,
    parsed: Option<&'a json::Node<'a>>,
    is_rest: bool,
}

impl Answer<'_> {
    /// The envelope of the REST API says whether the request succeeded, as the status does.
    fn check_envelope(&self, told: impl Fn() -> String) {
        let known = ["success", "errors", "result"];
        let envelope = self
            .parsed
            .and_then(|node| node.members(|name| known.contains(&name), Others::MeanNothing));
        let envelope = envelope.unwrap_or_else(|| panic!("{}", told()));
        let errors =
            matches!(envelope.get("errors").unwrap().value, json::Value::Array(ref errors) if !errors.is_empty());
        let is_success = self.head.status.as_u16() == 200;
        assert_eq!(
            (envelope.get("success").unwrap().bool(), errors),
            (Some(is_success), !is_success)
        );
    }

    /// Applies what was acknowledged to the world, and checks what was shown.
    fn apply(&self, world: &mut World, does: Option<Does>) {
        match does {
            None | Some(Does::Answers | Does::Perhaps) => {}
            Some(Does::Shows(kept)) => {
                assert_eq!(self.body, &kept.value);
                let header = if self.is_rest { "expiration" } else { "cf-expiration" };
                let shown = self.head.headers.get(header);
                let shown = shown.map(|value| value.to_str().unwrap().to_owned());
                assert_eq!(shown, kept.expiry_ms.map(|ms| ms.div_ceil(1000).to_string()));
            }
            Some(Does::Lists(expected)) => {
                let list = member(self.parsed.unwrap(), if self.is_rest { "result" } else { "keys" });
                let json::Value::Array(items) = &list.value else {
                    panic!("no list")
                };
                let names: Vec<String> = items
                    .iter()
                    .map(|item| member(item, "name").text().unwrap().to_owned())
                    .collect();
                assert_eq!(names, expected);
            }
            Some(Does::Values(expected)) => {
                let mut values = self.parsed.unwrap();
                if self.is_rest {
                    values = member(member(values, "result"), "values");
                }
                let json::Value::Object(members) = &values.value else {
                    panic!("no object")
                };
                let shown = members
                    .iter()
                    .map(|(name, node)| (name.clone().unwrap(), node.text().map(str::to_owned)));
                assert_eq!(shown.collect::<BTreeMap<_, _>>(), expected);
            }
            Some(Does::Puts(id, puts)) => world.get_mut(&id).unwrap().1.extend(puts),
            Some(Does::Deletes(id, keys)) => {
                let held = &mut world.get_mut(&id).unwrap().1;
                keys.iter().for_each(|key| drop(held.remove(key)));
            }
            Some(Does::Creates(title)) => {
                let id = member(member(self.parsed.unwrap(), "result"), "id");
                let id = u128::from_str_radix(id.text().unwrap(), 16).unwrap();
                assert!(world.insert(id, (title, Keys::new())).is_none());
            }
            Some(Does::Renames(id, title)) => world.get_mut(&id).unwrap().0 = title,
            Some(Does::Removes(id)) => drop(world.remove(&id)),
        }
    }
}

fn member<'n, 'a>(node: &'n json::Node<'a>, name: &str) -> &'n json::Node<'a> {
    let json::Value::Object(members) = &node.value else {
        panic!("no object")
    };
    let found = members.iter().find(|(known, _)| known.as_deref() == Some(name));
    &found.expect("it is there").1
}
