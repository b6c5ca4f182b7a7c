//! Logs from random bytes. Small worlds, so that what happens meets.

use std::collections::BTreeMap;

use bytes::Bytes;
use embercask::testing::input::Input;
use embercask_replica::entry::{Body, Conditions, Entry, Header, Lifetime, Operation, Tags, encode_operations, upload};
use embercask_replica::log::Delivery;
use embercask_replica::state::{RESERVED_ID, RESERVED_NAME};

use super::model::etag;
use super::{CLUSTER, START_MS};

/// Bytes of which an entry is drawn.
pub const CHUNK: usize = 40;

/// A log, as it is written.
pub struct Log {
    pub deliveries: Vec<Delivery>,
    pub entries: Vec<Entry>,
    stamp_ms: u64,
    /// The highest one so far, which writers know.
    highest_ms: u64,
    next: [u64; 3],
    uploads: BTreeMap<(u128, u64), Bytes>,
}

/// A log of an entry for each of these.
pub fn log(chunks: &[[u8; CHUNK]]) -> Log {
    let mut log = Log {
        deliveries: Vec::new(),
        entries: Vec::new(),
        stamp_ms: START_MS,
        highest_ms: START_MS,
        next: [1; 3],
        uploads: BTreeMap::new(),
    };
    log.push(0, 0, Body::Genesis);
    for (id, name) in [(11, "A"), (12, "B")] {
        let create = Operation::CreateNamespace {
            id,
            name: name.to_owned(),
        };
        log.push(100, log.next[0], Body::Operations(vec![create]));
        log.next[0] += 1;
    }
    for chunk in chunks {
        log.draw(&mut Input::new(chunk));
    }
    log
}

impl Log {
    fn push(&mut self, writer: u128, counter: u64, body: Body) {
        let header = Header {
            cluster: CLUSTER,
            writer,
            counter,
            sent_ms: self.highest_ms,
        };
        self.push_entry(Entry { header, body });
    }

    fn push_entry(&mut self, entry: Entry) {
        self.deliveries.push(Delivery {
            position: self.deliveries.len() as u64 + 1,
            stamp_ms: self.stamp_ms,
            bytes: entry.encode().unwrap(),
        });
        self.entries.push(entry);
    }

    fn draw(&mut self, input: &mut Input<'_>) {
        self.stamp_ms = match input.u8() {
            0..=199 => self.stamp_ms + u64::from(input.u8()),
            200..=229 => self.stamp_ms + 1000 * u64::from(input.u8()),
            230..=244 => self.stamp_ms - 100 * u64::from(input.u8()),
            // Minutes, and back for as many.
            245..=250 => self.stamp_ms + 60_000 * u64::from(input.u8()),
            _ => self.stamp_ms - 30_000 * u64::from(input.u8()),
        };
        self.highest_ms = self.highest_ms.max(self.stamp_ms);
        let index = input.below(3);
        let writer = 100 + index as u128;
        let next = self.next[index];
        let how = input.u8();
        let back = u64::from(input.u8());
        if how < 20 {
            // What was sent before comes again.
            let entry = self.entries[back as usize % self.entries.len()].clone();
            return self.push_entry(entry);
        }
        let counter = match how {
            20..=29 => next + back,
            30..=49 => next.saturating_sub(back % 80),
            _ => next,
        };
        self.next[index] = next.max(counter + 1);
        let body = self.body(writer, input);
        self.push(writer, counter, body);
    }

    fn body(&mut self, writer: u128, input: &mut Input<'_>) -> Body {
        let number = u64::from(input.u8() % 3);
        match input.u8() {
            0..=159 => Body::Operations(operations(input)),
            160..=204 => Body::Operations(vec![of_namespaces(input)]),
            205..=224 => {
                let bytes = encode_operations(&operations(input)).unwrap();
                self.uploads.insert((writer, number), bytes.clone());
                Body::Part {
                    upload: number,
                    index: u32::from(input.u8() / 128),
                    bytes,
                }
            }
            225..=244 => {
                let bytes = self.uploads.get(&(writer, number)).cloned();
                upload(number, &bytes.unwrap_or_else(|| "?".into()))
                    .unwrap()
                    .pop()
                    .unwrap()
            }
            _ => Body::Beat {
                position: self.entries.len() as u64 - 1,
                digest: [0; 16],
            },
        }
    }
}

fn operations(input: &mut Input<'_>) -> Vec<Operation> {
    let count = 1 + input.below(3);
    (0..count).map(|_| of_keys(input)).collect()
}

fn id(input: &mut Input<'_>) -> u128 {
    match input.u8() {
        0..=119 => 11,
        120..=219 => 12,
        220..=249 => 13,
        _ => RESERVED_ID,
    }
}

fn of_namespaces(input: &mut Input<'_>) -> Operation {
    let id = id(input);
    let how = input.u8();
    let name = match input.u8() {
        number @ 0..=239 => ["A", "B", "C"][usize::from(number % 3)],
        240..=247 => "",
        _ => RESERVED_NAME,
    };
    let name = name.to_owned();
    match how {
        0..=99 => Operation::CreateNamespace { id, name },
        100..=159 => Operation::RenameNamespace { id, name },
        160..=184 => Operation::DropNamespace { id },
        _ => Operation::SetDefaultTtl {
            namespace: id,
            ttl_ms: [None, Some(0), Some(1), Some(1000), Some(60_000)][input.below(5)],
        },
    }
}

fn value(input: &mut Input<'_>) -> (&'static str, Option<&'static str>) {
    let values = ["", "1", "2", "three"];
    let metadata = [None, None, Some(""), Some("{}")];
    (values[input.below(4)], metadata[input.below(4)])
}

fn of_keys(input: &mut Input<'_>) -> Operation {
    let namespace = id(input);
    let key = ["a", "b", "c", "d", "e", "a", "b", ""][input.below(8)].into();
    let conditions = conditions(input);
    let (value, metadata) = value(input);
    let lifetime = match input.u8() {
        0..=79 => Lifetime::Forever,
        80..=139 => Lifetime::Default,
        140..=199 => Lifetime::After(10 * u64::from(input.u8())),
        200..=224 => Lifetime::At(START_MS + 500 * u64::from(input.u8())),
        _ => {
            return Operation::Delete {
                namespace,
                key,
                conditions,
            };
        }
    };
    Operation::Put {
        namespace,
        key,
        value: value.into(),
        metadata: metadata.map(Into::into),
        lifetime,
        conditions,
    }
}

fn conditions(input: &mut Input<'_>) -> Conditions {
    let how = input.u8();
    Conditions {
        if_match: tags(how % 16, input),
        if_none_match: tags(how / 16, input),
    }
}

fn tags(how: u8, input: &mut Input<'_>) -> Option<Tags> {
    match how {
        0 => Some(Tags::Any),
        1 => {
            let (value, metadata) = value(input);
            let tag = etag(value.as_bytes(), metadata.map(str::as_bytes), None);
            Some(Tags::These(vec![tag, etag(b"1", None, None)]))
        }
        2 => Some(Tags::These(Vec::new())),
        _ => None,
    }
}
