// The REST API, through wrangler.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { ACCOUNT, SLOW, createNamespace, noise, removeFolder, rest, startServer, temporaryFolder, wranglerFor } from './helpers.mjs';

const folder = temporaryFolder();
let server;
let wrangler;
before(async () => {
  server = await startServer({ store: join(folder, 'store') });
  wrangler = await wranglerFor(server.rest);
});
after(async () => {
  await wrangler?.close();
  await server?.stop();
  removeFolder(folder);
});

const now = () => Math.floor(Date.now() / 1000);
const kv = (...args) => wrangler.ok(['kv', ...args]);
const remote = (id) => ['--namespace-id', id, '--remote'];
const pathOf = (id) => `/accounts/${ACCOUNT}/storage/kv/namespaces/${id}`;
const value = async (id, key) => (await rest(server.rest, 'GET', `${pathOf(id)}/values/${encodeURIComponent(key)}`)).bytes;
const metadata = async (id, key) => (await rest(server.rest, 'GET', `${pathOf(id)}/metadata/${encodeURIComponent(key)}`)).json.result;

async function file(name, content) {
  const path = join(wrangler.folder, name);
  await writeFile(path, typeof content === 'string' || Buffer.isBuffer(content) ? content : JSON.stringify(content));
  return path;
}

/** All keys of a namespace, as `wrangler kv key list` shows them. */
const list = async (id, ...args) => JSON.parse((await kv('key', 'list', ...remote(id), ...args)).stdout);

describe('wrangler kv namespace', SLOW, () => {
  test('create, list, rename, delete', SLOW, async () => {
    const created = await kv('namespace', 'create', 'SESSIONS');
    assert.match(created.stdout, /Success!/);
    const [, id] = /"id": "([0-9a-f]{32})"/.exec(created.stdout);

    const listed = JSON.parse((await kv('namespace', 'list')).stdout);
    assert.deepEqual(listed, [{ id, title: 'SESSIONS', supports_url_encoding: true }]);

    const again = await wrangler.fails(['kv', 'namespace', 'create', 'SESSIONS']);
    assert.match(again, /A KV namespace with the title "SESSIONS" already exists\./);

    const preview = await kv('namespace', 'create', 'SESSIONS', '--preview');
    assert.match(preview.stdout, /"preview_id": "[0-9a-f]{32}"/);

    await rest(server.rest, 'PUT', `${pathOf(id)}/values/k`, { body: 'v' });
    const renamed = await kv('namespace', 'rename', 'SESSIONS', '--new-name', 'Sitzungen ü');
    assert.match(renamed.stdout, /Successfully renamed namespace to "Sitzungen ü"/);
    assert.equal((await value(id, 'k')).toString(), 'v');
    await wrangler.fails(['kv', 'namespace', 'rename', '--namespace-id', id, '--new-name', 'SESSIONS_preview']);
    await wrangler.fails(['kv', 'namespace', 'rename', 'SESSIONS', '--new-name', 'x']);
    await kv('namespace', 'rename', '--namespace-id', id, '--new-name', 'third name');

    const byId = await kv('namespace', 'delete', '--namespace-id', id, '-y');
    assert.match(byId.stdout, new RegExp(`Deleted KV namespace id: "?${id}"?`));
    await kv('namespace', 'delete', 'SESSIONS_preview', '-y');
    assert.deepEqual(JSON.parse((await kv('namespace', 'list')).stdout), []);
    const gone = await wrangler.fails(['kv', 'namespace', 'delete', '--namespace-id', id, '-y']);
    assert.match(gone, /remove namespace: 'namespace not found' \[code: 10013\]/);
  });

  test('finds one among more than a page', SLOW, async () => {
    const ids = new Map();
    for (let index = 0; index < 120; index += 1) {
      const title = `many ${String(index).padStart(3, '0')}`;
      ids.set(title, await createNamespace(server.rest, title));
    }
    const listed = JSON.parse((await kv('namespace', 'list')).stdout).filter((one) => one.title.startsWith('many '));
    assert.deepEqual(listed.map((one) => one.title), [...ids.keys()]);
    assert.deepEqual(listed.map((one) => one.id), [...ids.values()]);
    await kv('namespace', 'rename', 'many 119', '--new-name', 'found');
    const found = await rest(server.rest, 'GET', pathOf(ids.get('many 119')));
    assert.equal(found.json.result.title, 'found');
  });
});

describe('wrangler kv key', SLOW, () => {
  let id;
  before(async () => {
    id = await createNamespace(server.rest, 'keys');
  });

  test('put and get', SLOW, async () => {
    await kv('key', 'put', 'greeting', 'hällo wörld\n', ...remote(id));
    const got = await kv('key', 'get', 'greeting', ...remote(id));
    assert.equal(got.stdout, 'hällo wörld\n');
    const text = await kv('key', 'get', 'greeting', '--text', ...remote(id));
    assert.equal(text.stdout, 'hällo wörld\n\n');
    const missing = await wrangler.fails(['kv', 'key', 'get', 'none', ...remote(id)]);
    assert.match(missing, /404/);
  });

  test('put and get of bytes', SLOW, async () => {
    const bytes = Buffer.concat([Buffer.from([0, 255, 10, 13, 13, 10]), noise(300_000)]);
    const path = await file('bytes.bin', bytes);
    await kv('key', 'put', 'bytes', '--path', path, ...remote(id));
    assert.ok((await kv('key', 'get', 'bytes', ...remote(id))).bytes.equals(bytes));
    await kv('key', 'put', 'bytes', '--path', path, '--metadata', '{"name": "bytes ü"}', ...remote(id));
    assert.ok((await value(id, 'bytes')).equals(bytes));
    assert.deepEqual(await metadata(id, 'bytes'), { name: 'bytes ü' });
    await kv('key', 'put', 'bytes', '--path', await file('empty.bin', Buffer.alloc(0)), ...remote(id));
    assert.equal((await kv('key', 'get', 'bytes', ...remote(id))).bytes.length, 0);
    assert.equal(await metadata(id, 'bytes'), null);
  });

  test('put with metadata and lifetime, and list', SLOW, async () => {
    const before = now();
    await kv('key', 'put', 'meta:1', 'v', '--ttl', '3600', '--metadata', '{"a": [1, "ü😀"]}', ...remote(id));
    await kv('key', 'put', 'meta:2', 'v', '--expiration', '4000000000', ...remote(id));
    const keys = await list(id, '--prefix', 'meta:');
    const { expiration } = keys[0];
    assert.ok(expiration >= before + 3600 && expiration <= before + 3700, `expiration ${expiration}`);
    assert.deepEqual(keys, [
      { name: 'meta:1', expiration, metadata: { a: [1, 'ü😀'] } },
      { name: 'meta:2', expiration: 4_000_000_000 },
    ]);
    const short = await wrangler.fails(['kv', 'key', 'put', 'meta:3', 'v', '--ttl', '59', ...remote(id)]);
    assert.match(short, /Invalid expiration_ttl of 59\. Expiration TTL must be at least 60\.'? \[code: 10034\]/);
    assert.equal((await list(id, '--prefix', 'meta:')).length, 2);
  });

  test('keys that need escapes, and delete', SLOW, async () => {
    const key = 'a/b c?d=e&f#g%2F+ü😀[x]^|"\\';
    await kv('key', 'put', key, 'strange', ...remote(id));
    assert.equal((await kv('key', 'get', key, ...remote(id))).stdout, 'strange');
    assert.deepEqual(await list(id, '--prefix', 'a/b c?d=e&f#g%2F+'), [{ name: key }]);
    await kv('key', 'delete', key, ...remote(id));
    assert.deepEqual(await list(id, '--prefix', 'a/b'), []);
    await kv('key', 'delete', key, ...remote(id));
  });

  test('a binding of a configuration', SLOW, async () => {
    const config = await file('wrangler.json', { name: 'w', kv_namespaces: [{ binding: 'MY_KV', id }] });
    await kv('key', 'put', 'bound', 'v', '--binding', 'MY_KV', '--remote', '--config', config);
    assert.equal((await value(id, 'bound')).toString(), 'v');
  });
});

describe('wrangler kv bulk', SLOW, () => {
  let id;
  before(async () => {
    id = await createNamespace(server.rest, 'bulk');
  });
  const items = Array.from({ length: 2345 }, (_, index) => {
    const item = { key: `bulk/${String(index).padStart(4, '0')}`, value: `välue ${index}` };
    if (index % 5 === 1) item.metadata = { index };
    if (index % 5 === 2) item.expiration = 4_000_000_000;
    if (index % 5 === 3) Object.assign(item, { value: noise(20, index + 1).toString('base64'), base64: true });
    return item;
  });

  test('put, list, get, delete of more than 1000', SLOW, async () => {
    const put = await kv('bulk', 'put', await file('put.json', items), ...remote(id));
    assert.match(put.stdout, /Success!/);
    assert.deepEqual(
      await list(id),
      items.map(({ key: name, metadata: given, expiration }) => {
        const shown = { name };
        if (expiration) shown.expiration = expiration;
        if (given) shown.metadata = given;
        return shown;
      }),
    );
    assert.ok((await value(id, 'bulk/2343')).equals(noise(20, 2344)));

    const names = ['bulk/0000', { name: 'bulk/2344' }, 'none'];
    const got = JSON.parse((await kv('bulk', 'get', await file('get.json', names), ...remote(id))).stdout);
    const valueOf = (entry) => (entry !== null && typeof entry === 'object' ? entry.value : entry);
    assert.deepEqual(Object.keys(got).sort(), ['bulk/0000', 'bulk/2344', 'none']);
    assert.equal(valueOf(got['bulk/0000']), 'välue 0');
    assert.equal(valueOf(got['bulk/2344']), 'välue 2344');
    assert.equal(valueOf(got.none), null);

    const gone = items.slice(0, 1500).map(({ key }, index) => (index % 2 ? key : { name: key }));
    const deleted = await kv('bulk', 'delete', await file('delete.json', gone), '-f', ...remote(id));
    assert.match(deleted.stdout, /Success!/);
    assert.deepEqual((await list(id)).map((key) => key.name), items.slice(1500).map(({ key }) => key));
  });

  test('put with a wrong item', SLOW, async () => {
    const wrong = [{ key: 'wrong/1', value: 'v' }, { key: 'wrong/2', value: 'v', expiration_ttl: 1 }];
    const said = await wrangler.fails(['kv', 'bulk', 'put', await file('wrong.json', wrong), ...remote(id)]);
    assert.match(said, /Invalid expiration_ttl of 1\./);
    assert.deepEqual(await list(id, '--prefix', 'wrong/'), []);
  });
});

describe('wrangler and accounts', SLOW, () => {
  test('a namespace that is not there', SLOW, async () => {
    const said = await wrangler.fails(['kv', 'key', 'put', 'k', 'v', ...remote('0'.repeat(32))]);
    assert.match(said, /put: 'namespace not found' \[code: 10013\]/);
  });

  test('a wrong token', SLOW, async () => {
    const env = { CLOUDFLARE_API_TOKEN: 'the_token_of_somebody' };
    assert.match(await wrangler.fails(['kv', 'namespace', 'list'], { env }), /Authentication error \[code: 10000\]/);
    await wrangler.fails(['kv', 'namespace', 'create', 'stolen'], { env });
    const { result } = (await rest(server.rest, 'GET', `/accounts/${ACCOUNT}/storage/kv/namespaces?per_page=1000`)).json;
    assert.ok(!result.some((one) => one.title === 'stolen'));
  });

  test('whoami', SLOW, async () => {
    const { stdout, stderr } = await wrangler.ok(['whoami']);
    assert.match(stdout, /You are logged in/);
    assert.match(stdout, /embercask|0{31}1/);
    assert.doesNotMatch(stdout + stderr, /\[code: \d+\]/);
  });

  test('without an account', SLOW, async () => {
    const { stdout } = await wrangler.ok(['kv', 'namespace', 'list'], { env: { CLOUDFLARE_ACCOUNT_ID: undefined } });
    assert.ok(JSON.parse(stdout.slice(stdout.indexOf('['))).length > 0);
  });

  test('nothing goes elsewhere', () => {
    // wrangler checks for a newer version of itself, which the proxy blocks.
    assert.deepEqual(wrangler.elsewhere.filter((request) => !request.startsWith('CONNECT registry.')), []);
  });
});
