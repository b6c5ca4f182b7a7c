//! Compressed files.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use flate2::write::GzEncoder;

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
    pub(super) fn of(path: &Path) -> Compression {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
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
