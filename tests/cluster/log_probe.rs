//! Writes numbered entries into a real log and reads them back, until standard input ends. Fails
//! if an acknowledged entry is lost, doubled, or not where its acknowledgement said.
//!
//!     log_probe SERVERS STREAM [PAUSE IN MILLISECONDS [BYTES OF AN ENTRY]]
//!     log_probe --prepare SERVERS STREAM [REPLICAS]
//!
//! Servers have commas between them. What happens is told line by line; the last line sums up.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use embercask_replica::log::{LogError, LogReader, ReplicatedLog};
use embercask_replica::nats::{NatsLog, NatsSettings, StreamPlan};

const WRITERS: u64 = 8;

/// An entry: its process, its writer there, and its number.
type Name = (u64, u64, u64);

#[derive(Default)]
struct Seen {
    acknowledged: Mutex<HashMap<Name, u64>>,
    delivered: Mutex<BTreeMap<u64, Name>>,
    /// Entries that were sent and not yet acknowledged.
    open: AtomicU64,
    ended: AtomicBool,
    /// The last position before this process began.
    goal: AtomicU64,
}

/// Tells when something happens for the first time after a pause.
struct Pauses {
    what: &'static str,
    last: Instant,
    longest: Duration,
}

impl Pauses {
    fn new(what: &'static str) -> Pauses {
        Pauses {
            what,
            last: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    fn end(&mut self) {
        let pause = self.last.elapsed();
        if pause > Duration::from_millis(500) {
            println!("{} again after {} ms", self.what, pause.as_millis());
        }
        self.longest = self.longest.max(pause);
        self.last = Instant::now();
    }
}

fn settings(servers: &str, stream: &str) -> NatsSettings {
    NatsSettings {
        servers: servers.split(',').map(str::to_owned).collect(),
        credentials: None,
        root_certificates: std::env::var_os("LOG_PROBE_CA").map(Into::into),
        stream: stream.into(),
        connection_name: "log_probe".into(),
        call_timeout: Duration::from_secs(2),
    }
}

/// How much is written.
#[derive(Clone, Copy)]
struct Load {
    pause: Duration,
    bytes: usize,
}

async fn write(log: Arc<NatsLog>, seen: Arc<Seen>, writer: u64, load: Load, pauses: Arc<Mutex<Pauses>>) {
    let process = u64::from(std::process::id());
    let mut number = 0;
    while !seen.ended.load(Ordering::SeqCst) {
        seen.open.fetch_add(1, Ordering::SeqCst);
        let entry = Bytes::from(format!("{process} {writer} {number} {}", "x".repeat(load.bytes)));
        let id = format!("{process}-{writer}-{number}");
        let position = loop {
            match log.publish(&id, entry.clone()).await {
                Ok(position) => break position,
                Err(LogError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("entry {id}: {error}"),
            }
        };
        seen.acknowledged
            .lock()
            .unwrap()
            .insert((process, writer, number), position);
        seen.open.fetch_sub(1, Ordering::SeqCst);
        pauses.lock().unwrap().end();
        number += 1;
        tokio::time::sleep(load.pause).await;
    }
}

fn name(entry: &[u8]) -> Name {
    let text = std::str::from_utf8(entry).expect("an entry of the probe is text");
    let mut numbers = text.split(' ').map(str::parse);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(process)), Some(Ok(writer)), Some(Ok(number))) => (process, writer, number),
        _ => panic!("{text} is no entry of the probe"),
    }
}

/// Takes what the reader has, up to the first gap. Returns how it ended.
async fn drain(reader: &mut dyn LogReader, next: &mut u64, seen: &Seen, pauses: &mut Pauses) -> String {
    loop {
        let deliveries = match reader.next().await {
            Ok(deliveries) => deliveries,
            Err(error) => return error.to_string(),
        };
        for delivery in deliveries {
            if delivery.position != *next {
                return format!("gap: {} after {}", delivery.position, *next - 1);
            }
            seen.delivered.lock().unwrap().insert(*next, name(&delivery.bytes));
            if *next == seen.goal.load(Ordering::SeqCst) {
                println!("caught up with {next}");
            }
            *next += 1;
            pauses.end();
        }
    }
}

async fn read(log: Arc<NatsLog>, seen: Arc<Seen>) {
    let mut next = 1;
    let mut pauses = Pauses::new("reads");
    loop {
        match log.read_from(next).await {
            Ok(mut reader) => {
                let why = drain(reader.as_mut(), &mut next, &seen, &mut pauses).await;
                println!("reader ended before {next}: {why}");
            }
            Err(error) => println!("no reader: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until all that was sent is acknowledged, and that delivered.
async fn settle(log: &NatsLog, seen: &Seen) {
    let began = Instant::now();
    loop {
        let last = seen.acknowledged.lock().unwrap().values().copied().max().unwrap_or(0);
        let delivered = seen.delivered.lock().unwrap().len() as u64;
        if seen.open.load(Ordering::SeqCst) == 0 && delivered >= last {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "entries up to {last} are acknowledged, {delivered} are delivered; the log says {:?}",
            log.bounds().await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn judge(seen: &Seen) -> usize {
    let acknowledged = seen.acknowledged.lock().unwrap();
    let delivered = seen.delivered.lock().unwrap();
    let mut places = HashMap::new();
    for (position, name) in delivered.iter() {
        if let Some(other) = places.insert(*name, *position) {
            panic!("entry {name:?} is at {other} and at {position}");
        }
    }
    for (name, position) in acknowledged.iter() {
        let place = places.get(name);
        assert_eq!(place, Some(position), "place of the acknowledged entry {name:?}");
    }
    acknowledged.len()
}

async fn prepare(log: &NatsLog, replicas: usize) {
    let plan = StreamPlan {
        replicas,
        ..StreamPlan::default()
    };
    let began = Instant::now();
    loop {
        match log.prepare_stream(&plan).await {
            Ok(report) => {
                println!("prepared: {report:?}");
                return;
            }
            Err(LogError::Unavailable(why)) if began.elapsed() < Duration::from_secs(60) => {
                println!("waiting: {why}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => {
                println!("{error}");
                std::process::exit(2);
            }
        }
    }
}

async fn probe(log: Arc<NatsLog>, load: Load) {
    let seen = Arc::new(Seen::default());
    let pauses = Arc::new(Mutex::new(Pauses::new("acknowledges")));
    let before = log.bounds().await.map_or(0, |bounds| bounds.last);
    seen.goal.store(before, Ordering::SeqCst);
    let reader = tokio::spawn(read(Arc::clone(&log), Arc::clone(&seen)));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (log, seen, pauses) = (Arc::clone(&log), Arc::clone(&seen), Arc::clone(&pauses));
        writers.push(tokio::spawn(write(log, seen, writer, load, pauses)));
    }
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended
        .await
        .expect("reading does not panic")
        .expect("standard input can be read");
    seen.ended.store(true, Ordering::SeqCst);
    settle(&log, &seen).await;
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    assert!(!reader.is_finished(), "the reader has panicked");
    let acknowledged = judge(&seen);
    let bounds = log.bounds().await.expect("a healed log tells what it holds");
    assert_eq!(bounds.entries, bounds.last - bounds.first + 1, "{bounds:?}");
    let longest = pauses.lock().unwrap().longest.as_millis();
    println!(
        "good: {acknowledged} acknowledged, last {}, longest pause {longest} ms",
        bounds.last
    );
}

#[tokio::main]
async fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let prepares = arguments.first().is_some_and(|first| first == "--prepare");
    if prepares {
        arguments.remove(0);
    }
    let [servers, stream, rest @ ..] = arguments.as_slice() else {
        panic!("usage: log_probe [--prepare] SERVERS STREAM [NUMBER...]");
    };
    let number = |index: usize| rest.get(index).map(|number| number.parse().expect("a number"));
    let log = Arc::new(
        NatsLog::connect(&settings(servers, stream))
            .await
            .expect("good settings"),
    );
    if prepares {
        prepare(&log, number(0).unwrap_or(3)).await;
    } else {
        let pause = Duration::from_millis(number(0).unwrap_or(5) as u64);
        let bytes = number(1).unwrap_or(200);
        probe(log, Load { pause, bytes }).await;
    }
}
