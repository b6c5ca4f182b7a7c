//! What tower-sessions expects of a store of sessions.

use std::collections::HashMap;

use embercask::{ManualClock, Namespace, PutOptions, Store};
use embercask_web::session_store::Sessions;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tower_sessions::SessionStore;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::Error;

/// Where the clock of these tests begins: milliseconds since the epoch.
const START_MS: u64 = 1_700_000_000_000;

struct Fixture {
    clock: ManualClock,
    store: Store,
    sessions: Sessions,
}

fn fixture() -> Fixture {
    let clock = ManualClock::new(START_MS);
    let store = embercask_web::options().clock(clock.clone()).open_in_memory().unwrap();
    let sessions = Sessions::open(&store).unwrap();
    Fixture { clock, store, sessions }
}

impl Fixture {
    fn by_id(&self) -> Namespace {
        self.store.namespace("SESSIONS").unwrap()
    }

    fn users(&self) -> Vec<String> {
        let keys = self.store.namespace("SESSIONS_BY_USER").unwrap().list().into_iter();
        keys.map(|entry| entry.unwrap().key_str().unwrap().to_owned()).collect()
    }
}

/// A session with this user that ends so long after the start of the clock.
fn record(user: Value, lifetime: Duration) -> Record {
    let start = OffsetDateTime::from_unix_timestamp_nanos(i128::from(START_MS) * 1_000_000).unwrap();
    Record {
        id: Id::default(),
        data: HashMap::from([
            ("user".to_owned(), user),
            ("basket".to_owned(), json!([1, -2.5, {"ä": null}])),
        ]),
        expiry_date: start + lifetime,
    }
}

#[tokio::test]
async fn what_is_created_is_loaded_as_it_was_and_deleted() {
    let at = fixture();
    for user in [json!("ada"), json!(null), json!(7)] {
        let mut record = record(user, Duration::hours(1));
        let before = record.clone();
        at.sessions.create(&mut record).await.unwrap();
        assert_eq!(record, before);
        assert_eq!(at.sessions.load(&record.id).await.unwrap(), Some(before));
        at.sessions.delete(&record.id).await.unwrap();
        at.sessions.delete(&record.id).await.unwrap();
        assert_eq!(at.sessions.load(&record.id).await.unwrap(), None);
    }
    assert_eq!(at.by_id().count().unwrap(), 0);
    assert!(at.users().is_empty());
}

#[tokio::test]
async fn creating_never_overwrites_a_session_with_the_same_id() {
    let at = fixture();
    let mut first = record(json!("ada"), Duration::hours(1));
    at.sessions.create(&mut first).await.unwrap();
    let mut second = Record {
        id: first.id,
        ..record(json!("grace"), Duration::hours(2))
    };
    at.sessions.create(&mut second).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(at.sessions.load(&first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(at.sessions.load(&second.id).await.unwrap(), Some(second.clone()));
    assert_eq!(
        at.users(),
        [format!("ada/{}", first.id), format!("grace/{}", second.id)]
    );
}

#[tokio::test]
async fn saving_replaces_data_user_and_expiry() {
    let at = fixture();
    let mut before = record(json!("ada"), Duration::hours(1));
    at.sessions.create(&mut before).await.unwrap();
    let after = Record {
        id: before.id,
        ..record(json!("grace"), Duration::hours(3))
    };
    at.sessions.save(&after).await.unwrap();
    assert_eq!(at.users(), [format!("grace/{}", after.id)]);
    at.clock.advance(2 * 3_600_000);
    assert_eq!(at.sessions.load(&after.id).await.unwrap(), Some(after.clone()));
    let of_grace = at.sessions.of_user(&"grace".parse().unwrap()).await.unwrap();
    assert_eq!(of_grace, [after]);
}

#[tokio::test]
async fn saving_creates_nothing() {
    let at = fixture();
    let unknown = record(json!("ada"), Duration::hours(1));
    at.sessions.save(&unknown).await.unwrap();
    assert_eq!(at.sessions.load(&unknown.id).await.unwrap(), None);
    assert!(at.users().is_empty());
}

#[tokio::test]
async fn a_session_ends_at_its_expiry_and_its_id_is_free_again() {
    let at = fixture();
    let mut first = record(json!("ada"), Duration::minutes(1));
    at.sessions.create(&mut first).await.unwrap();
    at.clock.advance(59_999);
    assert!(at.sessions.load(&first.id).await.unwrap().is_some());
    at.clock.advance(1);
    assert_eq!(at.sessions.load(&first.id).await.unwrap(), None);
    assert!(at.users().is_empty());
    at.sessions.save(&first).await.unwrap();
    let mut second = Record {
        id: first.id,
        ..record(json!("ada"), Duration::hours(1))
    };
    at.sessions.create(&mut second).await.unwrap();
    assert_eq!(second.id, first.id);
}

#[tokio::test]
async fn an_expiry_that_has_passed_ends_a_session_and_begins_none() {
    let at = fixture();
    for passed in [
        Duration::ZERO,
        Duration::hours(-1),
        Duration::days(-30_000),
        Duration::milliseconds(-1),
    ] {
        let mut record = record(json!("ada"), Duration::hours(1));
        at.sessions.create(&mut record).await.unwrap();
        record.expiry_date -= Duration::hours(1) - passed;
        at.sessions.save(&record).await.unwrap();
        assert_eq!(at.sessions.load(&record.id).await.unwrap(), None, "{passed}");
        at.sessions.create(&mut record).await.unwrap();
        assert_eq!(at.sessions.load(&record.id).await.unwrap(), None, "{passed}");
        assert!(at.users().is_empty(), "{passed}");
    }
    let mut last = record(json!("ada"), Duration::hours(1));
    last.expiry_date = time::PrimitiveDateTime::MAX.assume_utc();
    at.sessions.create(&mut last).await.unwrap();
    assert!(at.sessions.load(&last.id).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_no_session_is_an_error_that_says_so() {
    let at = fixture();
    let slash = record(json!("a/b"), Duration::hours(1));
    let refused = at.sessions.create(&mut slash.clone()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Encode(what) if what.contains("1 to 64 letters")),
        "{refused}"
    );
    assert_eq!(at.sessions.load(&slash.id).await.unwrap(), None);

    let id = Id::default();
    let hour = PutOptions::new().expires_at_ms(START_MS + 3_600_000);
    at.by_id().put_with(id.to_string(), "no JSON", &hour).unwrap();
    let refused = at.sessions.load(&id).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Decode(what) if what.contains("the data of a session")),
        "{refused}"
    );
    at.by_id().put(id.to_string(), "{}").unwrap();
    let refused = at.sessions.load(&id).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Decode(what) if what.contains("without expiry")),
        "{refused}"
    );
    at.by_id()
        .put_with(id.to_string(), "{}", PutOptions::new().expires_at_ms(u64::MAX - 1))
        .unwrap();
    let refused = at.sessions.load(&id).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Decode(what) if what.contains("the expiry")),
        "{refused}"
    );

    let index = at.store.namespace("SESSIONS_BY_USER").unwrap();
    index.put("ada/x", "").unwrap();
    at.by_id().put_with("x", "{}", &hour).unwrap();
    let refused = at.sessions.of_user(&"ada".parse().unwrap()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Decode(what) if what.contains("SESSIONS_BY_USER")),
        "{refused}"
    );
}

#[tokio::test]
async fn an_error_of_the_store_says_what_was_not_done_and_why() {
    let at = fixture();
    let mut record = record(json!("ada"), Duration::hours(1));
    at.store.clone().close().unwrap();
    let refused = [
        ("create a session", at.sessions.create(&mut record).await.unwrap_err()),
        ("save a session", at.sessions.save(&record).await.unwrap_err()),
        ("load a session", at.sessions.load(&record.id).await.unwrap_err()),
        ("end a session", at.sessions.delete(&record.id).await.unwrap_err()),
    ];
    for (what, error) in refused {
        let expected = format!("cannot {what}: the store is closed; open it again");
        assert!(matches!(&error, Error::Backend(said) if *said == expected), "{error}");
    }
}
