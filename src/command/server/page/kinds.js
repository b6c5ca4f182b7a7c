// What bytes are: text, JSON, an image, or bytes in hexadecimal.

const HEX_BYTES_MAX = 64 << 10;

function imageType(data) {
  const begins = (text, from = 0) =>
    [...text].every((character, index) => data[from + index] === character.charCodeAt(0));
  if (begins("\x89PNG\r\n\x1a\n")) return "image/png";
  if (begins("\xff\xd8\xff")) return "image/jpeg";
  if (begins("GIF87a") || begins("GIF89a")) return "image/gif";
  return begins("RIFF") && begins("WEBP", 8) ? "image/webp" : null;
}

/** Text of UTF-8; null if the bytes are not. */
function utf8(data) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    return null;
  }
}

const isContinuation = byte => (byte & 0xc0) === 0x80;

/** A part of a value without the characters that its ends have cut. */
function wholeCharacters(data, isFirst, isLast) {
  let from = 0, to = data.length;
  while (!isFirst && from < Math.min(3, to) && isContinuation(data[from])) from += 1;
  if (!isLast) {
    let lead = to - 1;
    while (lead > Math.max(from, to - 4) && isContinuation(data[lead])) lead -= 1;
    const length = data[lead] >= 0xf0 ? 4 : data[lead] >= 0xe0 ? 3 : data[lead] >= 0xc0 ? 2 : 1;
    if (lead + length > to) to = lead;
  }
  return data.subarray(from, to);
}

/** Describes a value: its text if it is UTF-8, its JSON pretty-printed. Of a part of a value there is only the text. */
function examined({ bytes: data, from, total }) {
  const isWhole = data.length === total;
  const kinds = { isWhole, image: isWhole ? imageType(data) : null, json: null };
  const shown = isWhole ? data : wholeCharacters(data, from === 0, from + data.length >= total);
  const text = utf8(shown);
  kinds.isUtf8 = text !== null;
  kinds.text = text ?? new TextDecoder("utf-8", { ignoreBOM: true }).decode(shown);
  if (isWhole && kinds.isUtf8 && isJson(text)) kinds.json = pretty(text);
  kinds.isPlain = kinds.isUtf8 && !/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text);
  return kinds;
}

function hexDump(data, offset, width) {
  const digits = (number, length) => number.toString(16).padStart(length, "0");
  const lines = [];
  for (let at = 0; at < Math.min(data.length, HEX_BYTES_MAX); at += width) {
    const part = [...data.subarray(at, at + width)];
    const hex = part.map((byte, index) => (index === 8 ? " " : "") + digits(byte, 2)).join(" ");
    const text = part.map(byte => byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·").join("");
    lines.push(digits(offset + at, 6) + "  " + hex.padEnd(width * 3 - (width === 8 ? 1 : 0)) + "  " + text);
  }
  return lines.join("\n");
}

function base64(data) {
  const pieces = [];
  // A multiple of three bytes, so that only the last piece is padded.
  for (let at = 0; at < data.length; at += 24576) {
    pieces.push(btoa(String.fromCharCode(...data.subarray(at, at + 24576))));
  }
  return pieces.join("");
}
