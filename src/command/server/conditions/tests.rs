//! What conditions say, and that the store judges them.

use embercask::Store;

use super::*;

fn read(name: HeaderName, lines: &[&str]) -> Result<Option<Tags>, u16> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&name, line.parse().unwrap());
    }
    tags(&headers, &name).map_err(|error| error.status)
}

fn ours(number: u128) -> Tag {
    Tag {
        is_weak: false,
        etag: Some(Etag(number)),
    }
}

const FOREIGN: Tag = Tag {
    is_weak: false,
    etag: None,
};

#[test]
fn conditions_are_a_star_or_a_list_of_tags() {
    let read = |lines: &[&str]| read(IF_MATCH, lines);
    let (one, two) = (Etag(1).to_string(), Etag(2).to_string());
    let weak = Tag {
        is_weak: true,
        ..ours(2)
    };
    let these = |tags: &[Tag]| Ok(Some(Tags::These(tags.to_vec())));
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&["*"]), Ok(Some(Tags::Any)));
    assert_eq!(read(&[" *\t"]), Ok(Some(Tags::Any)));
    assert_eq!(read(&[&one]), these(&[ours(1)]));
    assert_eq!(read(&[&format!("{one} ,\t{two}")]), these(&[ours(1), ours(2)]));
    assert_eq!(read(&[&one, &two]), these(&[ours(1), ours(2)]));
    assert_eq!(read(&[&format!(", {one},,W/{two},")]), these(&[ours(1), weak]));
    // Tags of other servers; a comma within a tag.
    let others = "\"\", \"a,b\", \"*\", \"0000000000000000000000000000000A\"";
    assert_eq!(read(&[others]), these(&[FOREIGN; 4]));
    for malformed in [
        "",
        ",",
        "a",
        "**",
        "*, *",
        "\"",
        "\"a",
        "a\"",
        "\"a b\"",
        "w/\"a\"",
        "W/",
        "W/a",
        "W/ \"a\"",
        "\"a\"\"b\"",
        "\"a\" \"b\"",
        "\"a\"x",
        "00000000000000000000000000000001",
    ] {
        assert_eq!(read(&[malformed]), Err(400), "{malformed:?}");
    }
    assert_eq!(read(&["*", "*"]), Err(400));
    assert_eq!(read(&["*", &one]), Err(400));
}

#[test]
fn what_conditions_allow_is_as_the_standard_has_it() {
    let weak = Tag {
        is_weak: true,
        ..ours(1)
    };
    let these = |tags: &[Tag]| Some(Tags::These(tags.to_vec()));
    let (here, other) = (Some(Etag(1)), Some(Etag(2)));
    // If-Match, If-None-Match; allowed if absent, with the content 1, with the content 2.
    let table = [
        (None, None, [true, true, true]),
        (Some(Tags::Any), None, [false, true, true]),
        (None, Some(Tags::Any), [true, false, false]),
        (Some(Tags::Any), Some(Tags::Any), [false, false, false]),
        (these(&[ours(1)]), None, [false, true, false]),
        (these(&[FOREIGN, ours(2), ours(1)]), None, [false, true, true]),
        (these(&[weak]), None, [false, false, false]),
        (these(&[FOREIGN]), None, [false, false, false]),
        (None, these(&[ours(1)]), [true, false, true]),
        (None, these(&[weak]), [true, false, true]),
        (None, these(&[FOREIGN]), [true, true, true]),
        (Some(Tags::Any), these(&[ours(1)]), [false, false, true]),
        (these(&[ours(1)]), Some(Tags::Any), [false, false, false]),
    ];
    for (if_match, if_none_match, expected) in table {
        let conditions = Conditions {
            if_match,
            if_none_match,
        };
        let allowed = [None, here, other].map(|found| conditions.allow(found));
        assert_eq!(allowed, expected, "{conditions:?}");
    }
}

#[test]
fn a_read_is_refused_before_it_is_found_unchanged() {
    let check = |if_match: Option<Tags>, if_none_match: Option<Tags>| {
        let conditions = Conditions {
            if_match,
            if_none_match,
        };
        conditions.check_read(Etag(1))
    };
    let these = |number| Some(Tags::These(vec![ours(number)]));
    assert_eq!(check(None, None), Ok(()));
    assert_eq!(check(these(1), these(2)), Ok(()));
    assert_eq!(check(Some(Tags::Any), None), Ok(()));
    assert_eq!(check(these(2), None), Err(NotRead::PreconditionFailed));
    assert_eq!(check(these(2), these(1)), Err(NotRead::PreconditionFailed));
    assert_eq!(check(these(1), these(1)), Err(NotRead::NotModified));
    assert_eq!(check(None, Some(Tags::Any)), Err(NotRead::NotModified));
}

fn on_content(etag: Etag) -> Conditions {
    Conditions {
        if_match: Some(Tags::These(vec![ours(etag.0)])),
        if_none_match: None,
    }
}

#[test]
fn a_write_whose_condition_does_not_hold_changes_nothing() {
    let store = Store::in_memory().unwrap();
    let namespace = store.namespace("N").unwrap();
    let put = |conditions: &Conditions, value: &[u8]| conditions.put(&namespace, b"k", value, PutOptions::new());
    let delete = |conditions: &Conditions| conditions.delete(&namespace, b"k", Durability::Os);
    let absent = Conditions {
        if_none_match: Some(Tags::Any),
        ..Conditions::default()
    };
    let status = |done: Result<(), ApiError>| done.map_err(|error| error.status);
    assert_eq!(status(put(&on_content(Etag(1)), b"v")), Err(412));
    assert_eq!(status(put(&absent, b"first")), Ok(()));
    assert_eq!(status(put(&absent, b"second")), Err(412));
    assert_eq!(status(put(&on_content(Etag(1)), b"second")), Err(412));
    assert_eq!(status(delete(&absent)), Err(412));
    assert_eq!(status(delete(&on_content(Etag(1)))), Err(412));
    assert_eq!(namespace.get_text("k").unwrap().as_deref(), Some("first"));
    let first = Etag::of(b"first", None, None);
    assert_eq!(status(put(&on_content(first), b"second")), Ok(()));
    assert_eq!(status(delete(&on_content(first))), Err(412));
    assert_eq!(status(delete(&on_content(Etag::of(b"second", None, None)))), Ok(()));
    assert_eq!(namespace.get_text("k").unwrap(), None);
}

#[test]
fn nothing_comes_between_a_judgement_and_its_put() {
    const THREADS: u64 = 4;
    const INCREMENTS: u64 = 500;
    let store = Store::in_memory().unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("counter", "0").unwrap();
    let increment = || loop {
        let old = namespace.get("counter").unwrap().unwrap();
        let new = old.as_str().unwrap().parse::<u64>().unwrap() + 1;
        let condition = on_content(Etag::of_value(&old));
        match condition.put(&namespace, b"counter", new.to_string().as_bytes(), PutOptions::new()) {
            Ok(()) => break,
            Err(error) => assert_eq!(error.status, 412),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..INCREMENTS).for_each(|_| increment()));
        }
    });
    let sum = namespace.get_text("counter").unwrap().unwrap();
    assert_eq!(sum, (THREADS * INCREMENTS).to_string());
}
