//! `embercask key rename`.

use embercask::{Condition, Durability, ErrorKind, Namespace, PutOptions};

use super::{SHOWN_MAX, absent, written_meanwhile};
use crate::cli::arguments::Rename;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::text::escape_short;
use crate::planted::{Planted, planted};

/// Attempts before the keys are written too often to be renamed.
const ATTEMPTS_MAX: usize = 1000;

pub(super) fn rename(session: &Session, arguments: &Rename) -> Outcome {
    let old = arguments.key_format.parse(&arguments.old)?;
    let new = arguments.key_format.parse(&arguments.new)?;
    check_differ([&old, &new])?;
    let namespace = session.namespace(&arguments.target)?;
    let durability = arguments.class.durability();
    match rename_key(&namespace, [&old, &new], arguments.force, durability)? {
        Renamed::Done => told(session, &namespace.name(), [&old, &new]),
        Renamed::Absent => Err(absent(&old, &namespace.name())),
        Renamed::Taken => Err(taken(&new)),
    }
}

pub(in crate::cli) fn check_differ([old, new]: [&[u8]; 2]) -> Outcome {
    match old == new {
        true => Err(Failure::usage("the two keys are the same", "")),
        false => Ok(()),
    }
}

/// Says that a key was renamed.
pub(in crate::cli) fn told(session: &Session, namespace: &str, [old, new]: [&[u8]; 2]) -> Outcome {
    session.say(format_args!(
        "Renamed the key \"{}\" of \"{namespace}\" to \"{}\".",
        escape_short(old, SHOWN_MAX),
        escape_short(new, SHOWN_MAX)
    ))
}

/// The failure for a new key that is there already.
pub(in crate::cli) fn taken(new: &[u8]) -> Failure {
    Failure::no(
        format!("there is already a key \"{}\"", escape_short(new, SHOWN_MAX)),
        "--force replaces it",
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Renamed {
    Done,
    /// There is no such key.
    Absent,
    /// The new key is there already.
    Taken,
}

/// Puts the value, with metadata and expiry, under the new key and deletes the old one, in one
/// batch. If either is written meanwhile the batch does nothing, and it begins again.
fn rename_key(namespace: &Namespace, [old, new]: [&[u8]; 2], force: bool, durability: Durability) -> Outcome<Renamed> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(value) = namespace.get(old)? else {
            return Ok(Renamed::Absent);
        };
        let mut options = PutOptions::like(&value);
        let mut batch = namespace.store().batch();
        batch.durability(durability);
        if planted(Planted::RenameBlindly) {
            batch.put_with(namespace, new, &value, options).delete(namespace, old);
        } else {
            if !force {
                options = options.condition(Condition::Absent);
            }
            let unchanged = Condition::Sequence(value.sequence());
            batch
                .put_with(namespace, new, &value, options)
                .delete_if(namespace, old, unchanged);
        }
        match batch.commit() {
            Ok(_) => return Ok(Renamed::Done),
            Err(error) if error.kind() != ErrorKind::Conflict => return Err(error.into()),
            Err(_) if !force && namespace.contains(new)? => return Ok(Renamed::Taken),
            Err(_) => {}
        }
    }
    Err(written_meanwhile())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use embercask::Store;

    use super::*;

    /// While one thread counts in a key, another renames it again and again. Nothing that was
    /// counted is lost or counted twice.
    #[test]
    fn a_write_in_between_is_not_lost_by_renaming() {
        const RENAMED: usize = 500;
        let store = Store::in_memory().unwrap();
        let namespace = store.namespace("N").unwrap();
        let is_enough = AtomicBool::new(false);
        let counted = std::thread::scope(|scope| {
            let counting = scope.spawn(|| {
                let mut counted = 0;
                while !is_enough.load(Ordering::Relaxed) && counted < 1_000_000 {
                    namespace.increment("old", 1).unwrap();
                    counted += 1;
                    // So that there is time for a rename between two of them.
                    std::thread::sleep(Duration::from_micros(10));
                }
                counted
            });
            let mut number = 0;
            while number < RENAMED && !counting.is_finished() {
                let new = format!("new{number}");
                // An error says that the key was written in between each time.
                if let Ok(Renamed::Done) = rename_key(&namespace, [b"old", new.as_bytes()], false, Durability::Os) {
                    number += 1;
                }
            }
            is_enough.store(true, Ordering::Relaxed);
            assert_eq!(number, RENAMED);
            counting.join().unwrap()
        });
        let entries = namespace.list().with_values();
        let sum: i64 = entries
            .into_iter()
            .map(|entry| {
                entry
                    .unwrap()
                    .value()
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .parse::<i64>()
                    .unwrap()
            })
            .sum();
        assert_eq!(sum, counted);
    }
}
