//! Entries that are sent and not applied yet, and when they are sent again.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Publication, Waiting};

/// The first wait after an error; it doubles up to the longest.
const BACKOFF_MS_MIN: u64 = 50;
const BACKOFF_MS_MAX: u64 = 1000;

/// What waits for an entry.
#[derive(Debug)]
pub(super) enum Carries<T> {
    /// Writes: those of a pack, or the one that a commit ends.
    Writes(Vec<Waiting<T>>),
    /// A part of this upload.
    Part { upload: u64 },
    /// Nothing, as of a beat: it is not sent again.
    Nothing,
}

impl<T> Carries<T> {
    pub(super) fn into_writes(self) -> Vec<Waiting<T>> {
        match self {
            Carries::Writes(writes) => writes,
            Carries::Part { .. } | Carries::Nothing => Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Sent<T> {
    id: String,
    entry: Bytes,
    carries: Carries<T>,
    attempts: u32,
    attempt: Attempt,
}

/// State of the last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Waits for the log since then.
    Since(u64),
    /// Failed: the next one is due then.
    Due(u64),
    /// The log has taken it.
    Acknowledged,
}

#[derive(Debug)]
pub(super) struct Flight<T> {
    /// By counter.
    sent: BTreeMap<u64, Sent<T>>,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Flight { sent: BTreeMap::new() }
    }
}

impl<T> Sent<T> {
    fn is_acknowledged(&self) -> bool {
        self.attempt == Attempt::Acknowledged
    }

    fn is_part(&self) -> bool {
        matches!(self.carries, Carries::Part { .. })
    }

    fn due_ms(&self, attempt_timeout_ms: u64) -> Option<u64> {
        match self.attempt {
            Attempt::Since(since) => Some(since.saturating_add(attempt_timeout_ms)),
            Attempt::Due(due) => Some(due),
            Attempt::Acknowledged => None,
        }
    }
}

impl<T> Flight<T> {
    pub(super) fn insert(&mut self, publication: &Publication, carries: Carries<T>, now_ms: u64) {
        let sent = Sent {
            id: publication.id.clone(),
            entry: publication.entry.clone(),
            carries,
            attempts: 1,
            attempt: Attempt::Since(now_ms),
        };
        self.sent.insert(publication.counter, sent);
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.sent.values().filter(|sent| !sent.is_acknowledged()).count()
    }

    pub(super) fn parts(&self) -> usize {
        self.sent.values().filter(|sent| sent.is_part()).count()
    }

    pub(super) fn oldest_unacknowledged(&self) -> Option<u64> {
        let mut unacknowledged = self.sent.iter().filter(|(_, sent)| !sent.is_acknowledged());
        unacknowledged.next().map(|(counter, _)| *counter)
    }

    /// Entries that are due again.
    pub(super) fn retries(&mut self, now_ms: u64, attempt_timeout_ms: u64) -> Vec<Publication> {
        let mut due = Vec::new();
        for (counter, sent) in &mut self.sent {
            if sent.due_ms(attempt_timeout_ms).is_none_or(|due| due > now_ms) {
                continue;
            }
            sent.attempts = sent.attempts.saturating_add(1);
            sent.attempt = Attempt::Since(now_ms);
            due.push(Publication {
                counter: *counter,
                id: sent.id.clone(),
                entry: sent.entry.clone(),
            });
        }
        due
    }

    /// Notes that the log has taken an entry. A part has no more to wait for: it is forgotten, and
    /// its upload returned.
    pub(super) fn acknowledge(&mut self, counter: u64) -> Option<u64> {
        let sent = self.sent.get_mut(&counter)?;
        match sent.carries {
            Carries::Writes(_) => {
                sent.attempt = Attempt::Acknowledged;
                sent.entry = Bytes::new();
                None
            }
            Carries::Part { upload } => self.sent.remove(&counter).map(|_| upload),
            Carries::Nothing => {
                self.sent.remove(&counter);
                None
            }
        }
    }

    /// The log could not be reached.
    pub(super) fn failed(&mut self, counter: u64, now_ms: u64) {
        let Some(sent) = self.sent.get_mut(&counter) else {
            return;
        };
        if matches!(sent.carries, Carries::Nothing) {
            self.sent.remove(&counter);
        } else if !sent.is_acknowledged() {
            let doublings = sent.attempts.saturating_sub(1).min(10);
            let backoff = (BACKOFF_MS_MIN << doublings).min(BACKOFF_MS_MAX);
            sent.attempt = Attempt::Due(now_ms.saturating_add(backoff));
        }
    }

    pub(super) fn remove(&mut self, counter: u64) -> Option<Carries<T>> {
        self.sent.remove(&counter).map(|sent| sent.carries)
    }

    /// Forgets the parts of an upload that is given up.
    pub(super) fn remove_parts(&mut self, upload: u64) {
        self.sent
            .retain(|_, sent| !matches!(sent.carries, Carries::Part { upload: of } if of == upload));
    }

    /// Takes writes that are past their deadline. Entries that nothing waits for are forgotten,
    /// and so are beats after one attempt.
    pub(super) fn take_expired(&mut self, now_ms: u64, attempt_timeout_ms: u64) -> Vec<Waiting<T>> {
        let mut expired = Vec::new();
        self.sent.retain(|_, sent| {
            let due_ms = sent.due_ms(attempt_timeout_ms);
            match &mut sent.carries {
                Carries::Writes(writes) => {
                    let late = writes.iter_mut().filter(|write| write.deadline_ms <= now_ms);
                    expired.extend(late.filter(|write| write.token.is_some()).map(Waiting::give_up));
                    writes.iter().any(|write| write.token.is_some())
                }
                Carries::Part { .. } => true,
                Carries::Nothing => due_ms.is_some_and(|due| due > now_ms),
            }
        });
        expired
    }

    /// When an entry is due again, or a write past its deadline.
    pub(super) fn next_wake_ms(&self, attempt_timeout_ms: u64) -> Option<u64> {
        let wakes = self.sent.values().flat_map(|sent| {
            let writes: &[Waiting<T>] = match &sent.carries {
                Carries::Writes(writes) => writes,
                Carries::Part { .. } | Carries::Nothing => &[],
            };
            let unanswered = writes.iter().filter(|write| write.token.is_some());
            let deadline_ms = unanswered.map(|write| write.deadline_ms).min();
            [sent.due_ms(attempt_timeout_ms), deadline_ms]
        });
        wakes.flatten().min()
    }

    pub(super) fn take_all(&mut self) -> Vec<Waiting<T>> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_values().flat_map(|sent| sent.carries.into_writes()).collect()
    }
}

impl<T> Waiting<T> {
    /// What waited, for its answer. Its place among the outcomes of the entry stays.
    fn give_up(&mut self) -> Waiting<T> {
        Waiting {
            token: self.token.take(),
            operations: self.operations,
            bytes: self.bytes,
            deadline_ms: self.deadline_ms,
        }
    }
}
