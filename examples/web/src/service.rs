//! The routes.

use std::collections::BTreeMap;

use axum::extract::{Form, MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use embercask::{Namespace, Store};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use tower_sessions::{Expiry, Session, SessionManagerLayer, session, session_store};

use crate::session_store::{Sessions, USER};
use crate::user::{InvalidName, UserName};

/// A session that is not changed for this long ends.
pub const LIFETIME: Duration = Duration::minutes(30);

/// Further keys of a session's data.
const DEVICE: &str = "device";
const VISITS: &str = "visits";

/// Longest name of a device that is stored, in characters.
const DEVICE_CHARS_MAX: usize = 100;

#[derive(Clone)]
struct Service {
    sessions: Sessions,
    hits: Namespace,
}

/// The service on this store.
pub fn router(store: &Store) -> embercask::Result<Router> {
    let service = Service {
        sessions: Sessions::open(store)?,
        hits: store.namespace("HITS")?,
    };
    let sessions = SessionManagerLayer::new(service.sessions.clone())
        .with_expiry(Expiry::OnInactivity(LIFETIME))
        // The example speaks plain HTTP. Behind TLS, leave this line out.
        .with_secure(false);
    Ok(Router::new()
        .route("/login", post(log_in))
        .route("/visits", get(visit))
        .route("/sessions", get(list_sessions))
        .route("/logout", post(log_out))
        .route("/logout-everywhere", post(log_out_everywhere))
        .route("/hits", get(list_hits))
        .layer(sessions)
        .layer(from_fn_with_state(service.clone(), count_hit))
        .with_state(service))
}

#[derive(Deserialize)]
struct LogIn {
    name: String,
}

/// Logs in under a name. A real service checks a password here.
async fn log_in(session: Session, headers: HeaderMap, Form(form): Form<LogIn>) -> Result<String, Failure> {
    let user: UserName = form.name.parse()?;
    let device = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let device: String = device.unwrap_or("unknown").chars().take(DEVICE_CHARS_MAX).collect();
    // Nothing of an earlier session is kept, not even its id, which an attacker may have planted.
    session.clear().await;
    session.cycle_id().await?;
    session.insert(USER, user.as_str()).await?;
    session.insert(DEVICE, device).await?;
    session.insert(VISITS, 0).await?;
    Ok(format!("hello {}\n", user.as_str()))
}

/// Counts in the session. Of two requests of one session at the same time, the last to save counts.
async fn visit(session: Session) -> Result<String, Failure> {
    let user = logged_in(&session).await?;
    let visits = session.get::<u64>(VISITS).await?.unwrap_or(0).saturating_add(1);
    session.insert(VISITS, visits).await?;
    Ok(format!("visit {visits} of {}\n", user.as_str()))
}

/// What a user sees of a session: its id is a secret, and is not shown.
#[derive(Serialize)]
struct OpenSession {
    device: String,
    visits: u64,
    expires_in_seconds: i64,
    this_one: bool,
}

async fn list_sessions(State(service): State<Service>, session: Session) -> Result<Json<Vec<OpenSession>>, Failure> {
    let user = logged_in(&session).await?;
    let now = OffsetDateTime::now_utc();
    let records = service.sessions.of_user(&user).await?;
    let open = records.into_iter().map(|record| OpenSession {
        device: record
            .data
            .get(DEVICE)
            .and_then(|device| device.as_str())
            .unwrap_or_default()
            .to_owned(),
        visits: record.data.get(VISITS).and_then(|visits| visits.as_u64()).unwrap_or(0),
        expires_in_seconds: (record.expiry_date - now).whole_seconds(),
        this_one: Some(record.id) == session.id(),
    });
    Ok(Json(open.collect()))
}

async fn log_out(session: Session) -> Result<String, Failure> {
    let user = logged_in(&session).await?;
    session.flush().await?;
    Ok(format!("goodbye {}\n", user.as_str()))
}

async fn log_out_everywhere(State(service): State<Service>, session: Session) -> Result<String, Failure> {
    let user = logged_in(&session).await?;
    let ended = service.sessions.end_all(&user).await?;
    // Removes the cookie: the session itself is gone.
    session.flush().await?;
    Ok(format!("ended {ended} sessions of {}\n", user.as_str()))
}

async fn logged_in(session: &Session) -> Result<UserName, Failure> {
    let name = session.get::<String>(USER).await?.ok_or(Failure::NotLoggedIn)?;
    Ok(name.parse()?)
}

/// Counts a request under its route, and not under its path, of which a client can invent any
/// number. A count that cannot be written is no reason to refuse the request.
async fn count_hit(State(service): State<Service>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let key = route.unwrap_or("(no such path)").to_owned();
    let counted = blocking(move || service.hits.increment(key, 1)).await;
    if let Err(error) = counted {
        tracing::error!("cannot count a request: {error}");
    }
    next.run(request).await
}

async fn list_hits(State(service): State<Service>) -> Result<Json<BTreeMap<String, i64>>, Failure> {
    let listed = blocking(move || {
        let mut hits = BTreeMap::new();
        for entry in service.hits.list().with_values() {
            let entry = entry?;
            let count = entry.value().and_then(|count| count.as_str().ok()?.parse().ok());
            hits.insert(entry.key_str()?.to_owned(), count.unwrap_or(0));
        }
        Ok(hits)
    });
    Ok(Json(listed.await.map_err(|error| {
        Failure::Store(format!("cannot list the hits: {error}"))
    })?))
}

/// Runs calls of the store on a thread that may block.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> embercask::Result<T> + Send + 'static,
) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    Ok(tokio::task::spawn_blocking(call).await??)
}

/// Why a request is not served.
enum Failure {
    NotLoggedIn,
    Name(InvalidName),
    Store(String),
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Failure {
        Failure::Name(error)
    }
}

impl From<session::Error> for Failure {
    fn from(error: session::Error) -> Failure {
        Failure::Store(error.to_string())
    }
}

impl From<session_store::Error> for Failure {
    fn from(error: session_store::Error) -> Failure {
        Failure::Store(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Failure::NotLoggedIn => (StatusCode::UNAUTHORIZED, "log in first: POST /login\n").into_response(),
            Failure::Name(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response(),
            // The operator reads what it was; a client has no use for the path of a file.
            Failure::Store(error) => {
                tracing::error!("{error}");
                (StatusCode::INTERNAL_SERVER_ERROR, "the store failed; try again later\n").into_response()
            }
        }
    }
}
