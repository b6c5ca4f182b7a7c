//! Files of any size, compressed or not, and pipes, written from front to back.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compression::{Compression, Encoder, Target, sync_directory_of};
use super::left::partial;
use super::links;
use crate::common::failure::{Failure, Outcome};

/// Bytes per frame of a compressed file: an export that is cut off loses only its last frame.
const FRAME_BYTES: u64 = if cfg!(any(test, fuzzing)) { 256 } else { 8 << 20 };
/// Bytes written at a time.
const BUFFER_BYTES: usize = 256 << 10;

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
pub(super) struct Partial {
    pub(super) file: File,
    /// Its name now, and its final name.
    pub(super) partial: PathBuf,
    pub(super) path: PathBuf,
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
        let is_special = metadata.is_some_and(|metadata| !metadata.is_file());
        let Some(path) = links::followed(path).filter(|_| !is_special) else {
            let file = OpenOptions::new()
                .write(true)
                // `>> FILE` may have put something there.
                .append(!is_special)
                .open(path)
                .map_err(|error| fail(path, error))?;
            return Output::to(compression, Box::new(file), None);
        };
        let partial = partial(&path);
        let file = File::create(&partial).map_err(|error| fail(&partial, error))?;
        Output::to_file(compression, Partial { file, partial, path })
    }

    pub(super) fn to_file(compression: Compression, file: Partial) -> Outcome<Output> {
        let target = file
            .file
            .try_clone()
            .map_err(|error| Failure::file("write", file.partial.display(), &error))?;
        Output::to(compression, Box::new(target), Some(file))
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
