//! `embercask bulk`: the files of `wrangler kv bulk`.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use embercask::{Batch, Namespace, PutOptions};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::arguments::{Bulk, Class};
use super::failure::{Failure, Outcome};
use super::interrupt;
use super::output::{TextOrBase64, stdout};
use super::session::Session;
use super::text::decode_base64;
use super::transfer::{Input, array};

/// Writes of a batch, and bytes of it.
const BATCH_WRITES: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;

/// A pair of a bulk file.
#[derive(Deserialize)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) expiration: Option<u64>,
    pub(crate) expiration_ttl: Option<u64>,
    pub(crate) metadata: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) base64: bool,
    /// What wrangler would warn of.
    #[serde(flatten)]
    pub(crate) unknown: BTreeMap<String, serde_json::Value>,
}

/// A key of a file of keys: a string, or an object with a name, as listings have them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Plain(String),
    Object { name: String },
}

impl Name {
    fn into_key(self) -> String {
        match self {
            Name::Plain(name) | Name::Object { name } => name,
        }
    }
}

impl Pair {
    /// Its value as bytes.
    pub(crate) fn value(&self) -> Outcome<Vec<u8>> {
        if self.base64 {
            decode_base64(&self.value)
        } else {
            Ok(self.value.as_bytes().to_vec())
        }
    }

    /// Everything else of it.
    pub(crate) fn options(&self) -> PutOptions {
        let mut options = PutOptions::new();
        if let Some(metadata) = &self.metadata {
            options = options.metadata(metadata.get().as_bytes());
        }
        match (self.expiration, self.expiration_ttl) {
            // As Workers KV has it: of both, the lifetime counts.
            (_, Some(seconds)) => options.ttl(Duration::from_secs(seconds)),
            (Some(seconds), None) => options.expiration(seconds),
            (None, None) => options,
        }
    }
}

pub(crate) fn run(session: &Session, command: Bulk) -> Outcome {
    match command {
        Bulk::Put { target, file, class } => {
            let namespace = session.namespace(&target)?;
            let mut writer = Writer::new(session, &namespace, class);
            let input = Input::open(&file, session, "putting")?;
            array::for_each(&input.name, input.reader, |number, pair: Pair| {
                writer.put(number, &pair)
            })?;
            writer.finish("Wrote")
        }
        Bulk::Get { target, file } => get(&session.namespace(&target)?, Input::open(&file, session, "reading")?),
        Bulk::Delete {
            target,
            file,
            force,
            class,
        } => {
            let namespace = session.namespace(&target)?;
            let question = format!("Delete the keys in {} from \"{}\"?", file.display(), namespace.name());
            if !force && !session.confirm(&question, "--force")? {
                return Err(Failure::no("nothing was deleted", ""));
            }
            let mut writer = Writer::new(session, &namespace, class);
            let input = Input::open(&file, session, "deleting")?;
            array::for_each(&input.name, input.reader, |_, name: Name| {
                writer.delete(&name.into_key())
            })?;
            writer.finish("Deleted")
        }
    }
}

fn get(namespace: &Namespace, input: Input) -> Outcome {
    let mut out = stdout();
    let mut keys = Vec::new();
    let mut is_first = true;
    out.write_all(b"{")?;
    let mut show = |keys: &mut Vec<String>, out: &mut dyn Write| -> Outcome {
        for (key, value) in keys.iter().zip(namespace.get_many(keys)?) {
            out.write_all(if is_first { b"\n  " } else { b",\n  " })?;
            is_first = false;
            serde_json::to_writer(&mut *out, key)?;
            out.write_all(b": ")?;
            // As wrangler has it: null for what is absent. What is no text is shown by an object instead of a string.
            match value.as_deref().map(TextOrBase64::of) {
                None => out.write_all(b"null")?,
                Some(TextOrBase64 { text: Some(text), .. }) => serde_json::to_writer(&mut *out, text)?,
                Some(TextOrBase64 { base64, .. }) => {
                    serde_json::to_writer(&mut *out, &serde_json::json!({ "base64": base64 }))?;
                }
            }
        }
        keys.clear();
        Ok(())
    };
    array::for_each(&input.name, input.reader, |_, name: Name| {
        keys.push(name.into_key());
        if keys.len() < BATCH_WRITES {
            return Ok(());
        }
        show(&mut keys, &mut out)
    })?;
    show(&mut keys, &mut out)?;
    out.write_all(if is_first { b"}\n" } else { b"\n}\n" })?;
    Ok(out.flush()?)
}

/// Gathers writes into batches, each of which is done as a whole.
struct Writer<'a> {
    session: &'a Session,
    namespace: &'a Namespace,
    class: Class,
    batch: Option<Batch>,
    bytes: usize,
    done: u64,
}

impl<'a> Writer<'a> {
    fn new(session: &'a Session, namespace: &'a Namespace, class: Class) -> Self {
        interrupt::expect();
        Writer {
            session,
            namespace,
            class,
            batch: None,
            bytes: 0,
            done: 0,
        }
    }

    fn put(&mut self, number: u64, pair: &Pair) -> Outcome {
        for unknown in pair.unknown.keys() {
            self.session.note(format_args!(
                "pair {number}: the property \"{unknown}\" is not known, and left out"
            ));
        }
        let value = pair.value()?;
        let namespace = self.namespace;
        if value.len() > BATCH_BYTES {
            // A batch might not hold it.
            self.commit()?;
            let options = pair.options().durability(self.class.durability());
            namespace.put_with(&pair.key, &value, options)?;
            self.done += 1;
            return Ok(());
        }
        let bytes = pair.key.len() + value.len();
        self.add(bytes, |batch| {
            batch.put_with(namespace, &pair.key, &value, pair.options())
        })
    }

    fn delete(&mut self, key: &str) -> Outcome {
        let namespace = self.namespace;
        self.add(key.len(), |batch| batch.delete(namespace, key))
    }

    fn add(&mut self, bytes: usize, write: impl FnOnce(Batch) -> Batch) -> Outcome {
        let batch = self.batch.take().unwrap_or_else(|| self.namespace.store().batch());
        let batch = write(batch);
        self.bytes += bytes;
        let is_full = batch.len() >= BATCH_WRITES || self.bytes >= BATCH_BYTES;
        self.batch = Some(batch);
        if is_full { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Outcome {
        if let Some(batch) = self.batch.take() {
            let writes = batch.len() as u64;
            batch.durability(self.class.durability()).commit().map_err(|error| {
                let failure = Failure::from(error);
                self.session
                    .note(format_args!("the first {} are done, the others are not", self.done));
                failure
            })?;
            self.done += writes;
        }
        self.bytes = 0;
        interrupt::check(&format!("the first {} are done, the others are not", self.done))
    }

    fn finish(mut self, verb: &str) -> Outcome {
        self.commit()?;
        self.session.say(format_args!("Success! {verb} {} keys.", self.done))
    }
}
