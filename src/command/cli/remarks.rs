//! What a person should know about the pairs of a file, told in a few lines however many there are.

use super::session::Session;
use crate::common::text::count;

/// Remarks of different kinds that are told; of the others only their number is.
const KINDS_MAX: usize = 5;

/// Remarks by kind.
#[derive(Default)]
pub(crate) struct Remarks {
    kinds: Vec<Kind>,
    others: u64,
}

struct Kind {
    what: String,
    /// Where it was met first.
    place: String,
    times: u64,
}

impl Remarks {
    /// Adds a remark about a pair. All that say the same are told as one.
    pub(crate) fn add(&mut self, what: &str, place: impl FnOnce() -> String) {
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.what == what) {
            kind.times += 1;
        } else if self.kinds.len() < KINDS_MAX {
            self.kinds.push(Kind {
                what: what.to_owned(),
                place: place(),
                times: 1,
            });
        } else {
            self.others += 1;
        }
    }

    /// Tells the remarks, and forgets them.
    pub(crate) fn tell(&mut self, session: &Session) {
        for Kind { what, place, times } in std::mem::take(&mut self.kinds) {
            let more = match times - 1 {
                0 => String::new(),
                more => format!(" (and {} more)", count(more)),
            };
            session.note(format_args!("note: {place}: {what}{more}"));
        }
        match std::mem::take(&mut self.others) {
            0 => {}
            1 => session.note("note: there is 1 more remark of another kind"),
            others => session.note(format_args!(
                "note: there are {} more remarks of other kinds",
                count(others)
            )),
        }
    }
}
