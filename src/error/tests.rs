use super::*;

#[test]
fn messages_say_what_to_do_and_end_in_the_facts() {
    let error = Error::damage(Path::new("/s/1.segment"), 64, Damage::BodyChecksum);
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().ends_with("/s/1.segment at offset 64"), "{error}");
    let error = Error::io("write", Path::new("/s/1.segment"), io::ErrorKind::StorageFull.into());
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(Error::Conflict { found: None }.to_string().contains("absent"));
}

#[test]
fn an_error_of_reading_a_record_names_the_key_escaped() {
    let damage = || Error::damage(Path::new("/s/1.segment"), 64, Damage::BodyChecksum);
    let failed = || Error::io("read", Path::new("/s/1.segment"), io::ErrorKind::UnexpectedEof.into());
    for (key, named) in [
        (&b"plain"[..], "key \"plain\""),
        (
            "gr\u{fc}n \"\n\u{1b}[2J\u{202e}".as_bytes(),
            r#"key "grün \"\n\u{1b}[2J\u{202e}""#,
        ),
        (b"\xff\x00\"", r#"key "\xff\x00\"""#),
    ] {
        for error in [damage(), failed()] {
            let kind = error.kind();
            let error = error.of_key(key);
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(error.kind(), kind);
        }
    }
    let error = failed().of_key(b"k");
    assert!(matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof));
    assert!(matches!(Error::Closed.of_key(b"k"), Error::Closed));
}

#[test]
fn several_errors_are_told_as_one_that_names_all_places() {
    let path = |name: &str| PathBuf::from(format!("/s/{name}.segment"));
    let failed = Error::io("read", &path("1"), io::ErrorKind::Other.into());
    let second = Error::damage(&path("2"), 64, Damage::BodyChecksum);
    let third = Error::damage(&path("3"), 128, Damage::Padding);
    let error = Error::together(vec![failed, second, third]).unwrap();
    assert!(matches!(error, Error::Corruption { offset: 64, .. }));
    let text = error.to_string();
    for part in ["/s/1.segment", "/s/3.segment at offset 128: padding is not zero"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.ends_with("/s/2.segment at offset 64"), "{text}");
    assert!(Error::together(Vec::new()).is_none());
}
