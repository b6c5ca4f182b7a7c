//! The log that replicas share. Its client is compiled with the feature `replica` alone.

use std::sync::Arc;

use embercask_replica::log::ReplicatedLog;
#[cfg(feature = "replica")]
use embercask_replica::nats::{NatsLog, NatsSettings};

#[cfg(not(feature = "replica"))]
use crate::common::failure::Failure;
use crate::common::failure::Outcome;
use crate::server::ReplicaSettings;

/// Limit of one call to the log; a publication that takes longer is made again.
#[cfg(feature = "replica")]
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Begins to connect to a log, and does not wait for it.
#[cfg(feature = "replica")]
pub(crate) async fn connect(settings: &ReplicaSettings) -> Outcome<Arc<dyn ReplicatedLog>> {
    Ok(Arc::new(nats(settings).await?))
}

/// As [`connect`], for what only this kind of log can do.
#[cfg(feature = "replica")]
pub(crate) async fn nats(settings: &ReplicaSettings) -> Outcome<NatsLog> {
    let settings = NatsSettings {
        servers: settings.servers.clone(),
        credentials: settings.credentials.clone(),
        root_certificates: settings.certificates.clone(),
        stream: settings.log.clone(),
        connection_name: "embercask".to_owned(),
        call_timeout: CALL_TIMEOUT,
    };
    let connected = NatsLog::connect(&settings).await;
    connected.map_err(|error| {
        crate::common::failure::Failure::usage(error.to_string(), "see the settings of the table [replica]")
    })
}

#[cfg(not(feature = "replica"))]
pub(crate) async fn connect(_settings: &ReplicaSettings) -> Outcome<Arc<dyn ReplicatedLog>> {
    Err(without_client())
}

/// The failure of what needs a log in a build that can speak to none.
#[cfg(not(feature = "replica"))]
pub(crate) fn without_client() -> Failure {
    Failure::usage(
        "this embercask was built without the client of the log that replicas share",
        "build it with `--features replica`",
    )
}
