//! The settings of a server: from flags, the environment and a file, in this order of precedence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use embercask::{Durability, Options};
use embercask_replica::clock::LogClock;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::access::{TokenSetting, Tokens};
use super::arguments::Serve;
use super::parse::rules::TTL_SECONDS_MIN;
use crate::common::failure::{Failure, Outcome};
use crate::common::objects::Object;
use crate::common::store_options::{Scalar, StoreOptions};
use crate::common::text::quoted;

mod address;
#[cfg(test)]
mod each;
mod log;
mod replica;
#[cfg(test)]
mod tests;

pub(super) use address::Address;
pub(crate) use replica::ReplicaSettings;
use replica::ReplicaTable;

const LISTEN_DEFAULT: &str = "127.0.0.1:8787";
const BINDING_DEFAULT: &str = "127.0.0.1:8788";
const MAX_CONNECTIONS_DEFAULT: usize = 1024;
const BODY_MEMORY_MIB_DEFAULT: usize = 512;
/// Well above the 5 s after which workerd closes an unused connection.
const IDLE_SECONDS_DEFAULT: u64 = 75;
const BODY_SECONDS_DEFAULT: u64 = 30;
const STOP_SECONDS_DEFAULT: u64 = 30;
/// A century. A longer timeout makes no difference, and could overflow when added to a time.
const SECONDS_MAX: u64 = 100 * 366 * 24 * 3600;

/// The configuration file. Its settings have the names of the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    store: Option<PathBuf>,
    create: Option<bool>,
    options: BTreeMap<String, Scalar>,
    listen: Option<String>,
    binding: Option<String>,
    binding_for: BTreeMap<String, String>,
    durability: Option<String>,
    max_disk_mib: Option<u64>,
    max_namespace_mib: BTreeMap<String, u64>,
    sync_interval_ms: Option<u64>,
    minimum_ttl: Option<u64>,
    scrub_mib_per_second: Option<u64>,
    checkpoint_directory: Option<PathBuf>,
    page: Option<bool>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    max_connections: Option<usize>,
    body_memory_mib: Option<usize>,
    idle_seconds: Option<u64>,
    body_seconds: Option<u64>,
    stop_seconds: Option<u64>,
    log: Option<String>,
    log_format: Option<String>,
    token_file: Option<PathBuf>,
    replica: Option<ReplicaTable>,
    tokens: Vec<Object<TokenSetting>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// Files of a certificate and its key.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The settings of a server.
pub(crate) struct Settings {
    pub(crate) store: Option<PathBuf>,
    /// Whether to create a store where there is none.
    pub(super) create: bool,
    /// Options of the store in the file.
    pub(super) options: StoreOptions,
    /// The REST API.
    pub(super) listen: Option<Address>,
    /// The binding protocol, for the namespace named by a header.
    pub(super) binding: Option<Address>,
    /// The binding protocol for one namespace each.
    pub(super) binding_for: Vec<(String, Address)>,
    pub(super) tokens: Tokens,
    /// A file that has one of them.
    pub(super) token_file: Option<PathBuf>,
    pub(super) durability: Durability,
    pub(super) max_disk_bytes: Option<u64>,
    /// By the name of the namespace.
    pub(super) max_namespace_bytes: BTreeMap<String, u64>,
    pub(super) sync_interval: Option<Duration>,
    /// Shortest lifetime of a put.
    pub(super) ttl_seconds_min: u64,
    pub(super) scrub_bytes_per_second: Option<u64>,
    /// Where clients that administer the server may make checkpoints.
    pub(super) checkpoint_directory: Option<PathBuf>,
    pub(super) page: bool,
    pub(super) tls: Option<Tls>,
    pub(super) max_connections: usize,
    pub(super) body_memory_bytes: usize,
    pub(super) idle_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) stop_timeout: Duration,
    pub(super) log: String,
    pub(super) log_format: LogFormat,
    /// If the store is a replica.
    pub(crate) replica: Option<ReplicaSettings>,
}

impl Settings {
    /// Merges flags and file. A flag that is not given has the value of the environment already.
    pub(crate) fn of(arguments: &Serve) -> Outcome<Settings> {
        let file = arguments.config.as_deref().map_or(Ok(File::default()), read)?;
        let token_file = arguments.token_file.as_ref().or(file.token_file.as_ref());
        let token = token_file.map(|path| text_of(path)).transpose()?;
        Settings::with(file, arguments, token.as_deref())
    }

    /// Merges flags, file, and the text of the file with a token.
    pub(super) fn with(file: File, arguments: &Serve, token_of_file: Option<&str>) -> Outcome<Settings> {
        let listen = arguments.listen.clone().or(file.listen);
        let binding = arguments.binding.clone().or(file.binding);
        let binding_for = binding_for(file.binding_for, &arguments.binding_for)?;
        let max_namespace_bytes = max_namespace_bytes(file.max_namespace_mib, &arguments.max_namespace_mib)?;
        let sync_interval_ms = arguments.sync_interval_ms.or(file.sync_interval_ms);
        let tls = tls(
            arguments.tls_certificate.clone().or(file.tls_certificate),
            arguments.tls_key.clone().or(file.tls_key),
        )?;
        let tokens: Vec<TokenSetting> = file.tokens.into_iter().map(|Object(token)| token).collect();
        let tokens = Tokens::new(&tokens, arguments.token.as_deref());
        let tokens = tokens.and_then(|tokens| match token_of_file {
            Some(text) => tokens.and_plain("token-file", text),
            None => Ok(tokens),
        });
        let log = arguments.log.clone().or(file.log).unwrap_or_else(|| "info".to_owned());
        log::check_filter(&log)?;
        let settings = Settings {
            store: file.store,
            create: arguments.create.or(file.create).unwrap_or(false),
            options: StoreOptions::of_table(&file.options)?,
            listen: Address::parse_or_off(listen.as_deref().unwrap_or(LISTEN_DEFAULT))?,
            binding: Address::parse_or_off(binding.as_deref().unwrap_or(BINDING_DEFAULT))?,
            binding_for,
            tokens: tokens.map_err(|what| Failure::usage(what, "`embercask token` generates one"))?,
            token_file: arguments.token_file.clone().or(file.token_file),
            durability: durability(arguments.durability.clone().or(file.durability).as_deref())?,
            max_disk_bytes: arguments.max_disk_mib.or(file.max_disk_mib).map(mib),
            max_namespace_bytes,
            sync_interval: sync_interval_ms.map(Duration::from_millis),
            ttl_seconds_min: arguments.minimum_ttl.or(file.minimum_ttl).unwrap_or(TTL_SECONDS_MIN),
            scrub_bytes_per_second: arguments.scrub_mib_per_second.or(file.scrub_mib_per_second).map(mib),
            checkpoint_directory: arguments.checkpoint_directory.clone().or(file.checkpoint_directory),
            page: arguments.page.or(file.page).unwrap_or(false),
            tls,
            max_connections: arguments
                .max_connections
                .or(file.max_connections)
                .unwrap_or(MAX_CONNECTIONS_DEFAULT)
                .min(Semaphore::MAX_PERMITS),
            body_memory_bytes: arguments
                .body_memory_mib
                .or(file.body_memory_mib)
                .unwrap_or(BODY_MEMORY_MIB_DEFAULT)
                .saturating_mul(1 << 20),
            idle_timeout: seconds(arguments.idle_seconds.or(file.idle_seconds), IDLE_SECONDS_DEFAULT),
            body_timeout: seconds(arguments.body_seconds.or(file.body_seconds), BODY_SECONDS_DEFAULT),
            stop_timeout: seconds(arguments.stop_seconds.or(file.stop_seconds), STOP_SECONDS_DEFAULT),
            log,
            log_format: log_format(arguments.log_format.clone().or(file.log_format).as_deref())?,
            replica: ReplicaSettings::of(file.replica, &arguments.replica)?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Options of the store: settings of their own count before these, which count before the table
    /// of the file.
    ///
    /// The time of a replica is that of its log. What it applies has the durability of its writes.
    pub(crate) fn store_options(&self, chosen: StoreOptions, clock: Option<&LogClock>) -> Options {
        let mut options = chosen
            .or(&self.options)
            .apply(Options::default())
            .create(self.creates());
        if let Some(clock) = clock {
            options = options.clock(clock.clone()).durability(self.durability);
        }
        if let Some(bytes) = self.max_disk_bytes {
            options = options.max_disk_bytes(Some(bytes));
        }
        if let Some(interval) = self.sync_interval {
            options = options.sync_interval(Some(interval));
        }
        if let Some(bytes) = self.scrub_bytes_per_second {
            options = options.scrub_bytes_per_second(Some(bytes));
        }
        options
    }

    /// Whether to create a store where there is none. A replica is made by commands of its own.
    pub(crate) fn creates(&self) -> bool {
        self.create && self.replica.is_none()
    }

    /// The clock that the store must have, if it is a replica.
    pub(crate) fn log_clock(&self) -> Option<LogClock> {
        self.replica.as_ref().map(|_| LogClock::new())
    }

    /// All addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        let fixed = self.binding_for.iter().map(|(_, address)| address);
        self.listen.iter().chain(&self.binding).chain(fixed)
    }

    fn check(&self) -> Outcome {
        if self.addresses().next().is_none() {
            return Err(Failure::usage(
                "there is no listener",
                "give an address with --listen or --binding",
            ));
        }
        if let Some(address) = self.addresses().find(|address| !address.is_local())
            && self.tokens.is_empty()
        {
            return Err(Failure::usage(
                format!("anyone who can reach {address} could read and write everything"),
                "set a token: `embercask token` generates one for --token or EMBERCASK_TOKEN",
            ));
        }
        if self.page && self.tokens.is_empty() {
            return Err(Failure::usage(
                "the web page needs a token",
                "set a token: `embercask token` generates one for --token or EMBERCASK_TOKEN",
            ));
        }
        if self.max_namespace_bytes.contains_key("") {
            return Err(Failure::usage("a limit names no namespace", "write NAMESPACE=MIB"));
        }
        if self.replica.is_some() && !self.max_namespace_bytes.is_empty() {
            return Err(Failure::usage(
                "a namespace of a replica cannot have a limit: replicas would differ by their settings",
                "leave out max_namespace_mib",
            ));
        }
        // The largest request must fit.
        if self.body_memory_bytes < 100 << 20 || self.max_connections == 0 {
            return Err(Failure::usage(
                "--body-memory-mib must be at least 100, and --max-connections at least 1",
                "",
            ));
        }
        Ok(())
    }
}

fn read(path: &Path) -> Outcome<File> {
    parse(path, &text_of(path)?)
}

fn text_of(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| Failure::file("read", path.display(), &error))
}

/// The addresses of namespaces, of the file and of flags.
fn binding_for(of_file: BTreeMap<String, String>, pairs: &[String]) -> Outcome<Vec<(String, Address)>> {
    let all = with_flags(of_file, pairs, "NAMESPACE=ADDRESS", |pair| {
        let (namespace, address) = pair.split_once('=')?;
        Some((namespace.to_owned(), address.to_owned()))
    })?;
    let parsed = |(namespace, address): (String, String)| Ok((namespace, Address::parse(&address)?));
    all.into_iter().map(parsed).collect()
}

/// The limits of namespaces, of the file and of flags.
fn max_namespace_bytes(of_file: BTreeMap<String, u64>, pairs: &[String]) -> Outcome<BTreeMap<String, u64>> {
    let all = with_flags(of_file, pairs, "NAMESPACE=MIB", |pair| {
        let (namespace, limit) = pair.rsplit_once('=')?;
        Some((namespace.to_owned(), limit.parse().ok()?))
    })?;
    Ok(all
        .into_iter()
        .map(|(namespace, limit)| (namespace, mib(limit)))
        .collect())
}

/// What the file says of namespaces, and what flags say instead.
fn with_flags<T>(
    mut of_file: BTreeMap<String, T>,
    pairs: &[String],
    form: &str,
    parse: impl Fn(&str) -> Option<(String, T)>,
) -> Outcome<BTreeMap<String, T>> {
    let mut of_flags = BTreeMap::new();
    for pair in pairs {
        let wrong = |what: &str| Failure::usage(format!("{} {what}", quoted(pair.as_bytes())), "");
        let (namespace, value) = parse(pair).ok_or_else(|| wrong(&format!("is not {form}")))?;
        if of_flags.insert(namespace, value).is_some() {
            return Err(wrong("names a namespace that another flag of that kind names too"));
        }
    }
    of_file.append(&mut of_flags);
    Ok(of_file)
}

fn tls(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Outcome<Option<Tls>> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Tls { certificate, key })),
        (None, None) => Ok(None),
        _ => Err(Failure::usage("TLS needs a certificate and its key", "name both")),
    }
}

/// Parses the text of a configuration file.
pub(super) fn parse(path: &Path, text: &str) -> Outcome<File> {
    let Object(file) = toml::from_str(text).map_err(|error: toml::de::Error| {
        let what = error.message().to_owned();
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(1, |before| before.matches('\n').count() + 1);
        Failure::usage(format!("{}, line {line}: {what}", path.display()), "")
    })?;
    Ok(file)
}

/// Bytes of a number of MiB.
fn mib(number: u64) -> u64 {
    number.saturating_mul(1 << 20)
}

fn seconds(given: Option<u64>, default: u64) -> Duration {
    Duration::from_secs(given.unwrap_or(default).clamp(1, SECONDS_MAX))
}

fn durability(name: Option<&str>) -> Outcome<Durability> {
    match name {
        None | Some("sync") => Ok(Durability::Sync),
        Some("os") => Ok(Durability::Os),
        Some("buffered") => Ok(Durability::Buffered),
        Some(other) => Err(Failure::usage(
            format!("{} is not a durability class", quoted(other.as_bytes())),
            "use sync, os or buffered",
        )),
    }
}

fn log_format(name: Option<&str>) -> Outcome<LogFormat> {
    match name {
        None | Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => Err(Failure::usage(
            format!("{} is not a log format", quoted(other.as_bytes())),
            "use text or json",
        )),
    }
}
