//! The server: values sent as forms, and what claims to be one.

use crate::command::Workplace;
use crate::http::{Answer, Connection, NAMESPACES, Server, started};
use serde_json::Value;

struct Api {
    server: Server,
    /// The path of the key `k`, which has a value from before.
    value: String,
    metadata: String,
    _at: Workplace,
}

impl Api {
    fn new() -> Api {
        let at = Workplace::with_namespace();
        let id = at.id_of("N");
        let api = Api {
            server: started(&at, &["--durability", "os"]),
            value: format!("{NAMESPACES}/{id}/values/k"),
            metadata: format!("{NAMESPACES}/{id}/metadata/k"),
            _at: at,
        };
        assert_eq!(api.put(&[], b"before").status, 200);
        api
    }

    fn put(&self, content_types: &[&str], body: &[u8]) -> Answer {
        let headers: Vec<(&str, &[u8])> = content_types
            .iter()
            .map(|kind| ("Content-Type", kind.as_bytes()))
            .collect();
        Connection::to(&self.server.rest).request("PUT", &self.value, &headers, body)
    }

    /// Value and metadata.
    fn stored(&self) -> (Vec<u8>, Value) {
        let mut connection = Connection::to(&self.server.rest);
        let value = connection.request("GET", &self.value, &[], b"").body;
        let metadata = connection.request("GET", &self.metadata, &[], b"").json();
        (value, metadata["result"].clone())
    }

    /// Refused with status 400 and this code; what was stored stays.
    fn refuses(&self, content_types: &[&str], body: &[u8], code: u64) -> String {
        let before = self.stored();
        let (status, found, message) = self.put(content_types, body).error();
        assert_eq!((status, found), (400, code), "{content_types:?}: {message}");
        assert_eq!(self.stored(), before, "{content_types:?}");
        message
    }
}

/// A form with these parts, each with a name in quotes.
fn form(boundary: &str, parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (name, content) in parts {
        body += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n");
    }
    (body + &format!("--{boundary}--\r\n")).into_bytes()
}

const FORM: &str = "multipart/form-data; boundary=xYz";

#[test]
fn a_form_is_known_however_its_type_is_spelled() {
    let at = Api::new();
    for (content_type, boundary) in [
        (FORM, "xYz"),
        ("MULTIPART/FORM-DATA; BOUNDARY=xYz", "xYz"),
        ("  Multipart/Form-Data ;  boundary = xYz ", "xYz"),
        ("multipart/form-data;boundary=\"x Y'z\"", "x Y'z"),
        ("multipart/form-data; boundary=\"x\\\"Y\\\\z\"", "x\"Y\\z"),
        ("multipart/form-data; charset=utf-8; boundary=x/Y=z:1", "x/Y=z:1"),
        ("multipart/form-data; boundary=x,Y", "x,Y"),
        ("multipart/form-data; boundary=----=_Part_1(2)?+", "----=_Part_1(2)?+"),
    ] {
        let body = form(boundary, &[("value", content_type), ("metadata", "{\"a\": 1}")]);
        assert_eq!(at.put(&[content_type], &body).status, 200, "{content_type}");
        let (value, metadata) = at.stored();
        assert_eq!((&value[..], &metadata["a"]), (content_type.as_bytes(), &Value::from(1)));
        let without = form(boundary, &[("value", "v")]);
        assert_eq!(at.put(&[content_type], &without).status, 200);
        assert_eq!(at.stored(), (b"v".to_vec(), Value::Null));
    }
    // A form of parameters is a value like any other, as in Workers KV: curl --data says so of any
    // body.
    for raw in ["application/x-www-form-urlencoded", "text/plain", "application/json"] {
        assert_eq!(at.put(&[raw], b"value=a&metadata=b").status, 200);
        assert_eq!(at.stored().0, b"value=a&metadata=b", "{raw}");
    }
}

#[test]
fn what_claims_to_be_a_form_is_never_stored_as_it_is() {
    let at = Api::new();
    let body = form("xYz", &[("value", "v")]);
    for content_types in [
        &["multipart/form-data"][..],
        &["multipart/form-data; boundary"],
        &["multipart/form-data; boundary="],
        &["multipart/form-data; boundary=\"xYz"],
        &["multipart/form-data; boundary=xYz; boundary=abc"],
        &["multipart/form-data; boundary=other"],
        &["multipart/form-data; boundary=xyz"],
        &["multipart/form-data boundary=xYz"],
        &["multipart/form-data, text/plain; boundary=xYz"],
        &["text/plain, multipart/form-data; boundary=xYz"],
        &["text/plain; a=b, multipart/form-data; boundary=xYz"],
        &["multipart/form-data; boundary=xYz, text/plain"],
        &["\"multipart/form-data; boundary=xYz\""],
        &["multipart/mixed; boundary=xYz"],
        &["multipart/related; type=text/plain; boundary=xYz"],
        &["Multipart"],
        &["form-data; boundary=xYz"],
        &["text/plain", FORM],
        &[FORM, "text/plain"],
        &[FORM, FORM],
    ] {
        let message = at.refuses(content_types, &body, 10012);
        assert!(
            message.starts_with("put: 'the multipart body could not be parsed: "),
            "{message}"
        );
    }
    let metadata = ("metadata", "{\"a\": 1}");
    let text = String::from_utf8(body.clone()).unwrap();
    for (body, code) in [
        (b"v".to_vec(), 10012),
        (Vec::new(), 10012),
        (text.replace("\r\n", "\n").into_bytes(), 10012),
        (format!("preamble\r\n{text}").into_bytes(), 10012),
        (format!("{text}epilogue").into_bytes(), 10012),
        (text.replace(" name=", " nome=").into_bytes(), 10012),
        (
            text.replace("\r\n\r\nv", "\r\nContent-Transfer-Encoding: base64\r\n\r\ndg==")
                .into_bytes(),
            10012,
        ),
        (form("xYz", &[]), 10047),
        (form("xYz", &[metadata]), 10047),
        (form("xYz", &[("Value", "v")]), 10047),
        (form("xYz", &[("value[a]", "1")]), 10047),
        (form("xYz", &[("value", "v"), ("value", "w")]), 10012),
        (form("xYz", &[("value", "v"), metadata, metadata]), 10012),
        (form("xYz", &[("value", "v"), ("metadata", "")]), 10147),
        (form("xYz", &[("value", "v"), ("metadata", "[object Object]")]), 10147),
        // As the npm SDK sends an object that is not given as JSON text.
        (
            form(
                "xYz",
                &[("value", "v"), ("metadata[a]", "1"), ("metadata[b][c][]", "2")],
            ),
            10147,
        ),
        (form("xYz", &[("metadata[a]", "1"), ("value", "v"), metadata]), 10147),
    ] {
        let message = at.refuses(&[FORM], &body, code);
        assert_eq!(message.contains("JSON.stringify"), code == 10147, "{message}");
    }
    let cut = form("xYz", &[metadata, ("value", "v")]);
    let last = cut.len() - b"--\r\n".len();
    for length in [last + 1, last, last - 3, last - 6, cut.len() / 2, 20, 3] {
        at.refuses(&[FORM], &cut[..length], 10012);
    }
    // A binding takes no forms.
    let headers: [(&str, &[u8]); 1] = [("Content-Type", FORM.as_bytes())];
    let refused = at.server.bound("PUT", "k", &headers, &body).line();
    assert!(refused.starts_with("400 A form is not a value"), "{refused}");
    assert_eq!(at.stored().0, b"before");
}

#[test]
fn a_lifetime_among_the_parts_is_told_to_be_ignored() {
    let at = Api::new();
    for name in ["expiration", "expiration_ttl"] {
        let answer = at.put(
            &[FORM],
            &form("xYz", &[("value", name), (name, "60"), ("another", "x")]),
        );
        assert_eq!(answer.status, 200);
        let messages = answer.json()["messages"].clone();
        assert!(
            messages[0]["message"]
                .to_string()
                .contains("the part another was ignored"),
            "{messages}"
        );
        let told = messages[1]["message"].to_string();
        assert!(
            told.contains(&format!("the part {name} was ignored: give it as")),
            "{told}"
        );
        assert_eq!(at.stored().0, name.as_bytes());
    }
}
