//! Writing: from checked operations to records in the log.

use crate::error::{Error, Result};
use crate::format::record::{Header, Kind, body_crc};
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE, encode_number};
use crate::index::order::KeyOrder;
use crate::log::reserve::ReservePart;
use crate::log::{Applied, Guard, NewBatch, NewRecord, Room};
use crate::options::Durability;
use crate::planted::{Planted, planted};
use crate::state::{AT_ONCE_MAX, Befores, Current, GroupPlan, WARM_UP};

use super::Engine;
use super::growth::Growth;
use super::operation::{Action, Operation, Written};
use super::verdict::Verdict;

impl Engine {
    /// Writes one operation and waits as its durability requires. Deletes may use the reserve on a
    /// full disk.
    pub(crate) fn write(&self, operation: &Operation<'_>, durability: Durability) -> Result<Written> {
        self.write_when(operation, durability, None)
    }

    /// As [`Engine::write`], only if the program's own condition holds as well.
    pub(crate) fn write_when(
        &self,
        operation: &Operation<'_>,
        durability: Durability,
        verdict: Option<&Verdict<'_>>,
    ) -> Result<Written> {
        self.context.check_open()?;
        let part = ReservePart::of_write(operation.is_delete());
        let written = self.with_room(part, |limited| {
            self.log
                .write(part, durability, || self.apply(operation, verdict, limited))
        })?;
        self.compactor.debt.pay(operation.bytes(), self.log.is_sealing_behind());
        Ok(written)
    }

    /// Runs a write; if the disk is too full even for a delete, compacts what was deleted before,
    /// as often as that frees anything, and runs it again. If there is nothing to free under the
    /// store's own limit, as after that was lowered, the delete exceeds it. `write` is told whether
    /// the limit applies.
    #[inline]
    fn with_room<T>(&self, part: ReservePart, mut write: impl FnMut(bool) -> Result<T>) -> Result<T> {
        loop {
            match write(true) {
                Err(error)
                    if part == ReservePart::Tombstones
                        && error.is_no_space()
                        // It is applied, and will be written out once there is room.
                        && !matches!(error, Error::Pending { .. })
                        && !planted(Planted::RefuseDeletes) =>
                {
                    if !self.compactor.make_room() {
                        return match error {
                            Error::LimitReached { .. } => write(false),
                            error => Err(error),
                        };
                    }
                }
                result => return result,
            }
        }
    }

    #[inline]
    fn apply<'a>(
        &'a self,
        operation: &Operation<'_>,
        verdict: Option<&Verdict<'_>>,
        limited: bool,
    ) -> Result<Applied<'a, Written>> {
        let hash = self.hash_of(operation);
        // While the record is made, and the lock waited for.
        self.state.prefetch(hash);
        let record = self.record_of(operation, hash);
        let guard = self.log.lock_to_change(hash);
        let guard = self.log.ensure_room(guard, Room::of_record(&record).limited(limited))?;
        self.apply_record(guard, operation, &record, verdict)
    }

    /// Appends the record of an operation, for which there is room, if it is allowed.
    #[inline]
    pub(super) fn apply_record<'a>(
        &'a self,
        mut guard: Guard<'a>,
        operation: &Operation<'_>,
        record: &NewRecord<'_>,
        verdict: Option<&Verdict<'_>>,
    ) -> Result<Applied<'a, Written>> {
        let (before, existed) = self.check(operation, record, verdict)?;
        if before.is_none() && operation.is_delete() {
            // Nothing to delete; but the absence that this call has seen must be as durable as its
            // class promises.
            let sequence = guard.last_sequence;
            return Ok(Applied {
                guard,
                sequence: if planted(Planted::ForgetAbsence) { 0 } else { sequence },
                appended: false,
                answer: Written { sequence, existed },
            });
        }
        if before.is_none() {
            self.state.check_room(&[record.hash])?;
        }
        if operation.namespace.max_bytes().is_some() {
            let mut growth = Growth::default();
            growth.add(record, before.as_ref());
            growth.check()?;
        }
        let sequence = self.log.append(&mut guard, record, before.as_ref());
        Ok(Applied {
            guard,
            sequence,
            appended: true,
            answer: Written { sequence, existed },
        })
    }

    /// Writes all operations or none. Returns the sequence of the last one.
    pub(crate) fn write_batch(&self, operations: &[Operation<'_>], durability: Durability) -> Result<u64> {
        self.write_batch_if(operations, durability, |_| Ok(()))
    }

    /// The same, unless `check` finds a reason not to, under the writer lock.
    pub(super) fn write_batch_if(
        &self,
        operations: &[Operation<'_>],
        durability: Durability,
        check: impl Fn(&Guard<'_>) -> Result<()>,
    ) -> Result<u64> {
        self.context.check_open()?;
        let part = ReservePart::of_write(operations.iter().all(Operation::is_delete));
        let written = self.with_room(part, |limited| {
            self.log
                .write(part, durability, || self.apply_batch(operations, limited, &check))
        });
        if operations.len() > AT_ONCE_MAX {
            // Even if it has failed: it may be acknowledged and pending.
            self.log.settle();
        }
        let bytes = operations.iter().map(Operation::bytes).sum();
        let sequence = written?;
        self.compactor.debt.pay(bytes, self.log.is_sealing_behind());
        Ok(sequence)
    }

    fn apply_batch<'a>(
        &'a self,
        operations: &[Operation<'_>],
        limited: bool,
        check: impl Fn(&Guard<'_>) -> Result<()>,
    ) -> Result<Applied<'a, u64>> {
        let pairs = operations.iter().map(|operation| (operation, self.hash_of(operation)));
        let records: Vec<_> = pairs.map(|(operation, hash)| self.record_of(operation, hash)).collect();
        let room = Room::of_batch(&records)?.limited(limited);
        let plan = GroupPlan::new(
            records
                .iter()
                .map(|record| (record.hash, record.namespace.number, record.key())),
        );
        // Before the lock is taken, so that others do not wait for this.
        let seen = self.look_ahead(&records, &plan)?;
        let mut guard = self.log.ensure_room(self.log.lock(), room)?;
        // Everything that can fail comes before the first append.
        check(&guard)?;
        let (befores, at_once) = match seen {
            Some(seen) if self.may_settle_later(operations, &records, &plan)? => (seen, false),
            _ => (self.find_befores(operations, &records)?, true),
        };
        let appended = !records.is_empty();
        if appended {
            let batch = NewBatch {
                records,
                befores,
                plan,
                at_once,
            };
            self.log.append_batch(&mut guard, batch);
        }
        let sequence = guard.last_sequence;
        Ok(Applied {
            guard,
            sequence,
            appended,
            answer: sequence,
        })
    }

    /// Touches what a batch will change, and looks up what a large one will replace. As far as that
    /// has changed when the batch is settled, it is looked up again.
    fn look_ahead(&self, records: &[NewRecord<'_>], plan: &GroupPlan) -> Result<Option<Befores>> {
        if !plan.is_large() {
            self.state.warm_up(plan.hashes(), None);
            return Ok(None);
        }
        // One large batch after the other.
        self.log.settle();
        let moved = self.state.moved();
        let mut found = Vec::with_capacity(records.len());
        for records in records.chunks(WARM_UP) {
            let hashes: Vec<_> = records.iter().map(|record| record.hash).collect();
            self.state.warm_up(&hashes, None);
            for record in records {
                found.push(self.state.standing(&record.hashed_key(), false)?);
            }
        }
        Ok(Some(Befores { found, moved }))
    }

    /// Whether a large batch may enter the indexes after others have written: if its namespaces
    /// have no limits, and there will be room for its keys. An error if it is not allowed. The
    /// caller holds the writer lock.
    fn may_settle_later(
        &self,
        operations: &[Operation<'_>],
        records: &[NewRecord<'_>],
        plan: &GroupPlan,
    ) -> Result<bool> {
        for (operation, record) in operations.iter().zip(records) {
            match operation.condition {
                Some(_) => drop(self.check(operation, record, None)?),
                None => Engine::check_namespace(operation.namespace)?,
            }
        }
        let is_limited = |operation: &Operation<'_>| operation.namespace.max_bytes().is_some();
        Ok(!operations.iter().any(is_limited) && self.state.promise_room(plan))
    }

    /// What each operation replaces, after all checks. The caller holds the writer lock.
    fn find_befores(&self, operations: &[Operation<'_>], records: &[NewRecord<'_>]) -> Result<Befores> {
        let mut found = Vec::with_capacity(records.len());
        let mut new = Vec::new();
        let mut growth = Growth::default();
        for (operation, record) in operations.iter().zip(records) {
            let (before, _) = self.check(operation, record, None)?;
            if before.is_none() && !operation.is_delete() {
                new.push(record.hash);
            }
            growth.add(record, before.as_ref());
            found.push(before);
        }
        self.state.check_room(&new)?;
        growth.check()?;
        Ok(Befores {
            found,
            moved: self.state.moved(),
        })
    }

    /// Writes or deletes the record of a namespace, alone: pending records are written out first,
    /// then this one, under one hold of the lock. So the record is either in the log or not; it
    /// never stays pending behind an error, and once `then` has run, everything written earlier
    /// precedes it. Durable when this returns.
    pub(crate) fn write_namespace(&self, number: u32, action: Action<'_>, then: impl Fn(u64)) -> Result<()> {
        self.log.settle();
        let system = NamespaceState::new(SYSTEM_NAMESPACE, 0, "", KeyOrder::new());
        let operation = Operation {
            namespace: &system,
            key: &encode_number(number),
            action,
            condition: None,
        };
        let record = self.record_of(&operation, self.hash_of(&operation));
        let part = ReservePart::of_write(operation.is_delete());
        let check = || {
            let (before, _) = self.check(&operation, &record, None)?;
            if before.is_none() {
                self.state.check_room(&[record.hash])?;
            }
            Ok(before)
        };
        self.with_room(part, |limited| {
            let room = Room::of_record(&record).limited(limited);
            self.log.write_alone(room, &record, check, &then)
        })
    }

    #[inline]
    pub(super) fn hash_of(&self, operation: &Operation<'_>) -> u64 {
        self.state.hash(operation.namespace.number, operation.key)
    }

    /// The record of an operation on a key with this hash.
    #[inline]
    pub(super) fn record_of<'a>(&self, operation: &Operation<'a>, hash: u64) -> NewRecord<'a> {
        let (kind, value, metadata, expiry) = match operation.action {
            Action::Put {
                value,
                metadata,
                expiry,
            } => (Kind::Put, value, metadata, expiry),
            Action::Delete => (Kind::Tombstone, &[][..], None, None),
        };
        let parts = [operation.key, metadata.unwrap_or_default(), value];
        let header = Header {
            kind,
            namespace: operation.namespace.number,
            sequence: 0,
            expiry,
            key_len: operation.key.len() as u32,
            metadata_len: metadata.map(|metadata| metadata.len() as u32),
            value_len: value.len() as u32,
            body_crc: body_crc(&parts),
        };
        NewRecord {
            namespace: operation.namespace,
            hash,
            header,
            parts,
        }
    }

    /// An error if the namespace was dropped.
    #[inline]
    fn check_namespace(namespace: &NamespaceState) -> Result<()> {
        if planted(Planted::WriteToDropped) {
            return Ok(());
        }
        namespace.check_present()
    }

    /// The record that the keydir points at before an operation, and whether it is live; an error
    /// if the operation is not allowed. A damaged record is an error if the operation has a
    /// condition, which cannot be evaluated then; otherwise it counts as live and can be
    /// overwritten and deleted. The caller holds the writer lock.
    #[inline]
    fn check(
        &self,
        operation: &Operation<'_>,
        record: &NewRecord<'_>,
        verdict: Option<&Verdict<'_>>,
    ) -> Result<(Option<Current>, bool)> {
        Engine::check_namespace(operation.namespace)?;
        let key = record.hashed_key();
        let is_conditional = operation.condition.is_some() || verdict.is_some();
        let before = self.state.current(&key, is_conditional)?;
        let is_expired = |header: &Header| {
            header.expiry.is_some()
                && self.context.time.now().is_expired(header.expiry, header.sequence)
                && !planted(Planted::ConditionSeesExpired)
        };
        let live = before
            .as_ref()
            .filter(|current| !current.header().is_some_and(is_expired));
        if let Some(condition) = operation.condition.filter(|_| !planted(Planted::IgnoreCondition)) {
            condition.check(live.and_then(Current::header).map(|header| header.sequence))?;
        }
        if let Some(verdict) = verdict {
            let sequence = live.and_then(Current::header).map(|header| header.sequence);
            let read = || live.map(|current| self.state.value_of(&key, current)).transpose();
            verdict.check(sequence, read)?;
        }
        let existed = live.is_some();
        Ok((before, existed))
    }
}
