//! `embercask serve`: self-hosted Workers KV, for existing clients.
//!
//! One process, one store, two protocols: the binding protocol of `workerd`, and the REST API of
//! wrangler and the SDKs. Both check requests with [`parse::rules`]. No thread of the runtime waits
//! for the disk, for other writers, or for a page of a value that is not in memory: what may wait
//! is run on threads that may block. Writes that wait at the same time share one sync of the store.

pub(crate) mod access;
mod administration;
mod allocator;
pub(crate) mod arguments;
mod binding;
mod blocking;
mod body;
mod conditions;
mod connection;
mod descriptors;
mod endpoint;
mod error;
mod etag;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod get_many;
mod limited_log;
mod limits;
mod listener;
mod listing;
mod logging;
mod memory;
mod metrics;
mod page;
pub(crate) mod parse;
mod permissions;
mod places;
mod range;
mod readiness;
mod reading;
mod reload;
pub(crate) mod replica;
mod respond;
mod response;
mod rest;
mod settings;
mod shared;
#[cfg(unix)]
mod socket;
mod stop;
mod watching;
mod writing;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embercask::Store;
use embercask_replica::clock::LogClock;

use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::planted::{Planted, planted};
use arguments::Serve;
use connection::Times;
use endpoint::{Endpoint, Protocol};
use limits::NamespaceLimits;
use listener::{Limits, Listener};
use places::SPARE_CONNECTIONS;
use replica::{Replica, refuse_replica};
pub(crate) use settings::{ReplicaSettings, Settings};
use shared::Shared;
use stop::Stop;

/// Time for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between checks for a signal.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Before the store is opened: errors are logged, and its files are for the user of the server only
/// if there are tokens.
pub(crate) fn prepare(settings: &Settings) -> Outcome {
    logging::to_stderr(settings)?;
    allocator::configure();
    #[cfg(unix)]
    if !settings.tokens.is_empty() {
        permissions::restrict();
    }
    Ok(())
}

/// Serves until a signal, then finishes the requests under way.
///
/// A store that is a replica was opened with this clock.
pub(crate) fn run(settings: Settings, arguments: Serve, store: Store, clock: Option<LogClock>) -> Outcome {
    if let Some(directory) = &settings.checkpoint_directory {
        let entries = std::fs::read_dir(directory);
        entries.map_err(|error| Failure::file("make checkpoints in", directory.display(), &error))?;
    }
    if settings.replica.is_none() {
        refuse_replica(&store)?;
        for (name, _) in &settings.binding_for {
            store.namespace(name)?;
        }
    }
    #[cfg(unix)]
    if !settings.tokens.is_empty() {
        permissions::tighten_store(store.directory());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::file("start", "the runtime", &error))?;
    let _expected = interrupt::expect();
    let served = runtime.block_on(serve(settings, arguments, store, clock));
    // Drops tasks that still wait for slow clients; gives blocking store calls 10 s to finish.
    runtime.shutdown_timeout(Duration::from_secs(10));
    served
}

/// Listens to all addresses, and prints them.
fn listen(settings: &Settings) -> Outcome<Vec<Listener>> {
    let tls = settings.tls.as_ref().map(listener::tls).transpose()?;
    let mut listeners = Vec::new();
    if let Some(address) = &settings.listen {
        let rest = Protocol::Rest { page: settings.page };
        listeners.push(Listener::bind(address, Endpoint::of(rest, 0), tls.as_ref())?);
        say(format_args!("REST API at {}/client/v4", last_url(&listeners)))?;
    }
    if let Some(address) = &settings.binding {
        let any = Protocol::Binding { namespace: None };
        listeners.push(Listener::bind(address, Endpoint::of(any, 1), tls.as_ref())?);
        say(format_args!(
            "Bindings at {}, namespace by X-KV-Namespace",
            last_url(&listeners)
        ))?;
    }
    for (name, address) in &settings.binding_for {
        let fixed = Protocol::Binding {
            namespace: Some(name.as_str().into()),
        };
        let endpoint = Endpoint::of(fixed, 2 + listeners.len());
        listeners.push(Listener::bind(address, endpoint, tls.as_ref())?);
        say(format_args!("Binding at {}, namespace {name}", last_url(&listeners)))?;
    }
    Ok(listeners)
}

async fn serve(settings: Settings, arguments: Serve, store: Store, clock: Option<LogClock>) -> Outcome {
    let places = (settings.addresses().count(), SPARE_CONNECTIONS);
    let limits = Limits {
        max_connections: descriptors::connections(descriptors::raise(), settings.max_connections, places)?,
        times: Times {
            head: HEAD_TIMEOUT,
            idle: settings.idle_timeout,
        },
    };
    let replica = match (&settings.replica, clock) {
        (Some(replica), Some(clock)) => Some(Replica::start(replica, &store, clock).await?),
        _ => None,
    };
    let listeners = listen(&settings)?;
    let namespace_limits = NamespaceLimits::new(settings.max_namespace_bytes);
    namespace_limits.apply_to_all(&store)?;
    let shared = Shared::new(
        store,
        settings.tokens,
        settings.durability,
        settings.body_memory_bytes,
        settings.body_timeout,
    );
    let shared = shared
        .with_namespace_limits(namespace_limits)
        .with_checkpoint_directory(settings.checkpoint_directory)
        .with_ttl_seconds_min(settings.ttl_seconds_min)
        .with_replica(replica);
    let shared = Arc::new(shared);
    shared.tokens.warn_of_unknown_namespaces(&shared.store);
    let reload = reload::on_signal(&shared.tokens, arguments, settings.token_file.is_some())?;
    let stop = Arc::new(Stop::new());
    tracing::info!(durability = ?settings.durability, "serving");
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        serving.spawn(listener.serve(Arc::clone(&shared), limits.clone(), Arc::clone(&stop)));
    }
    serving.spawn(allocator::give_back(Arc::clone(&shared)));
    let own = settings.binding_for.into_iter().map(|(name, _)| name).collect();
    serving.spawn(replica::create_namespaces(Arc::clone(&shared), own));
    until_stopped(&shared, &reload).await;
    shared.begin_closing();
    tracing::info!("stopping");
    // Closing the store would wait for it.
    let _ = tokio::time::timeout(settings.stop_timeout, administration::cancel_compaction(&shared)).await;
    // Stops accepting connections.
    serving.shutdown().await;
    let stopped = tokio::time::timeout(settings.stop_timeout, stop.stop());
    if !planted(Planted::DropRequests) && stopped.await.is_err() {
        tracing::warn!("some requests were not finished in time");
    }
    if let Some(replica) = &shared.replica {
        // What it does not write out, it reads from the log again.
        let _ = tokio::time::timeout(settings.stop_timeout, replica.node.stop()).await;
    }
    let store = shared.store.clone();
    tokio::task::spawn_blocking(move || store.sync())
        .await
        .map_err(|error| Failure::usage(error.to_string(), ""))??;
    limited_log::tell_not_printed(true);
    tracing::info!("stopped");
    Ok(())
}

/// Returns after a signal to stop. Others make it read the tokens again.
async fn until_stopped(shared: &Arc<Shared>, reload: &AtomicBool) {
    while !interrupt::is_requested() {
        if reload.swap(false, Ordering::SeqCst) {
            let shared = Arc::clone(shared);
            // What it reads may be slow; the outcome is in the log.
            tokio::task::spawn_blocking(move || shared.reload_tokens());
        }
        limited_log::tell_not_printed(false);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn last_url(listeners: &[Listener]) -> &str {
    listeners.last().map_or("", |listener| &listener.url)
}

/// Prints an address, for people and for programs that let the system choose the port.
fn say(line: std::fmt::Arguments<'_>) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage};
    use embercask::{Durability, Maintenance};

    use super::access::Tokens;
    use super::settings::Address;
    use super::*;

    /// Sends a request; returns the status and body of the response.
    fn said(address: &str, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\nv"
        )
        .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Runs the server in this process, since a real disk does not fail a sync on demand.
    #[test]
    fn a_server_whose_store_refuses_writes_is_not_ready_and_reads_on() {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let options = Store::options().maintenance(Maintenance::Manual);
        let store = options.storage(Arc::new(faults.clone())).open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("k", "stored").unwrap();
        let patience = Duration::from_secs(60);
        let shared = Shared::new(store, Tokens::default(), Durability::Sync, 100 << 20, patience);
        let shared = Arc::new(shared);
        let times = Times {
            head: HEAD_TIMEOUT,
            idle: Duration::from_secs(60),
        };
        let limits = Limits {
            max_connections: 10,
            times,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let entered = runtime.enter();
        let any_port = Address::Tcp(([127, 0, 0, 1], 0).into());
        let rest = Listener::bind(&any_port, Protocol::Rest { page: false }.into(), None).unwrap();
        let address = rest.url.strip_prefix("http://").unwrap().to_owned();
        runtime.spawn(rest.serve(Arc::clone(&shared), limits, Arc::new(Stop::new())));

        let key = format!(
            "/client/v4/accounts/a/storage/kv/namespaces/{:032x}/values/k",
            namespace.id()
        );
        let ask = |method: &str, path: &str| said(&address, &format!("{method} {path}"));
        assert_eq!(ask("GET", "/readyz"), (200, "ready\n".to_owned()));
        assert_eq!(ask("PUT", &key).0, 200);

        faults.inject(Fault::new(FaultKind::FailedSync));
        assert_eq!(ask("PUT", &key).0, 500, "the put whose sync fails");
        assert_eq!(faults.struck(), 1);
        let (status, told) = ask("PUT", &key);
        assert!(
            status == 503 && told.contains("the store refuses writes"),
            "{status} {told}"
        );
        assert_eq!(ask("GET", "/readyz"), (503, "the store refuses writes\n".to_owned()));
        assert_eq!(ask("GET", "/healthz"), (200, "ok\n".to_owned()));
        assert_eq!(ask("GET", &key), (200, "v".to_owned()));
        let (_, numbers) = ask("GET", "/metrics");
        for metric in [
            "poisoned 1",
            "scrub_damaged_segments 0",
            "scrub_last_pass_seconds 0",
            "scrub_passes_total 0",
            "scrub_bytes_total 0",
        ] {
            assert!(numbers.contains(&format!("\nembercask_store_{metric}\n")), "{numbers}");
        }

        // Shutting down takes precedence.
        shared.begin_closing();
        assert_eq!(ask("GET", "/readyz"), (503, "shutting down\n".to_owned()));
        drop(entered);
    }
}
