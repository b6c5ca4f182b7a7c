"use strict";
// Elements, and how names, sizes and times are written.

const byId = id => document.getElementById(id);

/** A new element. Strings among the children become text, never markup. */
function element(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const INVISIBLE = /([\p{Cc}\p{Zl}\p{Zp}]|(?![\u200c\u200d])\p{Cf}|(?! )\p{Zs}|^ +| +$)/u;

/** A character that cannot be seen, as an escape. */
const escaped = character => "\\u{" + character.codePointAt(0).toString(16) + "}";

const isInvisible = piece => /^(\p{C}|\p{Z})+$/u.test(piece) && !/^[\u200c\u200d]$/.test(piece);

/** A key or a title. Invisible characters, and those that change the direction of text, are shown as escapes. */
function named(text) {
  const shown = element("bdi", { class: "key" });
  for (const piece of text.split(INVISIBLE)) {
    if (!isInvisible(piece)) shown.append(piece);
    else for (const character of piece) shown.append(element("span", { class: "escape" }, escaped(character)));
  }
  return shown;
}

/** The same as text, for a title or a label. */
const plainName = text => text.split(INVISIBLE)
  .map(piece => isInvisible(piece) ? [...piece].map(escaped).join("") : piece).join("");

/** The same in quotation marks, for a message. */
const quoted = text => `"${plainName(text)}"`;

/** JSON with escapes instead of characters that are invisible or change the direction of text. It means the same. */
const visibleJson = text => text.replace(/(?![\u200c\u200d])[\p{Cf}\p{Zl}\p{Zp}]/gu, character =>
  character.split("").map(unit => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0")).join(""));

const count = number => Number(number).toLocaleString("en");

const countOf = (number, one, many = one + "s") => count(number) + " " + (number === 1 ? one : many);

function bytes(number) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const unit = number < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(number) / 10));
  if (unit === 0) return number + (number === 1 ? " byte" : " bytes");
  return (number / 1024 ** unit).toFixed(1) + " " + units[unit];
}

/** The server's clock minus this one. Keys expire by the server's clock. */
let skew = 0;
const serverNow = () => Date.now() + skew;

const UNITS = [["year", 31557600], ["day", 86400], ["hour", 3600], ["minute", 60]];

function relative(seconds) {
  const left = seconds - serverNow() / 1000;
  const size = Math.abs(left);
  const [unit, length] = UNITS.find(([, length]) => size >= 2 * length) ?? ["second", 1];
  return new Intl.RelativeTimeFormat("en").format(Math.trunc(left / length), unit);
}

function absolute(seconds) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return "second " + seconds;
  const two = number => String(number).padStart(2, "0");
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return day + " " + [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
}

/** An expiry time relative to now; a timer keeps it up to date. */
function relativeTime(seconds) {
  return element("time", { "data-seconds": seconds, title: absolute(seconds) + " local time" }, relative(seconds));
}

setInterval(() => {
  for (const time of document.querySelectorAll("time[data-seconds]")) {
    time.textContent = relative(Number(time.dataset.seconds));
  }
}, 5000);

/** Compares keys by their UTF-8 bytes, which is the order of their code points. */
function compareKeys(a, b) {
  const [left, right] = [[...a], [...b]];
  const at = left.findIndex((character, index) => character !== right[index]);
  if (at < 0) return left.length - right.length;
  return at >= right.length ? 1 : left[at].codePointAt(0) - right[at].codePointAt(0);
}
