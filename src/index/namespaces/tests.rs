use super::*;

/// Found by the fuzz target `namespace_record`.
#[test]
fn a_record_with_a_name_that_no_namespace_can_have_is_refused() {
    let key = encode_number(1);
    for (name, refused) in [(0, true), (1, false), (NAME_LEN_MAX, false), (NAME_LEN_MAX + 1, true)] {
        let value = encode_entry(7, &"n".repeat(name));
        assert_eq!(decode_entry(&key, &value).is_err(), refused, "{name} bytes");
    }
    assert!(decode_entry(&encode_number(SYSTEM_NAMESPACE), &encode_entry(7, "n")).is_err());
}

#[test]
fn a_dropped_namespace_is_listed_as_such_until_its_keys_are_gone_and_its_name_is_free_at_once() {
    let namespaces = Namespaces::default();
    let named = |number| {
        let state = NamespaceState::new(number, u128::from(number), &format!("{number:02}"), KeyOrder::new());
        Arc::new(state)
    };
    for number in [3, 1, 2] {
        namespaces.insert(named(number));
    }
    let numbers = |states: Vec<Arc<NamespaceState>>| states.iter().map(|state| state.number).collect::<Vec<_>>();
    assert_eq!(numbers(namespaces.all()), [1, 2, 3]);
    let second = namespaces.by_name("02").unwrap();
    assert!(!namespaces.any_dropped());
    namespaces.set_dropped(&second, 1);
    assert!(second.is_dropped() && namespaces.any_dropped());
    assert_eq!(numbers(namespaces.dropped()), [2]);
    assert_eq!((numbers(namespaces.all()), namespaces.len()), (vec![1, 3], 2));
    assert!(namespaces.by_name("02").is_none() && namespaces.by_stable_id(2).is_none());
    assert!(namespaces.by_number(2).is_some());
    namespaces.forget_number(2);
    assert!(namespaces.by_number(2).is_none() && !namespaces.any_dropped());
}

#[test]
fn only_orders_that_have_changed_are_looked_at_and_each_is_named_once() {
    let namespaces = Namespaces::default();
    for number in 1..=1_000 {
        let state = NamespaceState::new(number, u128::from(number), &number.to_string(), KeyOrder::new());
        namespaces.insert(Arc::new(state));
    }
    assert!(namespaces.take_changed().is_empty());
    let changed = namespaces.by_number(7).unwrap();
    for _ in 0..100 {
        namespaces.change_order(&changed, [Change::Insert(b"key", crate::index::order::KeyFlags::NONE)]);
        // Listing merges; that must not note the same namespace again and again.
        assert_eq!(changed.order.len(), 1);
    }
    let named = namespaces.take_changed();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].number, 7);
    changed.order.begin_look();
    assert!(!changed.order.look_again());
    // Changes made during a look, or left for later, are not forgotten.
    changed.order.begin_look();
    namespaces.change_order(&changed, [Change::Remove(b"key")]);
    assert!(!changed.order.look_again());
    assert_eq!(namespaces.take_changed().len(), 1);
    changed.order.begin_look();
    assert!(changed.order.look_again());
}

#[test]
fn namespaces_that_are_gone_take_no_room() {
    let namespaces = Namespaces::default();
    let numbers = 1..=10_000;
    for number in numbers.clone() {
        let state = NamespaceState::new(number, u128::from(number), &number.to_string(), KeyOrder::new());
        namespaces.insert(Arc::new(state));
    }
    assert!(namespaces.capacity() >= 10_000);
    for number in numbers.skip(5) {
        namespaces.set_dropped(&namespaces.by_number(number).unwrap(), 1);
        namespaces.forget_number(number);
    }
    assert!(
        namespaces.capacity() < 4 * Inner::CAPACITY_MIN,
        "{}",
        namespaces.capacity()
    );
    for number in 1..=5 {
        let (by_number, by_id) = (
            namespaces.by_number(number),
            namespaces.by_stable_id(u128::from(number)),
        );
        assert_eq!((by_number.unwrap().number, by_id.unwrap().number), (number, number));
    }
    assert!(namespaces.by_number(6).is_none() && namespaces.by_stable_id(6).is_none());
}

#[test]
fn keys_expire_only_in_namespaces_of_which_that_is_known() {
    let state = NamespaceState::new(7, 7, "N", KeyOrder::new());
    assert!(!state.has_expiring());
    state.set_has_expiring();
    assert!(state.has_expiring());
}
