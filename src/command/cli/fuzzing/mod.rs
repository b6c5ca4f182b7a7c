//! The bodies of the command's fuzz targets: one function for each kind of input, as in the
//! library's `src/fuzzing`. Those for exported and imported files are in `transfer`. As ordinary
//! tests they run over the corpus and past findings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzz target reports a finding by a panic"
)]

mod bulk;
mod text;

use std::io::{self, BufReader, Read};

pub use super::transfer::fuzzing::{export_resume, import_lines, import_resume};
pub use bulk::bulk_array;
pub use text::key_text;

/// A reader that returns a few bytes at a time, and may fail at a given offset.
pub(crate) struct Dribble {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
    fails_at: Option<usize>,
}

impl Dribble {
    /// Steps of 1 to 256 bytes.
    pub(crate) fn new(bytes: &[u8], step: u8, fails_at: Option<usize>) -> BufReader<Dribble> {
        let step = usize::from(step) + 1;
        let dribble = Dribble {
            bytes: bytes.to_vec(),
            at: 0,
            step,
            fails_at,
        };
        BufReader::with_capacity(step, dribble)
    }
}

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.fails_at.unwrap_or(usize::MAX).min(self.bytes.len());
        if self.at >= end && self.fails_at.is_some_and(|fails_at| fails_at < self.bytes.len()) {
            return Err(io::Error::other("the fuzzer ends it here"));
        }
        let length = self.step.min(buffer.len()).min(end - self.at);
        buffer[..length].copy_from_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
