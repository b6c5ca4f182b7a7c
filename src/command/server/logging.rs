//! The log, on standard error.

use tracing_subscriber::EnvFilter;

use super::settings::{LogFormat, Settings};
use crate::common::failure::{Failure, Outcome};

pub(super) fn to_stderr(settings: &Settings) -> Outcome {
    let failed = |what: String| Failure::usage(format!("cannot log: {what}"), "");
    // It was checked with the other settings.
    let filter = EnvFilter::try_new(&settings.log).map_err(|error| failed(error.to_string()))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match settings.log_format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    installed.map_err(|error| failed(error.to_string()))
}
