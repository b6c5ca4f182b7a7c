//! Why a record could not be read.

use std::io;

use crate::format::Damage;

/// Why a record could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The bytes are not a valid record.
    Damage(Damage),
    /// The system failed the read.
    Io(io::Error),
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        ReadError::Damage(damage)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Damage(Damage::Short),
            _ => ReadError::Io(error),
        }
    }
}
