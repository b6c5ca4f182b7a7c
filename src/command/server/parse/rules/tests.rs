use super::*;

#[test]
fn keys_have_rules() {
    assert!(check_key(b"...").is_ok() && check_key(&[b'a'; 512]).is_ok() && check_key(b"\0/%").is_ok());
    assert_eq!(check_key(b"").unwrap_err().message, "Key names must not be empty");
    assert_eq!(
        check_key(b"..").unwrap_err().message,
        "Illegal key name \"..\". Please use a different name."
    );
    let error = check_key(&[b'a'; 513]).unwrap_err();
    assert_eq!(error.status, 414);
    assert_eq!(
        error.message,
        "UTF-8 encoded length of 513 exceeds key length limit of 512."
    );
    assert_eq!(
        check_key(b"\xed\xa0\x80").unwrap_err().message,
        "Could not URL-decode key name"
    );
}

#[test]
fn what_is_stored_can_be_deleted_by_a_body_whatever_the_rules_for_new_keys() {
    for key in [&b"."[..], b"..", &[b'a'; 513], &[b'a'; 65_536]] {
        assert!(check_key(key).is_err() && check_deleted_key(key).is_ok());
    }
    assert_eq!(check_deleted_key(b""), check_key(b""));
    assert_eq!(check_deleted_key(&[b'a'; 65_537]).unwrap_err().status, 414);
}

#[test]
fn lifetimes_have_rules() {
    let now = ExpiryRules {
        now_ms: 1_000_000_999,
        ttl_seconds_min: 60,
    };
    let after = |seconds| Ok(Some(Expiration::After(Duration::from_secs(seconds))));
    assert_eq!(expiration(None, None, now), Ok(None));
    assert_eq!(expiration(None, Some("60"), now), after(60));
    assert_eq!(
        expiration(Some("1000060"), None, now),
        Ok(Some(Expiration::At(1_000_060)))
    );
    assert_eq!(expiration(Some("nonsense"), Some("60"), now), after(60));
    assert_eq!(expiration(None, Some("9999999999"), now), after(9_999_999_999));
    assert_eq!(expiration(None, Some("999999999999"), now), after(999_999_999_999));
    assert_eq!(
        expiration(Some("999999999999"), None, now),
        Ok(Some(Expiration::At(999_999_999_999)))
    );
    let message = |given: Option<&str>, ttl: Option<&str>| expiration(given, ttl, now).unwrap_err().message;
    for number in [
        "+2000000",
        "2000000.5",
        "2e9",
        "1e400",
        "0x7fffffff",
        "2_000_000",
        " 2000000",
        "Infinity",
        "-",
    ] {
        assert_eq!(expiration(Some(number), None, now).unwrap_err().code, 10033, "{number}");
        assert_eq!(expiration(None, Some(number), now).unwrap_err().code, 10034, "{number}");
    }
    for ttl in ["0", "-1", "-99999999999999999999", "NaN", "", "60.5"] {
        let expected = format!("Invalid expiration_ttl of {ttl}. Please specify integer greater than 0.");
        assert_eq!(message(Some("2000000"), Some(ttl)), expected);
    }
    assert_eq!(
        message(None, Some("59")),
        "Invalid expiration_ttl of 59. Expiration TTL must be at least 60."
    );
    assert_eq!(
        message(Some("1000000"), None),
        "Invalid expiration of 1000000. Please specify integer greater than the current number of seconds since the UNIX epoch."
    );
    assert_eq!(
        message(Some("1000059"), None),
        "Invalid expiration of 1000059. Expiration times must be at least 60 seconds in the future."
    );
}

#[test]
fn a_number_that_looks_like_milliseconds_is_told_so() {
    let now = ExpiryRules {
        now_ms: 1_000_000_999,
        ttl_seconds_min: 60,
    };
    let message = |given: Option<&str>, ttl: Option<&str>| expiration(given, ttl, now).unwrap_err().message;
    for number in [
        "1000000000000",
        "1795689696000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        assert_eq!(
            message(Some(number), None),
            format!(
                "Invalid expiration of {number}. This looks like milliseconds. Please specify seconds since the UNIX epoch."
            )
        );
        assert_eq!(
            message(None, Some(number)),
            format!(
                "Invalid expiration_ttl of {number}. This looks like milliseconds, or like a time. Please specify seconds from now."
            )
        );
    }
}

#[test]
fn the_shortest_lifetime_is_what_the_owner_has_set() {
    let rules = |ttl_seconds_min| ExpiryRules {
        now_ms: 1_000_000_999,
        ttl_seconds_min,
    };
    let refused = |given: Option<&str>, ttl: Option<&str>, least| {
        let refused = expiration(given, ttl, rules(least)).err();
        refused.map(|error| error.message)
    };
    let at_least = |figure: &str| {
        Some(format!(
            "Invalid expiration_ttl of 1. Expiration TTL must be at least {figure}."
        ))
    };
    for least in [0, 1] {
        assert_eq!(refused(None, Some("1"), least), None);
        assert_eq!(refused(Some("1000001"), None, least), None);
        assert!(refused(None, Some("0"), least).is_some(), "a key that never was there");
        assert!(refused(Some("1000000"), None, least).is_some());
    }
    assert_eq!(refused(None, Some("1"), 2), at_least("2"));
    assert_eq!(refused(None, Some("1"), u64::MAX), at_least("9223372036854775807"));
    assert_eq!(
        refused(Some("1000002"), None, 3).as_deref(),
        Some("Invalid expiration of 1000002. Expiration times must be at least 3 seconds in the future.")
    );
    assert!(refused(Some("9223372036854775807"), None, u64::MAX).is_some());
}

#[test]
fn metadata_have_rules() {
    assert_eq!(check_metadata(b"{\"a\": 1}"), Ok(Some(&b"{\"a\": 1}"[..])));
    assert_eq!(check_metadata(b"false"), Ok(Some(&b"false"[..])));
    assert_eq!(check_metadata(b"null"), Ok(None));
    assert_eq!(check_metadata(b"{").unwrap_err().code, 10147);
    let long = format!("\"{}\"", "a".repeat(1023));
    let error = check_metadata(long.as_bytes()).unwrap_err();
    assert_eq!(error.message, "Metadata length of 1025 exceeds limit of 1024.");
    let shown = |bytes: &[u8]| metadata_json(Some(bytes)).map(|json| json.get().to_owned());
    assert_eq!(shown(b"{\n \"a\": 1}").as_deref(), Some("{\"a\":1}"));
    assert_eq!(shown(b"\"a\x7f b\"").as_deref(), Some("\"a\\u007f b\""));
    assert_eq!(shown(b"\xff"), None);
}

#[test]
fn pages_have_rules() {
    let limit = |text| page_limit(Some(text), "key_count_limit");
    assert_eq!(page_limit(None, "limit"), Ok(1000));
    assert_eq!((limit("1"), limit("1000")), (Ok(1), Ok(1000)));
    assert_eq!(
        limit("1001").unwrap_err().message,
        "Invalid key_count_limit of 1001. Please specify an integer less than 1000."
    );
    assert_eq!(
        limit("0").unwrap_err().message,
        "Invalid key_count_limit of 0. Please specify an integer greater than 0."
    );
    for wrong in ["+1", "-1", "", "1.5"] {
        assert!(limit(wrong).is_err(), "{wrong}");
    }
    assert!(check_cache_ttl(Some("+30")).is_err());
    assert!(check_cache_ttl(Some("30")).is_ok() && check_cache_ttl(Some("29")).is_err());
}
