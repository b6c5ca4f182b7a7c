//! Commands on running replicas, against servers in this process on a simulated log.

use std::path::PathBuf;

use embercask_replica::state;

use super::run;
use crate::cli::arguments::replica::{Audit, Join};
use crate::cli::arguments::{Global, Remote, Replica};
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome, status};
use crate::server::replica::tests::cluster::Cluster;

const NAMESPACES: &str = "/client/v4/accounts/a/storage/kv/namespaces";

fn session(store: Option<PathBuf>) -> Session {
    Session::new(&Global {
        store,
        remote: Remote::default(),
        quiet: true,
        wait: None,
        option: Vec::new(),
    })
}

fn audit(cluster: &Cluster, nodes: &[usize]) -> Outcome {
    let urls = nodes.iter().map(|node| cluster.url(*node)).collect();
    run(&session(None), Replica::Audit(Audit { urls }))
}

#[test]
fn a_store_that_has_joined_holds_what_its_source_did_and_an_audit_finds_what_differs() {
    let cluster = Cluster::new(2);
    let created = cluster.ask(0, "POST", NAMESPACES, &[], br#"{"title":"N"}"#);
    let told: serde_json::Value = serde_json::from_slice(&created.body).unwrap();
    let key = format!("{NAMESPACES}/{}/values/k", told["result"]["id"].as_str().unwrap());
    let put = cluster.ask(0, "PUT", &key, &[], &vec![b'v'; 1 << 20]);
    assert_eq!(put.status, 200, "{put:?}");
    audit(&cluster, &[0, 1]).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let join = || Replica::Join(Join { from: cluster.url(0) });
    run(&session(Some(path.clone())), join()).unwrap();
    let store = session(Some(path.clone())).store_of_replica().unwrap();
    assert!(state::read(&store).unwrap().unwrap().position >= 2);
    let found = store.open_namespace("N").unwrap().get("k").unwrap().unwrap();
    assert_eq!(found.len(), 1 << 20);
    drop(store);
    // A store is there now.
    let refused = run(&session(Some(path)), join()).unwrap_err();
    assert!(
        matches!(
            refused,
            Failure::Told {
                status: status::USAGE,
                ..
            }
        ),
        "{refused:?}"
    );

    // Past the log, as a broken disk could.
    cluster
        .store(1)
        .open_namespace("N")
        .unwrap()
        .put("k", "another")
        .unwrap();
    let differs = audit(&cluster, &[0, 1]).unwrap_err();
    assert!(matches!(differs, Failure::Silent(status::DAMAGED)), "{differs:?}");
    audit(&cluster, &[0, 0]).unwrap();
}
