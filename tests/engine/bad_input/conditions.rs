//! Conditions that do not hold.

use embercask::{Condition, Error, ErrorKind, Limits};

use crate::bad_input::{limited, refused, unharmed};

#[test]
fn a_condition_that_does_not_hold_says_what_stands_there() {
    let (store, namespace) = limited(Limits::ENGINE);
    let sequence = namespace.get("key").unwrap().unwrap().sequence();
    let there = format!("sequence {sequence}");
    let there = ["read the key again", &there];
    refused(
        namespace.put_if("key", "2", Condition::Absent),
        ErrorKind::Conflict,
        &there,
    );
    refused(
        namespace.put_if("key", "2", Condition::Sequence(sequence + 1)),
        ErrorKind::Conflict,
        &there,
    );
    refused(
        namespace.delete_if("key", Condition::Sequence(0)),
        ErrorKind::Conflict,
        &there,
    );
    for condition in [Condition::Present, Condition::Sequence(sequence)] {
        let error = refused(namespace.put_if("no", "2", condition), ErrorKind::Conflict, &["absent"]);
        assert!(matches!(error, Error::Conflict { found: None }));
    }
    unharmed(&store, &namespace);
}
