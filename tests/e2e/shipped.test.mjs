// The files in docs/self-hosting for workerd and embercask, as shipped, and as changed by the page about them. Only ports and paths differ.
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import {
  PATIENCE, SLOW, TOKEN, embercask, removeFolder, replaceOnce, serveWorkerd, startServer, temporaryFolder,
} from './helpers.mjs';

const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url));
const shipped = (name) => readFile(join(DOCS, 'self-hosting', name), 'utf8');

describe('the files that are shipped', SLOW, () => {
  let page;
  let capnp;
  before(async () => {
    page = await readFile(join(DOCS, 'self-hosting-workers-kv.md'), 'utf8');
    capnp = await shipped('workerd.capnp');
  });

  /** The page's code blocks in this language. */
  const codeOf = (language) => [...page.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map(([, code]) => code);
  const withoutBlanks = (text) => text.replaceAll(/\s+/g, '');
  /** The service of the namespace in a configuration. */
  const serviceOf = (text) => /\(\s*name = "kv-sessions",\s+external = .*?\n {4}\)/s.exec(text)[0];

  /** Serves the shipped Worker with workerd and a configuration; returns its response. */
  async function ask(config) {
    const folder = temporaryFolder();
    await copyFile(join(DOCS, 'self-hosting', 'worker.js'), join(folder, 'worker.js'));
    await writeFile(join(folder, 'workerd.capnp'), replaceOnce(config, '"127.0.0.1:8080"', '"127.0.0.1:0"'));
    const workerd = await serveWorkerd(folder, 'workerd.capnp');
    try {
      const response = await fetch(workerd.url, { signal: AbortSignal.timeout(PATIENCE) });
      return { status: response.status, text: await response.text() };
    } finally {
      await workerd.stop();
    }
  }

  /** Fails unless the response is the one on the page, except for the time. */
  function isShown({ status, text }, started) {
    assert.equal(status, 200, text);
    const [, expiration] = /"expiration":(\d+)/.exec(text);
    assert.ok(expiration >= started + 3600 && expiration <= Date.now() / 1000 + 3601, text);
    const [shown] = codeOf('console').filter((code) => code.includes('$ curl http://127.0.0.1:8080/\n'));
    assert.equal(shown.split('\n')[1].replace(/\d{10}/, expiration), text);
  }

  test('lead from nothing to a Worker with a KV, and what it has stored stays', SLOW, async () => {
    const started = Math.floor(Date.now() / 1000);
    const folder = temporaryFolder();
    const store = join(folder, 'store');
    const config = join(folder, 'embercask.toml');
    let settings = await shipped('embercask.toml');
    settings = replaceOnce(settings, '"/var/lib/embercask"', JSON.stringify(store));
    for (const port of ['"127.0.0.1:8787"', '"127.0.0.1:8788"']) settings = replaceOnce(settings, port, '"127.0.0.1:0"');
    await writeFile(config, settings);
    assert.equal((await embercask(store, 'namespace', 'create', 'SESSIONS')).code, 0);
    const configured = { store: null, listen: null, binding: null, token: null, args: ['--config', config] };
    for (const when of ['first', 'again']) {
      const server = await startServer(configured);
      try {
        isShown(await ask(replaceOnce(capnp, '"127.0.0.1:8788"', JSON.stringify(server.binding))), started);
        await server.stop();
      } finally {
        await server.kill();
      }
      const listed = await embercask(store, 'key', 'list', '-n', 'SESSIONS');
      assert.deepEqual(JSON.parse(listed.stdout).map(({ name }) => name), ['user-123'], when);
    }
    removeFolder(folder);
  });

  test('are those that the page shows', () => {
    const [header] = codeOf('capnp');
    assert.equal(withoutBlanks(header), withoutBlanks(serviceOf(capnp)));
  });

  test('work through a unix socket, as the page changes them', SLOW, async () => {
    const started = Math.floor(Date.now() / 1000);
    const folder = temporaryFolder();
    const socket = join(folder, 'sessions.socket');
    const server = await startServer({ store: join(folder, 'store'), binding: 'off', bindingFor: { SESSIONS: socket }, token: null });
    try {
      const service = replaceOnce(codeOf('capnp')[1].trim(), '/run/embercask/sessions.socket', socket);
      isShown(await ask(replaceOnce(capnp, serviceOf(capnp), service)), started);
      await server.stop();
    } finally {
      await server.kill();
      removeFolder(folder);
    }
  });

  test('work with a token, where their comment says', SLOW, async () => {
    const started = Math.floor(Date.now() / 1000);
    const folder = temporaryFolder();
    const store = join(folder, 'store');
    assert.equal((await embercask(store, 'namespace', 'create', 'SESSIONS')).code, 0);
    const server = await startServer({ store });
    try {
      const config = replaceOnce(capnp, '"127.0.0.1:8788"', JSON.stringify(server.binding));
      const refused = await ask(config);
      assert.deepEqual([refused.status, refused.text], [500, 'KV PUT failed: 403 Authentication error']);
      const [, comment] = /^ *# +(\(name = "Authorization".*\))$/m.exec(config);
      const header = '(name = "X-KV-Namespace", value = "SESSIONS")';
      const injected = replaceOnce(comment, 'THE-TOKEN', TOKEN);
      isShown(await ask(replaceOnce(config, header, `${header}, ${injected}`)), started);
      await server.stop();
    } finally {
      await server.kill();
      removeFolder(folder);
    }
  });
});
