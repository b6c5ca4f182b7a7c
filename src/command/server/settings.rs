//! The settings of a server: from flags, the environment and a file, in this order of precedence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use embercask::{Durability, Options};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::access::{TokenSetting, Tokens};
use super::arguments::Serve;
use super::parse::rules::TTL_SECONDS_MIN;
use crate::common::failure::{Failure, Outcome};
use crate::common::objects::Object;

mod address;
#[cfg(test)]
mod each;

pub(super) use address::Address;

const LISTEN_DEFAULT: &str = "127.0.0.1:8787";
const BINDING_DEFAULT: &str = "127.0.0.1:8788";
const MAX_CONNECTIONS_DEFAULT: usize = 1024;
const BODY_MEMORY_MIB_DEFAULT: usize = 512;
/// Well above the 5 s after which workerd closes an unused connection.
const IDLE_SECONDS_DEFAULT: u64 = 75;
const BODY_SECONDS_DEFAULT: u64 = 30;
const STOP_SECONDS_DEFAULT: u64 = 30;
const SYNC_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// A century. A longer timeout makes no difference, and could overflow when added to a time.
const SECONDS_MAX: u64 = 100 * 366 * 24 * 3600;

/// The configuration file. Its settings have the names of the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    store: Option<PathBuf>,
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
    /// The REST API.
    pub(super) listen: Option<Address>,
    /// The binding protocol, for the namespace named by a header.
    pub(super) binding: Option<Address>,
    /// The binding protocol for one namespace each.
    pub(super) binding_for: Vec<(String, Address)>,
    pub(super) tokens: Tokens,
    pub(super) durability: Durability,
    pub(super) max_disk_bytes: Option<u64>,
    /// By the name of the namespace.
    pub(super) max_namespace_bytes: BTreeMap<String, u64>,
    pub(super) sync_interval: Duration,
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
}

impl Settings {
    /// Merges flags and file. A flag that is not given has the value of the environment already.
    pub(crate) fn of(arguments: &Serve) -> Outcome<Settings> {
        let file = arguments.config.as_deref().map_or(Ok(File::default()), read)?;
        Settings::with(file, arguments)
    }

    pub(super) fn with(file: File, arguments: &Serve) -> Outcome<Settings> {
        let listen = arguments.listen.clone().or(file.listen);
        let binding = arguments.binding.clone().or(file.binding);
        let mut binding_for = file.binding_for;
        for pair in &arguments.binding_for {
            let (namespace, address) = pair
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("{pair:?} is not NAMESPACE=ADDRESS"), ""))?;
            binding_for.insert(namespace.to_owned(), address.to_owned());
        }
        let binding_for = binding_for.into_iter();
        let mut max_namespace_mib = file.max_namespace_mib;
        for pair in &arguments.max_namespace_mib {
            let (namespace, mib) = pair
                .rsplit_once('=')
                .and_then(|(namespace, mib)| Some((namespace, mib.parse().ok()?)))
                .ok_or_else(|| Failure::usage(format!("{pair:?} is not NAMESPACE=MIB"), ""))?;
            max_namespace_mib.insert(namespace.to_owned(), mib);
        }
        let sync_interval_ms = arguments.sync_interval_ms.or(file.sync_interval_ms);
        let (certificate, key) = (
            arguments.tls_certificate.clone().or(file.tls_certificate),
            arguments.tls_key.clone().or(file.tls_key),
        );
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
            (None, None) => None,
            _ => return Err(Failure::usage("TLS needs a certificate and its key", "name both")),
        };
        let tokens: Vec<TokenSetting> = file.tokens.into_iter().map(|Object(token)| token).collect();
        let tokens = Tokens::new(&tokens, arguments.token.as_deref());
        let settings = Settings {
            store: file.store,
            listen: Address::parse_or_off(listen.as_deref().unwrap_or(LISTEN_DEFAULT))?,
            binding: Address::parse_or_off(binding.as_deref().unwrap_or(BINDING_DEFAULT))?,
            binding_for: binding_for
                .map(|(namespace, address)| Ok((namespace, Address::parse(&address)?)))
                .collect::<Outcome<_>>()?,
            tokens: tokens.map_err(|what| Failure::usage(what, "`embercask token` generates one"))?,
            durability: durability(arguments.durability.clone().or(file.durability).as_deref())?,
            max_disk_bytes: arguments.max_disk_mib.or(file.max_disk_mib).map(mib),
            max_namespace_bytes: max_namespace_mib
                .into_iter()
                .map(|(namespace, limit)| (namespace, mib(limit)))
                .collect(),
            sync_interval: sync_interval_ms.map_or(SYNC_INTERVAL_DEFAULT, Duration::from_millis),
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
            log: arguments.log.clone().or(file.log).unwrap_or_else(|| "info".to_owned()),
            log_format: log_format(arguments.log_format.clone().or(file.log_format).as_deref())?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Options of the store.
    pub(crate) fn store_options(&self) -> Options {
        Options::default()
            .max_disk_bytes(self.max_disk_bytes)
            .sync_interval(Some(self.sync_interval))
            .scrub_bytes_per_second(self.scrub_bytes_per_second)
    }

    /// All addresses.
    fn addresses(&self) -> impl Iterator<Item = &Address> {
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
                format!("anyone who can reach {address:?} could read and write everything"),
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
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path.display(), &error))?;
    parse(path, &text)
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
            format!("{other:?} is not a durability class"),
            "use sync, os or buffered",
        )),
    }
}

fn log_format(name: Option<&str>) -> Outcome<LogFormat> {
    match name {
        None | Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => Err(Failure::usage(
            format!("{other:?} is not a log format"),
            "use text or json",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Outcome<Settings> {
        parse(Path::new("test.toml"), text).and_then(|file| Settings::with(file, &Serve::default()))
    }

    /// "What is left out has the value that is shown."
    #[test]
    fn the_configuration_that_is_shipped_shows_what_holds_without_one() {
        let shown = settings(include_str!("../../../docs/self-hosting/embercask.toml")).unwrap();
        // Names every field, so that a new one cannot be forgotten.
        let Settings {
            store,
            listen,
            binding,
            binding_for,
            tokens,
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
        assert_eq!(sync_interval, shown.sync_interval);
        assert_eq!(ttl_seconds_min, shown.ttl_seconds_min);
        assert_eq!((log, log_format), (shown.log, shown.log_format));
        assert_eq!(stop_timeout, Duration::from_secs(30), "not a second for all");
    }

    /// Found by the fuzz target `server_settings`: adding such a timeout to a time panicked in each
    /// connection, and a semaphore with as many permits at the start.
    #[test]
    fn no_number_of_seconds_or_connections_is_too_large_to_work_with() {
        let most = i64::MAX;
        let text =
            format!("max_connections = {most}\nidle_seconds = {most}\nbody_seconds = {most}\nstop_seconds = {most}");
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
}
