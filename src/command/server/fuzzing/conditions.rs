//! A second reader of conditional requests, by RFC 9110.

use super::second::Asked;
use crate::common::fuzzing::Kept;
use crate::server::etag::Etag;

impl Asked<'_> {
    /// None for a change that takes no conditions and has some.
    pub(super) fn if_unconditional(&self) -> Option<()> {
        let has_some = self.if_match.is_some() || self.if_none_match.is_some();
        (self.routed() == "GET" || !has_some).then_some(())
    }

    /// None if a condition does not hold, or is malformed.
    pub(super) fn if_holds(&self, kept: Option<&Kept>) -> Option<()> {
        let etag = kept.map(|kept| Etag::of(&kept.value, kept.metadata.as_deref(), kept.expiry_ms).to_string());
        let names = |given: &[u8], is_strong: bool| {
            let given = std::str::from_utf8(given)
                .ok()
                .map(|given| given.trim_matches([' ', '\t']));
            match given {
                Some("*") => Some(kept.is_some()),
                given => {
                    let tags = tags(given?)?;
                    let tags = tags.iter().filter(|(is_weak, _)| !(is_strong && *is_weak));
                    Some(tags.into_iter().any(|(_, tag)| Some(*tag) == etag.as_deref()))
                }
            }
        };
        let is_matched = self.if_match.map_or(Some(true), |given| names(given, true))?;
        let is_named = self.if_none_match.map_or(Some(false), |given| names(given, false))?;
        (is_matched && !is_named).then_some(())
    }
}

/// Entity tags with their quotation marks, and whether each is weak; None if malformed. Only of
/// ASCII: what is composed has no other.
fn tags(given: &str) -> Option<Vec<(bool, &str)>> {
    let (mut tags, mut rest) = (Vec::new(), given);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(tags).filter(|tags| !tags.is_empty());
        }
        let is_weak = rest.starts_with("W/");
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let length = tag.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = tag.split_at(length);
        if !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        tags.push((is_weak, tag));
    }
}
