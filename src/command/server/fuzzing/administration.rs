//! A second reader of requests for administration.

use super::second::{Asked, Does};

impl Asked<'_> {
    pub(super) fn admin(&self) -> Option<Does> {
        match (self.routed(), self.path) {
            // Tokens come from no file, and checkpoints have no directory.
            ("GET", "/admin/statistics" | "/admin/compact" | "/admin/checkpoint") => self.all().map(|()| Does::Answers),
            ("POST", "/admin/compact") => {
                self.all()?;
                let seconds = self.number("seconds", 30, |seconds| (0..=3600).contains(&seconds));
                seconds.map(|_| Does::Answers)
            }
            ("DELETE", "/admin/compact") => self.all().map(|()| Does::Answers),
            _ => None,
        }
    }
}
