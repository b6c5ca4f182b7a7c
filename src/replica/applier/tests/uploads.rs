use super::*;
use crate::entry::{PART_BYTES, encode_operations, upload};
use crate::writers::FORGET_MS;

fn parts(operations: &[Operation]) -> Vec<Body> {
    upload(5, &encode_operations(operations).unwrap()).unwrap()
}

fn held(node: &mut Node) -> Vec<String> {
    let reserved = node.applier().reserved.list();
    let keys = reserved
        .into_iter()
        .map(|entry| entry.unwrap().key_str().unwrap().to_owned());
    keys.filter(|key| !key.starts_with("writer/")).collect()
}

#[test]
fn a_large_value_is_visible_as_a_whole_with_its_commit() {
    let long = "0123456789".repeat(PART_BYTES / 4);
    let (mut log, mut node) = (Log::new(), Node::new());
    let bodies = parts(&[put("long", &long), put("a", "1")]);
    assert_eq!(bodies.len(), 4);
    for body in bodies {
        assert_eq!(node.get("long"), None);
        assert_eq!(node.get("a"), None);
        log.push(body);
        node.apply(&log.deliveries);
        node.restart();
    }
    assert_eq!(node.get("long"), Some((long, None)));
    assert!(node.get("a").is_some());
    assert_eq!(held(&mut node), ["state"]);
}

#[test]
fn a_commit_without_its_parts_does_nothing() {
    let all = parts(&[put("long", &"x".repeat(PART_BYTES)), put("a", "1")]);
    let [first, second, commit] = &all[..] else {
        panic!("{} bodies", all.len())
    };
    let changed = match first {
        // Another letter of the value.
        Body::Part { upload, index, bytes } => Body::Part {
            upload: *upload,
            index: *index,
            bytes: [&bytes[..1000], b"y", &bytes[1001..]].concat().into(),
        },
        other => panic!("{other:?}"),
    };
    for wrong in [vec![first], vec![second], vec![&changed, second], vec![]] {
        let (mut log, mut node) = (Log::new(), Node::new());
        wrong.into_iter().for_each(|body| log.push(body.clone()));
        log.push(commit.clone());
        assert_eq!(node.apply(&log.deliveries).pop(), Some(Verdict::Incomplete));
        assert_eq!(node.get("a"), None);
        assert_eq!(held(&mut node), ["state"]);
    }
}

#[test]
fn parts_that_are_not_committed_are_forgotten() {
    let (mut log, mut node) = (Log::new(), Node::new());
    log.push(parts(&[put("a", "1")]).remove(0));
    log.stamp_ms += FORGET_MS - 20;
    log.operate([put("b", "1")]);
    node.apply(&log.deliveries);
    assert_eq!(held(&mut node).len(), 3);
    log.stamp_ms += 10;
    // Together with parts that have just come.
    log.push(parts(&[put("c", "1")]).remove(0));
    node.apply(&log.deliveries);
    assert_eq!(held(&mut node).len(), 3);
    log.push(parts(&[put("c", "1")]).remove(1));
    log.stamp_ms += FORGET_MS;
    log.operate([put("b", "2")]);
    node.apply(&log.deliveries);
    assert_eq!(held(&mut node), ["state"]);
    assert!(node.get("c").is_some());
}
