//! The formats on disk: values and bytes, nothing else. No file, thread or clock is touched here.
//!
//! Writer and reader share this module, so that they cannot disagree. `docs/format.md` draws every
//! structure to the byte. All integers are little-endian; lengths and offsets are in bytes unless a
//! name says otherwise. Numbers of kinds and flags are never given a second meaning.

#[cfg(test)]
mod example;
pub(crate) mod hint;
pub(crate) mod index;
mod integers;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod segment;

use std::fmt;

pub(crate) use integers::Stored;

use crate::planted::{Planted, planted};

/// Version of all formats below; a file of a higher version is refused, never guessed at.
pub(crate) const VERSION: u32 = 1;

/// Every record begins at a multiple of this, so that a location needs three bits less.
pub(crate) const ALIGNMENT: u64 = 8;

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"EMBRSEGM";
/// First bytes of a hint file.
pub(crate) const HINT_MAGIC: [u8; 8] = *b"EMBRHINT";
/// First bytes of an index file.
pub(crate) const INDEX_MAGIC: [u8; 8] = *b"EMBRINDX";
/// First bytes of the manifest.
pub(crate) const MANIFEST_MAGIC: [u8; 8] = *b"EMBRMANI";

/// The list of live segments; its presence is what makes a directory a store.
pub(crate) const MANIFEST_FILE: &str = "MANIFEST";
/// The next manifest while it is being written.
pub(crate) const MANIFEST_TEMPORARY_FILE: &str = "MANIFEST.tmp";
/// Carries the lock that keeps a second process out, and says who holds it.
pub(crate) const LOCK_FILE: &str = "LOCK";
/// Disk space held back for deletes and compaction on a full disk.
pub(crate) const RESERVE_FILE: &str = "RESERVE";

/// The indexes as they were when the store was closed.
pub(crate) const INDEX_FILE: &str = "INDEX";

/// Stands in a copy of a store that is being made, until it is complete.
pub(crate) const UNFINISHED_FILE: &str = "UNFINISHED";

const SEGMENT_SUFFIX: &str = ".segment";
const HINT_SUFFIX: &str = ".hint";

/// File name of a segment.
pub(crate) fn segment_file(id: u64) -> String {
    format!("{id:016x}{SEGMENT_SUFFIX}")
}

/// File name of a segment's hint.
pub(crate) fn hint_file(id: u64) -> String {
    format!("{id:016x}{HINT_SUFFIX}")
}

/// What a file in a store's directory is, judged by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A segment with this id.
    Segment(u64),
    /// The hint of the segment with this id.
    Hint(u64),
    /// Manifest, temporary manifest, lock, reserve, index, or the mark of an unfinished copy.
    Own,
    /// Not ours: never touched.
    Foreign,
}

/// Sorts a name found in a store's directory.
pub(crate) fn classify(name: &str) -> FileName {
    let id = |stem: &str| (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok()).flatten();
    let own = [
        MANIFEST_FILE,
        MANIFEST_TEMPORARY_FILE,
        LOCK_FILE,
        RESERVE_FILE,
        INDEX_FILE,
        UNFINISHED_FILE,
    ];
    if own.contains(&name) {
        return FileName::Own;
    }
    // Only as we write them: other spellings of the same number (`+`, capitals) are other programs'
    // files.
    if let Some(id) = name
        .strip_suffix(SEGMENT_SUFFIX)
        .and_then(id)
        .filter(|id| segment_file(*id) == name)
    {
        return FileName::Segment(id);
    }
    if let Some(id) = name
        .strip_suffix(HINT_SUFFIX)
        .and_then(id)
        .filter(|id| hint_file(*id) == name)
    {
        return FileName::Hint(id);
    }
    FileName::Foreign
}

/// Rounds up to [`ALIGNMENT`].
pub(crate) const fn aligned(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT)
}

/// Why bytes are not what they should be. Says nothing of where: the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The bytes end before the structure does.
    Short,
    /// The first bytes are of no file of this kind.
    Magic,
    /// A version this program does not know.
    Version(u32),
    /// The checksum of a header does not fit its bytes.
    HeaderChecksum,
    /// The checksum over key, metadata and value does not fit them.
    BodyChecksum,
    /// The checksum of a whole file or of a batch does not fit.
    Checksum,
    /// A kind, flag, length or count that no writer produces.
    Field(&'static str),
    /// The bytes that fill a record up to the next multiple of eight are not zero.
    Padding,
    /// Sequences must rise from record to record.
    Order,
    /// The key found is not the key that leads here.
    OtherKey,
    /// The file belongs to another store or another segment.
    Stranger,
    /// The length or content is not what seal, manifest or the next segment say.
    Mismatch(&'static str),
}

impl Damage {
    /// Of a file that the manifest lists.
    pub(crate) const MISSING: Damage = Damage::Mismatch("the manifest: it lists this file, which is missing;");
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Short => f.write_str("the data ends too early"),
            Damage::Magic => f.write_str("the first bytes are not those of such a file"),
            Damage::Version(version) => write!(f, "format version {version} is newer than this program"),
            Damage::HeaderChecksum => f.write_str("header checksum mismatch"),
            Damage::BodyChecksum => f.write_str("checksum mismatch over key, metadata and value"),
            Damage::Checksum => f.write_str("checksum mismatch"),
            Damage::Field(what) => write!(f, "impossible {what}"),
            Damage::Padding => f.write_str("padding is not zero"),
            Damage::Order => f.write_str("sequence out of order"),
            Damage::OtherKey => f.write_str("another key is stored here than the index says"),
            Damage::Stranger => f.write_str("the file belongs to another store or segment"),
            Damage::Mismatch(what) => write!(f, "{what} differs from what is recorded elsewhere"),
        }
    }
}

/// Reads little-endian integers one after the other; [`Damage::Short`] at the end.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    /// So many bytes as they are.
    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], Damage> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        Ok(self.bytes::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_stored(self.bytes()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_stored(self.bytes()?))
    }
}

/// Checks magic, version and the CRC-32 in the last four bytes of a whole file, and returns what
/// lies between.
pub(crate) fn open_envelope<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Result<Fields<'a>, Damage> {
    let (content, crc) = bytes.split_last_chunk::<4>().ok_or(Damage::Short)?;
    let mut fields = Fields(content);
    if fields.bytes::<8>()? != *magic {
        return Err(Damage::Magic);
    }
    let crc_fits = |version: u32| checksum(content, version).to_stored() == *crc;
    check_version(fields.u32()?, Damage::Checksum, crc_fits)?;
    Ok(fields)
}

/// Where the version stands in everything that has one: behind the magic.
const VERSION_FIELD: std::ops::Range<usize> = 8..12;

/// The checksum of a header with this version in the place of the one that stands there.
pub(crate) fn checksum(header: &[u8], version: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(..VERSION_FIELD.start).unwrap_or(header));
    hasher.update(&version.to_stored());
    hasher.update(header.get(VERSION_FIELD.end..).unwrap_or_default());
    hasher.finalize()
}

/// Judges the version that was found, and the checksum that covers it: whether this can be read,
/// and if not, whether it is of a later version or damaged. `crc_fits` tells whether the checksum
/// fits with this version in the place of the one found; `mismatch` is the damage if it does not.
///
/// A later version may well place its checksum elsewhere, so one that does not fit says nothing
/// against it. But if it fits with our version, then the field alone was changed: a CRC-32 notices
/// every change within 32 bits, so it never fits with both.
pub(crate) fn check_version(found: u32, mismatch: Damage, crc_fits: impl Fn(u32) -> bool) -> Result<(), Damage> {
    if found == VERSION {
        return if crc_fits(found) { Ok(()) } else { Err(mismatch) };
    }
    if crc_fits(VERSION) && !planted(Planted::TrustVersionField) {
        return Err(Damage::Field("version"));
    }
    if found > VERSION {
        return Err(Damage::Version(found));
    }
    // There was none before the first.
    Err(if crc_fits(found) {
        Damage::Field("version")
    } else {
        mismatch
    })
}

/// Begins a file that [`open_envelope`] reads.
pub(crate) fn begin_envelope(magic: &[u8; 8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&VERSION.to_stored());
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

    #[test]
    fn file_names_are_told_apart() {
        assert_eq!(classify(&segment_file(0xabc)), FileName::Segment(0xabc));
        assert_eq!(classify(&hint_file(u64::MAX)), FileName::Hint(u64::MAX));
        for own in ["MANIFEST", "MANIFEST.tmp", "LOCK", "RESERVE", "INDEX", "UNFINISHED"] {
            assert_eq!(classify(own), FileName::Own);
        }
        let spellings = [
            "+000000000000001.segment",
            "00000000000000AB.segment",
            "+000000000000001.hint",
        ];
        let others = [
            "notes.txt",
            "1.segment",
            "00000000000000zz.segment",
            "0000000000000001.segment.bak",
            "",
        ];
        for foreign in spellings.into_iter().chain(others) {
            assert_eq!(classify(foreign), FileName::Foreign, "{foreign}");
        }
    }

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
            // A version that only damage can have written is no newer one.
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
        // Whatever stands in the field: the rest is as a program of this version wrote it.
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
        // A later version whose checksum lies where it does today, and one whose checksum lies elsewhere.
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
