//! Administration: compaction, checkpoints, statistics, tokens and watching, for clients with the
//! right to it.

use std::time::Duration;

use embercask::Store;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::RequestContext;
use super::envelope::{accepted, success};
use super::routes::{Right::Admin, Route, call, route};
use crate::common::objects::Object;
use crate::common::statistics;
use crate::server::administration::{cancel_compaction, checkpoint_path};
use crate::server::blocking::blocking;
use crate::server::body::{SMALL_BYTES_MAX, Unread, Work};
use crate::server::error::ApiError;
use crate::server::response::ApiResponse;

/// The prefix of its paths.
pub(super) const BASE: &str = "/admin/";

#[rustfmt::skip]
pub(super) static ROUTES: &[Route] = &[
    route(Method::GET,    "statistics",    "admin_statistics",    Admin, call!(admin_statistics)),
    route(Method::POST,   "compact",       "admin_compact",       Admin, call!(compact)),
    route(Method::GET,    "compact",       "admin_compact",       Admin, call!(compaction)),
    route(Method::DELETE, "compact",       "admin_compact",       Admin, call!(end_compaction)),
    route(Method::POST,   "checkpoint",    "admin_checkpoint",    Admin, call!(checkpoint, body)),
    route(Method::GET,    "checkpoint",    "admin_checkpoint",    Admin, call!(last_checkpoint)),
    route(Method::POST,   "reload-tokens", "admin_reload_tokens", Admin, call!(reload_tokens)),
    route(Method::GET,    "watch",         "admin_watch",         Admin, call!(watch)),
];

/// How long a request waits for the report of what it has started: by default, and at most.
const WAIT_SECONDS_DEFAULT: i64 = 30;
const WAIT_SECONDS_MAX: i64 = 3600;

/// The body of a request for a checkpoint.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Its name.
    directory: String,
}

fn compact_store(store: &Store) -> Result<Value, ApiError> {
    let before = store.stats().segment_bytes;
    let report = store.compact()?;
    Ok(json!({
        "segment_bytes": before,
        "runs": report.runs,
        "read_bytes": report.read_bytes,
        "written_bytes": report.written_bytes,
        "reclaimed_bytes": report.reclaimed_bytes,
    }))
}

/// The report of ended work, or how far it is.
fn told(report: Option<Value>, shown: impl FnOnce() -> Value) -> ApiResponse {
    match report {
        Some(report) => success(&report),
        None => accepted(&shown()),
    }
}

impl RequestContext<'_> {
    /// How long to wait for a report, by the parameter `seconds`.
    fn wait(&self) -> Result<Duration, ApiError> {
        let wrong = || {
            ApiError::new(
                400,
                10001,
                format!("seconds must be a number from 0 to {WAIT_SECONDS_MAX}"),
            )
        };
        let seconds = match self.parameter("seconds")? {
            Some(text) => text.parse().map_err(|_| wrong())?,
            None => WAIT_SECONDS_DEFAULT,
        };
        let seconds = Some(seconds).filter(|seconds| (0..=WAIT_SECONDS_MAX).contains(seconds));
        Ok(Duration::from_secs(seconds.ok_or_else(wrong)?.unsigned_abs()))
    }

    async fn admin_statistics(&self) -> Result<ApiResponse, ApiError> {
        let store = self.shared.store.clone();
        let numbers = blocking(move || Ok(statistics::of_store(&store)?)).await?;
        Ok(success(&numbers))
    }

    async fn compact(&self) -> Result<ApiResponse, ApiError> {
        let work = &self.shared.administration.compaction;
        let run = work.run(self.shared, self.wait()?, |shared| compact_store(&shared.store));
        let report = run.await?;
        Ok(told(report, || self.shown_compaction()))
    }

    fn shown_compaction(&self) -> Value {
        let work = &self.shared.administration.compaction;
        work.set_progress(self.shared.store.compaction_progress());
        work.shown()
    }

    async fn compaction(&self) -> Result<ApiResponse, ApiError> {
        Ok(success(&self.shown_compaction()))
    }

    /// Cancels the compaction that was started here.
    async fn end_compaction(&self) -> Result<ApiResponse, ApiError> {
        cancel_compaction(self.shared).await;
        Ok(success(&self.shown_compaction()))
    }

    async fn checkpoint(&self, unread: &mut Unread<'_>) -> Result<ApiResponse, ApiError> {
        let wait = self.wait()?;
        let mut body = unread.read(&self.holder, SMALL_BYTES_MAX, Work::Small).await?;
        let asked = body.take_whole().and_then(|body| serde_json::from_slice(&body).ok());
        let Object::<Asked>(Asked { directory: name }) =
            asked.ok_or_else(|| ApiError::new(400, 10012, "the body must be {\"directory\": \"NAME\"}"))?;
        let administration = &self.shared.administration;
        let directory = administration.checkpoint_directory.clone().ok_or_else(|| {
            let message = "checkpoints need the setting checkpoint_directory, the directory they are made in";
            ApiError::new(409, 10001, message)
        })?;
        let work = &administration.checkpoint;
        let run = work.run(self.shared, wait, move |shared| {
            let path = checkpoint_path(&directory, &name)?;
            let progress = &shared.administration.checkpoint;
            let report = shared.store.checkpoint_with(path, |done| {
                progress.set_progress(done);
                !shared.is_closing()
            })?;
            Ok(json!({
                "directory": name,
                "segments": report.segments,
                "bytes": report.bytes,
                "linked": report.linked,
                "copied": report.copied,
                "last_sequence": report.last_sequence,
            }))
        });
        Ok(told(run.await?, || work.shown()))
    }

    async fn last_checkpoint(&self) -> Result<ApiResponse, ApiError> {
        Ok(success(&self.shared.administration.checkpoint.shown()))
    }

    /// Reads the tokens of the settings again.
    async fn reload_tokens(&self) -> Result<ApiResponse, ApiError> {
        let shared = self.shared.clone();
        let number = blocking(move || Ok(shared.reload_tokens())).await?;
        let number =
            number.map_err(|error| ApiError::new(409, 10001, format!("the tokens stay as they were: {error}")))?;
        Ok(success(&json!({ "tokens": number })))
    }
}
