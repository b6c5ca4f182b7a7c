//! What all files but segments begin and end with: magic, version and a checksum of the whole.

use super::{Damage, Fields, Stored, VERSION};
use crate::planted::{Planted, planted};

/// Checks magic, version and the CRC-32 in the last four bytes of a whole file, and returns the
/// content in between.
pub(crate) fn open_envelope<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Result<Fields<'a>, Damage> {
    open_envelope_up_to(VERSION, bytes, magic).map(|(_, fields)| fields)
}

/// As [`open_envelope`], of any version up to `newest`; returns the version too.
pub(crate) fn open_envelope_up_to<'a>(
    newest: u32,
    bytes: &'a [u8],
    magic: &[u8; 8],
) -> Result<(u32, Fields<'a>), Damage> {
    let (content, crc) = bytes.split_last_chunk::<4>().ok_or(Damage::Short)?;
    let mut fields = Fields(content);
    if fields.bytes::<8>()? != *magic {
        return Err(Damage::Magic);
    }
    let crc_fits = |version: u32| checksum(content, version).to_stored() == *crc;
    let version = fields.u32()?;
    check_version_up_to(newest, version, Damage::Checksum, crc_fits)?;
    Ok((version, fields))
}

/// Position of the version, right behind the magic, in every structure that has one.
const VERSION_FIELD: std::ops::Range<usize> = 8..12;

/// The checksum of a header with this version in place of its own.
pub(crate) fn checksum(header: &[u8], version: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(..VERSION_FIELD.start).unwrap_or(header));
    hasher.update(&version.to_stored());
    hasher.update(header.get(VERSION_FIELD.end..).unwrap_or_default());
    hasher.finalize()
}

/// Judges a version and the checksum that covers it: whether the structure can be read, and if not,
/// whether it is of a later version or damaged. `crc_fits` tells whether the checksum matches with
/// the given version in place of the one found; `mismatch` is the damage if it does not.
///
/// A later version may store its checksum elsewhere, so a mismatch does not rule one out. But if
/// the checksum matches with our version, then only the version field was damaged: a CRC-32 detects
/// every change within 32 bits, so it cannot match with both versions.
pub(crate) fn check_version(found: u32, mismatch: Damage, crc_fits: impl Fn(u32) -> bool) -> Result<(), Damage> {
    check_version_up_to(VERSION, found, mismatch, crc_fits)
}

/// As [`check_version`], of a structure of which versions up to `newest` can be read.
fn check_version_up_to(
    newest: u32,
    found: u32,
    mismatch: Damage,
    crc_fits: impl Fn(u32) -> bool,
) -> Result<(), Damage> {
    let is_known = (VERSION..=newest).contains(&found);
    if is_known && crc_fits(found) {
        return Ok(());
    }
    if (VERSION..=newest).any(|version| version != found && crc_fits(version)) && !planted(Planted::TrustVersionField) {
        return Err(Damage::Field("version"));
    }
    if is_known {
        return Err(mismatch);
    }
    if found > newest {
        return Err(Damage::Version(found));
    }
    // There is no version below the first.
    Err(if crc_fits(found) {
        Damage::Field("version")
    } else {
        mismatch
    })
}

/// Begins a file that [`open_envelope`] reads.
pub(crate) fn begin_envelope(magic: &[u8; 8]) -> Vec<u8> {
    begin_envelope_of(magic, VERSION)
}

/// Begins a file of this version.
pub(crate) fn begin_envelope_of(magic: &[u8; 8], version: u32) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&version.to_stored());
    bytes
}

/// Ends a file that [`open_envelope`] reads.
pub(crate) fn end_envelope(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_stored());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::MANIFEST_MAGIC;

    #[test]
    fn an_envelope_notices_every_flipped_bit() {
        let mut bytes = begin_envelope(&MANIFEST_MAGIC);
        bytes.extend_from_slice(b"content");
        let bytes = end_envelope(bytes);
        assert_eq!(open_envelope(&bytes, &MANIFEST_MAGIC).unwrap().0, b"content");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let damage = open_envelope(&damaged, &MANIFEST_MAGIC).map(|_| ()).unwrap_err();
            // A version that only damage can have produced is not reported as a newer one.
            assert!(!matches!(damage, Damage::Version(_)), "bit {bit}: {damage:?}");
        }
    }

    #[test]
    fn a_version_field_is_believed_only_if_nothing_but_it_could_be_damaged() {
        let mut bytes = begin_envelope(&MANIFEST_MAGIC);
        bytes.extend_from_slice(b"content");
        let bytes = end_envelope(bytes);
        let with_version = |version: u32| {
            let mut other = bytes.clone();
            other[8..12].copy_from_slice(&version.to_stored());
            other
        };
        // For any value of the field, as long as the rest is as this version writes it.
        for version in (0..64)
            .map(|bit| 1u32.rotate_left(bit) | u32::from(bit > 31))
            .chain([0, u32::MAX, 0x0101_0101])
        {
            if version == VERSION {
                continue;
            }
            let damage = open_envelope(&with_version(version), &MANIFEST_MAGIC)
                .map(|_| ())
                .unwrap_err();
            assert_eq!(damage, Damage::Field("version"), "{version:#x}");
        }
        // A later version with its checksum where it is today, and one with its checksum elsewhere.
        for version in [VERSION + 1, 77, u32::MAX] {
            let mut newer = with_version(version);
            newer.truncate(newer.len() - 4);
            let newer = end_envelope(newer);
            let elsewhere = [&newer[..12], b"something quite different"].concat();
            for bytes in [newer, elsewhere] {
                let damage = open_envelope(&bytes, &MANIFEST_MAGIC).map(|_| ()).unwrap_err();
                assert_eq!(damage, Damage::Version(version));
            }
        }
    }
}
