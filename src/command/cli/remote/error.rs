//! The errors of a server, in words and exit statuses.

use serde::Deserialize;

use super::connection::Answer;
use crate::common::failure::Failure;

/// Why a request has not succeeded.
pub(super) enum Error {
    /// The server has refused it.
    Refused(Refusal),
    Failed(Failure),
}

/// A refusal.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// 0 if there was none.
    pub(super) code: u64,
    pub(super) message: String,
    server: String,
    has_token: bool,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: u64,
    message: String,
}

impl Refusal {
    pub(super) fn of(answer: &Answer, server: &str, has_token: bool) -> Refusal {
        let envelope = serde_json::from_slice::<Envelope>(&answer.body).ok();
        let problem = envelope.and_then(|envelope| envelope.errors.into_iter().next());
        let status = answer.status.as_u16();
        let (code, message) = match problem {
            Some(problem) => (problem.code, without_operation(&problem.message).to_owned()),
            None => (0, String::new()),
        };
        Refusal {
            status,
            code,
            message,
            server: server.to_owned(),
            has_token,
        }
    }

    /// There is no such key.
    pub(super) fn is_no_key(&self) -> bool {
        self.code == 10009
    }

    /// There is no such namespace.
    pub(super) fn is_no_namespace(&self) -> bool {
        self.code == 10013
    }

    /// There is a namespace with this name.
    pub(super) fn is_taken(&self) -> bool {
        self.code == 10014
    }

    /// A condition does not hold.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == 412
    }

    /// The request is wrong, and would be tomorrow.
    pub(super) fn is_invalid(&self) -> bool {
        matches!(self.status, 400 | 411 | 413 | 414 | 415 | 422) && !self.is_taken()
    }

    /// The time at which a key is to expire is too soon.
    pub(super) fn is_expiration(&self) -> bool {
        self.code == 10033
    }

    /// The record of the key is damaged.
    pub(super) fn is_damage(&self) -> bool {
        self.status == 500 && self.message.contains("damaged")
    }

    fn into_failure(self) -> Failure {
        let Refusal {
            status,
            message,
            server,
            ..
        } = &self;
        if message.is_empty() {
            return match status {
                429 | 500.. => Failure::system(format!("{server} answers with status {status}"), ""),
                _ => Failure::usage(
                    format!("{server} does not answer as the REST API of Workers KV (status {status})"),
                    "give the address as `embercask serve` prints it, with its path if it is not /client/v4",
                ),
            };
        }
        let told = format!("{server}: {message}");
        match status {
            401 | 403 => Failure::system(
                told,
                match self.has_token {
                    true => "the token may be wrong, only for reading, or for other namespaces",
                    false => "give a token in EMBERCASK_TOKEN or with --token-file FILE",
                },
            ),
            _ if self.is_no_namespace() => Failure::no(told, "`embercask namespace list` shows all namespaces"),
            _ if self.is_no_key() || self.is_taken() || self.is_conflict() => Failure::no(told, ""),
            500 if self.is_damage() => Failure::damaged(told),
            429 | 500.. => Failure::system(told, ""),
            _ => Failure::usage(told, ""),
        }
    }
}

/// The message in `put: 'message'`.
fn without_operation(message: &str) -> &str {
    let inner = message.split_once(": '").and_then(|(operation, rest)| {
        let is_word = |byte: u8| byte.is_ascii_alphabetic() || byte == b' ';
        let is_operation =
            operation.starts_with(|first: char| first.is_ascii_lowercase()) && operation.bytes().all(is_word);
        rest.strip_suffix('\'').filter(|_| is_operation)
    });
    without_item(inner.unwrap_or(message))
}

/// The message in `item 3: message`, which counts the pairs of a request from 0.
fn without_item(message: &str) -> &str {
    let rest = message.strip_prefix("item ").and_then(|rest| rest.split_once(": "));
    match rest {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => message,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Refused(refusal) => refusal.into_failure(),
            Error::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_without_the_servers_name_for_the_operation() {
        for (message, told) in [
            ("put: 'Invalid expiration of 5.'", "Invalid expiration of 5."),
            ("bulk remove keys: 'it's'", "it's"),
            ("set default TTL: 'too short'", "too short"),
            ("bulk put: 'item 12: too long'", "too long"),
            ("item b: c", "item b: c"),
            ("Authentication error", "Authentication error"),
            ("A key: 'b'", "A key: 'b'"),
        ] {
            assert_eq!(without_operation(message), told);
        }
    }
}
