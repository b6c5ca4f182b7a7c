//! A web service with its sessions in embercask: axum, with tower-sessions.
//!
//! [`session_store`] is the part to take along: an implementation of `SessionStore`. [`service`] is
//! a small service on it, and [`serve`] runs it until it is told to stop.

#![warn(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod service;
pub mod session_store;
pub mod user;

use std::future::{Future, IntoFuture};
use std::time::Duration;

use embercask::{Durability, Options, Store};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// An error of any part.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long the service waits for requests under way once it has been told to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// The options of the service's store. [`session_store`] says why it is this class of durability.
pub fn options() -> Options {
    Store::options().durability(Durability::Os)
}

/// Serves until `stop` is done, answers what has been asked until then, and closes the store.
///
/// # Errors
///
/// If the service cannot run, or the store cannot be closed. The store is closed in any case.
pub async fn serve(
    listener: TcpListener,
    store: Store,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), BoxError> {
    let served = serve_until(listener, &store, stop).await;
    // Waits for the disk. Calls that are still under way fail from here on.
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    let closed = closed.map_err(BoxError::from).and_then(|closed| Ok(closed?));
    match (served, closed) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), Ok(())) => Err(error),
        (Ok(()), Err(error)) => Err(format!("cannot close the store: {error}").into()),
        (Err(first), Err(error)) => Err(format!("{first}; and cannot close the store: {error}").into()),
    }
}

async fn serve_until(
    listener: TcpListener,
    store: &Store,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), BoxError> {
    let (stopping, stopped) = oneshot::channel();
    let serving = axum::serve(listener, service::router(store)?).with_graceful_shutdown(async move {
        stop.await;
        // Its receiver is gone only if the service has ended.
        let _ = stopping.send(());
    });
    let out_of_patience = async {
        let _ = stopped.await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        served = serving.into_future() => served.map_err(|error| format!("cannot serve: {error}").into()),
        () = out_of_patience => {
            tracing::warn!("some requests are not finished after {PATIENCE:?}; stopping without them");
            Ok(())
        }
    }
}
