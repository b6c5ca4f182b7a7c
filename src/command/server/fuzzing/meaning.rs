//! A second reader of the server's settings.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use embercask::Durability;
use tokio::sync::Semaphore;

use super::settings::is_only_for_this_machine;
use crate::server::arguments::Serve;
use crate::server::settings::{Address, LogFormat, Settings};
use parts::{address, binding_for, is_filter, max_namespace_bytes, mib, optional, options, quoted, tokens};
use replica::Replica;

mod parts;
mod replica;

pub(super) const CENTURY: u64 = 100 * 366 * 24 * 3600;

/// The settings that a file may have.
const KNOWN: [&str; 26] = [
    "store",
    "create",
    "options",
    "token_file",
    "listen",
    "binding",
    "binding_for",
    "durability",
    "max_disk_mib",
    "max_namespace_mib",
    "sync_interval_ms",
    "minimum_ttl",
    "scrub_mib_per_second",
    "checkpoint_directory",
    "page",
    "tls_certificate",
    "tls_key",
    "max_connections",
    "body_memory_mib",
    "idle_seconds",
    "body_seconds",
    "stop_seconds",
    "log",
    "log_format",
    "replica",
    "tokens",
];

/// A token: digest, name, whether it is for reading only and for administering, and namespaces.
type Token = (String, String, [bool; 2], Option<Vec<String>>);

/// The settings as plain data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    store: Option<String>,
    create: bool,
    options: BTreeMap<String, String>,
    token_file: Option<String>,
    listen: Option<String>,
    binding: Option<String>,
    binding_for: BTreeMap<String, String>,
    durability: String,
    max_disk_bytes: Option<u64>,
    scrub_bytes_per_second: Option<u64>,
    sync_interval_ms: Option<u64>,
    minimum_ttl: u64,
    max_namespace_bytes: BTreeMap<String, u64>,
    checkpoint_directory: Option<String>,
    page: bool,
    tls: Option<(String, String)>,
    max_connections: u64,
    body_memory_bytes: u64,
    seconds: [u64; 3],
    log: String,
    log_format: String,
    replica: Option<Replica>,
    tokens: Vec<Token>,
}

impl Meaning {
    pub(super) fn addresses(&self) -> impl Iterator<Item = &str> {
        let all = self.listen.iter().chain(&self.binding).chain(self.binding_for.values());
        all.map(String::as_str)
    }

    pub(super) fn shown(settings: &Settings) -> Meaning {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let address = |address: &Address| match address {
            Address::Tcp(address) => address.to_string(),
            #[cfg(unix)]
            Address::Unix(socket) => format!("unix:{}", path(socket)),
        };
        let durability = match settings.durability {
            Durability::Sync => "sync",
            Durability::Os => "os",
            Durability::Buffered => "buffered",
        };
        let format = match settings.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let named = settings.binding_for.iter();
        let tokens = settings.tokens.described().into_iter();
        let timeouts = [settings.idle_timeout, settings.body_timeout, settings.stop_timeout];
        Meaning {
            store: settings.store.as_deref().map(path),
            create: settings.create,
            options: settings.options.as_map().clone(),
            token_file: settings.token_file.as_deref().map(path),
            listen: settings.listen.as_ref().map(address),
            binding: settings.binding.as_ref().map(address),
            binding_for: named.map(|(name, given)| (name.clone(), address(given))).collect(),
            durability: durability.to_owned(),
            max_disk_bytes: settings.max_disk_bytes,
            scrub_bytes_per_second: settings.scrub_bytes_per_second,
            sync_interval_ms: settings.sync_interval.map(|interval| interval.as_millis() as u64),
            minimum_ttl: settings.ttl_seconds_min,
            max_namespace_bytes: settings.max_namespace_bytes.clone(),
            checkpoint_directory: settings.checkpoint_directory.as_deref().map(path),
            page: settings.page,
            tls: settings
                .tls
                .as_ref()
                .map(|tls| (path(&tls.certificate), path(&tls.key))),
            max_connections: settings.max_connections as u64,
            body_memory_bytes: settings.body_memory_bytes as u64,
            seconds: timeouts.map(|timeout| timeout.as_secs()),
            log: settings.log.clone(),
            log_format: format.to_owned(),
            replica: settings.replica.as_ref().map(Replica::shown),
            tokens: tokens
                .map(|token| {
                    (
                        token.sha256,
                        token.name,
                        [token.read_only, token.admin],
                        token.namespaces,
                    )
                })
                .collect(),
        }
    }

    /// The second reader, for a file that is a table; None if it is refused.
    pub(super) fn of(file: &toml::Table, flags: &Serve) -> Option<Meaning> {
        if !file.keys().all(|name| KNOWN.contains(&name.as_str())) {
            return None;
        }
        let text = |name| optional(file, name, |value| value.as_str().map(str::to_owned));
        let number = |name| optional(file, name, |value| u64::try_from(value.as_integer()?).ok());
        let (listen, binding) = (
            flags.listen.clone().or(text("listen")?),
            flags.binding.clone().or(text("binding")?),
        );
        let tls = match (text("tls_certificate")?, text("tls_key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return None,
        };
        let one_of = |given: Option<String>, words: &[&str]| {
            let given = given.unwrap_or(words[0].to_owned());
            words.contains(&given.as_str()).then_some(given)
        };
        let second = |given: Option<u64>, usual: u64| given.unwrap_or(usual).clamp(1, CENTURY);
        let or_off = |given: Option<String>, usual: &str| match given.as_deref().unwrap_or(usual) {
            "off" => Some(None),
            given => address(given).map(Some),
        };
        let meaning = Meaning {
            store: text("store")?,
            create: optional(file, "create", toml::Value::as_bool)?.unwrap_or(false),
            options: options(file)?,
            token_file: text("token_file")?,
            listen: or_off(listen, "127.0.0.1:8787")?,
            binding: or_off(binding, "127.0.0.1:8788")?,
            binding_for: binding_for(file, flags)?,
            durability: one_of(
                flags.durability.clone().or(text("durability")?),
                &["sync", "os", "buffered"],
            )?,
            max_disk_bytes: number("max_disk_mib")?.map(mib),
            scrub_bytes_per_second: number("scrub_mib_per_second")?.map(mib),
            sync_interval_ms: number("sync_interval_ms")?,
            minimum_ttl: number("minimum_ttl")?.unwrap_or(60),
            max_namespace_bytes: max_namespace_bytes(file)?,
            checkpoint_directory: text("checkpoint_directory")?,
            page: flags
                .page
                .or(optional(file, "page", toml::Value::as_bool)?)
                .unwrap_or(false),
            tls,
            max_connections: number("max_connections")?
                .unwrap_or(1024)
                .min(Semaphore::MAX_PERMITS as u64),
            body_memory_bytes: mib(number("body_memory_mib")?.unwrap_or(512)),
            seconds: [
                second(flags.idle_seconds.or(number("idle_seconds")?), 75),
                second(number("body_seconds")?, 30),
                second(number("stop_seconds")?, 30),
            ],
            log: text("log")?.unwrap_or("info".to_owned()),
            log_format: one_of(text("log_format")?, &["text", "json"])?,
            replica: optional(file, "replica", Replica::of)?,
            tokens: tokens(file, flags)?,
        };
        (meaning.is_good() && is_filter(&meaning.log)).then_some(meaning)
    }

    /// Whether the settings go together.
    fn is_good(&self) -> bool {
        let is_open = self.tokens.is_empty();
        let is_reachable = !self.addresses().all(is_only_for_this_machine);
        self.addresses().next().is_some()
            && !(is_open && (is_reachable || self.page))
            && !self.max_namespace_bytes.contains_key("")
            && self.body_memory_bytes >= 100 << 20
            && self.max_connections > 0
            && (self.replica.is_none() || self.max_namespace_bytes.is_empty())
    }

    /// As a file.
    pub(super) fn written(&self) -> String {
        let mut file = String::new();
        let texts = [
            ("store", self.store.as_deref()),
            ("token_file", self.token_file.as_deref()),
            ("listen", Some(self.listen.as_deref().unwrap_or("off"))),
            ("binding", Some(self.binding.as_deref().unwrap_or("off"))),
            ("durability", Some(&*self.durability)),
            ("checkpoint_directory", self.checkpoint_directory.as_deref()),
            (
                "tls_certificate",
                self.tls.as_ref().map(|(certificate, _)| &**certificate),
            ),
            ("tls_key", self.tls.as_ref().map(|(_, key)| &**key)),
            ("log", Some(&*self.log)),
            ("log_format", Some(&*self.log_format)),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                writeln!(file, "{name} = {}", quoted(text)).unwrap();
            }
        }
        let [idle, body, stop] = self.seconds;
        let numbers = [
            ("max_connections", self.max_connections),
            // Whole MiB, except for the saturated maximum.
            ("body_memory_mib", self.body_memory_bytes.div_ceil(1 << 20)),
            ("minimum_ttl", self.minimum_ttl),
            ("idle_seconds", idle),
            ("body_seconds", body),
            ("stop_seconds", stop),
        ];
        for (name, number) in numbers {
            writeln!(file, "{name} = {number}").unwrap();
        }
        let limits = [
            ("max_disk_mib", self.max_disk_bytes),
            ("scrub_mib_per_second", self.scrub_bytes_per_second),
        ];
        for (name, bytes) in limits {
            if let Some(bytes) = bytes {
                writeln!(file, "{name} = {}", bytes.div_ceil(1 << 20)).unwrap();
            }
        }
        if let Some(interval) = self.sync_interval_ms {
            writeln!(file, "sync_interval_ms = {interval}").unwrap();
        }
        writeln!(file, "create = {}\npage = {}\n[options]", self.create, self.page).unwrap();
        self.write_tables(&mut file);
        file
    }

    fn write_tables(&self, file: &mut String) {
        for (name, value) in &self.options {
            writeln!(file, "{name} = {}", quoted(value)).unwrap();
        }
        writeln!(file, "[max_namespace_mib]").unwrap();
        for (name, bytes) in &self.max_namespace_bytes {
            writeln!(file, "{} = {}", quoted(name), bytes.div_ceil(1 << 20)).unwrap();
        }
        if let Some(replica) = &self.replica {
            replica.write(file);
        }
        writeln!(file, "[binding_for]").unwrap();
        for (name, address) in &self.binding_for {
            writeln!(file, "{} = {}", quoted(name), quoted(address)).unwrap();
        }
        for (digest, name, [read_only, admin], namespaces) in &self.tokens {
            write!(
                file,
                "[[tokens]]\nname = {}\nsha256 = \"{digest}\"\nread_only = {read_only}\nadmin = {admin}\n",
                quoted(name)
            )
            .unwrap();
            if let Some(namespaces) = namespaces {
                let all: Vec<String> = namespaces.iter().map(|name| quoted(name)).collect();
                writeln!(file, "namespaces = [{}]", all.join(", ")).unwrap();
            }
        }
    }
}
