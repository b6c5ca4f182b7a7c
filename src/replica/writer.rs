//! How writes get into the log: packing, retries, deadlines.
//!
//! A [`Writer`] does no I/O. It is told the time, takes writes, hands out publications, and is told
//! what became of those and what was applied. Invariants:
//!
//! * An entry is sent at once when nothing is in flight. Otherwise what has come is packed into one
//!   entry, which goes when that one is acknowledged, when it is full, or after `LINGER_MS`.
//! * At most [`IN_FLIGHT_MAX`] entries are unacknowledged, and their counters are less than
//!   `SPAN_MAX` apart: the window in which the applier knows duplicates is wider, so a retry that
//!   arrives late is never taken for a duplicate of something else.
//! * An entry is sent again under the id of its first attempt, with the same bytes, until the log
//!   acknowledges it, the applier has met it, or nobody waits for it.
//! * A write is answered with what the applier found, never because the log took it.
//! * The commit of a long body is sent only once all of its parts are acknowledged. Of one that is
//!   given up before, nodes are told to remove the parts.
//! * Writes held, from their submission to their answer, are bounded in number and in bytes.

mod flight;
mod queue;
mod upload;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use self::flight::{Carries, Flight};
use self::queue::Queue;
use self::upload::Uploads;
use crate::applier::{Applied, Verdict};
use crate::entry::{self, Body, Digest, Entry, Header, Operation, Outcome, PART_BYTES, PARTS_MAX, TooLong};
use crate::log::LogError;
use crate::writers::IN_FLIGHT_MAX;

/// How far the counters of unacknowledged entries may be apart.
const SPAN_MAX: u64 = 48;
/// What a body takes beside its operations.
const COUNT_BYTES: usize = 4;
/// How long writes wait for company while an entry is in flight.
const LINGER_MS: u64 = 5;

/// What bounds a writer.
#[derive(Clone, Debug)]
pub struct WriterSettings {
    /// How long a write may take until it is given up.
    pub write_timeout_ms: u64,
    /// How long the log may take to acknowledge an entry until it is sent again.
    pub attempt_timeout_ms: u64,
    /// Most operations that are held unanswered.
    pub operations_max: usize,
    /// Most bytes of them.
    pub bytes_max: usize,
}

impl Default for WriterSettings {
    fn default() -> Self {
        WriterSettings {
            write_timeout_ms: 10_000,
            attempt_timeout_ms: 2_000,
            operations_max: 100_000,
            bytes_max: 256 << 20,
        }
    }
}

/// A write that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Position of its entry. Who waits for it at any node reads this write there.
    pub position: u64,
    /// One for each operation, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Why a write was not done, or is not known to be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nothing was sent.
    #[error("too many writes are waiting for the log: try again later")]
    QueueFull,
    /// Nothing was sent.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// Nothing was sent.
    #[error(
        "a change of namespaces must be the only operation of a write, and a write must have one operation at least"
    )]
    Mixed,
    /// It may be applied later, or not at all.
    #[error("the log did not answer in time: the write may still be applied")]
    TimedOut,
    /// It was not applied.
    #[error("the write reached the log too late and was not applied: try again")]
    TooLate,
    /// It was not applied.
    #[error("parts of the write did not reach the log, and it was not applied: try again")]
    Incomplete,
    /// Unless an earlier attempt got through, it will not be applied.
    #[error("{0}")]
    Refused(LogError),
    /// It may be applied later, or not at all.
    #[error("the node is stopping: the write may still be applied")]
    Stopped,
}

/// An entry to be sent to the log.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Counter of the entry, by which [`Writer::published`] knows it.
    pub counter: u64,
    /// Id under which the log drops duplicates.
    pub id: String,
    /// The encoded entry.
    pub entry: Bytes,
}

/// An answer for whoever handed in a write with this token.
pub type Answer<T> = (T, Result<Written, WriteError>);

/// See the module. `T` is what the caller knows its writes by.
#[derive(Debug)]
pub struct Writer<T> {
    cluster: u128,
    id: u128,
    settings: WriterSettings,
    next_counter: u64,
    queue: Queue<T>,
    flight: Flight<T>,
    uploads: Uploads<T>,
    answers: Vec<Answer<T>>,
}

/// A write, once its operations are encoded or on the way to be.
#[derive(Debug)]
struct Waiting<T> {
    /// None once it is answered.
    token: Option<T>,
    operations: usize,
    bytes: usize,
    deadline_ms: u64,
}

impl<T> Writer<T> {
    /// `id` must be new at each start: the log and the applier take a used one for duplicates.
    pub fn new(cluster: u128, id: u128, settings: WriterSettings) -> Writer<T> {
        Writer {
            cluster,
            id,
            settings,
            next_counter: 1,
            queue: Queue::default(),
            flight: Flight::default(),
            uploads: Uploads::default(),
            answers: Vec::new(),
        }
    }

    /// Takes a write, or says at once why not. Its answer comes with [`Writer::answers`].
    pub fn submit(&mut self, operations: Vec<Operation>, token: T, now_ms: u64) -> Result<(), (T, WriteError)> {
        if !may_travel_together(&operations) {
            return Err((token, WriteError::Mixed));
        }
        let bytes = COUNT_BYTES + operations.iter().map(Operation::encoded_len).sum::<usize>();
        let limit = self.settings.bytes_max.min(PARTS_MAX as usize * PART_BYTES);
        if bytes > limit {
            let what = "the write";
            let length = bytes;
            return Err((token, WriteError::TooLong(TooLong { what, length, limit })));
        }
        let waiting = Waiting {
            token: Some(token),
            operations: operations.len(),
            bytes,
            deadline_ms: now_ms.saturating_add(self.settings.write_timeout_ms),
        };
        self.queue.push(waiting, operations, now_ms, &self.settings)
    }

    /// Everything to be sent now. `log_ms` is the time of the log as far as it is known here.
    /// While that is not known nothing is sent for the first time: the entry would be refused.
    pub fn poll(&mut self, now_ms: u64, log_ms: Option<u64>) -> Vec<Publication> {
        self.expire(now_ms);
        let mut publications = self.flight.retries(now_ms, self.settings.attempt_timeout_ms);
        let Some(log_ms) = log_ms else {
            return publications;
        };
        while self.has_room() {
            self.begin_uploads();
            let next = self.next_upload().or_else(|| self.next_pack(now_ms));
            let Some((body, carries)) = next else { break };
            publications.extend(self.send(body, carries, (now_ms, log_ms)));
        }
        publications
    }

    /// A beat to be sent now, unless that many entries are in flight that it would be in their way.
    /// It is sent once: the next one says more.
    /// `times` are those of [`Writer::poll`].
    pub fn beat(&mut self, position: u64, digest: Digest, times: (u64, u64)) -> Option<Publication> {
        if !self.has_room() {
            return None;
        }
        self.send(Body::Beat { position, digest }, Carries::Nothing, times)
    }

    /// What became of an attempt to publish this entry.
    pub fn published(&mut self, counter: u64, result: Result<u64, LogError>, now_ms: u64) {
        match result {
            Ok(_) => {
                if let Some(upload) = self.flight.acknowledge(counter) {
                    self.uploads.acknowledge(upload);
                }
            }
            Err(LogError::Unavailable(_)) => self.flight.failed(counter, now_ms),
            Err(error @ LogError::Refused(_)) => {
                let Some(carries) = self.flight.remove(counter) else {
                    return;
                };
                let mut writes = Vec::new();
                if let Carries::Part { upload } = carries {
                    self.flight.remove_parts(upload);
                    writes.extend(self.uploads.remove(upload));
                } else {
                    writes.extend(carries.into_writes());
                }
                self.answer_all(writes, &WriteError::Refused(error));
            }
        }
    }

    /// What the applier of this node has met in the log.
    pub fn applied(&mut self, applied: &Applied) {
        if applied.writer != self.id || applied.verdict == Verdict::Repeated {
            return;
        }
        // Having met it is as good as an acknowledgement, which may be lost.
        if let Some(upload) = self.flight.acknowledge(applied.counter) {
            self.uploads.acknowledge(upload);
        }
        let writes = self.flight.remove(applied.counter).map(Carries::into_writes);
        let writes = writes.unwrap_or_default();
        match &applied.verdict {
            Verdict::Done(outcomes) => self.answer_each(writes, applied.position, outcomes),
            Verdict::Late => self.answer_all(writes, &WriteError::TooLate),
            // Nothing waits for the others.
            Verdict::Incomplete | Verdict::Repeated | Verdict::Kept | Verdict::Beat { .. } | Verdict::Begun => {
                self.answer_all(writes, &WriteError::Incomplete);
            }
        }
    }

    /// Answers that have come about since the last call.
    pub fn answers(&mut self) -> Vec<Answer<T>> {
        std::mem::take(&mut self.answers)
    }

    /// Answers everything that is held: the node stops.
    pub fn stop(&mut self) {
        let mut writes = self.queue.take_all();
        writes.extend(self.uploads.take_all());
        writes.extend(self.flight.take_all());
        self.answer_all(writes, &WriteError::Stopped);
    }

    /// When to call [`Writer::poll`] again at the latest; None if there is nothing to wait for.
    /// `may_send` says whether it is going to know the time of the log.
    pub fn next_wake_ms(&self, may_send: bool) -> Option<u64> {
        let flight = self.flight.next_wake_ms(self.settings.attempt_timeout_ms);
        let lingering = (may_send && self.has_room())
            .then(|| self.queue.lingers_until_ms())
            .flatten();
        let deadlines = [self.queue.deadline_ms(), self.uploads.deadline_ms()];
        [flight, lingering].into_iter().chain(deadlines).flatten().min()
    }

    /// How many entries are sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.flight.unacknowledged()
    }

    /// How many operations are held unanswered.
    pub fn held(&self) -> usize {
        self.queue.held_operations()
    }

    fn has_room(&self) -> bool {
        let oldest = self.flight.oldest_unacknowledged().unwrap_or(self.next_counter);
        self.flight.unacknowledged() < IN_FLIGHT_MAX && self.next_counter.saturating_sub(oldest) < SPAN_MAX
    }

    /// Cuts writes that are too long for one entry, and whose turn it is, into parts.
    fn begin_uploads(&mut self) {
        while let Some((operations, waiting)) = self.queue.take_long() {
            let number = self.uploads.next_number();
            let bodies = entry::encode_operations(&operations).and_then(|encoded| entry::upload(number, &encoded));
            match bodies {
                Ok(bodies) => self.uploads.push(number, bodies, waiting),
                Err(error) => self.answer_all([waiting], &error.into()),
            }
        }
    }

    /// The next commit or part of an upload. Parts leave half of the room to other writes.
    fn next_upload(&mut self) -> Option<(Body, Carries<T>)> {
        if let Some(body) = self.uploads.next_given_up() {
            return Some((body, Carries::Nothing));
        }
        if let Some((body, waiting)) = self.uploads.next_commit() {
            return Some((body, Carries::Writes(vec![waiting])));
        }
        if self.flight.parts() >= IN_FLIGHT_MAX / 2 {
            return None;
        }
        let (upload, body) = self.uploads.next_part()?;
        Some((body, Carries::Part { upload }))
    }

    /// What has come, packed, if it should go now.
    fn next_pack(&mut self, now_ms: u64) -> Option<(Body, Carries<T>)> {
        let is_idle = self.flight.unacknowledged() == self.flight.parts();
        if !is_idle && !self.queue.is_full_pack() && !self.queue.has_lingered(now_ms) {
            return None;
        }
        let (operations, writes) = self.queue.take_pack()?;
        Some((Body::Operations(operations), Carries::Writes(writes)))
    }

    /// None if the body has no encoding, which is then the answer.
    fn send(&mut self, body: Body, carries: Carries<T>, (now_ms, log_ms): (u64, u64)) -> Option<Publication> {
        let counter = self.next_counter;
        let header = Header {
            cluster: self.cluster,
            writer: self.id,
            counter,
            sent_ms: log_ms,
        };
        let entry = match (Entry { header, body }).encode() {
            Ok(entry) => entry,
            Err(error) => {
                self.answer_all(carries.into_writes(), &error.into());
                return None;
            }
        };
        self.next_counter += 1;
        let id = format!("{:032x}-{counter}", self.id);
        let publication = Publication { counter, id, entry };
        self.flight.insert(&publication, carries, now_ms);
        Some(publication)
    }

    fn expire(&mut self, now_ms: u64) {
        let mut writes = self.queue.take_expired(now_ms);
        for (upload, waiting) in self.uploads.take_expired(now_ms) {
            self.flight.remove_parts(upload);
            writes.push(waiting);
        }
        writes.extend(self.flight.take_expired(now_ms, self.settings.attempt_timeout_ms));
        self.answer_all(writes, &WriteError::TimedOut);
    }

    fn answer_all(&mut self, writes: impl IntoIterator<Item = Waiting<T>>, error: &WriteError) {
        for write in writes {
            if let Some(token) = write.token {
                self.queue.release(write.operations, write.bytes);
                self.answers.push((token, Err(error.clone())));
            }
        }
    }

    fn answer_each(&mut self, writes: Vec<Waiting<T>>, position: u64, outcomes: &[Outcome]) {
        let mut outcomes = outcomes.iter();
        for write in writes {
            let outcomes = outcomes.by_ref().take(write.operations).copied().collect();
            if let Some(token) = write.token {
                self.queue.release(write.operations, write.bytes);
                self.answers.push((token, Ok(Written { position, outcomes })));
            }
        }
    }
}

/// Whether these can be one write: changes of namespaces are no part of a batch of the store.
fn may_travel_together(operations: &[Operation]) -> bool {
    match operations {
        [] => false,
        [_] => true,
        _ => !operations.iter().any(Operation::is_of_namespaces),
    }
}
