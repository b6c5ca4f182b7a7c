//! What is logged.

use tracing_subscriber::EnvFilter;

use crate::common::failure::{Failure, Outcome};
use crate::common::text::quoted;
use crate::planted::{Planted, planted};

pub(super) const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Checks a filter: a level, or several of TARGET=LEVEL, separated by commas. The library would
/// take any other word for the name of a target, and log nothing else.
pub(crate) fn check_filter(text: &str) -> Outcome {
    let wrong = |what: String| {
        let hint = format!(
            "use {}, or TARGET=LEVEL for parts of the program, separated by commas",
            LEVELS.join(", ")
        );
        Err(Failure::usage(
            format!("{} is not a log filter: {what}", quoted(text.as_bytes())),
            hint,
        ))
    };
    for part in text.split(',') {
        let is_level = LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
        if !is_level && !part.contains('=') && !planted(Planted::AnyLogLevel) {
            return wrong(format!("{} is not a level", quoted(part.as_bytes())));
        }
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(()),
        Err(error) => wrong(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_level_is_no_filter() {
        for good in ["warn", "WARN", "off", "info,embercask_command=debug", "hyper=off,error"] {
            assert!(check_filter(good).is_ok(), "{good}");
        }
        for wrong in [
            "warning",
            "",
            "verbose",
            "info,",
            "2",
            "warn,hyper",
            "a=b=c",
            "hyper=loud",
            " info",
        ] {
            let Err(Failure::Told { message, hint, .. }) = check_filter(wrong) else {
                panic!("{wrong:?} is accepted")
            };
            assert!(message.starts_with(&format!("{wrong:?}")), "{message}");
            assert!(LEVELS.iter().all(|level| hint.contains(level)), "{hint}");
        }
    }
}
