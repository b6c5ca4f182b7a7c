//! Figures from the system about this process and about a directory.

use anyhow::{Context, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The resident set of this process, in bytes.
pub struct Resident {
    /// Including pages of mapped files, which the system may reclaim at any time.
    pub all: u64,
    /// Anonymous memory only.
    pub anonymous: u64,
}

/// The current resident set.
pub fn resident() -> Result<Resident> {
    let status = read("/proc/self/status")?;
    let bytes = |name| Ok::<u64, anyhow::Error>(field(&status, name)? * 1024);
    Ok(Resident {
        all: bytes("VmRSS:")?,
        anonymous: bytes("RssAnon:")?,
    })
}

/// Bytes that this process has caused to be written to the device so far. The system counts a page
/// when it becomes dirty.
pub fn written() -> Result<u64> {
    field(&read("/proc/self/io")?, "write_bytes:")
}

/// Bytes that the files below a directory take on disk, excluding holes.
pub fn disk_used(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += match metadata.is_dir() {
            true => disk_used(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {path}"))
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name} from the system"))?;
    let number = line
        .split_whitespace()
        .next()
        .with_context(|| format!("no number for {name}"))?;
    number.parse().with_context(|| format!("the number for {name}"))
}
