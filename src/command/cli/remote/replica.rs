//! Asking running replicas: their status, what they hold, and a checkpoint.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Call, Client};
use crate::cli::output::{json_line, stdout};
use crate::cli::replica::Receiver;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome, status as exit};
use crate::common::text::{count, one_line};

/// Attempts to catch all replicas at one position.
const ATTEMPTS: u32 = 10;
/// Keys that expire earlier are not compared, since they may expire on one replica before another
/// has read them.
const HORIZON_MS: u64 = 3_600_000;

#[derive(Deserialize)]
struct Status {
    cluster: String,
    doing: String,
    why_not: Option<String>,
    position: u64,
    log_last: Option<u64>,
    log_ms: u64,
    age_ms: u64,
    clock_difference_ms: Option<i64>,
    gaps: u64,
    damaged: u64,
    queued_operations: u64,
}

/// What a replica holds at a position.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Content {
    cluster: String,
    position: u64,
    digest: String,
    namespaces: u64,
    keys: u64,
}

pub(super) fn status(client: &Client, as_json: bool) -> Outcome {
    use std::io::Write;

    let answer = client.send(&Call::of_server("/replica/status"))?;
    let mut out = stdout();
    if as_json {
        json_line(&mut out, &client.read::<Value>(&answer)?.result)?;
        return Ok(out.flush()?);
    }
    let status = client.read::<Status>(&answer)?.result;
    let ready = status
        .why_not
        .map_or("ready".to_owned(), |why| format!("not ready: {why}"));
    let mut lines = vec![
        ("replica", format!("{}, {}", client.shown(), ready)),
        ("cluster", status.cluster),
        ("log", status.doing),
        ("position", count(status.position)),
        ("of", status.log_last.map_or("unknown".to_owned(), count)),
        (
            "last entry",
            format!("{}.{:03} s ago", status.age_ms / 1000, status.age_ms % 1000),
        ),
        ("queue", format!("{} operations", count(status.queued_operations))),
        (
            "read again",
            format!("{} gaps, {} damaged entries", count(status.gaps), count(status.damaged)),
        ),
    ];
    if let Some(difference) = status.clock_difference_ms {
        lines.push(("clock", format!("{difference} ms ahead of log time")));
    }
    for (name, value) in lines {
        writeln!(out, "{name:<12}{}", one_line(&value))?;
    }
    Ok(out.flush()?)
}

/// Passes the checkpoint of a server on to its receiver.
pub(crate) fn checkpoint(client: &Client, receiver: &mut Receiver) -> Outcome {
    let mut go_on = |bytes: &[u8]| {
        Ok(match receiver.take(bytes) {
            true => ControlFlow::Continue(()),
            // What has failed is for the receiver to say.
            false => ControlFlow::Break(()),
        })
    };
    client.follow(&Call::of_server("/replica/checkpoint"), &mut go_on)?;
    Ok(())
}

/// Compares what servers hold at one position.
pub(crate) fn audit(session: &Session, urls: &[String]) -> Outcome {
    let clients = urls
        .iter()
        .map(|url| session.client_maker(url)())
        .collect::<Outcome<Vec<_>>>()?;
    for _ in 0..ATTEMPTS {
        let (mut position, mut log_ms) = (0, 0);
        for client in &clients {
            let answer = client.send(&Call::of_server("/replica/status"))?;
            let status = client.read::<Status>(&answer)?.result;
            position = position.max(status.position);
            log_ms = log_ms.max(status.log_ms);
        }
        // The next entry, or the next beat, comes to all of them at about the same time.
        let path = format!(
            "/replica/digest?position={}&horizon_ms={}",
            position.saturating_add(1),
            log_ms.saturating_add(HORIZON_MS)
        );
        let held = contents(session, urls, &path)?;
        if held
            .iter()
            .all(|content| Some(content.position) == held.first().map(|first| first.position))
        {
            return compared(session, &clients, &held);
        }
    }
    Err(Failure::no(
        "the replicas are being written to, and were not caught at one position",
        "try again when there are fewer writes; until then, beats compare all that they apply",
    ))
}

/// Asks all servers at the same time.
fn contents(session: &Session, urls: &[String], path: &str) -> Outcome<Vec<Content>> {
    let asking = |url: &String| {
        let client = session.client_maker(url);
        let path = path.to_owned();
        std::thread::spawn(move || -> Outcome<Content> {
            let client = client()?;
            let answer = client.send(&Call::of_server(path))?;
            Ok(client.read::<Content>(&answer)?.result)
        })
    };
    let threads: Vec<_> = urls.iter().map(asking).collect();
    let ended = threads.into_iter().map(|thread| match thread.join() {
        Ok(content) => content,
        Err(panic) => std::panic::resume_unwind(panic),
    });
    ended.collect()
}

fn compared(session: &Session, clients: &[Client], held: &[Content]) -> Outcome {
    use std::io::Write;

    let mut out = stdout();
    for (client, content) in clients.iter().zip(held) {
        writeln!(
            out,
            "{} position {} {} namespaces {} keys {}",
            content.digest,
            content.position,
            content.namespaces,
            content.keys,
            one_line(client.shown())
        )?;
    }
    out.flush()?;
    match held.iter().all(|content| Some(content) == held.first()) {
        true => session.say("All hold the same."),
        false => {
            session.note(
                "They differ: seed those again that do not hold what most of them do, with `embercask replica join`.",
            );
            Err(Failure::Silent(exit::DAMAGED))
        }
    }
}
