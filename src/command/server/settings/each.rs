//! Tests of each setting: it is read from the file and from the flag, and the flag takes
//! precedence.

use clap::{CommandFactory, Parser};

use super::*;

/// Only the flags of `serve`.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: Serve,
}

/// A token, which non-local addresses and the page need.
const TOKEN: &str =
    "\n[[tokens]]\nname = \"test\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";

fn settings(file: &str, flags: &[&str]) -> Settings {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serve.toml");
    std::fs::write(&path, file).unwrap();
    let config = ["serve", "--config", path.to_str().unwrap()];
    let words = config.iter().chain(flags);
    Settings::of(&Flags::parse_from(words).serve).unwrap_or_else(|error| panic!("{file} {flags:?}: {error:?}"))
}

/// Shows a setting.
type Show = fn(&Settings) -> String;

/// A line of the file, a flag, and what is shown by default, with the file, and with the flag.
type Case = (&'static str, &'static [&'static str], Show, [&'static str; 3]);

const CASES: [Case; 28] = [
    (
        "listen = \"127.0.0.1:1\"",
        &["--listen", "127.0.0.1:2"],
        |settings| format!("{:?}", settings.listen),
        [
            "Some(Tcp(127.0.0.1:8787))",
            "Some(Tcp(127.0.0.1:1))",
            "Some(Tcp(127.0.0.1:2))",
        ],
    ),
    (
        "binding = \"off\"",
        &["--binding", "[::1]:3"],
        |settings| format!("{:?}", settings.binding),
        ["Some(Tcp(127.0.0.1:8788))", "None", "Some(Tcp([::1]:3))"],
    ),
    (
        "[binding_for]\nN = \"127.0.0.1:4\"",
        &["--binding-for", "N=127.0.0.1:5,M=127.0.0.1:6"],
        |settings| format!("{:?}", settings.binding_for),
        [
            "[]",
            "[(\"N\", Tcp(127.0.0.1:4))]",
            "[(\"M\", Tcp(127.0.0.1:6)), (\"N\", Tcp(127.0.0.1:5))]",
        ],
    ),
    (
        "durability = \"os\"",
        &["--durability", "buffered"],
        |settings| format!("{:?}", settings.durability),
        ["Sync", "Os", "Buffered"],
    ),
    (
        "max_disk_mib = 5",
        &["--max-disk-mib", "6"],
        |settings| format!("{:?}", settings.max_disk_bytes),
        ["None", "Some(5242880)", "Some(6291456)"],
    ),
    (
        "[max_namespace_mib]\nN = 7\n\"a=b\" = 1",
        &["--max-namespace-mib", "N=8,a=b=2"],
        |settings| format!("{:?}", settings.max_namespace_bytes),
        [
            "{}",
            "{\"N\": 7340032, \"a=b\": 1048576}",
            "{\"N\": 8388608, \"a=b\": 2097152}",
        ],
    ),
    (
        "sync_interval_ms = 9",
        &["--sync-interval-ms", "10"],
        |settings| format!("{:?}", settings.sync_interval),
        ["None", "Some(9ms)", "Some(10ms)"],
    ),
    (
        "minimum_ttl = 1",
        &["--minimum-ttl", "0"],
        |settings| settings.ttl_seconds_min.to_string(),
        ["60", "1", "0"],
    ),
    (
        "scrub_mib_per_second = 3",
        &["--scrub-mib-per-second", "4"],
        |settings| format!("{:?}", settings.scrub_bytes_per_second),
        ["None", "Some(3145728)", "Some(4194304)"],
    ),
    (
        "checkpoint_directory = \"a\"",
        &["--checkpoint-directory", "b"],
        |settings| format!("{:?}", settings.checkpoint_directory),
        ["None", "Some(\"a\")", "Some(\"b\")"],
    ),
    (
        "create = true",
        &["--create=false"],
        |settings| settings.create.to_string(),
        ["false", "true", "false"],
    ),
    (
        "create = false",
        &["--create"],
        |settings| settings.create.to_string(),
        ["false", "false", "true"],
    ),
    (
        "page = false",
        &["--page"],
        |settings| format!("{:?}", settings.page),
        ["false", "false", "true"],
    ),
    (
        "page = true",
        &["--page=false"],
        |settings| format!("{:?}", settings.page),
        ["false", "true", "false"],
    ),
    (
        "tls_certificate = \"a\"\ntls_key = \"b\"",
        &["--tls-certificate", "c", "--tls-key", "d"],
        |settings| match &settings.tls {
            Some(tls) => format!("{} {}", tls.certificate.display(), tls.key.display()),
            None => "none".to_owned(),
        },
        ["none", "a b", "c d"],
    ),
    (
        "max_connections = 7",
        &["--max-connections", "8"],
        |settings| settings.max_connections.to_string(),
        ["1024", "7", "8"],
    ),
    (
        "body_memory_mib = 100",
        &["--body-memory-mib", "101"],
        |settings| format!("{} MiB", settings.body_memory_bytes >> 20),
        ["512 MiB", "100 MiB", "101 MiB"],
    ),
    (
        "idle_seconds = 11",
        &["--idle-seconds", "12"],
        |settings| format!("{:?}", settings.idle_timeout),
        ["75s", "11s", "12s"],
    ),
    (
        "body_seconds = 13",
        &["--body-seconds", "14"],
        |settings| format!("{:?}", settings.body_timeout),
        ["30s", "13s", "14s"],
    ),
    (
        "stop_seconds = 15",
        &["--stop-seconds", "16"],
        |settings| format!("{:?}", settings.stop_timeout),
        ["30s", "15s", "16s"],
    ),
    (
        "log = \"debug\"",
        &["--log", "warn"],
        |settings| settings.log.clone(),
        ["info", "debug", "warn"],
    ),
    (
        "log_format = \"json\"",
        &["--log-format", "text"],
        |settings| format!("{:?}", settings.log_format),
        ["Text", "Json", "Text"],
    ),
    (
        "[replica]\nlog = \"a\"\nservers = [\"nats://b\"]",
        &["--replica-log", "c", "--replica-servers", "nats://d,nats://e"],
        |settings| replica(settings, |replica| format!("{} {:?}", replica.log, replica.servers)),
        ["none", "a [\"nats://b\"]", "c [\"nats://d\", \"nats://e\"]"],
    ),
    (
        "[replica]\nlog = \"a\"\nservers = [\"b\"]\ncredentials = \"c\"",
        &[
            "--replica-credentials",
            "d",
            "--replica-log",
            "a",
            "--replica-servers",
            "b",
        ],
        |settings| replica(settings, |replica| format!("{:?}", replica.credentials)),
        ["none", "Some(\"c\")", "Some(\"d\")"],
    ),
    (
        "[replica]\nlog = \"a\"\nservers = [\"b\"]\ncertificates = \"c\"",
        &[
            "--replica-certificates",
            "d",
            "--replica-log",
            "a",
            "--replica-servers",
            "b",
        ],
        |settings| replica(settings, |replica| format!("{:?}", replica.certificates)),
        ["none", "Some(\"c\")", "Some(\"d\")"],
    ),
    (
        "[replica]\nlog = \"a\"\nservers = [\"b\"]\nwrite_timeout_seconds = 3",
        &[
            "--replica-write-timeout-seconds",
            "4",
            "--replica-log",
            "a",
            "--replica-servers",
            "b",
        ],
        |settings| replica(settings, |replica| format!("{:?}", replica.write_timeout)),
        ["none", "3s", "4s"],
    ),
    (
        "[replica]\nlog = \"a\"\nservers = [\"b\"]\nread_wait_seconds = 3",
        &[
            "--replica-read-wait-seconds",
            "4",
            "--replica-log",
            "a",
            "--replica-servers",
            "b",
        ],
        |settings| replica(settings, |replica| format!("{:?}", replica.read_wait)),
        ["none", "3s", "4s"],
    ),
    (
        "[replica]\nlog = \"a\"\nservers = [\"b\"]\nstale_after_seconds = 3",
        &[
            "--replica-stale-after-seconds",
            "4",
            "--replica-log",
            "a",
            "--replica-servers",
            "b",
        ],
        |settings| replica(settings, |replica| format!("{:?}", replica.stale_after)),
        ["none", "3s", "4s"],
    ),
];

fn replica(settings: &Settings, show: fn(&ReplicaSettings) -> String) -> String {
    settings.replica.as_ref().map_or("none".to_owned(), show)
}

#[test]
fn each_setting_is_read_from_the_file_and_the_flag_counts_before_it() {
    for (line, flags, show, [default, of_file, of_flag]) in CASES {
        let file = format!("{line}\n{TOKEN}");
        assert_eq!(show(&settings(TOKEN, &[])), default, "{line}");
        assert_eq!(show(&settings(&file, &[])), of_file, "{line}");
        assert_eq!(show(&settings(TOKEN, flags)), of_flag, "{flags:?}");
        assert_eq!(show(&settings(&file, flags)), of_flag, "{line} {flags:?}");
    }
}

#[test]
fn each_flag_has_an_environment_variable_of_its_name() {
    for flag in Flags::command().get_arguments() {
        let expected = format!("EMBERCASK_{}", flag.get_id().as_str().to_uppercase());
        assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(&*expected));
    }
}

/// Flags, then settings with names of their own, then the table of the file.
#[test]
fn options_of_the_store_come_from_the_flag_the_settings_and_the_table_of_the_file() {
    let shown = |file: &str, flags: &[&str], chosen: &[&str]| {
        let chosen: Vec<String> = chosen.iter().map(|pair| (*pair).to_owned()).collect();
        let chosen = StoreOptions::of_pairs(&chosen).unwrap();
        format!("{:?}", settings(file, flags).store_options(chosen, None))
    };
    let table =
        "max_disk_mib = 5\n[options]\nmax_disk_bytes = \"7MiB\"\nread_mode = \"pread\"\nscrub_bytes_per_second = 9";
    let of_file = shown(table, &[], &[]);
    for option in [
        "max_disk_bytes: Some(5242880)",
        "read_mode: Pread",
        "scrub_bytes_per_second: Some(9)",
    ] {
        assert!(of_file.contains(option), "{of_file}");
    }
    let of_flags = shown(
        table,
        &["--scrub-mib-per-second", "1"],
        &["read_mode=map", "ring=never"],
    );
    for option in ["read_mode: Map", "ring: Never", "scrub_bytes_per_second: Some(1048576)"] {
        assert!(of_flags.contains(option), "{of_flags}");
    }
    assert!(shown("", &[], &[]).contains("create: false") && shown("", &["--create"], &[]).contains("create: true"));
    let wrong = parse(Path::new("a.toml"), "[options]\nmode = 1")
        .and_then(|file| Settings::with(file, &Serve::default(), None));
    assert!(wrong.is_err());
}

#[test]
fn the_token_of_a_file_is_one_of_the_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let of = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let words = ["serve", "--token-file", path.to_str().unwrap()];
        Settings::of(&Flags::parse_from(words).serve).map(|settings| settings.tokens.described().len())
    };
    assert!(of("").is_err() && of("short\n").is_err());
    assert_eq!(of("0123456789abcdef\n").ok(), Some(1));
    let line = format!("token_file = {path:?}\n");
    let by_file = settings(&(line.clone() + TOKEN), &[]);
    assert_eq!(
        (by_file.tokens.described().len(), by_file.token_file),
        (2, Some(path.clone()))
    );
    let of_flag = directory.path().join("another");
    std::fs::write(&of_flag, "0123456789abcdefg").unwrap();
    let by_flag = settings(&line, &["--token-file", of_flag.to_str().unwrap()]);
    assert_eq!(
        (by_flag.tokens.described().len(), by_flag.token_file),
        (1, Some(of_flag))
    );
    std::fs::remove_file(&path).unwrap();
    let words = ["serve", "--token-file", path.to_str().unwrap()];
    assert!(
        Settings::of(&Flags::parse_from(words).serve).is_err(),
        "there is no such file"
    );
}

#[test]
fn the_store_of_the_file_and_tokens_from_either_are_read() {
    assert_eq!(settings("", &[]).store, None);
    assert_eq!(settings("store = \"data\"", &[]).store, Some("data".into()));
    assert!(settings("", &[]).tokens.is_empty());
    // The table `[[tokens]]`.
    assert!(!settings(TOKEN, &[]).tokens.is_empty());
    let token = "0123456789012345678901234567890123456789";
    assert!(!settings("", &["--token", token]).tokens.is_empty());
}
