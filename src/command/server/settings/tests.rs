//! Tests of settings as a whole.

use super::*;
use crate::server::arguments::ReplicaFlags;

fn settings(text: &str) -> Outcome<Settings> {
    parse(Path::new("test.toml"), text).and_then(|file| Settings::with(file, &Serve::default(), None))
}

/// "What is left out has the value that is shown."
#[test]
fn the_configuration_that_is_shipped_shows_what_holds_without_one() {
    let shown = settings(include_str!("../../../../docs/self-hosting/embercask.toml")).unwrap();
    // Names every field, so that a new one cannot be forgotten.
    let Settings {
        store,
        create,
        options,
        listen,
        binding,
        binding_for,
        tokens,
        token_file,
        durability,
        max_disk_bytes,
        max_namespace_bytes,
        sync_interval,
        ttl_seconds_min,
        scrub_bytes_per_second,
        checkpoint_directory,
        page,
        tls,
        max_connections,
        body_memory_bytes,
        idle_timeout,
        body_timeout,
        stop_timeout,
        log,
        log_format,
        replica,
    } = settings("").unwrap();
    assert_eq!((store, shown.store), (None, Some("/var/lib/embercask".into())));
    assert_eq!((listen, binding), (shown.listen, shown.binding));
    assert_eq!(
        (binding_for, durability, page),
        (shown.binding_for, shown.durability, shown.page)
    );
    assert!(tokens.is_empty() && shown.tokens.is_empty() && tls.is_none() && shown.tls.is_none());
    assert_eq!(max_connections, shown.max_connections);
    assert_eq!(body_memory_bytes, shown.body_memory_bytes);
    assert_eq!(
        (idle_timeout, body_timeout, stop_timeout),
        (shown.idle_timeout, shown.body_timeout, shown.stop_timeout)
    );
    assert_eq!((checkpoint_directory, shown.checkpoint_directory), (None, None));
    assert_eq!((max_disk_bytes, shown.max_disk_bytes), (None, None));
    assert!(max_namespace_bytes.is_empty() && shown.max_namespace_bytes.is_empty());
    assert_eq!((scrub_bytes_per_second, shown.scrub_bytes_per_second), (None, None));
    assert_eq!(
        (sync_interval, shown.sync_interval),
        (None, Some(Duration::from_secs(1))),
        "of the library"
    );
    // The first start creates the store.
    assert_eq!((create, shown.create), (false, true));
    assert_eq!((options, token_file), (shown.options, shown.token_file));
    assert_eq!(ttl_seconds_min, shown.ttl_seconds_min);
    assert_eq!((log, log_format), (shown.log, shown.log_format));
    assert_eq!((replica, shown.replica), (None, None));
    assert_eq!(stop_timeout, Duration::from_secs(30), "not a second for all");
}

/// Found by the fuzz target `server_settings`: adding such a timeout to a time panicked in each
/// connection, and a semaphore with as many permits at the start.
#[test]
fn no_number_of_seconds_or_connections_is_too_large_to_work_with() {
    let most = i64::MAX;
    let text = format!("max_connections = {most}\nidle_seconds = {most}\nbody_seconds = {most}\nstop_seconds = {most}");
    let settings = settings(&text).unwrap();
    let _ = Semaphore::new(settings.max_connections);
    for timeout in [settings.idle_timeout, settings.body_timeout, settings.stop_timeout] {
        assert!(std::time::Instant::now().checked_add(timeout).is_some());
    }
}

/// On Linux an empty path creates a socket without a name to connect to.
#[test]
fn a_socket_has_a_path() {
    assert!(settings("listen = \"unix:\"").is_err());
    assert_eq!(settings("listen = \"unix:/kv\"").is_ok(), cfg!(unix));
}

/// Only one of two flags for a namespace could count.
#[test]
fn a_namespace_has_one_flag_of_each_kind() {
    let with = |binding_for: &[&str], max_namespace_mib: &[&str]| {
        let owned = |pairs: &[&str]| pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let flags = Serve {
            binding_for: owned(binding_for),
            max_namespace_mib: owned(max_namespace_mib),
            ..Serve::default()
        };
        Settings::with(File::default(), &flags, None).is_ok()
    };
    assert!(with(&["N=127.0.0.1:1", "M=127.0.0.1:2"], &["N=1", "M=1"]));
    assert!(!with(&["N=127.0.0.1:1", "N=127.0.0.1:2"], &[]));
    assert!(!with(&[], &["N=1", "N=2"]));
}

#[test]
fn a_replica_names_its_log_and_leaves_the_store_to_commands() {
    let table = "create = true\n[replica]\nlog = \"kv\"\nservers = [\"nats://a\"]\n";
    let whole = settings(table).unwrap();
    let replica = whole.replica.clone().unwrap();
    assert!(!whole.creates() && whole.log_clock().is_some());
    let seconds = [replica.write_timeout, replica.read_wait, replica.stale_after].map(|time| time.as_secs());
    assert_eq!(seconds, [10, 2, 10]);
    assert!(settings("create = true").unwrap().creates());
    for wrong in [
        "[replica]\n",
        "[replica]\nlog = \"kv\"\n",
        "[replica]\nservers = [\"nats://a\"]\n",
        "[replica]\nlog = \"kv\"\nservers = []\n",
        "[replica]\nlog = \"\"\nservers = [\"nats://a\"]\n",
        &format!("{table}stream = \"kv\"\n"),
        &format!("{table}[max_namespace_mib]\nN = 1\n"),
    ] {
        assert!(settings(wrong).is_err(), "{wrong}");
    }
    let flags = Serve {
        replica: ReplicaFlags {
            replica_read_wait_seconds: Some(1),
            ..ReplicaFlags::default()
        },
        ..Serve::default()
    };
    assert!(Settings::with(File::default(), &flags, None).is_err(), "of no replica");
}
