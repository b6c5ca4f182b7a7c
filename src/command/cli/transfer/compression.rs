//! Compressed files.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use flate2::write::GzEncoder;

use crate::common::failure::{Failure, Outcome};

/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// How a file is compressed, by its suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// The compression of a file that this program writes; [`Compression::to_write`] has refused
    /// suffixes of others.
    pub(super) fn of(path: &Path) -> Compression {
        match suffix_of(path).as_deref() {
            Some("gz" | "gzip") => Compression::Gzip,
            Some("zst" | "zstd") => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// As [`Compression::of`]; an error if the suffix promises one that is not written.
    pub(super) fn to_write(path: &Path) -> Outcome<Compression> {
        match Foreign::of_suffix(path) {
            None => Ok(Compression::of(path)),
            Some(foreign) => Err(Failure::usage(
                format!(
                    "{} cannot be written: it would have to be {}",
                    path.display(),
                    foreign.name
                ),
                "the suffix .gz or .zst selects compression; any other tool can compress the file later",
            )),
        }
    }

    /// The compression of a file with these first bytes, and an error if it is not one that is
    /// read. The suffix decides only where the content does not.
    pub(super) fn of_content(head: &[u8], path: &Path) -> Outcome<Compression> {
        let read = [Compression::Gzip, Compression::Zstd];
        if let Some(known) = read.into_iter().find(|known| head.starts_with(known.magic())) {
            return Ok(known);
        }
        let is_text = head
            .first()
            .is_some_and(|byte| byte.is_ascii_whitespace() || b"[{\"\xef\xfe\xff".contains(byte));
        let by_suffix = || Foreign::of_suffix(path).filter(|_| !is_text);
        match Foreign::of_content(head).or_else(by_suffix) {
            // Browsers unpack some files, and keep their names.
            None if is_text => Ok(Compression::None),
            None => Ok(Compression::of(path)),
            Some(foreign) => Err(Failure::usage(
                format!("{} cannot be read: it is {}", path.display(), foreign.name),
                foreign.hint,
            )),
        }
    }

    /// The first bytes of a file with this compression.
    pub(super) fn magic(self) -> &'static [u8] {
        match self {
            Compression::None => b"",
            Compression::Gzip => b"\x1f\x8b",
            Compression::Zstd => b"\x28\xb5\x2f\xfd",
        }
    }

    /// Decodes a whole file, of any number of frames.
    pub(super) fn decoded<R: BufRead + 'static>(self, reader: R) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Compression::None => Box::new(reader),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        })
    }

    /// Decodes one frame.
    pub(super) fn frame<'a, R: BufRead>(self, reader: &'a mut R) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Compression::None => Box::new(reader),
            Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(reader)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?.single_frame()),
        })
    }
}

/// The suffix of a path in lower case.
fn suffix_of(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

/// A file that other tools make, and that is neither read nor written.
struct Foreign {
    name: &'static str,
    suffixes: &'static [&'static str],
    /// None if it cannot be told by its content.
    magic: Option<&'static [u8]>,
    hint: &'static str,
}

const UNPACK: &str = "unpack it first; files that are compressed with gzip or zstd, or not at all, are read";

impl Foreign {
    const fn packed(name: &'static str, suffixes: &'static [&'static str], magic: &'static [u8]) -> Foreign {
        Foreign {
            name,
            suffixes,
            magic: Some(magic),
            hint: UNPACK,
        }
    }

    const fn without_magic(name: &'static str, suffixes: &'static [&'static str]) -> Foreign {
        Foreign {
            name,
            suffixes,
            magic: None,
            hint: UNPACK,
        }
    }

    fn of_suffix(path: &Path) -> Option<&'static Foreign> {
        let suffix = suffix_of(path)?;
        FOREIGN.iter().find(|foreign| foreign.suffixes.contains(&&*suffix))
    }

    fn of_content(head: &[u8]) -> Option<&'static Foreign> {
        let is_it = |foreign: &&Foreign| foreign.magic.is_some_and(|magic| head.starts_with(magic));
        FOREIGN.iter().find(is_it)
    }
}

static FOREIGN: [Foreign; 17] = [
    Foreign::packed("compressed with xz", &["xz"], b"\xfd7zXZ\0"),
    Foreign::packed("compressed with bzip2", &["bz2", "bz", "bzip2"], b"BZh"),
    Foreign::packed("compressed with lz4", &["lz4"], b"\x04\x22\x4d\x18"),
    Foreign::packed("compressed with lzip", &["lz"], b"LZIP"),
    Foreign::packed("compressed with lzma", &["lzma"], b"\x5d\0\0"),
    Foreign::packed("compressed with lzop", &["lzo"], b"\x89LZO"),
    Foreign::packed("compressed with snappy", &["sz", "snappy"], b"\xff\x06\0\0sNaPpY"),
    Foreign::packed("compressed with compress", &["z"], b"\x1f\x9d"),
    Foreign::without_magic("compressed with brotli", &["br"]),
    Foreign::without_magic("compressed with zlib", &["zz", "zlib"]),
    Foreign::packed("a zip archive", &["zip"], b"PK\x03\x04"),
    Foreign::packed("an empty zip archive", &[], b"PK\x05\x06"),
    Foreign::packed("a 7z archive", &["7z"], b"7z\xbc\xaf\x27\x1c"),
    Foreign::packed("a rar archive", &["rar"], b"Rar!\x1a\x07"),
    Foreign::packed("a cab archive", &["cab"], b"MSCF\0\0\0\0"),
    Foreign::without_magic("a tar archive", &["tar", "tgz", "tbz", "tbz2", "txz", "tzst"]),
    Foreign {
        name: "an SQLite database",
        suffixes: &["sqlite", "sqlite3"],
        magic: Some(b"SQLite format 3\0"),
        hint: "the local state of `wrangler dev` is imported with `embercask import --miniflare DIRECTORY`",
    },
];

pub(super) type Target = Box<dyn Write>;

/// Compresses one frame.
pub(super) enum Encoder {
    Plain(Target),
    Gzip(GzEncoder<Target>),
    Zstd(zstd::stream::write::Encoder<'static, Target>),
}

impl Encoder {
    pub(super) fn begin(compression: Compression, target: Target) -> io::Result<Encoder> {
        Ok(match compression {
            Compression::None => Encoder::Plain(target),
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(target, flate2::Compression::default())),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(target, ZSTD_LEVEL)?;
                // So that damage is detected, not imported. Gzip always has a checksum.
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    pub(super) fn writer(&mut self) -> &mut dyn Write {
        match self {
            Encoder::Plain(target) => target,
            Encoder::Gzip(encoder) => encoder,
            Encoder::Zstd(encoder) => encoder,
        }
    }

    pub(super) fn end(self) -> io::Result<Target> {
        match self {
            Encoder::Plain(target) => Ok(target),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// Syncs the directory of the path, where the system can.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_promise_what_is_not_written() {
        for (name, expected) in [
            ("a", Compression::None),
            ("a.jsonl", Compression::None),
            ("-", Compression::None),
            ("a.GZ", Compression::Gzip),
            ("a.zstd", Compression::Zstd),
        ] {
            assert_eq!(Compression::to_write(Path::new(name)).ok(), Some(expected), "{name}");
        }
        for foreign in FOREIGN.iter().flat_map(|foreign| foreign.suffixes) {
            for name in [format!("a.jsonl.{foreign}"), format!("A.{}", foreign.to_uppercase())] {
                assert!(Compression::to_write(Path::new(&name)).is_err(), "{name}");
            }
        }
    }

    #[test]
    fn the_content_decides_and_then_the_suffix() {
        let of = |head: &[u8], name: &str| Compression::of_content(head, Path::new(name)).ok();
        for magic in FOREIGN.iter().filter_map(|foreign| foreign.magic) {
            let head = [magic, b"more"].concat();
            for name in ["-", "a.json", "a.gz"] {
                assert_eq!(of(&head, name), None, "{name} {magic:?}");
            }
        }
        for name in ["-", "a.json", "a.xz", "a.br", "a.zst"] {
            assert_eq!(of(b"\x1f\x8b\x08", name), Some(Compression::Gzip), "{name}");
            for text in [&b"[]"[..], b" {", b"\xef\xbb\xbf[]", b"\xff\xfe[\0"] {
                assert_eq!(of(text, name), Some(Compression::None), "{name}");
            }
        }
        for name in ["a.br", "a.xz"] {
            assert_eq!((of(b"\x0b\x02\x80", name), of(b"", name)), (None, None), "{name}");
        }
        assert_eq!(of(b"", "a.gz"), Some(Compression::Gzip), "it is cut off");
    }
}
