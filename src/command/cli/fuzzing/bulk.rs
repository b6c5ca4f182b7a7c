//! The JSON arrays of `embercask bulk`.

use embercask::storage::MemStorage;

use super::Dribble;
use crate::cli::arguments::Class;
use crate::cli::bulk::{delete_all, put_all};
use crate::cli::session::Session;
use crate::cli::transfer::Input;
use crate::cli::transfer::fuzzing::unmarked;
use crate::cli::writer::Rules;
use crate::common::fuzzing::json::{self, Node, Others, Value, Wrong};
use crate::common::fuzzing::{Kept, Keys, NOW_MS, content, open, told};
use embercask::testing::input::Input as Bytes;

const NAMESPACE: &str = "N";

/// The item is not a valid pair or key: nothing after it is done.
struct Refused;

/// Why not all items are done.
#[derive(Debug)]
enum Fails {
    /// The rest cannot be read.
    Unread,
    /// This item cannot be written.
    At(u64),
}

/// Pairs to put or keys to delete, read a few bytes at a time: done up to the first one that a
/// second reader rejects, which the failure names.
pub fn bulk_array(data: &[u8]) {
    let mut input = Bytes::new(data);
    let (how, step) = (input.u8(), input.u8());
    let text = input.rest();
    let (items, whole) = json::items(unmarked(text).unwrap_or_default());
    if whole == Err(Wrong::TooDeep) {
        return;
    }
    let store = open(&MemStorage::new());
    let namespace = store.create_namespace(NAMESPACE).unwrap();
    let mut expected = Keys::new();
    for key in ["a", "b", "\u{0}"] {
        namespace.put(key, "old").unwrap();
        let value = b"old".to_vec();
        expected.insert(
            key.into(),
            Kept {
                value,
                ..Kept::default()
            },
        );
    }
    let session = Session::of_store(store.clone());
    let reader = Input::of_reader(Dribble::new(text, step, None));
    let is_put = how & 1 == 0;
    let done = if is_put {
        put_all(&session, namespace, Class::default(), Rules::default(), reader)
    } else {
        delete_all(namespace, Class::default(), reader)
    };

    let (count, fails) = apply(&items, is_put, &mut expected);
    let fails = fails.or(whole.is_err().then_some(Fails::Unread));
    let what = if is_put { "pair" } else { "key" };
    match (done, fails) {
        (Ok(done), None) => assert_eq!(done, count),
        (Err(failure), Some(fails)) => check_failure(told(&failure), what, &fails, count),
        (done, expected) => panic!("{done:?}, but a second reader says {expected:?}"),
    }
    assert_eq!(content(&store).remove(NAMESPACE), Some(expected));
}

/// Does to the expected keys what the items say, up to the first one that fails. Returns how many
/// are done.
fn apply(items: &[Node<'_>], is_put: bool, expected: &mut Keys) -> (u64, Option<Fails>) {
    let (mut fails, mut writes) = (None, Vec::new());
    for (item, number) in items.iter().zip(1..) {
        let write = if is_put {
            pair(item)
        } else {
            name(item).map(|key| (key, None))
        };
        match write {
            Ok(write) => writes.push((number, write)),
            Err(Refused) => {
                fails = Some(Fails::Unread);
                break;
            }
        }
    }
    let mut count = 0;
    for (number, (key, kept)) in writes {
        // A key that cannot be is not there, and its delete does nothing.
        let is_good = kept.as_ref().is_none_or(|kept| kept.is_good(&key));
        if !is_good {
            return (count, Some(Fails::At(number)));
        }
        count += 1;
        match kept {
            Some(kept) => expected.insert(key, kept),
            None => expected.remove(&key),
        };
    }
    (count, fails)
}

fn check_failure(message: &str, what: &str, fails: &Fails, count: u64) {
    if let Fails::At(number) = fails {
        assert!(
            message.starts_with(&format!("input, {what} {number}, line ")),
            "{message}"
        );
    }
    let told = match count {
        0 => "; nothing was done".to_owned(),
        _ => format!(
            "; the first {} are done, the others are not",
            crate::common::text::count(count)
        ),
    };
    assert!(message.ends_with(&told), "{message} instead of {told}");
}

/// The put for a pair.
fn pair(item: &Node<'_>) -> Result<(Vec<u8>, Option<Kept>), Refused> {
    let read = || {
        let known = ["key", "value", "base64", "expiration", "expiration_ttl", "metadata"];
        // Warnings name unknown members, so their values must be well-formed too.
        let pair = item.members(|name| known.contains(&name), Others::MeanNothing)?;
        if !pair.others_are_meaningful() {
            return None;
        }
        let key = pair.get("key")?.text()?;
        let value = pair.get("value")?;
        let value = match (pair.optional("base64", Node::bool)?.unwrap_or(false), &value.value) {
            (true, _) => json::base64(value.text()?)?,
            (false, Value::Null) => return None,
            (false, Value::Text(text)) => text.as_ref()?.as_bytes().to_vec(),
            // Other JSON is a value as it stands.
            (false, _) => str::from_utf8(value.raw).ok()?.as_bytes().to_vec(),
        };
        let in_ms = |seconds: u64| seconds.saturating_mul(1000);
        let (expiration, ttl) = (pair.u64("expiration")?, pair.u64("expiration_ttl")?);
        if ttl
            .or(expiration)
            .is_some_and(|seconds| seconds / 1_000_000_000_000 > 0)
        {
            return None;
        }
        let expiration = expiration.map(in_ms);
        let ttl = ttl.map(|ttl| NOW_MS + in_ms(ttl));
        let metadata = pair.raw("metadata")?;
        let expiry_ms = ttl.or(expiration);
        let kept = Kept {
            value,
            expiry_ms,
            metadata,
        };
        Some((key.as_bytes().to_vec(), Some(kept)))
    };
    read().ok_or(Refused)
}

/// The key in a string, or in an object with one of two members.
fn name(item: &Node<'_>) -> Result<Vec<u8>, Refused> {
    let read = || {
        if let Some(text) = item.text() {
            return Some(text.as_bytes().to_vec());
        }
        let known = ["name", "name_base64"];
        let object = item.members(|name| known.contains(&name), Others::MeanNothing)?;
        match (object.text("name")?, object.text("name_base64")?) {
            (Some(name), None) => Some(name.into_bytes()),
            (None, Some(base64)) => json::base64(&base64),
            _ => None,
        }
    };
    read().ok_or(Refused)
}
