//! The partial file that an interrupted export leaves, read to resume it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::compression::Compression;
use super::input::LINE_BYTES_MAX;
use super::links;
use super::output::{Output, Partial};
use super::record::Place;
use crate::common::failure::{Failure, Outcome};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Longer than any first line of an export: 10,000 names of namespaces.
const FIRST_BYTES_MAX: usize = 64 << 20;

/// The name of a file until it is complete.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// The partial file of an earlier export, unchanged so far.
pub(super) struct Left {
    file: Partial,
    compression: Compression,
    /// Bytes up to the end of the last whole frame or, without compression, line.
    whole_bytes: u64,
    /// The lines in those bytes.
    pub(super) lines: Lines,
    /// The first bytes of the file.
    head: Vec<u8>,
}

/// The place after a line; None if it is not a line of an export.
type PlaceAfter = fn(&[u8]) -> Option<Place>;

/// A summary of any number of lines.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) count: u64,
    /// The beginning of the first one, which is whole unless it is too long for such a line.
    pub(super) first: Option<Vec<u8>>,
    /// The place after the last one.
    pub(super) last: Option<Place>,
}

impl Lines {
    /// Adds a line; false if it is none of an export.
    fn add(&mut self, line: &[u8], place_after: PlaceAfter) -> bool {
        let Some(place) = place_after(line) else { return false };
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(line.get(..FIRST_BYTES_MAX).unwrap_or(line).to_vec());
        }
        self.last = Some(place);
        true
    }

    fn append(&mut self, other: Lines) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
        self.last = other.last.or(self.last.take());
    }
}

impl Left {
    /// Reads the partial file, line by line; None if there is none. Ends before the first line that
    /// is not valid.
    pub(super) fn find(path: &Path, place_after: PlaceAfter) -> Outcome<Option<Left>> {
        let is_special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let followed = links::followed(path).filter(|_| path != Path::new("-") && !is_special);
        let Some(followed) = followed else {
            return Err(Failure::usage(
                format!(
                    "{} is not a regular file, so its export cannot be resumed",
                    path.display()
                ),
                "export without --resume",
            ));
        };
        let partial = partial(&followed);
        let fail = |error: io::Error| Failure::file("resume", partial.display(), &error);
        let mut file = match OpenOptions::new().read(true).write(true).open(&partial) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(fail)?,
        };
        let mut head = Vec::new();
        (&mut file).take(1 << 10).read_to_end(&mut head).map_err(fail)?;
        file.rewind().map_err(fail)?;
        let reading = file.try_clone().map_err(fail)?;
        let mut left = Left {
            file: Partial {
                file,
                partial: partial.clone(),
                path: followed,
            },
            compression: Compression::of(path),
            whole_bytes: 0,
            lines: Lines::default(),
            head,
        };
        left.read(reading, place_after).map_err(fail)?;
        Ok(Some(left))
    }

    /// Whether the file begins correctly but has no whole line or frame, so that starting over
    /// loses nothing.
    pub(super) fn is_less_than(&self, first_line: &[u8]) -> bool {
        let begins = match self.compression {
            Compression::None => first_line,
            compressed => compressed.magic(),
        };
        let length = self.head.len().min(begins.len());
        self.lines.first.is_none() && self.head.get(..length) == begins.get(..length)
    }

    /// Truncates the file to its whole part, and continues after it.
    pub(super) fn resume(self) -> Outcome<Output> {
        let mut partial = self.file;
        partial
            .file
            .set_len(self.whole_bytes)
            .and_then(|()| partial.file.seek(SeekFrom::End(0)))
            .map_err(|error| Failure::file("resume", partial.partial.display(), &error))?;
        Output::to_file(self.compression, partial)
    }

    fn read(&mut self, file: File, place_after: PlaceAfter) -> io::Result<()> {
        let compression = self.compression;
        let mut reader = Counted {
            inner: BufReader::with_capacity(BUFFER_BYTES, file),
            count: 0,
        };
        if compression == Compression::None {
            let mut line = Vec::new();
            while read_line(&mut reader, &mut line)? && line.ends_with(b"\n") && self.lines.add(&line, place_after) {
                self.whole_bytes = reader.count;
            }
            return Ok(());
        }
        while !reader.fill_buf()?.is_empty() {
            // A frame that was cut off, or is damaged: keep only the frames before it.
            let Ok(Some(frame)) = frame_lines(compression, &mut reader, place_after) else {
                break;
            };
            self.lines.append(frame);
            self.whole_bytes = reader.count;
        }
        Ok(())
    }
}

/// The lines of a frame; None if it has anything else.
fn frame_lines(
    compression: Compression,
    reader: &mut impl BufRead,
    place_after: PlaceAfter,
) -> io::Result<Option<Lines>> {
    let mut frame = BufReader::with_capacity(BUFFER_BYTES, compression.frame(reader)?);
    let (mut lines, mut line) = (Lines::default(), Vec::new());
    while read_line(&mut frame, &mut line)? {
        if !lines.add(&line, place_after) {
            return Ok(None);
        }
    }
    Ok(Some(lines))
}

/// Reads a line, up to the longest valid length; false at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)? > 0)
}

/// Counts the bytes consumed from a reader.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.count += amount as u64;
        self.inner.consume(amount);
    }
}
