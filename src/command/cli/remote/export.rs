//! `embercask export` from a server.

use std::ops::ControlFlow;
use std::time::Duration;

use super::api::PAGE_KEYS;
use super::client::Client;
use super::values::{Got, Reader};
use crate::cli::arguments::Export;
use crate::cli::session::Session;
use crate::cli::transfer::{self, Exported, Item, Source, Take, sorted};
use crate::common::failure::{Failure, Outcome};

pub(super) fn run(session: &Session, client: &Client, arguments: &Export) -> Outcome {
    transfer::export_from(session, arguments, &Server(client))
}

/// A server. Its keys are read as they are when their turn comes, and not at one moment.
struct Server<'a>(&'a Client);

impl Source for Server<'_> {
    fn identity(&self) -> String {
        self.0.identity()
    }

    fn namespaces(&self, names: &[String]) -> Outcome<Vec<Exported>> {
        let Server(client) = self;
        let all = client.namespaces()?;
        let exported = |info: &super::api::Info| {
            let default_ttl = client.default_ttl(&info.id)?;
            Ok(Exported {
                name: info.title.clone(),
                id: info.id.clone(),
                default_ttl: default_ttl.map(Duration::from_secs),
            })
        };
        if names.is_empty() {
            return all.iter().map(exported).collect();
        }
        let named = |name: &String| {
            let found = all.iter().find(|info| info.title == *name).ok_or_else(|| {
                let told = format!("there is no namespace \"{name}\" on {}", client.shown());
                Failure::no(told, "`embercask namespace list` shows all namespaces")
            })?;
            exported(found)
        };
        sorted(names).iter().map(named).collect()
    }

    fn count(&self, namespace: &Exported, prefix: &[u8]) -> Outcome<Option<u64>> {
        let prefix = if prefix.is_empty() { "" } else { super::text(prefix)? };
        Ok(self.0.count(&namespace.id, prefix)?)
    }

    fn entries(
        &self,
        namespace: &Exported,
        prefix: &[u8],
        after: Option<&[u8]>,
        take: Take<'_>,
    ) -> Outcome<ControlFlow<()>> {
        let Server(client) = self;
        let prefix = if prefix.is_empty() { "" } else { super::text(prefix)? };
        let mut reader = Reader::new(client, &namespace.id);
        let mut cursor = None::<String>;
        loop {
            let page = client.keys(&namespace.id, prefix, cursor.as_deref(), PAGE_KEYS)?;
            // The API lists from the beginning only. Keys are in the order of their bytes.
            let names = page.keys.iter().map(|key| key.name.as_str());
            let names: Vec<&str> = names
                .filter(|name| after.is_none_or(|after| name.as_bytes() > after))
                .collect();
            let flow = reader.read(&names, |name, got| match got {
                // Deleted since it was listed.
                Got::Absent => Ok(ControlFlow::Continue(())),
                Got::Found(item) => take(Item::Entry(item.entry(name))),
                Got::Unreadable(refusal) => take(Item::Unreadable(format!("the key \"{name}\": {}", refusal.message))),
            })?;
            match page.cursor {
                Some(next) if flow.is_continue() => cursor = Some(next),
                _ => return Ok(flow),
            }
        }
    }
}
