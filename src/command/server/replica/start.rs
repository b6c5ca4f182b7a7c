//! Starting the part of a server that follows the log.

use std::sync::Arc;
use std::time::Duration;

use embercask::Store;
use embercask_replica::applier::Applier;
use embercask_replica::clock::LogClock;
use embercask_replica::log::ReplicatedLog;
use embercask_replica::node::{Node, NodeSettings};
use embercask_replica::state;

use super::{Replica, checkpoint};
use crate::common::failure::{Failure, Outcome as Done};
use crate::common::log::connect;
use crate::server::etag::Etag;
use crate::server::settings::ReplicaSettings;
use crate::server::shared::Shared;

/// Interval between attempts to create a namespace while the log is away.
const CREATE_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Replica {
    /// Begins to follow the log. Does not wait for it: what is in the store can be read meanwhile.
    pub(in crate::server) async fn start(settings: &ReplicaSettings, store: &Store, clock: LogClock) -> Done<Replica> {
        let log = connect(settings).await?;
        Replica::of_log(log, settings, store, clock)
    }

    /// As [`Replica::start`], with this log.
    pub(super) fn of_log(
        log: Arc<dyn ReplicatedLog>,
        settings: &ReplicaSettings,
        store: &Store,
        clock: LogClock,
    ) -> Done<Replica> {
        let etag = |value: &[u8], metadata: Option<&[u8]>, expiry_ms| Etag::of(value, metadata, expiry_ms).0;
        let applier = Applier::open(store.clone(), clock, etag);
        let applier = applier.map_err(|error| Failure::no(error.to_string(), ""))?;
        checkpoint::remove_left(store.directory());
        let no_random = |error| Failure::system(format!("the system has no random numbers: {error}"), "");
        let mut node = NodeSettings::new().map_err(no_random)?;
        node.stale_after = settings.stale_after;
        node.writer.write_timeout_ms = u64::try_from(settings.write_timeout.as_millis()).unwrap_or(u64::MAX);
        let state = *applier.state();
        tracing::info!(
            cluster = %format_args!("{:032x}", state.cluster),
            position = state.position,
            log = settings.log,
            "this server is a replica"
        );
        Ok(Replica {
            node: Node::start(&tokio::runtime::Handle::current(), applier, log, node),
            cluster: state.cluster,
            read_wait: settings.read_wait,
            sending: checkpoint::Sending::default(),
        })
    }
}

/// Refuses a store that is a replica to a server that is none: its writes would be in no log.
pub(in crate::server) fn refuse_replica(store: &Store) -> Done {
    match state::read(store) {
        Ok(None) => Ok(()),
        Ok(Some(state)) => Err(Failure::usage(
            format!("the store is a replica of the cluster {:032x}", state.cluster),
            "name its log in the table [replica], or take it out of its cluster with `embercask replica leave`",
        )),
        Err(error) => Err(Failure::no(error.to_string(), "")),
    }
}

/// Creates the namespaces that have a listener of their own, on all replicas, as soon as the log
/// can be written.
pub(in crate::server) async fn create_namespaces(shared: Arc<Shared>, names: Vec<String>) {
    let Some(replica) = &shared.replica else { return };
    for name in names {
        // Those that another replica created come with the log.
        while shared.namespace(&name).is_ok_and(|found| found.is_none()) {
            match replica.create_namespace(&name).await {
                Ok(_) => break,
                Err(error) if error.status != 503 => {
                    tracing::warn!(%name, error = error.message, "a namespace with a listener was not created");
                    break;
                }
                Err(_) => tokio::time::sleep(CREATE_AGAIN_AFTER).await,
            }
        }
    }
}
