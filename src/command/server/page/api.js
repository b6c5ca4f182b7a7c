// Requests to the REST API.

const API = "/client/v4/";
const NAMESPACES = "accounts/x/storage/kv/namespaces";
const VALUE_BYTES_MAX = 25 << 20;

let token = sessionStorage.getItem("embercask-token") ?? "";

class Refused extends Error {
  constructor(status, errors) {
    const told = errors.map(error => `${error.message} (code ${error.code})`).join("\n");
    super(told || "The server answered with status " + status);
    this.badToken = status === 403 && errors.some(error => error.code === 10000);
    this.status = status;
  }
}

/** The newest request of each kind. It aborts an older one. */
const newest = {};
function replacing(kind) {
  newest[kind]?.abort();
  newest[kind] = new AbortController();
  return newest[kind].signal;
}

/** The response if it is a success, else an error with what the server said. */
async function accepted(response) {
  const date = Date.parse(response.headers.get("date"));
  // The header has whole seconds.
  if (Math.abs(date - serverNow()) > 2000) skew = date - Date.now();
  if (response.ok) return response;
  const text = await response.text();
  throw new Refused(response.status, isJson(text) ? JSON.parse(text)?.errors ?? [] : []);
}

async function call(method, path, { body, json, signal, headers = {} } = {}) {
  const all = { authorization: "Bearer " + token, ...headers };
  if (json) all["content-type"] = "application/json";
  const options = { method, headers: all, body: json ? JSON.stringify(json) : body, signal };
  let response;
  try {
    response = await fetch(API + path, { ...options, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The server did not answer.");
  }
  return accepted(response);
}

/** The headers of a finished XMLHttpRequest. */
function headersOf(request) {
  const headers = new Headers();
  for (const line of request.getAllResponseHeaders().trim().split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return headers;
}

/** Puts a body, and tells how much of it was sent, which `fetch` cannot. */
function upload(path, body, { headers = {}, signal, progress }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", event => progress(event.loaded, event.total));
    request.addEventListener("load", () => {
      resolve(accepted(new Response(request.responseText, { status: request.status, headers: headersOf(request) })));
    });
    request.addEventListener("error", () => reject(new Error("The server did not answer.")));
    request.addEventListener("abort", () => {
      reject(new Error("Stopped. If all of it had been sent already, the key may have been saved."));
    });
    signal.addEventListener("abort", () => request.abort());
    request.open("PUT", API + path);
    for (const [name, value] of Object.entries({ authorization: "Bearer " + token, ...headers })) {
      request.setRequestHeader(name, value);
    }
    request.send(body);
  });
}

const namespacePath = id => NAMESPACES + "/" + encodeURIComponent(id);

/** Whether a path can name this key. Other programs can write keys for which that is not so. */
const isRequestable = name => name !== "." && name !== "..";

function valuePath(name, id) {
  if (isRequestable(name)) return namespacePath(id) + "/values/" + encodeURIComponent(name);
  throw new Error(`A browser cannot request the key ${quoted(name)}: in a URL it means a directory.`);
}

/** Address and body of the request that puts a draft of a key: what its fields or a file say. */
function putOf({ id, name, value, metadata, expiry }) {
  const body = new FormData();
  body.append("value", value);
  if (metadata !== undefined) body.append("metadata", new Blob([metadata]));
  return { path: valuePath(name, id) + (expiry.size ? "?" + expiry : ""), body };
}

/** One page of a listing, and the cursor of the next one, which is empty if this is the last. */
async function listPage(id, { prefix, limit, cursor, signal }) {
  const parameters = new URLSearchParams({ limit });
  if (prefix) parameters.set("prefix", prefix);
  if (cursor) parameters.set("cursor", cursor);
  const response = await call("GET", `${namespacePath(id)}/keys?${parameters}`, { signal });
  const text = await response.text();
  const { result, result_info: info } = JSON.parse(text);
  const metadata = listedMetadata(text);
  const keys = result.map(({ name, expiration }, index) => ({ name, expiration, metadata: metadata[index] }));
  return { keys, next: info.cursor ?? "" };
}

/** All pages of a listing. */
async function* listPages(id, prefix, signal) {
  let cursor = "";
  do {
    const page = await listPage(id, { prefix, limit: 1000, cursor, signal });
    yield page.keys;
    cursor = page.next;
  } while (cursor);
}

// A refused write may just mean that the token is read-only, so it does not end the session.
const explained = error => error.message
  + (error.badToken ? "\nThis token may not do this, or it is no longer valid." : "");
