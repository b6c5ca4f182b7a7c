// JSON as text, which preserves large numbers, duplicate names and the order of members.

const PRETTY_CHARACTERS_MAX = 8 << 20;

/** The end of a string in JSON, from within it: behind the first quotation mark that is not escaped. */
function endOfString(text, from) {
  for (let at = from; ; at += 1) {
    at = text.indexOf('"', at);
    let escapes = 0;
    while (text[at - 1 - escapes] === "\\") escapes += 1;
    if (escapes % 2 === 0) return at + 1;
  }
}

/** Start and end of each token of valid JSON. */
function* jsonTokens(text) {
  for (let at = 0, end; at < text.length; at = end) {
    end = at + 1;
    if (" \t\n\r".includes(text[at])) continue;
    if (text[at] === '"') {
      end = endOfString(text, end);
    } else if (!"{}[],:".includes(text[at])) {
      while (end < text.length && !"{}[],: \t\n\r".includes(text[end])) end += 1;
    }
    yield [at, end];
  }
}

/** Valid JSON with line breaks and indentation; null if that would be too long. */
function pretty(text) {
  let shown = "", depth = 0, begun = false;
  const line = () => "\n" + "  ".repeat(Math.min(depth, 40));
  for (const [at, end] of jsonTokens(text)) {
    const first = text[at], closes = first === "}" || first === "]";
    if (closes) depth -= 1;
    if (closes !== begun) shown += line();
    shown += text.slice(at, end) + (first === ":" ? " " : first === "," ? line() : "");
    begun = first === "{" || first === "[";
    if (begun) depth += 1;
    if (shown.length > PRETTY_CHARACTERS_MAX) return null;
  }
  return shown;
}

/** Valid JSON without whitespace between its tokens. */
function compact(text) {
  let shown = "";
  for (const [at, end] of jsonTokens(text)) shown += text.slice(at, end);
  return shown;
}

/** The text of each item of a valid JSON array. */
function* jsonItems(text) {
  let depth = 0, from = -1, to = -1;
  for (const [at, end] of jsonTokens(text)) {
    const first = text[at], closes = first === "}" || first === "]";
    if (closes) depth -= 1;
    if (from >= 0 && (depth === 0 || (depth === 1 && first === ","))) {
      yield text.slice(from, to);
      from = -1;
    } else if (from < 0 && depth > 0 && !closes) {
      from = at;
    }
    if (first === "{" || first === "[") depth += 1;
    to = end;
  }
}

/** Name and text of each member of a valid JSON object. */
function* jsonMembers(text) {
  let depth = 0, name = null, from = -1, to = -1;
  for (const [at, end] of jsonTokens(text)) {
    const first = text[at], closes = first === "}" || first === "]";
    if (closes) depth -= 1;
    if (from >= 0 && (depth === 0 || (depth === 1 && first === ","))) {
      yield [name, text.slice(from, to)];
      [name, from] = [null, -1];
    } else if (depth === 1 && name === null && first === '"') {
      name = JSON.parse(text.slice(at, end));
    } else if (depth === 1 && name !== null && from < 0 && first !== ":") {
      from = at;
    }
    if (first === "{" || first === "[") depth += 1;
    to = end;
  }
}

/** The text of a member of a valid JSON object; undefined if it has none. The last one counts, as in JSON.parse. */
const jsonMember = (text, wanted) => new Map(jsonMembers(text)).get(wanted);

/** The metadata of each key of a listing, verbatim from the response. */
function listedMetadata(text) {
  const keys = jsonMember(text, "result");
  return [...jsonItems(keys)].map(key => jsonMember(key, "metadata"));
}

/** What is wrong with text that should be JSON; an empty text if nothing is. */
function jsonProblem(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return error.message;
  }
}

const isJson = text => jsonProblem(text) === "";
