use super::*;

fn any() -> Conditions {
    Conditions {
        if_match: Some(Tags::Any),
        if_none_match: None,
    }
}

fn named() -> Conditions {
    Conditions {
        if_match: Some(Tags::These(vec![0])),
        if_none_match: None,
    }
}

/// Operations at the ends of what the format of an entry can say.
fn operations() -> Vec<Operation> {
    let long = "k".repeat(65_537);
    let mut all = Vec::new();
    for key in ["", "k", &long[..65_536], &long] {
        for conditions in [Conditions::default(), if_absent(), any(), named()] {
            all.push(Operation::Delete {
                namespace: NAMESPACE,
                key: Bytes::copy_from_slice(key.as_bytes()),
                conditions: conditions.clone(),
            });
            for time in [0, 1, START_MS, u64::MAX - 1, u64::MAX] {
                for lifetime in [Lifetime::After(time), Lifetime::At(time), Lifetime::Default] {
                    all.push(put_with(key, "1", lifetime, conditions.clone()));
                }
            }
        }
    }
    all
}

/// Of namespaces, each in an entry of its own.
fn of_namespaces() -> Vec<Operation> {
    let mut all = Vec::new();
    for id in [0, NAMESPACE, RESERVED_ID, u128::MAX] {
        let names = ["", "\0", state::RESERVED_NAME, "SESSIONS"].map(str::to_owned);
        for name in names.into_iter().chain([2048, 2049].map(|length| "n".repeat(length))) {
            all.push(Operation::CreateNamespace { id, name: name.clone() });
            all.push(Operation::RenameNamespace { id, name });
        }
        for ttl_ms in [None, Some(0), Some(1), Some(u64::MAX)] {
            all.push(Operation::SetDefaultTtl { namespace: id, ttl_ms });
        }
    }
    for id in [0, NAMESPACE, RESERVED_ID, u128::MAX] {
        all.push(Operation::DropNamespace { id });
        all.push(Operation::DropNamespace { id });
    }
    all
}

#[test]
fn no_operation_stops_the_applier() {
    let mut log = Log::new();
    log.operate(operations().into_iter().take(60).collect::<Vec<_>>());
    for operation in operations().into_iter().chain(of_namespaces()).chain(operations()) {
        log.operate([operation]);
    }
    // Time as late as it can be.
    log.stamp_ms = u64::MAX - 10;
    log.operate([put("z", "1")]);
    for operation in operations() {
        let header = Header {
            cluster: CLUSTER,
            writer: 2,
            counter: log.deliveries.len() as u64,
            sent_ms: u64::MAX,
        };
        log.deliveries.push(Delivery {
            position: log.deliveries.len() as u64 + 1,
            stamp_ms: u64::MAX,
            bytes: Entry {
                header,
                body: Body::Operations(vec![operation]),
            }
            .encode()
            .unwrap(),
        });
    }
    let (mut node, mut other) = (Node::new(), Node::new());
    node.apply(&log.deliveries);
    for delivery in &log.deliveries {
        other.apply(std::slice::from_ref(delivery));
    }
    assert_eq!(node.applier().state(), other.applier().state());
    node.restart();
    assert_eq!(node.applier().state(), other.applier().state());
    let digest = |node: &mut Node| crate::content::digest(node.applier().store(), 0).unwrap();
    assert_eq!(digest(&mut node), digest(&mut other));
}
