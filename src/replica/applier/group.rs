//! Entries that are written as one batch.

use embercask::{Batch, Error, Store};

use super::{Applied, Applier, ApplyError, Verdict};
use crate::entry::{Body, Entry, Header, Outcome, decode_operations, digest_of};
use crate::log::Delivery;
use crate::state::checksum_of;
use crate::uploads::Claim;
use crate::writers::LATE_MS;

/// A group takes no more entries once it has this many bytes or entries.
const GROUP_BYTES: usize = 1 << 20;
const GROUP_ENTRIES: usize = 1000;

/// Consecutive entries, and the batch of what they change.
pub(super) struct Group {
    pub(super) batch: Batch,
    applied: Vec<Applied>,
    bytes: usize,
}

impl Group {
    pub(super) fn new(store: &Store) -> Group {
        Group {
            batch: store.batch(),
            applied: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.applied.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= GROUP_BYTES || self.applied.len() >= GROUP_ENTRIES
    }
}

impl Applier {
    /// Adds an entry to a group. After an error the group is of no use.
    pub(super) fn add(&mut self, group: &mut Group, delivery: &Delivery, entry: Entry) -> Result<(), ApplyError> {
        let Entry { header, body } = entry;
        self.next.time = self.next.time.after(delivery.stamp_ms);
        let log_ms = self.next.time.ms();
        for upload in self.uploads.forgotten(log_ms) {
            self.uploads.remove(&mut group.batch, &self.reserved, upload)?;
        }
        self.writers.forget(log_ms);
        let verdict = self.decide(group, &header, body, delivery.position)?;
        self.next.position = delivery.position;
        self.next.checksum = checksum_of(&delivery.bytes);
        self.next.digest = digest_of(&[
            &self.next.digest[..],
            &delivery.position.to_le_bytes(),
            &log_ms.to_le_bytes(),
            &encode(&verdict),
            &delivery.bytes,
        ]);
        self.recent.push(self.next.digest);
        group.bytes += delivery.bytes.len();
        group.applied.push(Applied {
            position: delivery.position,
            log_ms,
            writer: header.writer,
            counter: header.counter,
            verdict,
        });
        Ok(())
    }

    fn decide(&mut self, group: &mut Group, header: &Header, body: Body, position: u64) -> Result<Verdict, ApplyError> {
        let log_ms = self.next.time.ms();
        if body == Body::Genesis {
            return Ok(Verdict::Begun);
        }
        if log_ms.saturating_sub(header.sent_ms) > LATE_MS {
            return Ok(Verdict::Late);
        }
        if !self.writers.note(header.writer, header.counter, log_ms) {
            return Ok(Verdict::Repeated);
        }
        match body {
            Body::Operations(all) => self.operations(group, all, position).map(Verdict::Done),
            Body::Part { upload, index, bytes } => {
                let part = ((header.writer, upload), index, &*bytes);
                self.uploads.add(&mut group.batch, &self.reserved, part, log_ms)?;
                Ok(Verdict::Kept)
            }
            Body::Commit {
                upload,
                parts,
                length,
                digest,
            } => {
                let id = (header.writer, upload);
                let claim = Claim {
                    id,
                    parts,
                    length,
                    digest,
                };
                self.finish(group, &claim, position)
            }
            Body::Beat { position, digest } => {
                let agrees = self.recent.at(position).map(|own| own == digest);
                self.heard.note(header.writer, agrees, log_ms);
                Ok(Verdict::Beat { agrees })
            }
            Body::Genesis => Ok(Verdict::Begun),
        }
    }

    /// Applies an upload, and removes its parts.
    fn finish(&mut self, group: &mut Group, claim: &Claim, position: u64) -> Result<Verdict, ApplyError> {
        let joined = self.uploads.joined(&self.reserved, claim)?;
        self.uploads.remove(&mut group.batch, &self.reserved, claim.id)?;
        match joined.map(|joined| decode_operations(&joined)) {
            Some(Ok(all)) => self.operations(group, all, position).map(Verdict::Done),
            Some(Err(_)) | None => Ok(Verdict::Incomplete),
        }
    }

    /// Writes a group, with the position, and leaves it empty.
    pub(super) fn write(&mut self, group: &mut Group, applied: &mut Vec<Applied>) -> Result<(), ApplyError> {
        if group.is_empty() {
            return Ok(());
        }
        match self.commit(group) {
            // It is applied. What is not written out yet is in the log.
            Ok(()) | Err(Error::Pending { .. }) => {}
            Err(error) => {
                let planned = self.next;
                self.is_unsure = true;
                self.reload()?;
                // Some errors leave it open whether the batch was written.
                if self.state != planned {
                    return Err(error.into());
                }
            }
        }
        self.state = self.next;
        self.clock.set(self.state.log_ms());
        applied.append(&mut group.applied);
        group.bytes = 0;
        // After an error it still has what was applied.
        group.batch.clear();
        Ok(())
    }

    fn commit(&mut self, group: &mut Group) -> Result<(), Error> {
        let (batch, reserved) = (&mut group.batch, &self.reserved);
        for (key, window) in self.writers.take_changes() {
            match window {
                Some(window) => batch.try_put(reserved, key, window)?,
                None => batch.try_delete(reserved, key)?,
            }
        }
        let (key, value) = self.next.record();
        batch.try_put(reserved, key, value)?;
        batch.commit().map(drop)
    }
}

/// What a verdict adds to the digest.
fn encode(verdict: &Verdict) -> Vec<u8> {
    let outcomes = match verdict {
        Verdict::Done(outcomes) => outcomes,
        Verdict::Repeated => return vec![2],
        Verdict::Late => return vec![3],
        Verdict::Incomplete => return vec![4],
        Verdict::Kept => return vec![5],
        Verdict::Beat { .. } => return vec![6],
        Verdict::Begun => return vec![7],
    };
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(outcomes.len() as u64).to_le_bytes());
    for outcome in outcomes {
        match outcome {
            Outcome::Done { expiry_ms: None } => bytes.push(1),
            Outcome::Done {
                expiry_ms: Some(expiry_ms),
            } => {
                bytes.push(2);
                bytes.extend_from_slice(&expiry_ms.to_le_bytes());
            }
            Outcome::NotMet { is_there } => bytes.push(3 + u8::from(*is_there)),
            Outcome::NoNamespace => bytes.push(5),
            Outcome::NameTaken => bytes.push(6),
            Outcome::Invalid => bytes.push(7),
        }
    }
    bytes
}
