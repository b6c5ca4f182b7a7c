use super::*;

fn boundary_of(types: &[&str]) -> Result<Option<String>, String> {
    let mut headers = HeaderMap::new();
    for value in types {
        headers.append(CONTENT_TYPE, value.parse().unwrap());
    }
    boundary(&headers).map_err(|error| {
        assert_eq!((error.status, error.code), (400, 10012), "{types:?}");
        error.message
    })
}

#[test]
fn what_claims_to_be_a_form_has_a_boundary_or_is_refused() {
    for raw in [
        "",
        "text/plain;charset=UTF-8",
        "application/octet-stream",
        "application/json",
        // curl --data sends it unasked.
        "application/x-www-form-urlencoded",
        "nonsense",
        "text/plain, application/json",
    ] {
        assert_eq!(boundary_of(&[raw]), Ok(None), "{raw}");
    }
    assert_eq!(boundary_of(&[]), Ok(None));
    assert_eq!(boundary_of(&["text/plain", "text/plain"]), Ok(None));
    for (form, expected) in [
        ("multipart/form-data; boundary=----x", "----x"),
        ("MULTIPART/Form-Data; Boundary=\"a b\"", "a b"),
        ("multipart/form-data ;boundary = a ", "a"),
        ("multipart/form-data; boundary=a/b=c:d?e", "a/b=c:d?e"),
        ("multipart/form-data; boundary=a,b", "a,b"),
        ("multipart/form-data; boundary=\"a\\\"b\\\\\"", "a\"b\\"),
        ("multipart/form-data; charset=utf-8; boundary=a", "a"),
    ] {
        assert_eq!(boundary_of(&[form]), Ok(Some(expected.to_owned())), "{form}");
    }
    for wrong in [
        "multipart/form-data",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"a",
        "multipart/form-data; boundary=\"a \"",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary*=UTF-8''a",
        "multipart/form-data boundary=a",
        "multipart/form-data, text/plain; boundary=a",
        "text/plain, multipart/form-data; boundary=a",
        "text/plain; charset=utf-8, multipart/form-data; boundary=a",
        "multipart / form-data; boundary=a",
        "\"multipart/form-data; boundary=a\"",
        "multipart/mixed; boundary=a",
        "multipart/related; boundary=a",
        "multipart",
        "form-data; boundary=a",
        "application/octet-stream; boundary=a",
    ] {
        assert!(boundary_of(&[wrong]).is_err(), "{wrong}");
    }
    let form = "multipart/form-data; boundary=a";
    assert!(boundary_of(&[form, form]).is_err() && boundary_of(&["text/plain", form]).is_err());
    let header = http_bytes(b"multipart/form-data; boundary=a\xff");
    assert!(boundary(&header).is_err());
}

fn http_bytes(value: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_bytes(value).unwrap());
    headers
}

fn read_text(body: &str) -> Result<Form, ApiError> {
    read(&Bytes::copy_from_slice(body.as_bytes()), "B")
}

const VALUE: &str = "--B\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\nv\r\n";

#[test]
fn a_form_is_read_to_its_last_boundary() {
    for (body, value) in [
        (format!("{VALUE}--B--"), "v"),
        (format!("\r\n{VALUE}--B--\r\n\r\n"), "v"),
        (VALUE.replace("--B\r", "--B \t\r") + "--B--", "v"),
        (
            VALUE.replace("; name=\"value\"", ";filename=\"a; name=x\" ; NAME = value") + "--B--",
            "v",
        ),
        (
            VALUE.replace("\r\n\r\nv", "\r\nContent-Transfer-Encoding: BINARY\r\n\r\nv") + "--B--",
            "v",
        ),
        (VALUE.replace("v\r\n", "\r\n") + "--B--", ""),
        (
            VALUE.replace("\nv\r\n", "\n\r\n-B\r\n- -B\r\r\n") + "--B--",
            "\r\n-B\r\n- -B\r",
        ),
    ] {
        let form = read_text(&body).unwrap_or_else(|error| panic!("{body}: {error:?}"));
        assert_eq!((&form.value[..], form.metadata), (value.as_bytes(), None), "{body}");
    }
    let others = VALUE.replace("\"value\"", "\"expiration_ttl\"") + &VALUE.replace("\"value\"", "\"x[y]\"");
    let form = read_text(&format!("{others}{VALUE}--B--")).unwrap();
    assert_eq!(form.value, "v");
    let told = [
        "the part expiration_ttl was ignored: give it as a parameter of the address",
        "the part x[y] was ignored",
    ];
    assert_eq!(form.messages, told);
}

#[test]
fn what_is_wrong_with_a_form_is_told() {
    let metadata = VALUE.replace("\"value\"", "\"metadata\"");
    for (body, word) in [
        (String::new(), "does not begin with the boundary"),
        ("v".to_owned(), "does not begin with the boundary"),
        (format!("preamble\r\n{VALUE}--B--"), "does not begin with the boundary"),
        ("--B".to_owned(), "cut off"),
        (VALUE.to_owned(), "cut off"),
        (format!("{VALUE}--B"), "cut off"),
        (format!("{VALUE}--B-"), "cut off"),
        (
            format!("{VALUE}--B\r\nContent-Disposition: form-data"),
            "head of a part does not end",
        ),
        (VALUE.replace("\r\n", "\n") + "--B--", "CR LF"),
        (VALUE.replace("v\r\n", "v\n") + "--B--", "CR LF"),
        (VALUE.replace("v\r\n", "v\n--B\n\r\n") + "--B--", "CR LF"),
        (VALUE.replace("v\r\n", "") + "--B--", "CR LF"),
        (VALUE.replace("v\r\n", "") + VALUE + "--B--", "CR LF"),
        (VALUE.replace("v\r\n", "v\r\n--Bc\r\n") + "--B--", "CR LF"),
        (format!("{VALUE}--B--\r\n{VALUE}--B--"), "follows its last boundary"),
        (format!("{VALUE}{VALUE}--B--"), "two parts of the same name"),
        (
            format!("{VALUE}{metadata}{metadata}--B--"),
            "two parts of the same name",
        ),
        ("--B\r\n\r\nv\r\n--B--".to_owned(), "no header"),
        (VALUE.replace("Content-D", " Content-D") + "--B--", "no name"),
        (VALUE.replace(": form", " form") + "--B--", "no header"),
        (VALUE.replace("; name=\"value\"", "") + "--B--", "no name"),
        (
            VALUE.replace("form-data", "attachment") + "--B--",
            "Content-Disposition",
        ),
        (VALUE.replace("value\"", "value") + "--B--", "quote"),
        (
            VALUE.replace("\r\n\r\nv", "\r\nContent-Transfer-Encoding: base64\r\n\r\ndg==") + "--B--",
            "Transfer-Encoding",
        ),
        (
            VALUE.replace("\r\n\r\nv", "\r\nContent-Encoding: gzip\r\n\r\nv") + "--B--",
            "Content-Encoding",
        ),
        (
            VALUE.replace("\r\n\r\nv", "\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\nv") + "--B--",
            "a form itself",
        ),
        ("--B--\r\n".to_owned(), "\"value\" is missing"),
        (format!("{metadata}--B--"), "\"value\" is missing"),
        (
            VALUE.replace("\"value\"", "\"value[a]\"") + "--B--",
            "as one part of this name",
        ),
        (
            VALUE.replace("\"value\"", "\"metadata[a][]\"") + VALUE + "--B--",
            "JSON.stringify",
        ),
        (
            format!("--B\r\nX: {}\r\n{}", "x".repeat(16 << 10), &VALUE[5..]) + "--B--",
            "does not end in 16 KiB",
        ),
    ] {
        let error = read_text(&body).expect_err(&body);
        assert!(error.status == 400 && error.message.contains(word), "{body}: {error:?}");
    }
}

#[test]
fn a_form_that_is_cut_anywhere_is_none() {
    let metadata = VALUE.replace("\"value\"", "\"metadata\"");
    let whole = format!("{metadata}{VALUE}--B--");
    assert!(read_text(&whole).is_ok());
    for length in 0..whole.len() {
        assert!(read_text(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn metadata_of_a_form_are_json_text() {
    assert_eq!(check_metadata(b"\"\""), Ok(Some(&b"\"\""[..])));
    assert_eq!(check_metadata(b"null"), Ok(None));
    for wrong in [&b""[..], b"[object Object]", b"a=1", b"{"] {
        let error = check_metadata(wrong).unwrap_err();
        assert_eq!((error.status, error.code), (400, 10147));
        assert!(error.message.starts_with("metadata must be valid json: "), "{error:?}");
        assert!(error.message.contains("JSON.stringify"), "{error:?}");
    }
    assert_eq!(check_metadata(&[b'1'; 1025]).unwrap_err().status, 413);
}
