//! Unfinished uploads: the parts of changes that are too long for one entry, until their commit.

use std::collections::BTreeMap;

use bytes::Bytes;
use embercask::{Batch, Namespace};

use crate::entry::{Digest, digest_of};
use crate::state::{Fields, StateError, unknown};
use crate::writers::{FORGET_MS, is_kept};

const UPLOAD: &str = "upload/";
const PART: &str = "part/";

/// Writer and number of an upload.
pub(crate) type UploadId = (u128, u64);

/// What a commit says of its upload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) id: UploadId,
    pub(crate) parts: u32,
    pub(crate) length: u64,
    pub(crate) digest: Digest,
}

/// The uploads that have parts in the store.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    /// With the log time of the last part of each.
    last_ms: BTreeMap<UploadId, u64>,
    /// None of them is forgotten before this log time.
    forget_from_ms: u64,
}

impl Uploads {
    pub(crate) fn load(reserved: &Namespace) -> Result<Uploads, StateError> {
        let mut uploads = Uploads::default();
        let mut entries = reserved.list().prefix(UPLOAD).with_values().walk();
        while let Some(entry) = entries.next()? {
            let id = entry.key_str().ok().and_then(parse_id);
            let last_ms = entry.value().and_then(|value| {
                let mut fields = Fields(value);
                let last_ms = fields.u64()?;
                fields.end(last_ms)
            });
            let (Some(id), Some(last_ms)) = (id, last_ms) else {
                return Err(unknown(entry.key()));
            };
            uploads.last_ms.insert(id, last_ms);
        }
        Ok(uploads)
    }
}

impl Uploads {
    /// Adds a part to the batch of its entry.
    pub(crate) fn add(
        &mut self,
        batch: &mut Batch,
        reserved: &Namespace,
        (id, index, bytes): (UploadId, u32, &[u8]),
        log_ms: u64,
    ) -> Result<(), embercask::Error> {
        self.last_ms.insert(id, log_ms);
        batch.try_put(reserved, upload_key(id), log_ms.to_le_bytes())?;
        batch.try_put(reserved, part_key(id, index), bytes)
    }

    /// The joined parts of an upload, as far as the store has them; `None` if they are not what the
    /// commit says.
    pub(crate) fn joined(&self, reserved: &Namespace, claim: &Claim) -> Result<Option<Bytes>, embercask::Error> {
        if !self.last_ms.contains_key(&claim.id) {
            return Ok(None);
        }
        let mut joined = Vec::new();
        for index in 0..claim.parts {
            let Some(part) = reserved.get(part_key(claim.id, index))? else {
                return Ok(None);
            };
            joined.extend_from_slice(&part);
        }
        let is_claimed = joined.len() as u64 == claim.length && digest_of(&[&joined]) == claim.digest;
        Ok(is_claimed.then(|| joined.into()))
    }

    /// Removes an upload in the batch of an entry. All its parts are in the store.
    pub(crate) fn remove(
        &mut self,
        batch: &mut Batch,
        reserved: &Namespace,
        id: UploadId,
    ) -> Result<(), embercask::Error> {
        if self.last_ms.remove(&id).is_none() {
            return Ok(());
        }
        batch.try_delete(reserved, upload_key(id))?;
        let mut parts = reserved.list().prefix(part_prefix(id)).walk();
        while let Some(part) = parts.next()? {
            batch.try_delete(reserved, part.key())?;
        }
        Ok(())
    }

    /// The uploads that are to be removed at this log time, since nothing has come of them for
    /// long.
    pub(crate) fn forgotten(&mut self, log_ms: u64) -> Vec<UploadId> {
        if log_ms < self.forget_from_ms {
            return Vec::new();
        }
        let (kept, forgotten): (Vec<_>, Vec<_>) =
            self.last_ms.iter().partition(|(_, last_ms)| is_kept(**last_ms, log_ms));
        let oldest = kept.into_iter().map(|(_, last_ms)| *last_ms).min();
        let forgotten: Vec<_> = forgotten.into_iter().map(|(id, _)| *id).collect();
        if forgotten.is_empty() {
            // An upload that comes later lasts longer.
            self.forget_from_ms = oldest.unwrap_or(log_ms).saturating_add(FORGET_MS);
        }
        forgotten
    }
}

fn upload_key((writer, number): UploadId) -> String {
    format!("{UPLOAD}{writer:032x}/{number:016x}")
}

fn part_prefix((writer, number): UploadId) -> String {
    format!("{PART}{writer:032x}/{number:016x}/")
}

fn part_key(id: UploadId, index: u32) -> String {
    format!("{}{index:08x}", part_prefix(id))
}

/// The id in the key of an upload.
fn parse_id(key: &str) -> Option<UploadId> {
    let (writer, number) = key.strip_prefix(UPLOAD)?.split_once('/')?;
    Some((
        u128::from_str_radix(writer, 16).ok()?,
        u64::from_str_radix(number, 16).ok()?,
    ))
}
