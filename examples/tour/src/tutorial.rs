//! What the Workers KV tutorial does: put, get, a missing key, JSON, a lifetime, delete, and
//! listing by prefix.

use std::time::Duration;

use embercask::{Namespace, PutOptions, Store};
use serde::{Deserialize, Serialize};

use crate::{Result, ensure};

const NAMESPACE: &str = "TUTORIAL";
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    plan: String,
}

fn ada() -> User {
    User {
        name: "Ada".to_owned(),
        plan: "pro".to_owned(),
    }
}

/// Runs the tutorial, and checks each result.
pub(crate) fn walk(store: &Store) -> Result<()> {
    let users = store.namespace(NAMESPACE)?;
    println!("  namespace {:?}, id {:032x}", users.name(), users.id());

    users.put("user-123", "logged-in")?;
    let status = users.get_text("user-123")?;
    println!("  put and get user-123: {status:?}");
    ensure(status.as_deref() == Some("logged-in"), || {
        "user-123 has another value than was put".to_owned()
    })?;

    let nobody = users.get_text("user-000")?;
    println!("  get user-000, which was never put: {nobody:?}");
    ensure(nobody.is_none(), || "a key that was never put has a value".to_owned())?;

    users.put_json("user-456", &ada())?;
    let user: Option<User> = users.get_json("user-456")?;
    println!("  put and get user-456 as JSON: {user:?}");
    ensure(user == Some(ada()), || {
        "the JSON object differs from the one put".to_owned()
    })?;

    put_for_an_hour(&users)?;

    users.put("user-999", "to be deleted")?;
    let existed = users.delete("user-999")?.existed;
    println!("  delete user-999: existed {existed}, now {:?}", users.get("user-999")?);
    ensure(existed && !users.contains("user-999")?, || {
        "user-999 survived its deletion".to_owned()
    })?;

    println!("  list by prefix user-: {}", listed(&users)?.join(", "));
    look_again(store)
}

fn put_for_an_hour(users: &Namespace) -> Result<()> {
    users.put_with(
        "user-789",
        "logged-in",
        PutOptions::new().ttl(HOUR).metadata(r#"{"device":"phone"}"#),
    )?;
    let value = users.get("user-789")?.ok_or("user-789 expired at once")?;
    let metadata = value
        .metadata()
        .map(|metadata| String::from_utf8_lossy(metadata).into_owned());
    println!(
        "  put user-789 for an hour: expires at {} ms since the epoch, metadata {}",
        value.expiry_ms().unwrap_or_default(),
        metadata.unwrap_or_default()
    );
    ensure(value.expiry_ms().is_some(), || "user-789 has no expiry".to_owned())
}

fn listed(users: &Namespace) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in users.list().prefix("user-") {
        names.push(entry?.key_str()?.to_owned());
    }
    Ok(names)
}

/// Checks the tutorial's keys; called again after the store has been reopened.
pub(crate) fn look_again(store: &Store) -> Result<()> {
    let users = store.open_namespace(NAMESPACE)?;
    let names = listed(&users)?;
    ensure(names == ["user-123", "user-456", "user-789"], || {
        format!("the tutorial's keys are now {names:?}")
    })?;
    let user: Option<User> = users.get_json("user-456")?;
    ensure(user == Some(ada()), || format!("user-456 is now {user:?}"))?;
    let session = users
        .get("user-789")?
        .ok_or("user-789 is gone before its hour is over")?;
    ensure(
        session == *b"logged-in" && session.metadata() == Some(br#"{"device":"phone"}"#),
        || format!("user-789 is now {session:?}"),
    )
}
