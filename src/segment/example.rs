//! The worked examples of `docs/format.md`, byte for byte: the encoders produce the bytes on the
//! page, and those bytes decode again.

use crate::format::hint::{Hint, Offsets};
use crate::format::manifest::{Manifest, SegmentEntry, SegmentState};
use crate::format::record::{BatchBegin, Header, Kind, Place, RunCrc, body_crc};
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN, SegmentHeader, Start, Summary};
use crate::segment::scan::{End, KeysCrc, Scanner, add_to_summary};

const PAGE: &str = include_str!("../../docs/format.md");

const HEADER: SegmentHeader = SegmentHeader {
    salt: 0x5a17_5a17,
    store_id: *b"example store id",
    segment_id: 3,
    base_sequence: 100,
    created_ms: 1_700_000_000_000,
};

/// Builds a segment as the log does.
struct Builder {
    bytes: Vec<u8>,
    summary: Summary,
    crc: RunCrc,
    next_sequence: u64,
    /// Offset, header length and key length of each put and tombstone.
    keys: Vec<(u64, usize, usize)>,
}

impl Builder {
    fn new() -> Builder {
        Builder {
            bytes: HEADER.encode().to_vec(),
            summary: Summary {
                min_sequence: u64::MAX,
                ..Summary::default()
            },
            crc: RunCrc::default(),
            next_sequence: HEADER.base_sequence,
            keys: Vec::new(),
        }
    }

    fn place(&self) -> Place {
        let offset = self.bytes.len() as u64;
        Place {
            salt: HEADER.salt,
            base_sequence: HEADER.base_sequence,
            offset,
        }
    }

    fn header(kind: Kind, namespace: u32, sequence: u64, parts: [&[u8]; 3], expiry: Option<u64>) -> Header {
        let [key, metadata, value] = parts;
        Header {
            kind,
            namespace,
            sequence,
            expiry,
            key_len: key.len() as u32,
            metadata_len: (!metadata.is_empty()).then_some(metadata.len() as u32),
            value_len: value.len() as u32,
            body_crc: body_crc(&parts),
        }
    }

    fn push(&mut self, kind: Kind, namespace: u32, parts: [&[u8]; 3], expiry: Option<u64>) {
        let header = Self::header(kind, namespace, self.next_sequence, parts, expiry);
        let start = self.bytes.len();
        let place = self.place();
        self.bytes.extend_from_slice(header.encode(place).as_bytes());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.resize(start + header.record_len() as usize, 0);
        self.next_sequence += 1;
        self.crc.add(&self.bytes[start..]);
        add_to_summary(&mut self.summary, &header);
        if kind.has_key() {
            self.keys.push((start as u64, header.header_len(), parts[0].len()));
        }
    }

    fn push_about_log(&mut self, kind: Kind, body: &[u8]) {
        self.push(kind, 0, [&[], &[], body], None);
    }

    fn summary(&self) -> Summary {
        Summary {
            data_end: self.bytes.len() as u64,
            records_crc: self.crc.value(),
            ..self.summary
        }
    }

    fn seal(&mut self) {
        let summary = self.summary();
        let body = summary.encode();
        let header = Self::header(Kind::Seal, 0, summary.max_sequence, [&[], &[], &body], None);
        let (start, place) = (self.bytes.len(), self.place());
        self.bytes.extend_from_slice(header.encode(place).as_bytes());
        self.bytes.extend_from_slice(&body);
        self.bytes.resize(start + header.record_len() as usize, 0);
    }
}

/// The segment on the page, and its seal's summary.
fn segment() -> (Builder, Summary) {
    let mut segment = Builder::new();
    let start = Start {
        previous_id: 2,
        previous_end: 4072,
        previous_crc: 0x0bad_cafe,
    };
    segment.push_about_log(Kind::Start, &start.encode());
    segment.push(
        Kind::Put,
        1,
        [b"user-123", b"{}", b"logged-in"],
        Some(4_102_444_800_000),
    );
    let durable = Mark {
        segment_id: HEADER.segment_id,
        offset: segment.bytes.len() as u64,
    };
    segment.push_about_log(Kind::Mark, &durable.encode());
    segment.push(Kind::Tombstone, 1, [b"user-9", b"", b""], None);
    // A batch of one record: the frame holds a checksum of the record after it.
    let put = [&b"flag"[..], b"", b"on"];
    let frame_len = 40;
    let place = Place {
        offset: segment.bytes.len() as u64 + frame_len,
        ..segment.place()
    };
    let header = Builder::header(Kind::Put, 2, segment.next_sequence + 1, put, None);
    let mut run = RunCrc::default();
    run.add(header.encode(place).as_bytes());
    let frame = BatchBegin {
        count: 1,
        run_crc: run.value(),
        bytes: header.record_len(),
    };
    segment.push_about_log(Kind::BatchBegin, &frame.encode());
    assert_eq!(
        segment.bytes.len() as u64,
        place.offset,
        "a frame takes {frame_len} bytes"
    );
    segment.push(Kind::Put, 2, put, None);
    let summary = segment.summary();
    segment.seal();
    (segment, summary)
}

fn hint(segment: &Builder, summary: &Summary) -> Hint {
    // Already in the order of (namespace, key): (1, user-123), (1, user-9), (2, flag).
    let mut offsets = Offsets::with_capacity(segment.keys.len());
    let mut keys_crc = KeysCrc::default();
    for &(offset, header_len, key_len) in &segment.keys {
        let header = offset as usize..offset as usize + header_len;
        keys_crc.add(&segment.bytes[header.start..header.end + key_len]);
        offsets.push(offset);
    }
    Hint {
        store_id: HEADER.store_id,
        segment_id: HEADER.segment_id,
        data_end: summary.data_end,
        records_crc: summary.records_crc,
        keys_crc: keys_crc.value(),
        offsets,
    }
}

fn manifest(summary: &Summary) -> Manifest {
    Manifest {
        store_id: HEADER.store_id,
        generation: 7,
        next_segment_id: 5,
        next_sequence: 107,
        next_namespace: 3,
        ring_bytes: 0,
        segments: vec![
            SegmentEntry {
                id: HEADER.segment_id,
                state: SegmentState::Sealed(*summary),
            },
            SegmentEntry {
                id: 4,
                state: SegmentState::Open,
            },
        ],
    }
}

fn dump(bytes: &[u8]) -> String {
    let line = |(index, chunk): (usize, &[u8])| {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable = |&byte: &u8| {
            if byte.is_ascii_graphic() || byte == b' ' {
                char::from(byte)
            } else {
                '.'
            }
        };
        let text: String = chunk.iter().map(printable).collect();
        format!("{:04x}  {:<47}  {text}", index * 16, hex.join(" "))
            .trim_end()
            .to_owned()
    };
    bytes.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// The dump between the markers of this name on the page, without the fences of the code block.
fn shown(name: &str) -> String {
    let between = PAGE.split(&format!("<!-- {name} -->")).nth(1).unwrap_or_default();
    let lines = between.lines().map(str::trim_end);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("```"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The bytes of a dump.
fn bytes_of(dump: &str) -> Vec<u8> {
    let hex = dump.lines().filter_map(|line| line.get(6..line.len().min(53)));
    hex.flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn check(name: &str, bytes: &[u8]) {
    let expected = dump(bytes);
    assert!(
        shown(name) == expected,
        "docs/format.md should show between the markers {name}:\n{expected}\n"
    );
    assert_eq!(bytes_of(&shown(name)), bytes);
}

#[test]
fn the_segment_on_the_page_is_what_the_encoders_make_and_the_scanner_reads() {
    let (segment, summary) = segment();
    check("example segment", &segment.bytes);
    let bytes = bytes_of(&shown("example segment"));
    let header = SegmentHeader::decode(&bytes).unwrap();
    assert_eq!(header, HEADER);
    let mut scanner = Scanner::new(&bytes, header);
    let mut keys = Vec::new();
    let end = loop {
        match scanner.next() {
            Ok(found) => keys.push((found.offset, found.record.header.sequence, found.record.key().to_vec())),
            Err(end) => break end,
        }
    };
    assert_eq!(end, End::Sealed);
    assert_eq!(scanner.summary(), summary);
    assert_eq!(scanner.valid_end(), summary.data_end);
    let expected: [(u64, u64, &[u8]); 3] = [(112, 101, b"user-123"), (208, 103, b"user-9"), (280, 105, b"flag")];
    assert_eq!(
        keys,
        expected.map(|(offset, sequence, key)| (offset, sequence, key.to_vec()))
    );
    assert!(bytes.len() as u64 > SEGMENT_HEADER_LEN);
}

#[test]
fn the_hint_on_the_page_is_what_the_encoder_makes_and_is_read() {
    let (segment, summary) = segment();
    let hint = hint(&segment, &summary);
    check("example hint", &hint.encode());
    assert_eq!(Hint::decode(&bytes_of(&shown("example hint"))), Ok(hint));
}

#[test]
fn the_manifest_on_the_page_is_what_the_encoder_makes_and_is_read() {
    let manifest = manifest(&segment().1);
    check("example manifest", &manifest.encode());
    assert_eq!(Manifest::decode(&bytes_of(&shown("example manifest"))), Ok(manifest));
}
