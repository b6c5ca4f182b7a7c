//! Files of any size, compressed or not, that are read or written from front to back.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::session::Session;

/// Bytes after which a compressed file gets a new frame: an export that is cut off loses no more than the last one.
const FRAME_BYTES: u64 = 8 << 20;
/// Bytes that are read or written at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// How a file is compressed, by its last suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(path: &Path) -> Compression {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Something to read from front to back, decompressed, with a progress bar.
pub(crate) struct Input {
    /// What messages call it.
    pub(crate) name: String,
    pub(crate) reader: Box<dyn BufRead>,
}

impl Input {
    pub(crate) fn open(path: &Path, session: &Session, what: &'static str) -> Outcome<Input> {
        if is_standard(path) {
            let name = "standard input".to_owned();
            let reader = Box::new(io::stdin().lock());
            return Ok(Input { name, reader });
        }
        let fail = |error: io::Error| Failure::file("read", path.display(), &error);
        let file = File::open(path).map_err(fail)?;
        let bar = session.bytes_bar(what);
        bar.set_length(file.metadata().map_err(fail)?.len());
        let file = bar.wrap_read(file);
        let reader: Box<dyn Read> = match Compression::of(path) {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(file).map_err(fail)?),
        };
        Ok(Input {
            name: path.display().to_string(),
            reader: Box::new(BufReader::with_capacity(BUFFER_BYTES, reader)),
        })
    }
}

type Target = Box<dyn Write>;

enum Encoder {
    Plain(Target),
    Gzip(GzEncoder<Target>),
    Zstd(zstd::stream::write::Encoder<'static, Target>),
}

impl Encoder {
    fn begin(compression: Compression, target: Target) -> io::Result<Encoder> {
        Ok(match compression {
            Compression::None => Encoder::Plain(target),
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(target, flate2::Compression::default())),
            Compression::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(target, ZSTD_LEVEL)?),
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Encoder::Plain(target) => target,
            Encoder::Gzip(encoder) => encoder,
            Encoder::Zstd(encoder) => encoder,
        }
    }

    fn end(self) -> io::Result<Target> {
        match self {
            Encoder::Plain(target) => Ok(target),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// Something to write from front to back. A file appears under its name when it is complete.
pub(crate) struct Output {
    compression: Compression,
    /// None only while a frame ends.
    encoder: Option<Encoder>,
    in_frame_bytes: u64,
    /// The file as it is, and what it is called at the end; None if it is standard output.
    file: Option<(File, PathBuf, PathBuf)>,
}

impl Output {
    /// Begins anew.
    pub(crate) fn create(path: &Path) -> Outcome<Output> {
        if is_standard(path) {
            let target = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
            return Ok(Output {
                compression: Compression::None,
                encoder: Some(Encoder::Plain(Box::new(target))),
                in_frame_bytes: 0,
                file: None,
            });
        }
        let partial = partial(path);
        let file = File::create(&partial).map_err(|error| Failure::file("create", partial.display(), &error))?;
        Output::to_file(file, partial, path)
    }

    /// Goes on with what an earlier export left, if it left anything; with it comes the last line that is whole.
    pub(crate) fn resume(path: &Path) -> Outcome<(Output, Option<Vec<u8>>)> {
        if is_standard(path) {
            return Err(Failure::usage("standard output cannot be gone on with", "name a file"));
        }
        let partial = partial(path);
        let fail = |error: io::Error| Failure::file("go on with", partial.display(), &error);
        let mut file = match OpenOptions::new().read(true).write(true).open(&partial) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Output::create(path)?, None)),
            file => file.map_err(fail)?,
        };
        let whole = Whole::of(&mut file, Compression::of(path)).map_err(fail)?;
        file.set_len(whole.length).map_err(fail)?;
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok((Output::to_file(file, partial, path)?, whole.last_line))
    }

    fn to_file(file: File, partial: PathBuf, path: &Path) -> Outcome<Output> {
        let fail = |error: io::Error| Failure::file("write", path.display(), &error);
        let compression = Compression::of(path);
        let target = BufWriter::with_capacity(BUFFER_BYTES, file.try_clone().map_err(fail)?);
        Ok(Output {
            compression,
            encoder: Some(Encoder::begin(compression, Box::new(target)).map_err(fail)?),
            in_frame_bytes: 0,
            file: Some((file, partial, path.to_owned())),
        })
    }

    /// Writes something that stays together: a line.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome {
        let written = match &mut self.encoder {
            Some(encoder) => encoder.writer().write_all(bytes),
            None => Err(io::Error::other("an earlier write failed")),
        };
        written.map_err(|error| self.fail(error))?;
        self.in_frame_bytes += bytes.len() as u64;
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
            None => Err(io::Error::other("an earlier write failed")),
        };
        ended.map_err(|error| self.fail(error))
    }

    fn fail(&self, error: io::Error) -> Failure {
        match &self.file {
            Some((_, partial, _)) => Failure::file("write", partial.display(), &error),
            None => error.into(),
        }
    }

    /// Ends a part of the file, so that it can be gone on with.
    pub(crate) fn pause(mut self) -> Outcome {
        let mut target = self.end_frame()?;
        target.flush().map_err(|error| self.fail(error))
    }

    /// Ends the file, makes it durable, and gives it its name.
    pub(crate) fn finish(mut self) -> Outcome {
        let mut target = self.end_frame()?;
        target.flush().map_err(|error| self.fail(error))?;
        drop(target);
        let Some((file, partial, path)) = &self.file else {
            return Ok(());
        };
        file.sync_all()
            .and_then(|()| std::fs::rename(partial, path))
            .map_err(|error| Failure::file("write", path.display(), &error))
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// As much of a file as is whole: up to the end of a frame or, without compression, of a line.
#[derive(Default)]
struct Whole {
    length: u64,
    last_line: Option<Vec<u8>>,
}

impl Whole {
    fn of(file: &mut File, compression: Compression) -> io::Result<Whole> {
        let mut whole = Whole::default();
        let mut reader = Counted {
            inner: BufReader::with_capacity(BUFFER_BYTES, file),
            count: 0,
        };
        if compression == Compression::None {
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
                whole.length = reader.count;
                whole.last_line = Some(std::mem::take(&mut line));
            }
            return Ok(whole);
        }
        while !reader.fill_buf()?.is_empty() {
            let last = match compression {
                Compression::Gzip => last_line(flate2::bufread::GzDecoder::new(&mut reader)),
                _ => zstd::stream::read::Decoder::with_buffer(&mut reader)
                    .and_then(|frame| last_line(frame.single_frame())),
            };
            // A frame that was cut off does not end; what is whole before it counts.
            let Ok(last) = last else { break };
            whole.length = reader.count;
            whole.last_line = last.or(whole.last_line);
        }
        Ok(whole)
    }
}

/// The last line of a frame, which has whole lines only.
fn last_line(frame: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut frame = BufReader::with_capacity(BUFFER_BYTES, frame);
    let (mut line, mut last) = (Vec::new(), None);
    while frame.read_until(b'\n', &mut line)? > 0 {
        last = Some(std::mem::take(&mut line));
    }
    Ok(last)
}

/// Counts the bytes that were taken out of a reader.
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
