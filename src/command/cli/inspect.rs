//! `embercask inspect`: shows the on-disk format of a file.

use std::io::Write;

use anstyle::AnsiColor;
use embercask::{Options, Part, PartKind, PartValue};
use serde_json::{Map, Value, json};

use super::arguments::Inspect;
use super::output::{json_line, stdout, styled_stdout};
use crate::common::base64;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::text::{escape, escape_short, time};

/// Characters of a key or value that are shown.
const SHOWN_MAX: usize = 60;

pub(crate) fn run(arguments: &Inspect) -> Outcome {
    let _expected = interrupt::expect();
    if arguments.json {
        let mut out = stdout();
        show(arguments, &mut out, |out, part| json_line(out, &as_json(part)))
    } else {
        show(arguments, &mut styled_stdout(), write)
    }
}

/// Writes each part of the file.
fn show<W: Write>(arguments: &Inspect, out: &mut W, write: fn(&mut dyn Write, &Part<'_>) -> Outcome) -> Outcome {
    let mut written = Ok(());
    let mut is_sound = true;
    let mut is_stopped = false;
    embercask::inspect(&arguments.file, &Options::default(), |part| {
        // A record may have a good checksum and still be malformed: it has a cause.
        is_sound &= part.kind != PartKind::Damaged && part.fields.iter().all(|(field, _)| *field != "cause");
        is_stopped = interrupt::is_requested();
        written = write(out, part);
        written.is_ok() && !is_stopped
    })?;
    let written = written.and_then(|()| Ok(out.flush()?));
    if is_stopped && written.is_ok() {
        return Err(Failure::stopped("the rest of the file was not shown"));
    }
    Failure::unless_sound(is_sound, written)
}

fn name(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Header => "header",
        PartKind::Put => "put",
        PartKind::Tombstone => "tombstone",
        PartKind::Batch => "batch",
        PartKind::Mark => "mark",
        PartKind::Start => "start",
        PartKind::Seal => "seal",
        PartKind::Entry => "entry",
        PartKind::Damaged => "DAMAGED",
        _ => "other",
    }
}

fn write(out: &mut dyn Write, part: &Part<'_>) -> Outcome {
    let style = match part.kind {
        PartKind::Damaged => AnsiColor::Red.on_default().bold(),
        PartKind::Put | PartKind::Entry => AnsiColor::Green.on_default(),
        PartKind::Tombstone => AnsiColor::Yellow.on_default(),
        _ => AnsiColor::Cyan.on_default(),
    };
    write!(
        out,
        "{:>10} +{:<8} {style}{:9}{style:#}",
        part.offset,
        part.length,
        name(part.kind)
    )?;
    for (field, value) in &part.fields {
        write!(out, " {field}=")?;
        match value {
            PartValue::Number(number) => write!(out, "{number}")?,
            PartValue::TimeMs(ms) => write!(out, "{}", time(*ms))?,
            PartValue::Bits(bits) => write!(out, "{bits:08x}")?,
            PartValue::Id(id) => write!(out, "{id:032x}")?,
            PartValue::Bytes(bytes) => write!(out, "\"{}\"", escape_short(bytes, SHOWN_MAX))?,
            PartValue::Text(text) => write!(out, "\"{}\"", escape(text.as_bytes()))?,
            _ => write!(out, "?")?,
        }
    }
    Ok(writeln!(out)?)
}

fn as_json(part: &Part<'_>) -> Value {
    let mut fields = Map::new();
    for (field, value) in &part.fields {
        let field = field.replace(' ', "_");
        match value {
            PartValue::Number(number) => drop(fields.insert(field, json!(number))),
            PartValue::TimeMs(ms) => drop(fields.insert(format!("{field}_ms"), json!(ms))),
            PartValue::Bits(bits) => drop(fields.insert(field, json!(format!("{bits:08x}")))),
            PartValue::Id(id) => drop(fields.insert(field, json!(format!("{id:032x}")))),
            PartValue::Text(text) => drop(fields.insert(field, json!(text))),
            PartValue::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => drop(fields.insert(field, json!(text))),
                Err(_) => drop(fields.insert(format!("{field}_base64"), json!(base64::encode(bytes)))),
            },
            _ => {}
        }
    }
    json!({
        "offset": part.offset,
        "length": part.length,
        "kind": name(part.kind).to_lowercase(),
        "fields": fields,
    })
}
