//! Whole servers on one simulated log, as clients see them.

pub(crate) mod cluster;

use cluster::{Answer, Cluster};
use serde_json::{Value, json};

const NAMESPACES: &str = "/client/v4/accounts/a/storage/kv/namespaces";

/// Creates a namespace at a server; returns its path.
fn create(cluster: &Cluster, node: usize, title: &str) -> String {
    let body = json!({ "title": title }).to_string();
    let answer = cluster.ask(node, "POST", NAMESPACES, &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    format!("{NAMESPACES}/{}", told["result"]["id"].as_str().unwrap())
}

/// Asks a server for what another one has answered, or for later.
fn get_after(cluster: &Cluster, node: usize, path: &str, written: &Answer) -> Answer {
    let position = written.header("x-embercask-position").unwrap();
    cluster.ask(node, "GET", path, &[("X-Embercask-Min-Position", position)], b"")
}

#[test]
fn what_is_written_at_one_server_is_read_at_another_by_its_position() {
    let cluster = Cluster::new(2);
    let path = create(&cluster, 0, "SESSIONS");
    let key = format!("{path}/values/k");
    let put = cluster.ask(0, "PUT", &key, &[], b"first");
    assert_eq!(put.status, 200, "{put:?}");
    let got = get_after(&cluster, 1, &key, &put);
    assert_eq!((got.status, &*got.body), (200, &b"first"[..]));
    assert_eq!(got.header("etag"), put.header("etag"), "one content, one tag");
    let age: u64 = got.header("x-embercask-age-ms").unwrap().parse().unwrap();
    assert!(age < 60_000, "{age}");

    // The binding protocol, by the name that the other server has given.
    let named = [("X-KV-Namespace", "SESSIONS")];
    let put = cluster.ask_binding(1, "PUT", "/k", &named, b"second");
    assert_eq!(put.status, 200, "{put:?}");
    let got = get_after(&cluster, 0, &key, &put);
    assert_eq!((got.status, &*got.body), (200, &b"second"[..]));
    let deleted = cluster.ask_binding(0, "DELETE", "/k", &named, b"");
    assert_eq!(deleted.status, 200);
    assert_eq!(get_after(&cluster, 1, &key, &deleted).status, 404);
}

#[test]
fn a_position_is_waited_for_and_then_refused() {
    let cluster = Cluster::new(1);
    let path = create(&cluster, 0, "N");
    let key = format!("{path}/values/k");
    let asked = |position: &str| cluster.ask(0, "GET", &key, &[("X-Embercask-Min-Position", position)], b"");
    let refused = asked("1000000");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("has applied position"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    for wrong in ["", "-1", "x", "1.5"] {
        assert_eq!(asked(wrong).status, 400, "{wrong:?}");
    }
    assert_eq!(asked("1").status, 404, "there is no such key");
}

#[test]
fn conditions_are_decided_by_the_log() {
    let cluster = Cluster::new(2);
    let key = format!("{}/values/k", create(&cluster, 0, "N"));
    let put = |node, condition: &[(&str, &str)], value: &[u8]| cluster.ask(node, "PUT", &key, condition, value);
    let first = put(0, &[("If-None-Match", "*")], b"a");
    assert_eq!(first.status, 200, "{first:?}");
    let again = put(1, &[("If-None-Match", "*")], b"b");
    assert_eq!(again.status, 412, "{again:?}");
    assert!(
        again.text().contains("Precondition Failed: the key exists"),
        "{again:?}"
    );
    let tag = first.header("etag").unwrap().to_owned();
    let weak = format!("W/{tag}");
    assert_eq!(
        put(1, &[("If-Match", &weak)], b"c").status,
        412,
        "a weak tag equals none"
    );
    assert_eq!(
        put(1, &[("If-None-Match", &weak)], b"c").status,
        412,
        "and names this one"
    );
    let second = put(1, &[("If-Match", &tag)], b"c");
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(
        put(0, &[("If-Match", &tag)], b"d").status,
        412,
        "it has another tag now"
    );
    let deleted = cluster.ask(0, "DELETE", &key, &[("If-Match", &tag)], b"");
    assert_eq!(deleted.status, 412);
    let tag = second.header("etag").unwrap();
    assert_eq!(cluster.ask(0, "DELETE", &key, &[("If-Match", tag)], b"").status, 200);
    assert_eq!(cluster.ask(1, "DELETE", &key, &[("If-Match", "*")], b"").status, 412);
}

#[test]
fn many_keys_and_large_values_are_one_write() {
    let cluster = Cluster::new(2);
    let path = create(&cluster, 0, "N");
    let pairs: Vec<Value> = (0..3000)
        .map(|number| json!({ "key": format!("k{number:04}"), "value": "v".repeat(1000), "metadata": { "n": number } }))
        .collect();
    let body = serde_json::to_vec(&pairs).unwrap();
    let put = cluster.ask(0, "PUT", &format!("{path}/bulk"), &[], &body);
    assert_eq!(put.status, 200, "{put:?}");
    assert!(put.text().contains("\"successful_key_count\":3000"), "{put:?}");
    let count = get_after(&cluster, 1, &format!("{path}/count"), &put);
    assert!(count.text().contains("\"count\":3000"), "{count:?}");
    let metadata = cluster.ask(1, "GET", &format!("{path}/metadata/k0007"), &[], b"");
    assert!(metadata.text().contains("{\"n\":7}"), "{metadata:?}");

    let large = vec![b'x'; 3 << 20];
    let put = cluster.ask(1, "PUT", &format!("{path}/values/large"), &[], &large);
    assert_eq!(put.status, 200, "{put:?}");
    assert!(get_after(&cluster, 0, &format!("{path}/values/large"), &put).body == large);

    let keys = serde_json::to_vec(&(0..2999).map(|number| format!("k{number:04}")).collect::<Vec<_>>()).unwrap();
    let deleted = cluster.ask(1, "POST", &format!("{path}/bulk/delete"), &[], &keys);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let listed = get_after(&cluster, 0, &format!("{path}/keys"), &deleted);
    let listed: Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(listed["result_info"]["count"], 2, "{listed}");
}

#[test]
fn namespaces_are_those_of_the_cluster_and_that_of_replication_is_nobodys() {
    let cluster = Cluster::new(2);
    let path = create(&cluster, 0, "A");
    let taken = cluster.ask(1, "POST", NAMESPACES, &[], br#"{"title":"A"}"#);
    assert_eq!(taken.status, 400, "{taken:?}");
    assert!(taken.text().contains("already exists"), "{taken:?}");
    let renamed = cluster.ask(1, "PUT", &path, &[], br#"{"title":"B"}"#);
    assert_eq!(renamed.status, 200, "{renamed:?}");
    let listed = get_after(&cluster, 0, NAMESPACES, &renamed);
    let told: Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(told["result"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["result"][0]["title"], "B");

    let ttl = cluster.ask(0, "PUT", &format!("{path}/default_ttl"), &[], br#"{"default_ttl":90}"#);
    assert_eq!(ttl.status, 200, "{ttl:?}");
    let told = get_after(&cluster, 1, &format!("{path}/default_ttl"), &ttl);
    assert!(told.text().contains("\"default_ttl\":90"), "{told:?}");

    let reserved = format!("{NAMESPACES}/{:032x}", embercask_replica::state::RESERVED_ID);
    for path in [
        reserved.clone(),
        format!("{reserved}/keys"),
        format!("{reserved}/values/state"),
    ] {
        assert_eq!(cluster.ask(0, "GET", &path, &[], b"").status, 404, "{path}");
    }
    assert_eq!(
        cluster
            .ask(0, "PUT", &format!("{reserved}/values/state"), &[], b"x")
            .status,
        404
    );
    assert_eq!(cluster.ask(0, "DELETE", &reserved, &[], b"").status, 404);
    let id = format!("{:032x}", embercask_replica::state::RESERVED_ID);
    let named = cluster.ask_binding(0, "GET", "/state", &[("X-KV-Namespace", &id)], b"");
    assert_eq!(named.status, 400, "{named:?}");
    let title = json!({ "title": embercask_replica::state::RESERVED_NAME }).to_string();
    assert_eq!(cluster.ask(0, "POST", NAMESPACES, &[], title.as_bytes()).status, 400);

    let removed = cluster.ask(1, "DELETE", &path, &[], b"");
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!(get_after(&cluster, 0, &path, &removed).status, 404);
}

#[test]
fn without_its_log_a_server_reads_on_hides_what_expires_and_refuses_writes() {
    let cluster = Cluster::new(1);
    let path = create(&cluster, 0, "N");
    let put = |key: &str, query: &str| {
        cluster
            .ask(0, "PUT", &format!("{path}/values/{key}{query}"), &[], b"v")
            .status
    };
    assert_eq!((put("kept", ""), put("short", "?expiration_ttl=1")), (200, 200));
    assert_eq!(cluster.ask(0, "GET", "/readyz", &[], b"").status, 200);
    cluster.log.set_down(true);
    // Only the monotonic clock goes on: the store's own is that of the last entry.
    let get = |key: &str| cluster.ask(0, "GET", &format!("{path}/values/{key}"), &[], b"");
    cluster.until("the key is hidden", || get("short").status == 404);
    let short = cluster.store(0).open_namespace("N").unwrap().get("short").unwrap();
    assert!(
        short.is_some(),
        "the store does not know yet: {:?}",
        cluster.store(0).now_ms()
    );
    assert_eq!(get("kept").status, 200);
    let many = cluster.ask(
        0,
        "POST",
        &format!("{path}/bulk/get"),
        &[],
        br#"{"keys":["short","kept"]}"#,
    );
    assert!(
        many.text().contains("\"short\":null") && many.text().contains("\"kept\":\"v\""),
        "{many:?}"
    );
    let binding = cluster.ask_binding(0, "GET", "/short", &[("X-KV-Namespace", "N")], b"");
    assert_eq!(binding.status, 404);
    for listed in ["keys", "count"] {
        let told = cluster.ask(0, "GET", &format!("{path}/{listed}"), &[], b"");
        assert!(told.text().contains("\"count\":1"), "{told:?}");
    }
    assert_eq!(
        cluster
            .ask(0, "GET", &format!("{path}/metadata/short"), &[], b"")
            .status,
        404
    );

    let refused = cluster.ask(0, "PUT", &format!("{path}/values/new"), &[], b"v");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("may still be applied"), "{refused:?}");
    cluster.until("it is not ready", || {
        let told = cluster.ask(0, "GET", "/readyz", &[], b"");
        told.status == 503 && told.text().starts_with("the replica is not ready: ")
    });
    cluster.log.set_down(false);
    cluster.until("it writes again", || put("again", "") == 200);
    cluster.until("it is ready again", || {
        cluster.ask(0, "GET", "/readyz", &[], b"").status == 200
    });
}

#[test]
fn status_metrics_and_digests_tell_where_each_is() {
    let cluster = Cluster::new(2);
    let key = format!("{}/values/k", create(&cluster, 0, "N"));
    let put = cluster.ask(0, "PUT", &key, &[], b"v");
    get_after(&cluster, 1, &key, &put);
    let position: u64 = put.header("x-embercask-position").unwrap().parse().unwrap();
    let asked = |node: usize, path: &str| -> Value {
        let answer = cluster.ask(node, "GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        serde_json::from_slice::<Value>(&answer.body).unwrap()["result"].clone()
    };
    let status = asked(1, "/replica/status");
    assert!(status["position"].as_u64().unwrap() >= position, "{status}");
    assert_eq!(
        (&status["ready"], &status["disagrees"]),
        (&true.into(), &false.into()),
        "{status}"
    );
    let statistics = asked(0, "/client/v4/embercask/statistics");
    assert_eq!(
        (&statistics["replica"]["doing"], &statistics["keys"]),
        (&"following".into(), &1.into())
    );
    let metrics = cluster.ask(0, "GET", "/metrics", &[], b"").text();
    for name in [
        "position ",
        "lag_entries ",
        "age_seconds ",
        "gaps_total 0",
        "disagrees 0",
        "ready 1",
    ] {
        assert!(metrics.contains(&format!("\nembercask_replica_{name}")), "{metrics}");
    }
    assert!(metrics.contains("\nembercask_store_keys 1\n"), "{metrics}");

    // Both at the next position, which a beat is if nothing else.
    let next = (position + 3).to_string();
    let path = format!("/replica/digest?position={next}&horizon_ms={}", u64::MAX);
    let digests = [0, 1].map(|node| asked(node, &path));
    assert_eq!(digests[0]["keys"], 1);
    assert_eq!(digests[0]["digest"], digests[1]["digest"]);
    let changed = cluster.ask(0, "PUT", &key, &[], b"w");
    get_after(&cluster, 1, &key, &changed);
    assert_ne!(asked(1, "/replica/digest")["digest"], digests[0]["digest"]);
}

#[test]
fn a_checkpoint_is_sent_whole_and_nothing_of_it_stays() {
    let cluster = Cluster::new(1);
    let path = create(&cluster, 0, "N");
    let value = vec![b'v'; 1 << 20];
    for number in 0..4 {
        assert_eq!(
            cluster
                .ask(0, "PUT", &format!("{path}/values/k{number}"), &[], &value)
                .status,
            200
        );
    }
    let sent = cluster.ask(0, "GET", "/replica/checkpoint", &[], b"");
    assert_eq!(
        (sent.status, sent.header("content-type")),
        (200, Some("application/x-tar"))
    );
    let directory = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for entry in tar::Archive::new(&*sent.body).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if name != crate::common::checkpoint_archive::END {
            entry.unpack(directory.path().join(&name)).unwrap();
        }
        names.push(name);
    }
    assert_eq!(
        names.last().map(String::as_str),
        Some(crate::common::checkpoint_archive::END)
    );
    let copy = embercask::Store::options()
        .read_only(true)
        .open(directory.path())
        .unwrap();
    let state = embercask_replica::state::read(&copy).unwrap().unwrap();
    assert!(state.position >= 5, "{state:?}");
    let found = copy.open_namespace("N").unwrap().get("k3").unwrap().unwrap();
    assert!(found.as_bytes() == value);
    cluster.until("it is removed", || {
        let names = std::fs::read_dir(cluster.store(0).directory()).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.all(|name| !name.starts_with("replica-checkpoint"))
    });
}

#[test]
fn a_server_that_is_no_replica_says_so_and_takes_no_store_of_one() {
    let store = embercask::Store::in_memory().unwrap();
    assert!(super::refuse_replica(&store).is_ok());
    embercask_replica::state::init(&store, 7).unwrap();
    let refused = super::refuse_replica(&store).unwrap_err();
    assert!(format!("{refused:?}").contains("replica leave"), "{refused:?}");
}

#[test]
fn a_clock_that_is_half_an_hour_off_is_told_and_changes_nothing() {
    let cluster = Cluster::new(1);
    let key = format!("{}/values/k", create(&cluster, 0, "N"));
    let ready = || cluster.ask(0, "GET", "/readyz", &[], b"");
    assert_eq!((ready().status, ready().text()), (200, "ready\n".to_owned()));
    cluster.log.set_skew_ms(1_800_000);
    let put = cluster.ask(0, "PUT", &format!("{key}?expiration_ttl=600"), &[], b"v");
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(cluster.ask(0, "GET", &key, &[], b"").status, 200);
    cluster.until("it is told", || {
        let told = ready();
        told.status == 200 && told.text().starts_with("ready\nthe clock of this machine is ")
    });
    assert!(
        ready().text().ends_with("behind log time, by which the replica goes\n"),
        "{:?}",
        ready()
    );
    let metrics = cluster.ask(0, "GET", "/metrics", &[], b"").text();
    assert!(
        metrics.contains("\nembercask_replica_clock_difference_seconds -1"),
        "{metrics}"
    );
}
