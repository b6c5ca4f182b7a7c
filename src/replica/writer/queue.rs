//! Writes that are not sent yet, and the bounds of all that are not answered.

use std::collections::VecDeque;

use super::{LINGER_MS, Waiting, WriteError, WriterSettings};
use crate::entry::{BODY_BYTES_MAX, Operation};

#[derive(Debug)]
pub(super) struct Queue<T> {
    writes: VecDeque<Queued<T>>,
    /// Bytes of `writes`.
    bytes: usize,
    held_operations: usize,
    held_bytes: usize,
}

#[derive(Debug)]
struct Queued<T> {
    waiting: Waiting<T>,
    operations: Vec<Operation>,
    since_ms: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            writes: VecDeque::new(),
            bytes: 0,
            held_operations: 0,
            held_bytes: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Refuses what would pass the bounds.
    pub(super) fn push(
        &mut self,
        waiting: Waiting<T>,
        operations: Vec<Operation>,
        now_ms: u64,
        settings: &WriterSettings,
    ) -> Result<(), (T, WriteError)> {
        let held_operations = self.held_operations.saturating_add(waiting.operations);
        let held_bytes = self.held_bytes.saturating_add(waiting.bytes);
        let is_full = held_bytes > settings.bytes_max || held_operations > settings.operations_max;
        // One that alone has more operations than are held goes when nothing else is held.
        if is_full && self.held_operations > 0 {
            return match waiting.token {
                Some(token) => Err((token, WriteError::QueueFull)),
                None => Ok(()),
            };
        }
        (self.held_operations, self.held_bytes) = (held_operations, held_bytes);
        self.bytes += waiting.bytes;
        self.writes.push_back(Queued {
            waiting,
            operations,
            since_ms: now_ms,
        });
        Ok(())
    }

    /// What was held has been answered.
    pub(super) fn release(&mut self, operations: usize, bytes: usize) {
        self.held_operations = self.held_operations.saturating_sub(operations);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    pub(super) fn held_operations(&self) -> usize {
        self.held_operations
    }

    /// The next write, if it is too long for one entry.
    pub(super) fn take_long(&mut self) -> Option<(Vec<Operation>, Waiting<T>)> {
        let is_long = self.writes.front()?.waiting.bytes > BODY_BYTES_MAX;
        is_long.then(|| self.pop()).flatten()
    }

    /// Whether waiting longer would not make the next entry larger.
    pub(super) fn is_full_pack(&self) -> bool {
        self.bytes > BODY_BYTES_MAX
    }

    pub(super) fn has_lingered(&self, now_ms: u64) -> bool {
        self.lingers_until_ms().is_some_and(|until| until <= now_ms)
    }

    pub(super) fn lingers_until_ms(&self) -> Option<u64> {
        Some(self.writes.front()?.since_ms.saturating_add(LINGER_MS))
    }

    /// As many writes as fit into one entry; a change of namespaces alone.
    pub(super) fn take_pack(&mut self) -> Option<(Vec<Operation>, Vec<Waiting<T>>)> {
        let (mut operations, waiting) = self.pop()?;
        let mut bytes = waiting.bytes;
        let mut writes = vec![waiting];
        let is_alone = operations.iter().any(Operation::is_of_namespaces);
        while !is_alone && self.next_fits(bytes) {
            let Some((more, waiting)) = self.pop() else { break };
            bytes += waiting.bytes;
            operations.extend(more);
            writes.push(waiting);
        }
        Some((operations, writes))
    }

    fn next_fits(&self, bytes: usize) -> bool {
        self.writes.front().is_some_and(|next| {
            bytes + next.waiting.bytes <= BODY_BYTES_MAX && !next.operations.iter().any(Operation::is_of_namespaces)
        })
    }

    fn pop(&mut self) -> Option<(Vec<Operation>, Waiting<T>)> {
        let next = self.writes.pop_front()?;
        self.bytes -= next.waiting.bytes;
        Some((next.operations, next.waiting))
    }

    /// All deadlines are equally far from the submission, so the first is the earliest.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        Some(self.writes.front()?.waiting.deadline_ms)
    }

    pub(super) fn take_expired(&mut self, now_ms: u64) -> Vec<Waiting<T>> {
        let mut expired = Vec::new();
        while self.deadline_ms().is_some_and(|deadline| deadline <= now_ms) {
            expired.extend(self.pop().map(|(_, waiting)| waiting));
        }
        expired
    }

    pub(super) fn take_all(&mut self) -> Vec<Waiting<T>> {
        std::iter::from_fn(|| self.pop()).map(|(_, waiting)| waiting).collect()
    }
}
