//! The existing namespaces, which must be known before anything else in the log.

use std::collections::HashMap;

use super::{Source, State};
use crate::error::Result;
use crate::format::Damage;
use crate::format::record::Kind;
use crate::index::namespaces::{SYSTEM_NAMESPACE, decode_entry, decode_number, decode_settings};
use crate::planted::{Planted, planted};
use crate::segment::{ReadError, Segment};

/// What a namespace's record says of it.
pub(super) struct Name {
    pub(super) stable_id: u128,
    pub(super) name: String,
    pub(super) default_ttl_ms: Option<u64>,
}

/// The namespaces, by their numbers.
pub(super) type Names = HashMap<u32, Name>;

impl State {
    /// The newest record of each number counts. Segments whose hints do not point to records are
    /// added to `wrong_hints`; if the segment itself is at fault, the scan that follows will report
    /// it.
    pub(super) fn load_names(&self, sources: &[Source], wrong_hints: &mut Vec<u64>) -> Result<Names> {
        let mut newest: HashMap<u32, (u64, Option<Name>)> = HashMap::new();
        for source in sources {
            let mut scratch = Vec::new();
            for offset in source.offsets.iter() {
                match read_name(&source.segment, offset, &mut scratch) {
                    Ok(Some((number, sequence, entry))) => {
                        let known = newest.entry(number).or_default();
                        if sequence >= known.0 || planted(Planted::NameInAnyOrder) {
                            *known = (sequence, entry);
                        }
                    }
                    Ok(None) => break,
                    Err(ReadError::Damage(_)) if source.is_hinted() => {
                        wrong_hints.push(source.segment.id());
                        break;
                    }
                    Err(error) => return Err(self.context.read_error(source.segment.id(), offset, error)),
                }
            }
        }
        let highest = newest.keys().max().copied().unwrap_or(0);
        self.set_next_namespace(highest.saturating_add(1));
        Ok(newest
            .into_iter()
            .filter_map(|(number, (_, entry))| Some((number, entry?)))
            .collect())
    }
}

/// Number, sequence, and the rest of a namespace that is put; None past the system keyspace, which
/// is first in key order.
type Named = Option<(u32, u64, Option<Name>)>;

fn read_name(segment: &Segment, offset: u64, scratch: &mut Vec<u8>) -> Result<Named, ReadError> {
    let record = segment.record(offset, scratch)?;
    if record.header.namespace != SYSTEM_NAMESPACE {
        return Ok(None);
    }
    record.check_body()?;
    let (number, entry) = match record.header.kind {
        Kind::Put => {
            let (number, stable_id, name) = decode_entry(record.key(), record.value())?;
            let entry = Name {
                stable_id,
                name: name.to_owned(),
                default_ttl_ms: decode_settings(record.metadata())?,
            };
            (number, Some(entry))
        }
        Kind::Tombstone => (decode_number(record.key())?, None),
        // These have no key. A wrong hint may point to one.
        Kind::BatchBegin | Kind::Mark | Kind::Start | Kind::Seal => {
            return Err(Damage::Field("namespace record").into());
        }
    };
    Ok(Some((number, record.header.sequence, entry)))
}
