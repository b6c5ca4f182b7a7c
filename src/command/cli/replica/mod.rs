//! `embercask replica`: making, joining and leaving a cluster. `remote::replica` asks running ones.

mod join;
#[cfg(feature = "replica")]
mod log;

use embercask::Store;
use embercask_replica::state::{self, RESERVED_NAME, StateError};

use super::arguments::Replica;
use super::session::Session;
use crate::cli::remote;
use crate::common::failure::{Failure, Outcome};
pub(crate) use join::Receiver;

pub(crate) fn run(session: &Session, command: Replica) -> Outcome {
    match command {
        #[cfg(feature = "replica")]
        Replica::Init(arguments) => log::init(session, &arguments),
        #[cfg(feature = "replica")]
        Replica::ResetLog(arguments) => log::reset(session, &arguments),
        #[cfg(not(feature = "replica"))]
        Replica::Init(_) | Replica::ResetLog(_) => Err(crate::common::log::without_client()),
        Replica::Join(arguments) => join::run(session, &arguments.from),
        Replica::Audit(arguments) => remote::replica::audit(session, &arguments.urls),
        Replica::Status { .. } => Err(Failure::usage(
            "no server is given",
            "give the address of a running replica with --url URL, or in EMBERCASK_URL",
        )),
        Replica::Leave => leave(session),
    }
}

/// The failure of what a replica refuses.
fn refused(error: StateError) -> Failure {
    match error {
        StateError::Store(error) => error.into(),
        error => Failure::no(error.to_string(), ""),
    }
}

fn leave(session: &Session) -> Outcome {
    let store = session.store_of_replica()?;
    let state = state::read(&store).map_err(refused)?;
    let state = state.ok_or_else(|| refused(StateError::NotAReplica))?;
    store.drop_namespace(RESERVED_NAME)?;
    store.sync()?;
    session.say(format_args!(
        "The store has left the cluster {:032x} at position {}.",
        state.cluster, state.position
    ))
}

/// Refuses to write to a replica: what is not in the log is on no other replica.
pub(super) fn refuse_write(store: &Store) -> Outcome {
    match state::read(store).map_err(refused)? {
        None => Ok(()),
        Some(state) => Err(Failure::usage(
            format!("the store is a replica of the cluster {:032x}", state.cluster),
            "write through a server of the cluster, with --url; or take the store out of it with `embercask replica \
             leave`",
        )),
    }
}

#[cfg(test)]
mod tests;
