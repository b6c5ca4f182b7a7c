use super::*;

fn with(header: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(header) = header {
        headers.insert(AUTHORIZATION, header.parse().unwrap());
    }
    headers
}

#[test]
fn a_token_opens_what_it_is_for() {
    let settings = TokenSetting {
        name: "reader".to_owned(),
        sha256: show_digest(&digest(b"a token of a reader")),
        read_only: true,
        admin: false,
        namespaces: Some(vec!["A".to_owned(), format!("{:032X}", 0xc0ffee)]),
    };
    let tokens = Tokens::new(&[settings], Some("a token for everything")).unwrap();
    for wrong in [
        None,
        Some("Bearer a token"),
        Some("Basic a token for everything"),
        Some("Bearer "),
    ] {
        assert!(tokens.access(&with(wrong), false).is_err(), "{wrong:?}");
    }
    let mut legacy = with(None);
    legacy.insert("x-auth-key", "a token for everything".parse().unwrap());
    assert!(tokens.access(&legacy, false).is_ok());
    let all = tokens
        .access(&with(Some("bearer a token for everything")), false)
        .unwrap();
    assert!(all.check_write().is_ok() && all.covers("B", 1) && all.check_all().is_ok());
    assert!(all.check_admin().is_ok(), "the token of the command line");
    let reader = tokens.access(&with(Some("Bearer a token of a reader")), false).unwrap();
    assert!(reader.check_write().is_err() && reader.check_all().is_err());
    assert!(reader.check_admin().is_err());
    assert!(reader.covers("A", 1) && !reader.covers("B", 1) && !reader.covers("a", 1));
    assert!(reader.covers("B", 0xc0ffee), "by its id");
}

#[test]
fn what_a_token_is_not_for_looks_the_same_whether_it_exists_or_not() {
    let store = embercask::Store::in_memory().unwrap();
    let (a, b) = (store.namespace("A").unwrap(), store.namespace("B").unwrap());
    let id = |namespace: &Namespace| format!("{:032x}", namespace.id());
    let absent_id = format!("{:032x}", 0xc0ffee);
    let access = Access {
        name: "some".to_owned(),
        namespaces: Some(vec!["A".to_owned(), "ABSENT".to_owned(), absent_id.to_uppercase()]),
        ..Access::full()
    };
    let unknown = || ApiError::new(404, 10013, "unknown");
    let see = |named: &str, found: Option<&Namespace>| {
        let seen = access.see(named, Ok(found.cloned()), unknown);
        seen.map(|namespace| namespace.name())
    };
    assert_eq!(see("A", Some(&a)), Ok("A".to_owned()));
    assert_eq!(see(&id(&a), Some(&a)), Ok("A".to_owned()));
    for (named, found) in [
        ("B", Some(&b)),
        (&id(&b)[..], Some(&b)),
        ("C", None),
        ("absent", None),
        (&"1".repeat(32), None),
    ] {
        assert_eq!(see(named, found), Err(denied()), "{named}");
    }
    // Its owner has told the token about these.
    for named in ["ABSENT", &absent_id] {
        assert_eq!(see(named, None), Err(unknown()), "{named}");
    }
    let of_store = access.see("C", Err(ApiError::new(400, 10001, "no name")), unknown);
    assert_eq!(of_store.map(|_| ()), Err(denied()));
    assert_eq!(Access::full().see("C", Ok(None), unknown).map(|_| ()), Err(unknown()));
}

/// An empty list permits nothing, unlike an absent one.
#[test]
fn an_empty_list_of_namespaces_is_none() {
    let setting: TokenSetting = toml::from_str(&format!(
        "name = \"a\"\nsha256 = \"{}\"\nnamespaces = []",
        "0".repeat(64)
    ))
    .unwrap();
    let tokens = Tokens::new(&[setting], None).unwrap();
    let (_, access) = tokens.tokens.first().unwrap();
    assert!(!access.covers("A", 1) && access.check_all().is_err());
}

#[test]
fn a_token_administers_if_it_says_so_and_may_do_everything_else() {
    let with = |more: &str| {
        let setting = format!("name = \"x\"\nsha256 = \"{}\"\n{more}", "0".repeat(64));
        Tokens::new(&[toml::from_str(&setting).unwrap()], None)
    };
    let may = |more: &str| {
        let tokens = with(more).unwrap();
        let (_, access) = tokens.tokens.first().unwrap();
        access.check_admin().is_ok()
    };
    assert!(may("admin = true") && !may("") && !may("admin = false\nread_only = true"));
    for wrong in ["read_only = true", "namespaces = [\"A\"]", "namespaces = []"] {
        let told = with(&format!("admin = true\n{wrong}")).err().unwrap();
        assert!(told.contains("the token \"x\""), "{wrong}: {told}");
    }
}

#[test]
fn without_tokens_web_pages_are_kept_out() {
    let tokens = Tokens::default();
    let allowed = |name: &'static str, value: &str, is_socket| {
        let mut headers = with(None);
        headers.insert(name, value.parse().unwrap());
        tokens.access(&headers, is_socket).is_ok()
    };
    assert!(tokens.access(&with(None), false).is_ok());
    for host in [
        "localhost:8787",
        "127.0.0.1",
        "127.1.2.3:1",
        "[::1]:8787",
        "fake-host",
        "LOCALHOST",
    ] {
        assert!(allowed("host", host, false), "{host}");
    }
    for (name, value) in [
        ("origin", "http://elsewhere.example"),
        ("host", "elsewhere.example:8787"),
        ("host", "192.0.2.1"),
        ("host", "localhost.elsewhere.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        assert!(!allowed(name, value, false), "{name}: {value}");
        assert!(allowed(name, value, true), "{name}: {value}");
    }
}

#[test]
fn a_token_is_what_a_client_can_send() {
    let accepts = |plain: &str| {
        let tokens = Tokens::new(&[], Some(plain)).ok()?;
        Some(tokens.access(&with(Some("Bearer 0123456789abcdef")), false).is_ok())
    };
    for good in [
        "0123456789abcdef",
        "0123456789abcdef\n",
        " \t0123456789abcdef\r\n",
        "\u{feff}0123456789abcdef",
    ] {
        assert_eq!(accepts(good), Some(true), "{good:?}");
    }
    for wrong in [
        "",
        "\n",
        "0123456789abcde\n",
        "0123456789abcdef\n0123456789abcdef",
        "0123456789\0abcdef",
    ] {
        assert_eq!(accepts(wrong), None, "{wrong:?}");
    }
    let setting = |sha256: String| TokenSetting {
        name: "a".to_owned(),
        sha256,
        read_only: false,
        admin: false,
        namespaces: None,
    };
    let digest = show_digest(&digest(b"0123456789abcdef"));
    let tokens = Tokens::new(&[setting(format!(" {digest}\n"))], None).unwrap();
    assert!(tokens.access(&with(Some("Bearer 0123456789abcdef")), false).is_ok());
}
