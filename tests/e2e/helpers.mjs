// Shared by all tests: the server, workerd and wrangler as child processes, temporary folders, and cleaning up.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The longest wait, in milliseconds. Only something that hangs takes this long. */
export const PATIENCE = 60_000;
/** Options of a test of many steps, and of a whole suite: each step has its own limit. wrangler takes a second to start, but half a minute on a
 * busy machine. */
export const SLOW = { timeout: 60 * PATIENCE };
export const TOKEN = 'a token for the tests';
export const ACCOUNT = '0123456789abcdef0123456789abcdef';

const HERE = dirname(fileURLToPath(import.meta.url));
const MODULES = process.env.E2E_MODULES;
const EMBERCASK = process.env.EMBERCASK;
assert(MODULES && EMBERCASK, 'tests/e2e/run sets E2E_MODULES and EMBERCASK');
const require = createRequire(join(MODULES, 'package.json'));

// Children and folders to clean up, however a test ends.
const children = new Set();
const folders = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** The seed of all random choices. EMBERCASK_SEED replays a seed that was printed. */
const SEED = process.env.EMBERCASK_SEED ?? String(Date.now());

/**
 * A generator of numbers below a bound; prints the seed. Concurrent users each have a generator of their own, by name: the order in which they
 * draw from a shared one would vary, and with it the numbers that each gets.
 */
export function generatorOf(name) {
  console.log(`${name}: replay with EMBERCASK_SEED=${SEED}`);
  const drawer = (path) => {
    let drawn = 0;
    const draw = (below) => {
      drawn += 1;
      return createHash('sha256').update(JSON.stringify([SEED, path, drawn])).digest().readUIntBE(0, 6) % below;
    };
    draw.split = (part) => drawer([...path, part]);
    return draw;
  };
  return drawer([name]);
}

/** The text with a piece replaced that must be there exactly once. */
export function replaceOnce(text, piece, instead) {
  const parts = text.split(piece);
  assert.equal(parts.length, 2, `${JSON.stringify(piece)} is there ${parts.length - 1} times in:\n${text}`);
  return parts.join(instead);
}

/** A new folder, removed when the tests end. Its path is short, as paths of unix sockets must be. */
export function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'ec-'));
  folders.add(folder);
  return folder;
}

export function removeFolder(folder) {
  rmSync(folder, { recursive: true, force: true });
  folders.delete(folder);
}

/** The result of a promise, or an error after a timeout. */
export async function inTime(promise, what, milliseconds = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not done within ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Starts a program that runs until it is stopped. `child.ended` resolves when it ends, `child.log` has its stderr. */
function start(program, args, options = {}) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  children.add(child);
  child.log = '';
  child.stderr.setEncoding('utf8');
  child.stderr.on('data', (text) => {
    child.log = (child.log + text).slice(-1_000_000);
  });
  child.ended = new Promise((resolve) => {
    child.on('error', (error) => {
      child.log += `\n${error}`;
      children.delete(child);
      resolve({ code: null, signal: null, error });
    });
    child.on('close', (code, signal) => {
      children.delete(child);
      resolve({ code, signal });
    });
  });
  return child;
}

async function end(child, signal) {
  if (children.has(child)) child.kill(signal);
  return inTime(child.ended, `${child.spawnfile} after ${signal}`);
}

/**
 * Starts `embercask serve`.
 * `listen` and `binding` are addresses; `bindingFor` has a unix socket's path for each namespace's name. With `store`, `listen` and `binding`
 * null, `args` names a configuration that has them.
 */
export async function startServer({
  store,
  listen = '127.0.0.1:0',
  binding = '127.0.0.1:0',
  bindingFor = {},
  token = TOKEN,
  args = [],
}) {
  const all = [...(store ? ['--store', store] : []), 'serve', '--create', '--log', 'debug', ...args];
  for (const [flag, value] of [['--listen', listen], ['--binding', binding]]) if (value) all.push(flag, value);
  for (const [name, path] of Object.entries(bindingFor)) all.push('--binding-for', `${name}=unix:${path}`);
  if (token) all.push('--token', token);
  const child = start(EMBERCASK, all);
  const wanted = (listen === 'off' ? 0 : 1) + (binding === 'off' ? 0 : 1) + Object.keys(bindingFor).length;
  const lines = createInterface({ input: child.stdout });
  const found = {};
  const ready = new Promise((resolve, reject) => {
    let count = 0;
    lines.on('line', (line) => {
      const rest = /^REST API at (http:\/\/(127\.0\.0\.1:\d+)\/client\/v4)$/.exec(line);
      const bindings = /^Bindings at http:\/\/(127\.0\.0\.1:\d+), namespace by X-KV-Namespace$/.exec(line);
      const socket = /^Binding at unix:(.+), namespace (.+)$/.exec(line);
      if (rest) Object.assign(found, { rest: rest[1], listen: rest[2] });
      if (bindings) found.binding = bindings[1];
      if (rest || bindings || socket) count += 1;
      if (count === wanted) resolve();
    });
    child.ended.then(() => reject(new Error(`embercask ${all.join(' ')} ended at once:\n${child.log}`)));
  });
  await inTime(ready, `embercask serve (${child.log})`);
  return {
    ...found,
    child,
    /** Stops it in good order, as an operator does. */
    async stop() {
      const { code } = await end(child, 'SIGTERM');
      assert.equal(code, 0, `embercask serve ended with ${code}:\n${child.log.slice(-4000)}`);
      assert.doesNotMatch(child.log, /panicked/);
    },
    /** Kills it, as a crash does. */
    async kill() {
      await end(child, 'SIGKILL');
    },
  };
}

/** Runs `embercask` to its end on a store that is not being served. */
export function embercask(store, ...args) {
  return run(EMBERCASK, ['--store', store, ...args]);
}

/** Runs a program to its end. Its output is bytes in `bytes`, and text in `stdout` and `stderr`. */
export async function run(program, args, { input, ...options } = {}) {
  const child = start(program, args, { stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'], ...options });
  const chunks = [];
  child.stdout.on('data', (chunk) => chunks.push(chunk));
  if (input !== undefined) child.stdin.end(input);
  try {
    const { code, signal } = await inTime(child.ended, `${program} ${args.join(' ')}`, 2 * PATIENCE);
    const bytes = Buffer.concat(chunks);
    return { code, signal, bytes, stdout: bytes.toString('utf8'), stderr: child.log };
  } finally {
    child.kill('SIGKILL');
  }
}

/** A string literal of Cap'n Proto. */
const quoted = (text) => JSON.stringify(text);

/**
 * Starts workerd with a Worker.
 * `worker` is the path of its module. `bindings` maps the name of each binding to the `address` of its service, and `headers` to inject.
 */
export async function startWorkerd({ worker, bindings }) {
  const folder = temporaryFolder();
  await copyFile(join(HERE, worker), join(folder, 'worker.mjs'));
  const services = Object.entries(bindings).map(([name, { address, headers = {} }]) => {
    const injected = Object.entries(headers).map(([header, value]) => `(name = ${quoted(header)}, value = ${quoted(value)})`);
    const http = `(injectRequestHeaders = [${injected.join(', ')}])`;
    return `(name = ${quoted(`kv ${name}`)}, external = (address = ${quoted(address)}, http = ${http})),`;
  });
  const bound = Object.keys(bindings).map((name) => `(name = ${quoted(name)}, kvNamespace = ${quoted(`kv ${name}`)}),`);
  const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .mainWorker),
    ${services.join('\n    ')}
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const mainWorker :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.mjs")],
  compatibilityDate = "2026-01-01",
  compatibilityFlags = ["nodejs_compat"],
  bindings = [
    ${bound.join('\n    ')}
  ],
);
`;
  await writeFile(join(folder, 'config.capnp'), config);
  return serveWorkerd(folder, 'config.capnp');
}

/** Starts workerd with the configuration of this name, which listens on one socket. The folder is removed when it is stopped. */
export async function serveWorkerd(folder, config) {
  const child = start(require('workerd').default, ['serve', join(folder, config), '--control-fd=3'], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  child.stdout.on('data', (text) => (child.log += text));
  const control = createInterface({ input: child.stdio[3] });
  const listening = new Promise((resolve, reject) => {
    control.on('line', (line) => {
      const message = JSON.parse(line);
      if (message.event === 'listen') resolve(message.port);
    });
    child.ended.then(() => reject(new Error(`workerd ended at once:\n${child.log}`)));
  });
  const port = await inTime(listening, 'workerd');
  return {
    url: `http://127.0.0.1:${port}`,
    child,
    async stop() {
      await end(child, 'SIGKILL');
      removeFolder(folder);
    },
  };
}

/**
 * Runs wrangler against a server, in its own folder and without this machine's settings.
 * A proxy is set for all addresses but 127.0.0.1; `elsewhere` has the requests that wrangler sent to it.
 */
export async function wranglerFor(rest, { token = TOKEN, account = ACCOUNT } = {}) {
  const folder = temporaryFolder();
  const home = join(folder, 'home');
  await mkdir(home);
  const elsewhere = [];
  const proxy = createServer((request, response) => {
    elsewhere.push(`${request.method} ${request.url}`);
    response.writeHead(502).end();
  });
  proxy.on('connect', (request, socket) => {
    elsewhere.push(`${request.method} ${request.url}`);
    socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n');
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const proxyUrl = `http://127.0.0.1:${proxy.address().port}`;
  const program = join(MODULES, 'node_modules/wrangler/bin/wrangler.js');
  const environment = {
    PATH: `${dirname(process.execPath)}:/usr/bin:/bin`,
    HOME: home,
    TMPDIR: folder,
    CI: 'true',
    NO_COLOR: '1',
    WRANGLER_SEND_METRICS: 'false',
    WRANGLER_SEND_ERROR_REPORTS: 'false',
    WRANGLER_HIDE_BANNER: 'true',
    CLOUDFLARE_API_BASE_URL: rest,
    CLOUDFLARE_API_TOKEN: token,
    CLOUDFLARE_ACCOUNT_ID: account,
    HTTP_PROXY: proxyUrl,
    HTTPS_PROXY: proxyUrl,
    NO_PROXY: '127.0.0.1',
  };
  return {
    folder,
    elsewhere,
    /** Runs wrangler; returns its result, success or not. */
    any(args, { env = {}, ...options } = {}) {
      const merged = { ...environment, ...env };
      for (const name of Object.keys(merged)) if (merged[name] === undefined) delete merged[name];
      return run(process.execPath, [program, ...args], { cwd: folder, env: merged, ...options });
    },
    /** Runs wrangler, which must succeed. */
    async ok(args, options) {
      const done = await this.any(args, options);
      assert.equal(done.code, 0, `wrangler ${args.join(' ')} ended with ${done.code}:\n${done.stdout}\n${done.stderr}`);
      return done;
    },
    /** Runs wrangler, which must fail with exit code 1; returns all of its output. */
    async fails(args, options) {
      const done = await this.any(args, options);
      assert.equal(done.code, 1, `wrangler ${args.join(' ')} ended with ${done.code}:\n${done.stdout}\n${done.stderr}`);
      return `${done.stdout}\n${done.stderr}`;
    },
    async close() {
      await new Promise((resolve) => {
        proxy.close(resolve);
        proxy.closeAllConnections();
      });
      removeFolder(folder);
    },
  };
}

/** Sends a raw request of the REST API; returns status and parsed response, or its bytes. */
export async function rest(base, method, path, { token = TOKEN, headers = {}, body } = {}) {
  const authorization = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(base + path, {
    method,
    body,
    headers: { ...authorization, ...headers },
    signal: AbortSignal.timeout(PATIENCE),
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  return { status: response.status, headers: response.headers, bytes, json: isJson ? JSON.parse(bytes) : undefined };
}

/** Creates a namespace; returns its id. */
export async function createNamespace(base, title) {
  const created = await rest(base, 'POST', `/accounts/${ACCOUNT}/storage/kv/namespaces`, {
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ title }),
  });
  assert.equal(created.status, 200, created.bytes.toString());
  return created.json.result.id;
}

/** Pseudorandom bytes, the same each time. */
export function noise(length, seed = 1) {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0 || 1;
  for (let index = 0; index < length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state;
  }
  return bytes;
}

/** Calls a method of a binding in worker-simple.mjs; returns the result, or fails with the error's text. */
export async function call(workerd, binding, method, ...args) {
  const query = new URLSearchParams({ binding, call: method });
  const response = await fetch(`${workerd.url}/?${query}`, {
    method: 'POST',
    body: JSON.stringify(args),
    signal: AbortSignal.timeout(PATIENCE),
  });
  const { result, error } = await response.json();
  if (error) throw new Error(error);
  return result;
}
