//! The log, on standard error.

use tracing_subscriber::EnvFilter;

use super::settings::{LogFormat, Settings};
use crate::common::failure::{Failure, Outcome};
use crate::common::text::quoted;

pub(super) fn to_stderr(settings: &Settings) -> Outcome {
    let wrong = |what: String| {
        Failure::usage(
            format!("{} is not a log filter: {what}", quoted(settings.log.as_bytes())),
            "",
        )
    };
    let filter = EnvFilter::try_new(&settings.log).map_err(|error| wrong(error.to_string()))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match settings.log_format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    installed.map_err(|error| wrong(error.to_string()))
}
