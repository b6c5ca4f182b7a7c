//! Parts of settings, read a second time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use tracing_subscriber::EnvFilter;

use super::Token;
use crate::common::duration::duration;
use crate::server::access::{digest, show_digest};
use crate::server::arguments::Serve;

#[expect(clippy::option_option, reason = "absent is not the same as wrong")]
pub(super) fn optional<T>(
    table: &toml::Table,
    name: &str,
    read: impl Fn(&toml::Value) -> Option<T>,
) -> Option<Option<T>> {
    match table.get(name) {
        None => Some(None),
        Some(value) => read(value).map(Some),
    }
}

pub(super) fn mib(number: u64) -> u64 {
    number.saturating_mul(1 << 20)
}

/// The namespaces with their own addresses, by the file and the flags.
pub(super) fn binding_for(file: &toml::Table, flags: &Serve) -> Option<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    if let Some(given) = file.get("binding_for") {
        for (name, address) in given.as_table()? {
            all.insert(name.clone(), address.as_str()?.to_owned());
        }
    }
    for pair in &flags.binding_for {
        let (name, address) = pair.split_once('=')?;
        all.insert(name.to_owned(), address.to_owned());
    }
    let all = all.into_iter();
    all.map(|(name, given)| Some((name, address(&given)?))).collect()
}

/// The limits of namespaces.
pub(super) fn max_namespace_bytes(file: &toml::Table) -> Option<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    if let Some(given) = file.get("max_namespace_mib") {
        for (name, limit) in given.as_table()? {
            let limit = u64::try_from(limit.as_integer()?).ok()?;
            all.insert(name.clone(), mib(limit));
        }
    }
    Some(all)
}

/// The tokens of the file, and that of the flags.
pub(super) fn tokens(file: &toml::Table, flags: &Serve) -> Option<Vec<Token>> {
    let mut tokens = match file.get("tokens") {
        Some(tokens) => tokens.as_array()?.iter().map(token).collect::<Option<Vec<_>>>()?,
        None => Vec::new(),
    };
    if let Some(plain) = &flags.token {
        let plain = plain.trim_start_matches('\u{feff}').trim();
        if plain.len() < 16 || plain.contains(char::is_control) {
            return None;
        }
        tokens.push((
            show_digest(&digest(plain.as_bytes())),
            "token".to_owned(),
            [false, true],
            None,
        ));
    }
    Some(tokens)
}

fn token(value: &toml::Value) -> Option<Token> {
    let table = value.as_table()?;
    let known = ["name", "sha256", "read_only", "admin", "namespaces"];
    let sha256 = table.get("sha256")?.as_str()?.trim();
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|digit| digit.is_ascii_hexdigit());
    let namespaces = optional(table, "namespaces", |value| {
        let names = value.as_array()?.iter();
        names
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
    })?;
    let flag = |name| Some(optional(table, name, toml::Value::as_bool)?.unwrap_or(false));
    let (read_only, admin) = (flag("read_only")?, flag("admin")?);
    let goes_together = !admin || !read_only && namespaces.is_none();
    let is_good = is_digest && goes_together && table.keys().all(|name| known.contains(&name.as_str()));
    let token = (
        sha256.to_ascii_lowercase(),
        table.get("name")?.as_str()?.to_owned(),
        [read_only, admin],
        namespaces,
    );
    is_good.then_some(token)
}

/// Parses an address, and returns it in normal form.
pub(super) fn address(text: &str) -> Option<String> {
    if let Some(path) = text.strip_prefix("unix:").filter(|_| cfg!(unix)) {
        return (!path.is_empty() && !path.contains('\0')).then(|| text.to_owned());
    }
    let (host, port) = text.rsplit_once(':')?;
    let is_number = !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| is_number)?;
    if let Some(host) = host.strip_prefix('[') {
        let host = host.strip_suffix(']')?;
        let (host, scope) = match host.split_once('%') {
            Some((host, scope)) if scope.bytes().all(|digit| digit.is_ascii_digit()) => (host, scope.parse().ok()?),
            Some(_) => return None,
            None => (host, 0),
        };
        let host: Ipv6Addr = host.parse().ok()?;
        return Some(SocketAddrV6::new(host, port, 0, scope).to_string());
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Some(format!("127.0.0.1:{port}"));
    }
    let host: Ipv4Addr = host.parse().ok()?;
    Some(SocketAddr::new(host.into(), port).to_string())
}

/// A basic string of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => write!(quoted, "\\U{:08x}", u32::from(character)).unwrap(),
        }
    }
    quoted + "\""
}

/// Options of the store, as text.
pub(super) fn options(file: &toml::Table) -> Option<BTreeMap<String, String>> {
    let Some(given) = file.get("options") else {
        return Some(BTreeMap::new());
    };
    let option = |(name, value): (&String, &toml::Value)| {
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return None,
        };
        is_option(name, &text).then(|| (name.clone(), text))
    };
    given.as_table()?.iter().map(option).collect()
}

fn is_option(name: &str, text: &str) -> bool {
    let is_time = || duration(text).is_ok();
    match name {
        "read_mode" => ["map", "pread"].contains(&text),
        "ring" => ["auto", "always", "never"].contains(&text),
        "segment_bytes" | "buffer_bytes" => is_bytes(text),
        "max_disk_bytes" | "compaction_bytes_per_second" | "scrub_bytes_per_second" => text == "off" || is_bytes(text),
        "flush_interval" | "expiry_grace" => is_time(),
        "sync_interval" => text == "off" || is_time(),
        "index_file" => ["true", "false"].contains(&text),
        "waste_ceiling" => text.parse().is_ok_and(|ratio: f64| (1.1..=10.0).contains(&ratio)),
        _ => false,
    }
}

/// A number of bytes below 2^64, with a unit or without.
fn is_bytes(text: &str) -> bool {
    let digits = text.trim_start_matches(|character: char| character.is_ascii_digit());
    let number = &text[..text.len() - digits.len()];
    let unit: u128 = match digits.trim_start() {
        "" if digits.is_empty() => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return false,
    };
    number
        .parse()
        .is_ok_and(|number: u128| number < 1 << 64 && number * unit < 1 << 64)
}

/// Whether a text says what to log.
pub(super) fn is_filter(text: &str) -> bool {
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let is_good = |part: &str| part.contains('=') || levels.contains(&&*part.to_ascii_lowercase());
    // Whether what has a `=` is good is for the library to say.
    text.split(',').all(is_good) && EnvFilter::try_new(text).is_ok()
}
