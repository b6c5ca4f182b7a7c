//! Settings of a namespace, stored as the metadata of its record: for each a tag (1 byte), a length
//! (1 byte) and a value. Tags that this version does not know are passed over.

use crate::format::{Damage, Fields, Stored};

/// Tag of the lifetime of puts that name none: milliseconds (8 bytes), at least 1.
const DEFAULT_TTL: u8 = 1;

/// The metadata of a namespace's record; None if nothing is set.
pub(crate) fn encode_settings(default_ttl_ms: Option<u64>) -> Option<Vec<u8>> {
    let value = default_ttl_ms?.to_stored();
    Some([&[DEFAULT_TTL, value.len() as u8][..], &value].concat())
}

/// The default lifetime in the metadata of a namespace's record.
pub(crate) fn decode_settings(metadata: Option<&[u8]>) -> Result<Option<u64>, Damage> {
    let mut fields = Fields(metadata.unwrap_or_default());
    let mut default_ttl_ms = None;
    while !fields.0.is_empty() {
        let (tag, length) = (fields.u8()?, fields.u8()?);
        let mut value = Fields(fields.slice(usize::from(length))?);
        if tag == DEFAULT_TTL {
            default_ttl_ms = Some(value.u64()?).filter(|ttl_ms| *ttl_ms > 0);
            if default_ttl_ms.is_none() || !value.0.is_empty() {
                return Err(Damage::Field("default lifetime of a namespace"));
            }
        }
    }
    Ok(default_ttl_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_were_written_and_unknown_ones_are_passed_over() {
        for ttl_ms in [None, Some(1), Some(u64::MAX)] {
            let encoded = encode_settings(ttl_ms);
            assert_eq!(decode_settings(encoded.as_deref()), Ok(ttl_ms));
        }
        assert_eq!(encode_settings(None), None);
        let unknown = [&[7, 2, 1, 1][..], &encode_settings(Some(5)).unwrap(), &[9, 0]].concat();
        assert_eq!(decode_settings(Some(&unknown)), Ok(Some(5)));
        for wrong in [
            &[1][..],
            &[1, 8, 1],
            &[1, 0],
            &[1, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(decode_settings(Some(wrong)).is_err(), "{wrong:?}");
        }
    }
}
