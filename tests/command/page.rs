//! What the web page needs of the server.

use crate::command::Workplace;
use crate::http::{Answer, NAMESPACES, TOKEN, bearer, request, started};
use serde_json::{Value, json};

fn text<'a>(answer: &'a Answer, header: &str) -> Option<&'a str> {
    answer.header(header).map(|value| std::str::from_utf8(value).unwrap())
}

#[test]
fn the_page_is_one_document_whose_script_and_style_have_hashes() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--page", "--token", TOKEN]);
    let page = request(&server.rest, "GET", "/", &[], b"");
    assert_eq!(page.status, 200);
    assert_eq!(text(&page, "content-type"), Some("text/html; charset=utf-8"));
    let policy = text(&page, "content-security-policy").unwrap();
    assert!(
        policy.contains("script-src 'sha256-") && policy.contains("style-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
}

/// The page offers no more than that.
#[test]
fn a_token_learns_what_it_permits() {
    let at = Workplace::with_namespace();
    let mut settings = String::new();
    let mut tokens = Vec::new();
    for (limits, write, all_namespaces) in [
        ("", true, true),
        ("read_only = true", false, true),
        ("namespaces = [\"N\"]", true, false),
        ("namespaces = []\nread_only = true", false, false),
    ] {
        let (token, setting) = at.token("one", limits);
        settings += &setting;
        tokens.push((token, write, all_namespaces));
    }
    std::fs::write(at.path("serve.toml"), settings).unwrap();
    let server = started(&at, &["--config", "serve.toml", "--minimum-ttl", "7"]);
    let verified = |headers: &[(&str, &[u8])]| -> Value {
        let answer = request(&server.rest, "GET", "/client/v4/user/tokens/verify", headers, b"").json();
        answer["result"].clone()
    };
    for (token, write, all_namespaces) in tokens {
        let result = verified(&[("Authorization", &bearer(&token))]);
        assert_eq!(
            result["access"],
            json!({ "write": write, "all_namespaces": all_namespaces })
        );
        assert_eq!(result["minimum_ttl"], 7);
    }
    assert_eq!(verified(&[]), Value::Null);
}

#[test]
fn a_get_has_the_metadata_of_the_value_it_returns() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let id = at.id_of("N");
    let target = format!("{NAMESPACES}/{id}/values/k");
    let metadata = "{\"a\": \"\u{4e16} b\"}";
    let headers = [("CF-KV-Metadata", metadata.as_bytes())];
    assert_eq!(server.bound("PUT", "k", &headers, b"v").status, 200);
    let answer = request(&server.rest, "GET", &target, &[], b"");
    assert_eq!(answer.header("cf-kv-metadata"), Some(metadata.as_bytes()));
    assert!(answer.header("etag").is_some());
    // The form of the REST API takes what a header cannot have.
    let body = b"--b\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\nv\r\n\
        --b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{\n\"a\": \"\x7f\"}\r\n--b--\r\n";
    let form = [("Content-Type", &b"multipart/form-data; boundary=b"[..])];
    assert_eq!(request(&server.rest, "PUT", &target, &form, body).status, 200);
    let answer = request(&server.rest, "GET", &target, &[], b"");
    assert_eq!(answer.header("cf-kv-metadata"), Some(&b"{\"a\":\"\\u007f\"}"[..]));
    assert_eq!(server.bound("PUT", "k", &[], b"v").status, 200);
    assert_eq!(
        request(&server.rest, "GET", &target, &[], b"").header("cf-kv-metadata"),
        None
    );
}
