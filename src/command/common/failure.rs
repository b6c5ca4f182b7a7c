//! What goes wrong, how it is told, and with which exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use embercask::{Error, ErrorKind};

use super::text::one_line;
use crate::planted::{Planted, planted};

/// How a command ends.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Exit statuses; `embercask --help` documents them.
pub(crate) mod status {
    /// The answer is no: a key or namespace is absent, or there already, or a condition does not
    /// hold.
    pub(crate) const NO: u8 = 1;
    /// The arguments or the input are wrong. Also what clap exits with.
    pub(crate) const USAGE: u8 = 2;
    /// Stored data are damaged.
    pub(crate) const DAMAGED: u8 = 3;
    /// Another process has the store open.
    pub(crate) const IN_USE: u8 = 4;
    /// The system failed: no space, no permission, a device.
    pub(crate) const SYSTEM: u8 = 5;
    /// Stopped by Ctrl-C or a signal.
    pub(crate) const STOPPED: u8 = 130;
}

/// What to do about damage.
const VERIFY_OR_SALVAGE: &str = "`embercask verify` lists all damage; `embercask salvage TO` copies what is sound";

/// Why a command did not do what was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One line, perhaps with a hint of what to do.
    Told { message: String, hint: String, status: u8 },
    /// Everything has been said on standard output.
    Silent(u8),
    /// Standard output is not read any more: no fault of ours.
    BrokenPipe,
}

impl Failure {
    fn told(message: impl Into<String>, hint: impl Into<String>, status: u8) -> Failure {
        Failure::Told {
            message: message.into(),
            hint: hint.into(),
            status,
        }
    }

    /// The arguments or the input are wrong.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::told(message, hint, status::USAGE)
    }

    /// The shell reads commands from where a value should come.
    pub(crate) fn input_of_shell() -> Failure {
        Failure::usage("the shell itself reads standard input", "name a file")
    }

    /// Stored data are damaged.
    pub(crate) fn damaged(message: impl Into<String>) -> Failure {
        Failure::told(message, "", status::DAMAGED)
    }

    /// So many keys were met whose records are damaged; each was told.
    pub(crate) fn damaged_keys(number: u64, what: &str) -> Failure {
        let message = match number {
            1 => format!("the record of 1 key is damaged; {what}"),
            _ => format!("the records of {} keys are damaged; {what}", super::text::count(number)),
        };
        let status = if planted(Planted::HideDamage) {
            0
        } else {
            status::DAMAGED
        };
        Failure::told(message, VERIFY_OR_SALVAGE, status)
    }

    /// The answer is no.
    pub(crate) fn no(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::told(message, hint, status::NO)
    }

    /// Something of the system failed on a file.
    pub(crate) fn file(action: &str, path: impl std::fmt::Display, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => {
                Failure::usage(format!("cannot {action} {path}: {error}"), "")
            }
            // Not the system, but the decoder refused what it read: it is no gzip, or cut off.
            _ if error.raw_os_error().is_none() => Failure::usage(format!("cannot {action} {path}: {error}"), ""),
            _ => Failure::told(format!("cannot {action} {path}: {error}"), "", status::SYSTEM),
        }
    }

    /// Stopped on request.
    pub(crate) fn stopped(what: &str) -> Failure {
        Failure::told(format!("stopped; {what}"), "", status::STOPPED)
    }

    /// The same, but said of a place: `pairs.json, pair 3`.
    pub(crate) fn at(self, place: impl std::fmt::Display) -> Failure {
        match self {
            Failure::Told { message, hint, status } => Failure::Told {
                message: format!("{place}: {message}"),
                hint,
                status,
            },
            failure => failure,
        }
    }

    /// The same, and what has become of the work.
    pub(crate) fn having(self, what: &str) -> Failure {
        match self {
            Failure::Told { message, hint, status } => Failure::Told {
                message: format!("{message}; {what}"),
                hint,
                status,
            },
            failure => failure,
        }
    }

    /// How a command ends that has written what it found: damage counts, even if it was not read.
    pub(crate) fn unless_sound(is_sound: bool, written: Outcome) -> Outcome {
        match written {
            Ok(()) | Err(Failure::BrokenPipe) if !is_sound && !planted(Planted::HideDamage) => {
                Err(Failure::Silent(status::DAMAGED))
            }
            written => written,
        }
    }

    /// Whether the user wanted it.
    pub(crate) fn is_stop(&self) -> bool {
        matches!(
            self,
            Failure::Told {
                status: status::STOPPED,
                ..
            }
        )
    }

    /// Tells of it, and says with which status to exit.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Failure::Told { message, hint, status } => {
                let style = anstyle::AnsiColor::Red.on_default().bold();
                let mut told = anstream::stderr().lock();
                // Where nothing can be written, the status remains.
                let _ = writeln!(told, "{style}error:{style:#} {}", one_line(message));
                if !hint.is_empty() {
                    let _ = writeln!(told, "hint: {}", one_line(hint));
                }
                ExitCode::from(*status)
            }
            Failure::Silent(status) => ExitCode::from(*status),
            Failure::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (status, hint) = match error.kind() {
            ErrorKind::NotFound => (
                status::NO,
                "`embercask namespace list` shows those that are there; `embercask namespace create NAME` makes one",
            ),
            ErrorKind::AlreadyExists | ErrorKind::Conflict => (status::NO, ""),
            ErrorKind::InvalidInput => (status::USAGE, ""),
            ErrorKind::NotAStore if matches!(error, Error::NewerFormat { .. }) => {
                (status::USAGE, "`embercask --version` says what this one is")
            }
            ErrorKind::NotAStore => (
                status::USAGE,
                "name the directory of a store by --store or EMBERCASK_STORE; `embercask namespace create NAME` makes a new store there",
            ),
            ErrorKind::Corruption => (status::DAMAGED, VERIFY_OR_SALVAGE),
            ErrorKind::InUse => (status::IN_USE, ""),
            ErrorKind::Cancelled => (status::STOPPED, ""),
            ErrorKind::Io if is_absent(&error) => (status::USAGE, ""),
            _ => (status::SYSTEM, ""),
        };
        Failure::told(error.to_string(), hint, status)
    }
}

/// Whether a file that was named is not there.
fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Of standard output; what concerns a file is told by [`Failure::file`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::told(format!("cannot write the output: {error}"), "", status::SYSTEM),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        io::Error::from(error).into()
    }
}
