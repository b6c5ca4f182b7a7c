use super::*;
use crate::entry::Digest;

/// A beat of another node, which tells this digest.
fn beat(log: &mut Log, writer: u128, position: u64, digest: Digest) {
    log.push_entry(&Entry {
        header: Header {
            cluster: CLUSTER,
            writer,
            counter: log.deliveries.len() as u64,
            sent_ms: log.stamp_ms,
        },
        body: Body::Beat { position, digest },
    });
}

#[test]
fn beats_tell_who_has_applied_something_else() {
    let (mut log, mut node) = (Log::new(), Node::new());
    node.apply(&log.deliveries);
    let state = *node.applier().state();
    beat(&mut log, 21, state.position, state.digest);
    beat(&mut log, 22, state.position, [1; 16]);
    // Before this node was there.
    beat(&mut log, 23, 0, [0; 16]);
    let verdicts = node.apply(&log.deliveries);
    let beats = [Some(true), Some(false), Some(true)].map(|agrees| Verdict::Beat { agrees });
    assert_eq!(verdicts, beats);
    // One of three is fewer than half.
    assert_eq!(node.applier().disagreement(1), None);
    // Three nodes of which one differs: the two others go on.
    assert_eq!(node.applier().disagreement(21), None);
    beat(&mut log, 24, state.position, [2; 16]);
    node.apply(&log.deliveries);
    let disagreement = node.applier().disagreement(21).unwrap();
    assert_eq!((disagreement.others, disagreement.heard), (vec![22, 24], 3));
    // They were heard 30 seconds ago.
    log.stamp_ms += 30_000;
    log.operate([put("a", "1")]);
    node.apply(&log.deliveries);
    assert_eq!(node.applier().disagreement(21), None);
}

#[test]
fn of_two_that_differ_none_is_ready() {
    let (mut log, mut node) = (Log::new(), Node::new());
    node.apply(&log.deliveries);
    let position = node.applier().state().position;
    beat(&mut log, 22, position, [1; 16]);
    node.apply(&log.deliveries);
    assert!(node.applier().disagreement(1).is_some());
}

#[test]
fn a_node_that_was_started_does_not_know_old_digests() {
    let (mut log, mut node) = (Log::new(), Node::new());
    node.apply(&log.deliveries);
    node.restart();
    let state = *node.applier().state();
    beat(&mut log, 21, state.position - 1, [1; 16]);
    beat(&mut log, 21, state.position, state.digest);
    beat(&mut log, 21, state.position + 9, state.digest);
    let beats = [None, Some(true), None].map(|agrees| Verdict::Beat { agrees });
    assert_eq!(node.apply(&log.deliveries), beats);
    assert_eq!(node.applier().disagreement(1), None);
}

#[test]
fn the_digest_of_content_sees_whatever_differs() {
    let at = START_MS + 1_000_000;
    let until = |ms| put_with("c", "1", Lifetime::At(ms), Conditions::default());
    let digest = |operations: Vec<Operation>| {
        let (mut log, mut node) = (Log::new(), Node::new());
        operations.into_iter().for_each(|one| log.operate([one]));
        node.apply(&log.deliveries);
        crate::content::digest(node.applier().store(), at).unwrap()
    };
    let base = || vec![put("a", "1"), until(at)];
    let with = |one: Operation| [base(), vec![one]].concat();
    let rename = Operation::RenameNamespace {
        id: NAMESPACE,
        name: "OTHER".to_owned(),
    };
    let create = Operation::CreateNamespace {
        id: 12,
        name: "MORE".to_owned(),
    };
    let default_ttl = Operation::SetDefaultTtl {
        namespace: NAMESPACE,
        ttl_ms: Some(5),
    };
    let all = [
        base(),
        with(put("a", "2")),
        with(put("b", "")),
        with(delete("a")),
        with(until(at + 1)),
        with(rename),
        with(create),
        with(default_ttl),
    ];
    let digests: Vec<_> = all.into_iter().map(|operations| digest(operations).digest).collect();
    for (number, one) in digests.iter().enumerate() {
        assert!(!digests[..number].contains(one), "{number}");
    }
    // Equal ones are, however they came about, and what expires before the horizon does not count.
    let again = with(put_with("b", "1", Lifetime::At(at - 1), Conditions::default()));
    let again = digest(again);
    assert_eq!((again.digest, again.keys, again.namespaces), (digests[0], 2, 1));
}
