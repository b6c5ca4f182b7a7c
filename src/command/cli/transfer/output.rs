//! Files of any size, compressed or not, and pipes, written from front to back.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compression::{Compression, Encoder, Target, sync_directory_of};
use super::input::LINE_BYTES_MAX;
use super::record::Place;
use crate::common::failure::{Failure, Outcome};

/// Bytes per frame of a compressed file: an export that is cut off loses only its last frame.
const FRAME_BYTES: u64 = if cfg!(any(test, fuzzing)) { 256 } else { 8 << 20 };
/// Bytes written at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Longer than any first line of an export: 10,000 names of namespaces.
const FIRST_BYTES_MAX: usize = 64 << 20;

/// An output, compressed by its suffix. A file gets its name when it is complete.
pub(super) struct Output {
    compression: Compression,
    /// None while a frame ends, and after that failed.
    encoder: Option<Encoder>,
    in_frame_bytes: u64,
    /// A buffer for what is written.
    parts: Vec<u8>,
    file: Option<Partial>,
}

/// A file that is not complete. Pipes and devices have none.
struct Partial {
    file: File,
    /// Its name now, and its final name.
    partial: PathBuf,
    path: PathBuf,
}

impl Output {
    /// Creates the file. The path `-` is standard output.
    pub(super) fn create(path: &Path) -> Outcome<Output> {
        let compression = Compression::to_write(path)?;
        if path == Path::new("-") {
            return Output::to(compression, Box::new(io::stdout()), None);
        }
        let fail = |path: &Path, error: io::Error| Failure::file("write", path.display(), &error);
        let metadata = std::fs::metadata(path).ok();
        let is_name = path.file_name().is_some() && !path.as_os_str().as_encoded_bytes().ends_with(b"/");
        if !is_name || metadata.as_ref().is_some_and(Metadata::is_dir) {
            return Err(Failure::usage(
                format!("{} is a directory", path.display()),
                "name a file in it",
            ));
        }
        if metadata.is_some_and(|metadata| !metadata.is_file()) {
            let file = OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|error| fail(path, error))?;
            return Output::to(compression, Box::new(file), None);
        }
        let partial = partial(path);
        let file = File::create(&partial).map_err(|error| fail(&partial, error))?;
        Output::to_file(file, partial, path)
    }

    fn to_file(file: File, partial: PathBuf, path: &Path) -> Outcome<Output> {
        let target = file
            .try_clone()
            .map_err(|error| Failure::file("write", partial.display(), &error))?;
        let path = path.to_owned();
        let file = Partial { file, partial, path };
        Output::to(Compression::of(&file.path), Box::new(target), Some(file))
    }

    fn to(compression: Compression, target: Target, file: Option<Partial>) -> Outcome<Output> {
        let target = Box::new(BufWriter::with_capacity(BUFFER_BYTES, target));
        Ok(Output {
            compression,
            encoder: Some(Encoder::begin(compression, target)?),
            in_frame_bytes: 0,
            parts: Vec::new(),
            file,
        })
    }

    /// Writes bytes that must not be split between frames, such as a line.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Outcome {
        let written = match &mut self.encoder {
            Some(encoder) => encoder.writer().write_all(bytes).map(|()| bytes.len() as u64),
            None => Err(failed_before()),
        };
        self.count(written)
    }

    /// Writes JSON between other bytes, as [`Output::write`] does, without holding its text.
    pub(super) fn write_json(&mut self, before: &[u8], value: &impl Serialize, after: &[u8]) -> Outcome {
        let written = match &mut self.encoder {
            Some(encoder) => {
                self.parts.clear();
                let mut spilling = Spilling {
                    parts: &mut self.parts,
                    target: encoder.writer(),
                    bytes: 0,
                };
                spilling
                    .write_all(before)
                    .and_then(|()| Ok(serde_json::to_writer(&mut spilling, value)?))
                    .and_then(|()| spilling.write_all(after))
                    .and_then(|()| spilling.spill())
                    .map(|()| spilling.bytes)
            }
            None => Err(failed_before()),
        };
        self.count(written)
    }

    /// Counts what was written; begins a new frame if there is enough in this one.
    fn count(&mut self, written: io::Result<u64>) -> Outcome {
        self.in_frame_bytes += written.map_err(|error| self.fail(error))?;
        if self.in_frame_bytes >= FRAME_BYTES && self.compression != Compression::None {
            let target = self.end_frame()?;
            let next = Encoder::begin(self.compression, target).map_err(|error| self.fail(error))?;
            self.encoder = Some(next);
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Outcome<Target> {
        self.in_frame_bytes = 0;
        let ended = match self.encoder.take() {
            Some(encoder) => encoder.end(),
            None => Err(failed_before()),
        };
        ended.map_err(|error| self.fail(error))
    }

    fn fail(&self, error: io::Error) -> Failure {
        match &self.file {
            Some(Partial { partial, .. }) => Failure::file("write", partial.display(), &error),
            None => error.into(),
        }
    }

    /// Ends the frame, and syncs the file.
    fn settle(&mut self) -> Outcome {
        let mut target = self.end_frame()?;
        target.flush().map_err(|error| self.fail(error))?;
        match &self.file {
            Some(Partial { file, .. }) => file.sync_all().map_err(|error| self.fail(error)),
            None => Ok(()),
        }
    }

    /// Stops here, durably; true if the output can be resumed.
    pub(super) fn pause(&mut self) -> Outcome<bool> {
        self.settle()?;
        Ok(self.file.is_some())
    }

    /// Removes the partial file.
    pub(super) fn discard(self) {
        if let Some(Partial { partial, .. }) = self.file {
            // If that fails, the file stays where the user can see it.
            let _ = std::fs::remove_file(partial);
        }
    }

    /// Ends the file, syncs it, and renames it to its final name.
    pub(super) fn finish(mut self) -> Outcome {
        self.settle()?;
        let Some(Partial { partial, path, .. }) = &self.file else {
            return Ok(());
        };
        std::fs::rename(partial, path)
            .and_then(|()| sync_directory_of(path))
            .map_err(|error| Failure::file("write", path.display(), &error))
    }
}

fn failed_before() -> io::Error {
    io::Error::other("an earlier write failed")
}

/// Collects small parts, and passes them on together.
struct Spilling<'a> {
    parts: &'a mut Vec<u8>,
    target: &'a mut dyn Write,
    /// Bytes written to it.
    bytes: u64,
}

impl Spilling<'_> {
    fn spill(&mut self) -> io::Result<()> {
        self.target.write_all(self.parts)?;
        self.parts.clear();
        Ok(())
    }
}

impl Write for Spilling<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.parts.len() + bytes.len() > BUFFER_BYTES {
            self.spill()?;
        }
        if bytes.len() > BUFFER_BYTES {
            self.target.write_all(bytes)?;
        } else {
            self.parts.extend_from_slice(bytes);
        }
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.spill()
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// The partial file of an earlier export, unchanged so far.
pub(super) struct Left {
    file: File,
    path: PathBuf,
    partial: PathBuf,
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
        if path == Path::new("-") || is_special {
            return Err(Failure::usage(
                format!(
                    "{} is not a regular file, so its export cannot be resumed",
                    path.display()
                ),
                "export without --resume",
            ));
        }
        let partial = partial(path);
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
            file,
            path: path.to_owned(),
            partial: partial.clone(),
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
        let begins = match Compression::of(&self.path) {
            Compression::None => first_line,
            compressed => compressed.magic(),
        };
        let length = self.head.len().min(begins.len());
        self.lines.first.is_none() && self.head.get(..length) == begins.get(..length)
    }

    /// Truncates the file to its whole part, and continues after it.
    pub(super) fn resume(mut self) -> Outcome<Output> {
        self.file
            .set_len(self.whole_bytes)
            .and_then(|()| self.file.seek(SeekFrom::End(0)))
            .map_err(|error| Failure::file("resume", self.partial.display(), &error))?;
        Output::to_file(self.file, self.partial, &self.path)
    }

    fn read(&mut self, file: File, place_after: PlaceAfter) -> io::Result<()> {
        let compression = Compression::of(&self.path);
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
