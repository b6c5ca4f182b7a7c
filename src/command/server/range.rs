//! Parts of values, by RFC 9110: `Range`.

use std::ops::Range;

use hyper::HeaderMap;
use hyper::header::RANGE;

/// One range of bytes, as a request asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// From this offset up to this one, which is included; or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

/// What of a value is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Bytes(Range<usize>),
    /// The range begins behind the end.
    Unsatisfiable,
}

impl ByteRange {
    /// None if the request asks for no range, for several, or in another unit or form than this
    /// server knows: the whole value is sent then, as the standard allows.
    pub(crate) fn of(headers: &HeaderMap) -> Option<ByteRange> {
        let mut lines = headers.get_all(RANGE).iter();
        let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else {
            return None;
        };
        let (unit, range) = line.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        match range.trim().split_once('-')? {
            ("", length) => number(length).map(ByteRange::Last),
            (first, "") => number(first).map(|first| ByteRange::From(first, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(ByteRange::From(first, Some(last)))
            }
        }
    }

    /// The part of a value of this length.
    pub(crate) fn part(self, length: usize) -> Part {
        // No value is so long that an offset within it exceeds this.
        let offset = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        match self {
            ByteRange::Last(0) => Part::Unsatisfiable,
            // No range can say that there is nothing. Clients give one only to limit what they get.
            ByteRange::Last(_) | ByteRange::From(0, _) if length == 0 => Part::Whole,
            ByteRange::Last(bytes) => Part::Bytes(length.saturating_sub(offset(bytes))..length),
            ByteRange::From(first, _) if offset(first) >= length => Part::Unsatisfiable,
            ByteRange::From(first, last) => {
                let end = last.map_or(length, |last| offset(last).saturating_add(1).min(length));
                Part::Bytes(offset(first)..end)
            }
        }
    }
}

/// A number in decimal digits; one that is too large is the largest.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<ByteRange> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(RANGE, line.parse().unwrap());
        }
        ByteRange::of(&headers)
    }

    #[test]
    fn a_range_is_one_of_three_forms_and_all_else_is_ignored() {
        let from = |first, last| Some(ByteRange::From(first, last));
        assert_eq!(read(&["bytes=0-9"]), from(0, Some(9)));
        assert_eq!(read(&["Bytes = 5-"]), from(5, None));
        assert_eq!(read(&["bytes=007-7"]), from(7, Some(7)));
        assert_eq!(read(&["bytes=-3"]), Some(ByteRange::Last(3)));
        assert_eq!(read(&["bytes=0-99999999999999999999999"]), from(0, Some(u64::MAX)));
        for ignored in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes=0-1,",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=--2",
            "bytes=1 -2",
            "items=0-1",
            "0-1",
            "bytes:0-1",
        ] {
            assert_eq!(read(&[ignored]), None, "{ignored:?}");
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["bytes=0-1", "bytes=0-1"]), None);
    }

    #[test]
    fn a_range_is_cut_to_what_is_there() {
        let part = |range: &str, length| read(&[range]).unwrap().part(length);
        for (range, expected) in [
            ("bytes=0-9", 0..10),
            ("bytes=0-0", 0..1),
            ("bytes=9-9", 9..10),
            ("bytes=3-99", 3..10),
            ("bytes=3-", 3..10),
            ("bytes=-1", 9..10),
            ("bytes=-10", 0..10),
            ("bytes=-99999999999999999999999", 0..10),
            ("bytes=0-99999999999999999999999", 0..10),
        ] {
            assert_eq!(part(range, 10), Part::Bytes(expected), "{range}");
        }
        for range in ["bytes=10-", "bytes=10-11", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(part(range, 10), Part::Unsatisfiable, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Whole);
        assert_eq!(part("bytes=0-9", 0), Part::Whole);
        assert_eq!(part("bytes=1-", 0), Part::Unsatisfiable);
        assert_eq!(part("bytes=-5", 0), Part::Whole);
    }
}
