//! The settings of a replica, read a second time.

use std::fmt::Write;
use std::path::PathBuf;

use super::CENTURY;
use super::parts::{optional, quoted};
use crate::server::settings::ReplicaSettings;

/// The table `[replica]` as plain data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replica {
    log: String,
    servers: Vec<String>,
    files: [Option<String>; 2],
    seconds: [u64; 3],
}

const FILES: [&str; 2] = ["credentials", "certificates"];
const SECONDS: [&str; 3] = ["write_timeout_seconds", "read_wait_seconds", "stale_after_seconds"];

impl Replica {
    pub(super) fn shown(settings: &ReplicaSettings) -> Replica {
        let ReplicaSettings {
            log,
            servers,
            credentials,
            certificates,
            write_timeout,
            read_wait,
            stale_after,
        } = settings.clone();
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        Replica {
            log,
            servers,
            files: [credentials, certificates].map(|file| file.map(path)),
            seconds: [write_timeout, read_wait, stale_after].map(|time| time.as_secs()),
        }
    }

    /// None if it is refused.
    pub(super) fn of(value: &toml::Value) -> Option<Replica> {
        let table = value.as_table()?;
        let is_known = |name: &String| {
            let known = ["log", "servers"].iter().chain(&FILES).chain(&SECONDS);
            known.into_iter().any(|known| known == name)
        };
        if !table.keys().all(is_known) {
            return None;
        }
        let servers = table.get("servers")?.as_array()?.iter();
        let servers: Option<Vec<String>> = servers.map(|server| server.as_str().map(str::to_owned)).collect();
        let log = table.get("log")?.as_str()?.to_owned();
        let text = |name| optional(table, name, |value| value.as_str().map(str::to_owned));
        let number = |name| optional(table, name, |value| u64::try_from(value.as_integer()?).ok());
        let mut seconds = [10, 2, 10];
        for (seconds, name) in seconds.iter_mut().zip(SECONDS) {
            *seconds = number(name)?.unwrap_or(*seconds).clamp(1, CENTURY);
        }
        let replica = Replica {
            log,
            servers: servers?,
            files: [text(FILES[0])?, text(FILES[1])?],
            seconds,
        };
        (!replica.log.is_empty() && !replica.servers.is_empty()).then_some(replica)
    }

    pub(super) fn write(&self, file: &mut String) {
        let servers: Vec<String> = self.servers.iter().map(|server| quoted(server)).collect();
        let log = quoted(&self.log);
        writeln!(file, "[replica]\nlog = {log}\nservers = [{}]", servers.join(", ")).unwrap();
        for (name, path) in FILES.iter().zip(&self.files) {
            if let Some(path) = path {
                writeln!(file, "{name} = {}", quoted(path)).unwrap();
            }
        }
        for (name, seconds) in SECONDS.iter().zip(self.seconds) {
            writeln!(file, "{name} = {seconds}").unwrap();
        }
    }
}
