//! `embercask replica init` and `reset-log`: a log, and the store with which it begins.

use std::time::{SystemTime, UNIX_EPOCH};

use embercask::Store;
use embercask_replica::entry::{Body, Entry, Header};
use embercask_replica::log::ReplicatedLog;
use embercask_replica::nats::{LogServer, NatsLog, StreamPlan, StreamReport, nats_config};
use embercask_replica::state::{self, StateError};

use super::refused;
use crate::cli::arguments::{Init, Log, ResetLog};
use crate::cli::output::stdout;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::log::nats;
use crate::common::text::quoted;
use crate::server::ReplicaSettings;

pub(super) fn init(session: &Session, arguments: &Init) -> Outcome {
    if let Some(name) = &arguments.print_nats_config {
        return print_config(name, &arguments.log_server);
    }
    let settings = settings(session, &arguments.log)?;
    on_runtime(async {
        let log = nats(&settings).await?;
        let report = prepare(session, &log, &arguments.log).await?;
        let store = session.store_to_init()?;
        let cluster = match state::read(&store).map_err(refused)? {
            None => random()?,
            // The last attempt was stopped before the log had begun.
            Some(state) if state.position == 0 && report.last == 0 => state.cluster,
            Some(state) => return Err(refused(StateError::IsAReplica(state.cluster))),
        };
        if report.last > 0 {
            return Err(Failure::no(
                format!(
                    "the log {} has entries already: it is that of another cluster",
                    quoted(settings.log.as_bytes())
                ),
                "`embercask replica join --from URL` makes a replica of that cluster; another name of the log begins \
                 another one",
            ));
        }
        if state::read(&store).map_err(refused)?.is_none() {
            state::init(&store, cluster).map_err(refused)?;
        }
        begin(&log, cluster).await?;
        told(session, &store, cluster)
    })
}

pub(super) fn reset(session: &Session, arguments: &ResetLog) -> Outcome {
    let settings = settings(session, &arguments.log)?;
    let store = session.store_of_replica()?;
    let before = state::read(&store).map_err(refused)?;
    let before = before.ok_or_else(|| refused(StateError::NotAReplica))?;
    let question = format!(
        "Begin the log {} again with what this store has at position {}?",
        quoted(settings.log.as_bytes()),
        before.position
    );
    if !arguments.yes && !session.confirm(&question, "--yes")? {
        return Err(Failure::stopped("nothing was changed"));
    }
    on_runtime(async {
        let log = nats(&settings).await?;
        if arguments.delete {
            log.delete_stream()
                .await
                .map_err(|error| Failure::system(error.to_string(), ""))?;
        }
        let report = prepare(session, &log, &arguments.log).await?;
        if report.last > 0 {
            return Err(Failure::no(
                format!("the log {} has entries", quoted(settings.log.as_bytes())),
                "name another log, or add --delete to delete this one with all its entries",
            ));
        }
        let cluster = random()?;
        state::reset(&store, cluster).map_err(refused)?;
        begin(&log, cluster).await?;
        told(session, &store, cluster)
    })
}

fn told(session: &Session, store: &Store, cluster: u128) -> Outcome {
    session.say(format_args!(
        "{} is a replica of the cluster {cluster:032x}, at the beginning of its log. Start it with `embercask serve`; \
         on other machines, `embercask replica join --from URL` makes more.",
        store.directory().display()
    ))
}

fn settings(session: &Session, log: &Log) -> Outcome<ReplicaSettings> {
    let (store, settings) = ReplicaSettings::read(log.config.as_deref(), &log.flags)?;
    session.set_path_if_none(store.as_deref());
    settings.ok_or_else(|| {
        Failure::usage(
            "no log is named",
            "give --replica-log and --replica-servers, or the file of `serve` with --config",
        )
    })
}

fn plan(arguments: &Log) -> StreamPlan {
    StreamPlan {
        replicas: arguments.copies.into(),
        max_age: arguments.keep,
        monitors: arguments.monitors.clone(),
        any_syncing: arguments.any_syncing,
    }
}

async fn prepare(session: &Session, log: &NatsLog, arguments: &Log) -> Outcome<StreamReport> {
    let hint = "see \"From one node to three\" in docs/self-hosting-workers-kv.md";
    let report = log.prepare_stream(&plan(arguments)).await;
    let report = report.map_err(|error| Failure::system(error.to_string(), hint))?;
    for server in &report.servers {
        session.note(server);
    }
    if report.replicas < 3 {
        session.note("The log is on fewer than three servers: what is lost there is lost.");
    }
    Ok(report)
}

/// Writes the entry with which a log begins, so that it shows whose it is. Twice is not worse than
/// once.
async fn begin(log: &NatsLog, cluster: u128) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let entry = Entry {
        header: Header {
            cluster,
            writer: random()?,
            counter: 1,
            sent_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        },
        body: Body::Genesis,
    };
    let entry = entry.encode().map_err(|error| Failure::system(error.to_string(), ""))?;
    let published = log.publish(&format!("{cluster:032x}-genesis"), entry).await;
    published.map_err(|error| Failure::system(error.to_string(), "run the same command again"))?;
    Ok(())
}

fn random() -> Outcome<u128> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| Failure::system(format!("the system has no random numbers: {error}"), ""))?;
    Ok(u128::from_le_bytes(bytes))
}

fn print_config(name: &str, servers: &[String]) -> Outcome {
    let server = |text: &String| {
        let wrong = || Failure::usage(format!("{} is not NAME=HOST", quoted(text.as_bytes())), "");
        let (name, host) = text.split_once('=').ok_or_else(wrong)?;
        Ok(LogServer {
            name: name.to_owned(),
            host: host.to_owned(),
        })
    };
    let servers = servers.iter().map(server).collect::<Outcome<Vec<_>>>()?;
    let index = servers.iter().position(|server| server.name == name);
    let config = index.and_then(|index| nats_config(&servers, index)).ok_or_else(|| {
        let named = quoted(name.as_bytes());
        Failure::usage(
            format!("{named} is not among the servers"),
            "name it in --log-server too",
        )
    })?;
    let mut out = stdout();
    std::io::Write::write_all(&mut out, config.as_bytes())?;
    Ok(std::io::Write::flush(&mut out)?)
}

/// Runs this on a runtime of its own.
fn on_runtime(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        .build();
    let runtime = runtime.map_err(|error| Failure::system(format!("cannot start the network: {error}"), ""))?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        log: Log,
    }

    #[test]
    fn the_flags_of_a_log_say_what_it_must_be() {
        let usual = plan(&Flags::parse_from(["init"]).log);
        let StreamPlan {
            replicas,
            max_age,
            monitors,
            any_syncing,
        } = StreamPlan::default();
        assert_eq!((usual.replicas, usual.max_age), (replicas, max_age));
        assert_eq!((usual.monitors, usual.any_syncing), (monitors, any_syncing));
        let words = [
            "init",
            "--copies",
            "1",
            "--keep",
            "2h",
            "--monitors",
            "a:1,b:2",
            "--any-syncing",
        ];
        let chosen = plan(&Flags::parse_from(words).log);
        assert_eq!((chosen.replicas, chosen.max_age), (1, Duration::from_secs(7200)));
        assert_eq!(
            (&*chosen.monitors, chosen.any_syncing),
            (&["a:1".to_owned(), "b:2".to_owned()][..], true)
        );

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("serve.toml");
        std::fs::write(&path, "[replica]\nlog = \"a\"\nservers = [\"nats://b\"]\n").unwrap();
        let words = ["init", "--config", path.to_str().unwrap(), "--replica-log", "c"];
        let log = Flags::parse_from(words).log;
        let (_, settings) = ReplicaSettings::read(log.config.as_deref(), &log.flags).unwrap();
        let settings = settings.unwrap();
        assert_eq!(
            (&*settings.log, &*settings.servers),
            ("c", &["nats://b".to_owned()][..])
        );
    }
}
