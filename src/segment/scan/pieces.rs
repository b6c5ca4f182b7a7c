//! Scanning a segment piece by piece, for a reader that does not have all of it at hand.

use super::Scanner;
use crate::format::segment::SegmentHeader;

impl<'a> Scanner<'a> {
    /// A scan of records of which what is before them is unknown. `bytes` begin at this offset.
    pub(crate) fn beginning_at(offset: u64, bytes: &'a [u8], header: SegmentHeader) -> Scanner<'a> {
        Scanner {
            base: offset,
            offset,
            ..Scanner::new(bytes, header)
        }
    }
}

impl Scanner<'static> {
    /// Continues with these bytes, which begin at the offset where the scan was paused; for a scan
    /// that has not begun, at the beginning of the segment.
    pub(crate) fn resume(self, bytes: &[u8]) -> Scanner<'_> {
        Scanner { bytes, ..self }
    }
}

impl Scanner<'_> {
    /// The scan so far, without its bytes. What follows [`Scanner::valid_end`] has to be given
    /// again.
    pub(crate) fn pause(self) -> Scanner<'static> {
        Scanner {
            bytes: &[],
            base: self.offset,
            header: self.header,
            offset: self.offset,
            batch_end: self.batch_end,
            crc: self.crc,
            summary: self.summary,
            start: self.start,
            mark: self.mark,
        }
    }
}
