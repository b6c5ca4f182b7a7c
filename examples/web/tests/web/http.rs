//! The routes, asked without a connection.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use embercask::{ManualClock, Store};
use embercask_web::service::{LIFETIME, router};
use embercask_web::session_store::Sessions;
use tower::ServiceExt;
use tower_sessions::SessionStore;
use tower_sessions::session::Id;

/// A browser, or curl with a cookie jar.
#[derive(Default)]
pub struct Client {
    pub cookie: Option<String>,
}

/// What came back.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
}

impl Client {
    pub fn with_cookie(id: &str) -> Client {
        Client {
            cookie: Some(id.to_owned()),
        }
    }

    /// The id of its session.
    pub fn id(&self) -> Id {
        self.cookie.as_ref().unwrap().parse().unwrap()
    }

    /// Logs in as a new client.
    pub async fn logged_in(service: &Router, name: &str) -> Client {
        let mut client = Client::default();
        let answer = client.log_in(service, name).await;
        assert_eq!(answer.text, format!("hello {name}\n"));
        client
    }

    pub async fn log_in(&mut self, service: &Router, name: &str) -> Answer {
        let form = Body::from(format!("name={name}"));
        let request = Request::post("/login").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = request.header(header::USER_AGENT, "test");
        self.send(service, request, form).await
    }

    pub async fn get(&mut self, service: &Router, path: &str) -> Answer {
        self.send(service, Request::get(path), Body::empty()).await
    }

    pub async fn post(&mut self, service: &Router, path: &str) -> Answer {
        let request = Request::builder().method(Method::POST).uri(path);
        self.send(service, request, Body::empty()).await
    }

    async fn send(&mut self, service: &Router, mut request: axum::http::request::Builder, body: Body) -> Answer {
        if let Some(id) = &self.cookie {
            request = request.header(header::COOKIE, format!("id={id}"));
        }
        let response = service.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("HttpOnly") || cookie.contains("Max-Age=0"), "{cookie}");
            let id = cookie.strip_prefix("id=").unwrap().split(';').next().unwrap();
            self.cookie = (!id.is_empty()).then(|| id.to_owned());
        }
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Answer { status, text }
    }
}

pub fn not_logged_in() -> Answer {
    Answer {
        status: StatusCode::UNAUTHORIZED,
        text: "log in first: POST /login\n".to_owned(),
    }
}

#[tokio::test]
async fn a_session_survives_closing_and_opening_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = embercask_web::options().open(directory.path()).unwrap();
    let service = router(&store).unwrap();
    let mut ada = Client::logged_in(&service, "ada").await;
    assert_eq!(ada.get(&service, "/visits").await.text, "visit 1 of ada\n");
    store.close().unwrap();

    let store = embercask_web::options().open(directory.path()).unwrap();
    let service = router(&store).unwrap();
    assert_eq!(ada.get(&service, "/visits").await.text, "visit 2 of ada\n");
}

#[tokio::test]
async fn two_sessions_count_apart_and_their_user_sees_both() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    let mut laptop = Client::logged_in(&service, "ada").await;
    let mut phone = Client::logged_in(&service, "ada").await;
    let mut other = Client::logged_in(&service, "ada.b").await;
    for visit in 1..=3 {
        let expected = format!("visit {visit} of ada\n");
        assert_eq!(laptop.get(&service, "/visits").await.text, expected);
    }
    assert_eq!(phone.get(&service, "/visits").await.text, "visit 1 of ada\n");
    assert_eq!(other.get(&service, "/visits").await.text, "visit 1 of ada.b\n");

    let listed = phone.get(&service, "/sessions").await;
    assert_eq!(listed.status, StatusCode::OK);
    assert!(
        !listed.text.contains(phone.cookie.as_ref().unwrap()),
        "ids are secrets: {}",
        listed.text
    );
    let mut listed: Vec<serde_json::Value> = serde_json::from_str(&listed.text).unwrap();
    listed.sort_by_key(|session| session["visits"].as_u64());
    let expiry = |session: &serde_json::Value| session["expires_in_seconds"].as_i64().unwrap();
    assert!(
        listed
            .iter()
            .map(expiry)
            .all(|seconds| (1..=LIFETIME.whole_seconds()).contains(&seconds))
    );
    let seen: Vec<_> = listed
        .iter()
        .map(|one| (&one["device"], &one["visits"], &one["this_one"]))
        .collect();
    let expected = serde_json::json!([["test", 1, true], ["test", 3, false]]);
    assert_eq!(serde_json::to_value(seen).unwrap(), expected);
}

#[tokio::test]
async fn a_session_that_is_not_used_ends_and_leaves_nothing() {
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let clock = ManualClock::new(u64::try_from(started.as_millis()).unwrap());
    let store = embercask_web::options().clock(clock.clone()).open_in_memory().unwrap();
    let service = router(&store).unwrap();
    let mut ada = Client::logged_in(&service, "ada").await;
    // The session began after the clock of the store was set, so its end is later by that.
    let lifetime = u64::try_from(LIFETIME.whole_milliseconds()).unwrap();
    clock.advance(lifetime - 1);
    assert_eq!(ada.get(&service, "/sessions").await.status, StatusCode::OK);
    clock.advance(lifetime);
    assert_eq!(ada.get(&service, "/visits").await, not_logged_in());
    assert_eq!(ada.cookie, None, "a cookie of no session is removed");
    for namespace in ["SESSIONS", "SESSIONS_BY_USER"] {
        assert_eq!(store.namespace(namespace).unwrap().count().unwrap(), 0, "{namespace}");
    }
}

#[tokio::test]
async fn bad_cookies_are_refused_and_never_become_sessions() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    let unknown = Id(7).to_string();
    let long = "A".repeat(10_000);
    for bad in [
        "",
        "x",
        "!!!!!!!!!!!!!!!!!!!!!!",
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        "%00",
        &unknown,
        &long,
    ] {
        for path in ["/visits", "/sessions"] {
            let answer = Client::with_cookie(bad).get(&service, path).await;
            assert_eq!(answer, not_logged_in(), "{path} with the cookie {bad:?}");
        }
        for path in ["/logout", "/logout-everywhere"] {
            let answer = Client::with_cookie(bad).post(&service, path).await;
            assert_eq!(answer, not_logged_in(), "{path} with the cookie {bad:?}");
        }
        let mut client = Client::with_cookie(bad);
        assert_eq!(client.log_in(&service, "ada").await.status, StatusCode::OK);
        assert_ne!(client.cookie.as_deref(), Some(bad), "logging in gives a new id");
    }
    assert_eq!(
        Client::with_cookie(&unknown).get(&service, "/visits").await,
        not_logged_in()
    );
}

#[tokio::test]
async fn logging_in_again_ends_the_session_before() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    let mut client = Client::logged_in(&service, "ada").await;
    client.get(&service, "/visits").await;
    let mut before = Client {
        cookie: client.cookie.clone(),
    };
    // Something that the routes do not know of, and so do not replace.
    let sessions = Sessions::open(&store).unwrap();
    let mut record = sessions.load(&client.id()).await.unwrap().unwrap();
    record.data.insert("basket".to_owned(), "ada's".into());
    sessions.save(&record).await.unwrap();

    client.log_in(&service, "grace").await;
    let record = sessions.load(&client.id()).await.unwrap().unwrap();
    assert!(!record.data.contains_key("basket"), "{record:?}");
    assert_eq!(client.get(&service, "/visits").await.text, "visit 1 of grace\n");
    assert_eq!(before.get(&service, "/visits").await, not_logged_in());
    assert_eq!(store.namespace("SESSIONS_BY_USER").unwrap().count().unwrap(), 1);
}

#[tokio::test]
async fn names_that_no_key_may_have_are_refused() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    let long = "a".repeat(65);
    for bad in ["", "a%2Fb", "%00", "a+b", "%F0%9F%A5%A0", &long] {
        let mut client = Client::default();
        let answer = client.log_in(&service, bad).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad:?}");
        assert_eq!(client.cookie, None, "{bad:?}");
    }
    for good in [&long[..64], "%C3%A9.-_1"] {
        let answer = Client::default().log_in(&service, good).await;
        assert_eq!(answer.status, StatusCode::OK, "{good:?}");
    }
}

#[tokio::test]
async fn hits_are_counted_under_the_route_also_of_requests_that_fail() {
    let store = Store::in_memory().unwrap();
    let service = router(&store).unwrap();
    let mut client = Client::logged_in(&service, "ada").await;
    client.get(&service, "/visits").await;
    Client::default().get(&service, "/visits?again").await;
    for made_up in ["/a", "/b/c", "/%00"] {
        let answer = client.get(&service, made_up).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    // No two hits at the same time are one.
    let many = (0..20).map(|_| {
        let service = service.clone();
        tokio::spawn(async move { Client::default().get(&service, "/sessions").await })
    });
    for answer in many.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), not_logged_in());
    }
    let hits = client.get(&service, "/hits").await;
    let hits: serde_json::Value = serde_json::from_str(&hits.text).unwrap();
    let expected = serde_json::json!({
        "(no such path)": 3, "/hits": 1, "/login": 1, "/sessions": 20, "/visits": 2,
    });
    assert_eq!(hits, expected);
}

#[tokio::test]
async fn a_store_that_fails_is_an_error_of_the_server_and_shows_nothing_inside() {
    let directory = tempfile::tempdir().unwrap();
    let store = embercask_web::options().open(directory.path()).unwrap();
    let service = router(&store).unwrap();
    let mut ada = Client::logged_in(&service, "ada").await;
    store.close().unwrap();
    for path in ["/visits", "/sessions", "/hits"] {
        let answer = ada.get(&service, path).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert_eq!(answer.text, "the store failed; try again later\n");
    }
    assert_eq!(
        ada.post(&service, "/logout").await.status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
}
