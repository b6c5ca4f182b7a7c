//! Errors, as clients see them.

use embercask::{Error, ErrorKind};

use super::limited_log;

/// An error response. The binding protocol sends status and message, the REST API the code as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: u32,
    pub(crate) message: String,
    /// For status 416: the length of the value.
    pub(crate) length: Option<usize>,
    /// For status 405: the methods that the path has.
    pub(crate) allow: Option<String>,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: u32, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            code,
            message: message.into(),
            length: None,
            allow: None,
        }
    }

    /// A range that begins behind the end of a value of this length.
    pub(crate) fn unsatisfiable_range(length: usize) -> ApiError {
        ApiError {
            length: Some(length),
            ..ApiError::new(
                416,
                10416,
                format!("Range Not Satisfiable: the value has {length} bytes"),
            )
        }
    }

    /// A method that a path does not have; `methods` are those that it has. What answers GET
    /// answers HEAD too.
    pub(crate) fn method_not_allowed(message: &str, methods: &[&str]) -> ApiError {
        let mut allow: Vec<&str> = methods.to_vec();
        if let Some(get) = methods.iter().position(|method| *method == "GET") {
            allow.insert(get + 1, "HEAD");
        }
        ApiError {
            allow: Some(allow.join(", ")),
            ..ApiError::new(405, 10405, message)
        }
    }

    /// A name of a namespace that another one has.
    pub(crate) fn name_taken() -> ApiError {
        ApiError::new(400, 10014, "a namespace with this account ID and title already exists")
    }

    /// Prefixes the message with the operation, as the REST API does.
    pub(crate) fn of(self, operation: &str) -> ApiError {
        ApiError {
            message: format!("{operation}: '{}'", self.message),
            ..self
        }
    }
}

/// Errors of the store. Responses do not mention directories and files; logs do.
impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        let api_error = match error.kind() {
            kind if matches!(error, Error::Pending { .. }) => {
                let status = if kind == ErrorKind::NoSpace { 507 } else { 500 };
                ApiError::new(status, 10001, "applied, but not written out yet; do not retry")
            }
            ErrorKind::NotFound => return ApiError::new(404, 10013, "namespace not found"),
            ErrorKind::AlreadyExists => return ApiError::name_taken(),
            ErrorKind::InvalidInput => return ApiError::new(400, 10001, error.to_string()),
            // Limits are what the server's owner wants, not faults: no error in the log.
            ErrorKind::NoSpace if matches!(error, Error::NamespaceFull { .. }) => {
                return ApiError::new(507, 10001, "the namespace has reached its limit of space");
            }
            ErrorKind::NoSpace if matches!(error, Error::LimitReached { .. }) => {
                return ApiError::new(507, 10001, "the store has reached its limit of space");
            }
            ErrorKind::NoSpace => ApiError::new(507, 10001, "no space is left on the disk"),
            ErrorKind::Closed | ErrorKind::Poisoned => ApiError::new(503, 10001, "the store refuses writes"),
            ErrorKind::Cancelled => return ApiError::new(503, 10001, "it was cancelled"),
            ErrorKind::Corruption => ApiError::new(500, 10001, "stored data are damaged"),
            _ => ApiError::new(500, 10001, "internal error"),
        };
        limited_log::store_failed(&error);
        api_error
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_write_that_is_applied_and_not_written_out_yet_is_not_told_as_one_that_did_not_fit() {
        let no_space = || Error::NoSpace {
            path: "/store/1.segment".into(),
        };
        let refused = |error: Error| {
            let api_error = ApiError::from(error);
            (api_error.status, api_error.message)
        };
        assert_eq!(refused(no_space()), (507, "no space is left on the disk".to_owned()));
        let other = Error::Io {
            action: "write",
            path: "/store/1.segment".into(),
            source: Arc::new(std::io::ErrorKind::Other.into()),
        };
        for (cause, status) in [(no_space(), 507), (other, 500)] {
            let pending = Error::Pending { cause: Arc::new(cause) };
            assert_eq!(
                refused(pending),
                (status, "applied, but not written out yet; do not retry".to_owned())
            );
        }
    }
}
