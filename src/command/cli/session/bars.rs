//! Progress bars, shown on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Session;

impl Session {
    /// A bar over bytes, with rate and time left; shown on a terminal only.
    pub(crate) fn bytes_bar(&self, what: &'static str) -> ProgressBar {
        self.bar(
            what,
            "{msg:10} {bar:30} {binary_bytes:>11} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left",
        )
    }

    /// As [`Session::bytes_bar`], over keys.
    pub(crate) fn keys_bar(&self, what: &'static str) -> ProgressBar {
        self.bar(
            what,
            "{msg:10} {bar:30} {human_pos:>11} of {human_len}  {per_sec}  {eta} left",
        )
    }

    fn bar(&self, what: &'static str, template: &str) -> ProgressBar {
        let target = if self.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            // Templates are constants; a bad one shows in the first test.
            Err(_) => bar,
        }
    }
}
