//! Failures of commands: messages, hints and exit statuses.

use std::io::{self, Write};
use std::process::ExitCode;

use embercask::{Error, ErrorKind};

use super::text::one_line;
use crate::planted::{Planted, planted};

/// How a command ends.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Exit statuses, documented in `embercask --help`.
pub(crate) mod status {
    /// A key or namespace is absent or already there, or a condition does not hold.
    pub(crate) const NO: u8 = 1;
    /// The arguments or the input are wrong. Also what clap exits with.
    pub(crate) const USAGE: u8 = 2;
    /// Stored data is damaged.
    pub(crate) const DAMAGED: u8 = 3;
    /// Another process has the store open.
    pub(crate) const IN_USE: u8 = 4;
    /// The system failed: no space, no permission, a device.
    pub(crate) const SYSTEM: u8 = 5;
    /// Stopped by Ctrl-C or a signal.
    pub(crate) const STOPPED: u8 = 130;
}

/// Hint for damaged stores.
const VERIFY_OR_SALVAGE: &str = "`embercask verify` lists all damage; `embercask salvage TO` copies the undamaged data";

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error message, perhaps with a hint.
    Told { message: String, hint: String, status: u8 },
    /// Everything is reported already.
    Silent(u8),
    /// The reader of standard output is gone, which is not an error.
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

    /// Standard input is taken: the shell reads its commands from it.
    pub(crate) fn input_of_shell() -> Failure {
        Failure::usage("the shell reads its commands from standard input", "name a file")
    }

    /// The system or the server failed.
    pub(crate) fn system(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::told(message, hint, status::SYSTEM)
    }

    /// Stored data is damaged.
    pub(crate) fn damaged(message: impl Into<String>) -> Failure {
        Failure::told(message, "", status::DAMAGED)
    }

    /// The command met this number of damaged keys, and reported each.
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

    /// Something is absent or already there, or a condition does not hold.
    pub(crate) fn no(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::told(message, hint, status::NO)
    }

    /// An I/O error on a file.
    pub(crate) fn file(action: &str, path: impl std::fmt::Display, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => {
                Failure::usage(format!("cannot {action} {path}: {error}"), "")
            }
            // An error of the decoder, not of the system: the file is not gzip, or is cut off.
            _ if error.raw_os_error().is_none() => Failure::usage(format!("cannot {action} {path}: {error}"), ""),
            _ => Failure::told(format!("cannot {action} {path}: {error}"), "", status::SYSTEM),
        }
    }

    /// Stopped on request.
    pub(crate) fn stopped(what: &str) -> Failure {
        Failure::told(format!("stopped; {what}"), "", status::STOPPED)
    }

    /// Adds the place to the message: `pairs.json, pair 3`.
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

    /// Adds to the message how much was done.
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

    /// The outcome of a command that reports damage: the status tells it even if the reader is
    /// gone.
    pub(crate) fn unless_sound(is_sound: bool, written: Outcome) -> Outcome {
        match written {
            Ok(()) | Err(Failure::BrokenPipe) if !is_sound && !planted(Planted::HideDamage) => {
                Err(Failure::Silent(status::DAMAGED))
            }
            written => written,
        }
    }

    /// The message, for another place than standard error.
    pub(crate) fn message(&self) -> String {
        match self {
            Failure::Told { message, .. } => message.clone(),
            Failure::Silent(_) | Failure::BrokenPipe => "it was told already".to_owned(),
        }
    }

    /// Whether stored data are damaged.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Failure::Told {
                status: status::DAMAGED,
                ..
            }
        )
    }

    /// Whether the user stopped the command.
    pub(crate) fn is_stop(&self) -> bool {
        matches!(
            self,
            Failure::Told {
                status: status::STOPPED,
                ..
            }
        )
    }

    /// Prints the failure, and returns the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Failure::Told { message, hint, status } => {
                let style = anstyle::AnsiColor::Red.on_default().bold();
                let mut told = anstream::stderr().lock();
                // If standard error fails, the status remains.
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
                "`embercask namespace list` shows all namespaces; `embercask namespace create NAME` creates one",
            ),
            ErrorKind::AlreadyExists | ErrorKind::Conflict => (status::NO, ""),
            ErrorKind::InvalidInput => (status::USAGE, ""),
            ErrorKind::NotAStore if matches!(error, Error::NewerFormat { .. }) => {
                (status::USAGE, "`embercask --version` prints this version")
            }
            ErrorKind::NotAStore => (
                status::USAGE,
                "give the directory of a store with --store or EMBERCASK_STORE; `embercask namespace create NAME` creates a store there",
            ),
            ErrorKind::Corruption => (status::DAMAGED, VERIFY_OR_SALVAGE),
            ErrorKind::InUse => (status::IN_USE, "`--wait 30s` waits until it is free"),
            ErrorKind::Cancelled => (status::STOPPED, ""),
            ErrorKind::Io if is_absent(&error) => (status::USAGE, ""),
            _ => (status::SYSTEM, ""),
        };
        Failure::told(error.to_string(), hint, status)
    }
}

/// Whether the error is a missing file.
fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// For errors of standard output; [`Failure::file`] is for files.
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
