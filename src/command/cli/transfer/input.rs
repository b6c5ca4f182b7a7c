//! Files of any size, compressed or not, and pipes, read from front to back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use embercask::Limits;

use super::compression::Compression;
use super::encoding;
use super::links;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Interval between checks for Ctrl-C while no input arrives.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest line: the largest value, each byte as a JSON escape, and room for the other members.
pub(super) const LINE_BYTES_MAX: u64 = 6 * Limits::ENGINE.value_bytes_max as u64 + (1 << 20);

/// The longest of the marks at the beginning of files.
const HEAD_BYTES: usize = 16;

/// An input, decompressed, with a progress bar. Reading fails after Ctrl-C.
pub(crate) struct Input {
    /// Its name in messages.
    pub(crate) name: String,
    pub(super) reader: Box<dyn BufRead>,
    /// Whether it is a regular file, which can be read again.
    pub(super) is_file: bool,
    begun: Begun,
}

/// What is known of the beginning of an input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    No,
    /// It is not compressed, or decompressed already.
    Decoded,
    /// It is decompressed, and text in UTF-8 without a mark.
    Text,
}

impl Input {
    /// Opens a file, or standard input if it is called `-`.
    pub(crate) fn open(path: &Path, session: &Session, what: &'static str) -> Outcome<Input> {
        if path == Path::new("-") {
            if session.is_shell() {
                return Err(Failure::input_of_shell());
            }
            let reader = BufReader::new(Awaited::new(io::stdin()));
            return Ok(Input::new("standard input".to_owned(), reader, false));
        }
        let fail = |error: io::Error| Failure::file("read", path.display(), &error);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(Failure::usage(
                format!("{} is a directory", path.display()),
                "name a file in it; `import --miniflare` takes the directory of a project of `wrangler dev`",
            ));
        }
        let reader: Box<dyn Read> = if metadata.is_file() {
            let bar = session.bytes_bar(what);
            bar.set_length(metadata.len());
            Box::new(Watched(bar.wrap_read(file)))
        } else {
            Box::new(Awaited::new(file))
        };
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        // Nothing can be written beside what has no name, and the next command has another one.
        let is_file = metadata.is_file() && links::followed(path).is_some();
        let mut input = Input::new(path.display().to_string(), reader, is_file);
        if metadata.is_file() {
            // Before a store is opened or created. A pipe may not have any content yet.
            input.begin()?;
        }
        Ok(input)
    }

    fn new(name: String, reader: impl BufRead + 'static, is_file: bool) -> Input {
        Input {
            name,
            reader: Box::new(reader),
            is_file,
            begun: Begun::No,
        }
    }

    /// An input from a reader, with the name `input`, that is not compressed.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_reader(reader: impl BufRead + 'static) -> Input {
        Input {
            begun: Begun::Decoded,
            ..Input::new("input".to_owned(), reader, false)
        }
    }

    /// Finds out how the input is compressed and encoded, and skips the mark of UTF-8. Call it
    /// before the first read.
    pub(super) fn begin(&mut self) -> Outcome {
        if self.begun == Begun::No {
            let head = self.head(HEAD_BYTES);
            let compression = Compression::of_content(&head, Path::new(&self.name))?;
            if compression != Compression::None {
                let reader = std::mem::replace(&mut self.reader, Box::new(io::empty()));
                let decoded = compression.decoded(reader).map_err(|error| self.failure(&error))?;
                self.reader = Box::new(BufReader::with_capacity(BUFFER_BYTES, decoded));
            }
            self.begun = Begun::Decoded;
        }
        if self.begun == Begun::Decoded {
            let head = self.head(4);
            if let Some(encoding) = encoding::foreign(&head) {
                return Err(Failure::usage(
                    format!("{} is {encoding}, not UTF-8", self.name),
                    "save it as UTF-8; where there is iconv, `iconv -f UTF-16 -t UTF-8 FILE` converts it",
                ));
            }
            if head.starts_with(encoding::UTF_8_MARK) {
                self.reader.consume(encoding::UTF_8_MARK.len());
            }
            self.begun = Begun::Text;
        }
        Ok(())
    }

    /// The first bytes of the rest, which stay unread. An error of reading comes when they are
    /// read: a decoder may report it only once.
    fn head(&mut self, length: usize) -> Vec<u8> {
        let mut head = Vec::new();
        // What was read before an error stays in `head`.
        let read = (&mut self.reader).take(length as u64).read_to_end(&mut head);
        let fails = BufReader::with_capacity(1, Fails(read.err()));
        let rest = std::mem::replace(&mut self.reader, Box::new(io::empty()));
        self.reader = Box::new(io::Cursor::new(head.clone()).chain(fails).chain(rest));
        head
    }

    /// Reads a line including its end; false at the end of the input.
    pub(super) fn read_line(&mut self, line: &mut Vec<u8>) -> Outcome<bool> {
        line.clear();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', line);
        match read {
            Ok(0) => Ok(false),
            Ok(length) if length as u64 == LINE_BYTES_MAX => Err(Failure::usage(
                format!("{} has a line that is longer than any key with its value", self.name),
                "",
            )),
            Ok(_) => Ok(true),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// The failure for a read error, which may be due to Ctrl-C.
    pub(super) fn failure(&self, error: &io::Error) -> Failure {
        if interrupt::is_requested() {
            return Failure::stopped("the rest was not read");
        }
        Failure::file("read", &self.name, error)
    }
}

/// Fails once, if there is an error; has no content.
struct Fails(Option<io::Error>);

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

fn stopped() -> io::Error {
    io::Error::other("stopped")
}

/// A regular file, whose reads do not block for long.
struct Watched<R>(R);

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if interrupt::is_requested() {
            return Err(stopped());
        }
        self.0.read(buffer)
    }
}

/// A pipe or terminal, whose reads may block for any time. Another thread reads it, so that this
/// one can check for Ctrl-C. That thread is left blocked if this reader stops early.
struct Awaited {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
}

impl Awaited {
    fn new(mut from: impl Read + Send + 'static) -> Awaited {
        let (sender, chunks) = sync_channel(2);
        std::thread::spawn(move || {
            loop {
                let mut chunk = vec![0; BUFFER_BYTES];
                let read = match from.read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read,
                };
                let is_last = !matches!(read, Ok(1..));
                let sent = sender.send(read.map(|length| {
                    chunk.truncate(length);
                    chunk
                }));
                if is_last || sent.is_err() {
                    return;
                }
            }
        });
        Awaited {
            chunks,
            chunk: io::Cursor::default(),
        }
    }
}

impl Read for Awaited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if interrupt::is_requested() {
                return Err(stopped());
            }
            match self.chunks.recv_timeout(LOOK_EVERY) {
                // An empty chunk is the end; the thread has exited.
                Ok(Ok(chunk)) if chunk.is_empty() => return Ok(0),
                Ok(Ok(chunk)) => self.chunk = io::Cursor::new(chunk),
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
    }
}
