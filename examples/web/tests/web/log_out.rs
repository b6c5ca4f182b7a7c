//! Ended sessions stay ended.

use std::sync::Arc;

use axum::http::StatusCode;
use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Maintenance, Store};
use embercask_web::service::router;
use embercask_web::session_store::Sessions;
use tower_sessions::{Session, SessionStore};

use crate::http::{Client, not_logged_in};

#[tokio::test]
async fn logging_out_ends_one_session() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    let mut laptop = Client::logged_in(&service, "ada").await;
    let mut phone = Client::logged_in(&service, "ada").await;
    let mut stolen = Client {
        cookie: laptop.cookie.clone(),
    };
    assert_eq!(laptop.post(&service, "/logout").await.text, "goodbye ada\n");
    assert_eq!(laptop.cookie, None);
    assert_eq!(stolen.get(&service, "/visits").await, not_logged_in());
    assert_eq!(phone.get(&service, "/visits").await.text, "visit 1 of ada\n");
    assert_eq!(store.namespace("SESSIONS_BY_USER").unwrap().count().unwrap(), 1);
}

#[tokio::test]
async fn logging_out_everywhere_ends_all_sessions_of_the_user_and_no_other() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    let mut here = Client::logged_in(&service, "ada").await;
    let mut there = Client::logged_in(&service, "ada").await;
    let mut others = Vec::new();
    for name in ["ad", "ada.", "adam", "grace"] {
        others.push((name, Client::logged_in(&service, name).await));
    }
    let answer = here.post(&service, "/logout-everywhere").await;
    assert_eq!(answer.text, "ended 2 sessions of ada\n");
    assert_eq!(here.cookie, None);
    assert_eq!(there.get(&service, "/visits").await, not_logged_in());
    for (name, other) in &mut others {
        assert_eq!(
            other.get(&service, "/visits").await.text,
            format!("visit 1 of {name}\n")
        );
    }
    for namespace in ["SESSIONS", "SESSIONS_BY_USER"] {
        let left = store.namespace(namespace).unwrap().count().unwrap();
        assert_eq!(left, others.len() as u64, "{namespace}");
    }
}

/// A request reads its session at its beginning and saves it at its end.
#[tokio::test]
async fn a_request_under_way_does_not_bring_a_session_back() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    let mut ada = Client::logged_in(&service, "ada").await;
    let id = ada.id();
    let sessions = Arc::new(Sessions::open(&store).unwrap());

    let under_way = Session::new(Some(id), sessions.clone(), None);
    under_way.insert("visits", 7).await.unwrap();
    assert_eq!(ada.post(&service, "/logout-everywhere").await.status, StatusCode::OK);
    under_way.save().await.unwrap();

    assert_eq!(sessions.load(&id).await.unwrap(), None);
    assert_eq!(sessions.of_user(&"ada".parse().unwrap()).await.unwrap(), []);
}

/// Whichever way a log-in and a log-out everywhere meet, the index names the sessions that are
/// there.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_their_users_stay_together_when_all_comes_at_once() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    for _ in 0..10 {
        let tasks = (0..12).map(|task| {
            let service = service.clone();
            tokio::spawn(async move {
                let mut client = Client::logged_in(&service, "ada").await;
                client.get(&service, "/visits").await;
                match task % 3 {
                    0 => client.post(&service, "/logout-everywhere").await.status,
                    1 => client.post(&service, "/logout").await.status,
                    _ => client.get(&service, "/visits").await.status,
                }
            })
        });
        for status in tasks.collect::<Vec<_>>() {
            let status = status.await.unwrap();
            assert!([StatusCode::OK, StatusCode::UNAUTHORIZED].contains(&status), "{status}");
        }
        let mut ids: Vec<String> = Vec::new();
        for entry in store.namespace("SESSIONS").unwrap().list() {
            ids.push(format!("ada/{}", entry.unwrap().key_str().unwrap()));
        }
        let mut listed: Vec<String> = Vec::new();
        for entry in store.namespace("SESSIONS_BY_USER").unwrap().list() {
            listed.push(entry.unwrap().key_str().unwrap().to_owned());
        }
        assert_eq!(ids, listed);
    }
    let mut last = Client::logged_in(&service, "ada").await;
    assert_eq!(last.post(&service, "/logout-everywhere").await.status, StatusCode::OK);
    assert_eq!(store.namespace("SESSIONS").unwrap().count().unwrap(), 0);
}

#[tokio::test]
async fn no_power_cut_brings_back_a_session_that_was_ended() {
    for path in ["/logout", "/logout-everywhere"] {
        let disk = MemStorage::new();
        // No background thread syncs, so what survives is what the calls have synced.
        let options = |disk: &MemStorage| {
            let options = embercask_web::options().maintenance(Maintenance::Manual);
            options.storage(Arc::new(disk.clone()))
        };
        let store = options(&disk).open("data").unwrap();
        let service = router(&store).unwrap();
        let mut ada = Client::logged_in(&service, "ada").await;
        let mut stolen = Client {
            cookie: ada.cookie.clone(),
        };
        store.sync().unwrap();
        assert_eq!(ada.post(&service, path).await.status, StatusCode::OK);

        let store = options(&disk.power_cut(&CutPolicy::LoseUnsynced)).open("data").unwrap();
        let service = router(&store).unwrap();
        assert_eq!(stolen.get(&service, "/visits").await, not_logged_in(), "{path}");
    }
}
