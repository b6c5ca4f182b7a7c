//! The on-disk formats: conversions between values and bytes. Nothing here touches a file, thread
//! or clock.
//!
//! Writers and readers share this module, so they cannot disagree. `docs/format.md` shows every
//! structure byte by byte. All integers are little-endian; lengths and offsets are in bytes unless
//! a name says otherwise. Kind numbers and flag bits are never reused with another meaning.

mod envelope;
pub(crate) mod hint;
pub(crate) mod index;
mod integers;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod segment;

use std::fmt;

pub(crate) use envelope::{
    begin_envelope, begin_envelope_of, check_version, checksum, end_envelope, open_envelope, open_envelope_up_to,
};
pub(crate) use integers::Stored;

/// Version of all formats, but for a manifest that names a ring; files of a higher version are
/// refused.
pub(crate) const VERSION: u32 = 1;

/// Every record begins at a multiple of this, which saves three bits in a location.
pub(crate) const ALIGNMENT: u64 = 8;

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"EMBRSEGM";
/// First bytes of a hint file.
pub(crate) const HINT_MAGIC: [u8; 8] = *b"EMBRHINT";
/// First bytes of an index file.
pub(crate) const INDEX_MAGIC: [u8; 8] = *b"EMBRINDX";
/// First bytes of the manifest.
pub(crate) const MANIFEST_MAGIC: [u8; 8] = *b"EMBRMANI";

/// The list of live segments; its presence makes a directory a store.
pub(crate) const MANIFEST_FILE: &str = "MANIFEST";
/// The next manifest while it is being written.
pub(crate) const MANIFEST_TEMPORARY_FILE: &str = "MANIFEST.tmp";
/// The file whose lock keeps a second process out; its content says which process holds it.
pub(crate) const LOCK_FILE: &str = "LOCK";
/// Disk space held back for deletes and compaction on a full disk.
pub(crate) const RESERVE_FILE: &str = "RESERVE";

/// Where records of class `Os` are kept until their segment's file has them.
pub(crate) const RING_FILE: &str = "RING";

/// The indexes as they were when the store was closed.
pub(crate) const INDEX_FILE: &str = "INDEX";

/// Marks a copy of a store that is still incomplete.
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

/// The kind of a file in a store's directory, judged by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A segment with this id.
    Segment(u64),
    /// The hint of the segment with this id.
    Hint(u64),
    /// Manifest, temporary manifest, lock, reserve, ring, index, or the mark of an unfinished copy.
    Own,
    /// Not ours, but made by the system wherever there are files: never touched, and no sign that
    /// the directory belongs to another program.
    OfSystem,
    /// Not ours: never touched.
    Foreign,
}

/// Names under which systems put files or directories of their own: ext4 at the root of a file
/// system, macOS and Windows on the volumes that they mount.
const OF_SYSTEM: [&str; 6] = [
    "lost+found",
    ".DS_Store",
    ".Trashes",
    ".fseventsd",
    ".Spotlight-V100",
    "System Volume Information",
];
/// Where macOS keeps what another file system has no room for beside a file.
const OF_SYSTEM_PREFIX: &str = "._";

/// Classifies a file name in a store's directory.
pub(crate) fn classify(name: &str) -> FileName {
    let id = |stem: &str| (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok()).flatten();
    let own = [
        MANIFEST_FILE,
        MANIFEST_TEMPORARY_FILE,
        LOCK_FILE,
        RESERVE_FILE,
        RING_FILE,
        INDEX_FILE,
        UNFINISHED_FILE,
    ];
    if own.contains(&name) {
        return FileName::Own;
    }
    if OF_SYSTEM.contains(&name) || name.starts_with(OF_SYSTEM_PREFIX) {
        return FileName::OfSystem;
    }
    // Only the exact spelling that we write: others of the same number (`+`, capitals) are foreign
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

/// What is wrong with bytes that were read. The caller adds where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The bytes end before the structure does.
    Short,
    /// The first bytes are not the magic bytes of this kind of file.
    Magic,
    /// A version newer than this program knows.
    Version(u32),
    /// The checksum of a header does not match its bytes.
    HeaderChecksum,
    /// The checksum over key, metadata and value does not match.
    BodyChecksum,
    /// The checksum of a whole file or of a batch does not match.
    Checksum,
    /// A kind, flag, length or count that no writer produces.
    Field(&'static str),
    /// The bytes that fill a record up to the next multiple of eight are not zero.
    Padding,
    /// A sequence is not above that of the record before.
    Order,
    /// The record's key is not the key that the index leads here from.
    OtherKey,
    /// The file belongs to another store or another segment.
    Stranger,
    /// The manifest lists the file, and there is none of that name.
    Missing,
    /// The length or content disagrees with the seal, the manifest or the next segment.
    Mismatch(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Short => f.write_str("the data ends too early"),
            Damage::Magic => f.write_str("the first bytes are not the magic bytes of this kind of file"),
            Damage::Version(version) => write!(f, "format version {version} is newer than this program"),
            Damage::HeaderChecksum => f.write_str("header checksum mismatch"),
            Damage::BodyChecksum => f.write_str("checksum mismatch over key, metadata and value"),
            Damage::Checksum => f.write_str("checksum mismatch"),
            Damage::Field(what) => write!(f, "impossible {what}"),
            Damage::Padding => f.write_str("padding is not zero"),
            Damage::Order => f.write_str("sequence out of order"),
            Damage::OtherKey => f.write_str("the record has a different key than the index says"),
            Damage::Stranger => f.write_str("the file belongs to another store or segment"),
            Damage::Missing => f.write_str("the manifest lists this file, which is missing"),
            Damage::Mismatch(what) => write!(f, "{what} differs from what is recorded elsewhere"),
        }
    }
}

/// Reads consecutive little-endian integers; [`Damage::Short`] at the end.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    /// The next `length` bytes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_told_apart() {
        assert_eq!(classify(&segment_file(0xabc)), FileName::Segment(0xabc));
        assert_eq!(classify(&hint_file(u64::MAX)), FileName::Hint(u64::MAX));
        for own in [
            "MANIFEST",
            "MANIFEST.tmp",
            "LOCK",
            "RESERVE",
            "RING",
            "INDEX",
            "UNFINISHED",
        ] {
            assert_eq!(classify(own), FileName::Own);
        }
        for of_system in ["lost+found", ".DS_Store", "._MANIFEST", "System Volume Information"] {
            assert_eq!(classify(of_system), FileName::OfSystem);
        }
        let spellings = [
            "+000000000000001.segment",
            "00000000000000AB.segment",
            "+000000000000001.hint",
        ];
        let others = [
            "notes.txt",
            "lost",
            ".ds_store",
            "1.segment",
            "00000000000000zz.segment",
            "0000000000000001.segment.bak",
            "",
        ];
        for foreign in spellings.into_iter().chain(others) {
            assert_eq!(classify(foreign), FileName::Foreign, "{foreign}");
        }
    }
}
