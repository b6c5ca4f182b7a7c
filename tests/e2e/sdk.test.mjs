// The REST API, through the official npm package `cloudflare`, and with raw requests.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import Cloudflare, { toFile } from 'cloudflare';

import { ACCOUNT, PATIENCE, SLOW, TOKEN, noise, removeFolder, rest, startServer, temporaryFolder } from './helpers.mjs';

const account_id = ACCOUNT;
const VALUE_MAX = 25 << 20;
const folder = temporaryFolder();
let server;
let client;
let kv;

/** A client of the SDK; it does not retry, so that errors show. */
const clientOf = (options = {}) =>
  new Cloudflare({ apiToken: TOKEN, baseURL: server.rest, maxRetries: 0, timeout: PATIENCE, ...options });

before(async () => {
  server = await startServer({ store: join(folder, 'store') });
  client = clientOf();
  kv = client.kv.namespaces;
});
after(async () => {
  await server?.stop();
  removeFolder(folder);
});

const now = () => Math.floor(Date.now() / 1000);

async function all(pages, most = 20_000) {
  const items = [];
  for await (const item of pages) {
    items.push(item);
    assert.ok(items.length <= most, 'the pages have no end');
  }
  return items;
}

/** Fails unless the call fails with this status and code. */
async function fails(promise, status, code, message) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof Cloudflare.APIError, String(error?.stack ?? error));
    assert.equal(error.status, status, error.message);
    if (code !== undefined) assert.equal(error.errors?.[0]?.code, code, error.message);
    if (message) assert.match(error.errors[0].message, message);
    return true;
  });
}

/** A namespace for one test, with methods that need no ids. */
async function namespace(title) {
  const { id } = await kv.create({ account_id, title });
  const ids = { account_id, namespace_id: id };
  return {
    id,
    path: `/accounts/${ACCOUNT}/storage/kv/namespaces/${id}`,
    put: (key, value, options = {}) => kv.values.update(key, { ...ids, value, ...options }),
    get: async (key) => Buffer.from(await (await kv.values.get(key, ids)).arrayBuffer()),
    response: (key) => kv.values.get(key, ids).asResponse(),
    delete: (key) => kv.values.delete(key, ids),
    metadata: (key) => kv.metadata.get(key, ids),
    keys: (options = {}) => all(kv.keys.list(id, { account_id, ...options })),
    bulkUpdate: (body) => kv.bulkUpdate(id, { account_id, body }),
    bulkGet: (body) => kv.bulkGet(id, { account_id, ...body }),
    bulkDelete: (body) => kv.bulkDelete(id, { account_id, body }),
    remove: () => kv.delete(id, { account_id }),
  };
}

describe('namespaces', SLOW, () => {
  test('are created, read, renamed and removed', async () => {
    const title = 'Ein Namensraum: ü 😀 "x"/y';
    const created = await kv.create({ account_id, title });
    assert.match(created.id, /^[0-9a-f]{32}$/);
    assert.deepEqual({ ...created }, { id: created.id, title, supports_url_encoding: true });
    assert.deepEqual({ ...(await kv.get(created.id, { account_id })) }, { ...created });
    const renamed = await kv.update(created.id, { account_id, title: 'another title' });
    assert.deepEqual([renamed.id, renamed.title], [created.id, 'another title']);
    assert.equal((await kv.get(created.id, { account_id })).title, 'another title');
    const removed = await kv.delete(created.id, { account_id });
    assert.ok(removed === null || Object.keys(removed).length === 0);
    await fails(kv.get(created.id, { account_id }), 404, 10013, /^get namespace: 'namespace not found'$/);
    assert.ok(!(await all(kv.list({ account_id }))).some((one) => one.id === created.id));
  });

  test('have titles of their own', async () => {
    const first = await kv.create({ account_id, title: 'taken' });
    const second = await kv.create({ account_id, title: 'free' });
    const taken = "'a namespace with this account ID and title already exists'";
    await fails(kv.create({ account_id, title: 'taken' }), 400, 10014, new RegExp(`^create namespace: ${taken}$`));
    await fails(kv.update(second.id, { account_id, title: 'taken' }), 400, 10014, new RegExp(`^rename namespace: ${taken}$`));
    assert.equal((await kv.update(first.id, { account_id, title: 'taken' })).title, 'taken');
    assert.equal((await kv.create({ account_id, title: 'TAKEN' })).title, 'TAKEN');
    // A freed title can be used again, for an empty namespace.
    await kv.values.update('k', { account_id, namespace_id: first.id, value: 'old' });
    await kv.delete(first.id, { account_id });
    const again = await kv.create({ account_id, title: 'taken' });
    assert.notEqual(again.id, first.id);
    assert.deepEqual(await all(kv.keys.list(again.id, { account_id })), []);
  });

  test('may be told where to be, and must be told their title', async () => {
    const created = await kv.create({ account_id, title: 'in Europe', jurisdiction: 'eu' });
    assert.equal(created.title, 'in Europe');
    const path = `/accounts/${ACCOUNT}/storage/kv/namespaces/${created.id}`;
    const told = await rest(server.rest, 'PUT', path, { body: JSON.stringify({ title: 'in Europe', jurisdiction: 'eu' }) });
    assert.match(told.json.messages[0].message, /jurisdiction.*not kept/);
    await fails(kv.update(created.id, { account_id }), 400, 10019, /request is missing a title definition/);
    await fails(kv.update(created.id, { account_id, title: '' }), 400);
    assert.equal((await kv.get(created.id, { account_id })).title, 'in Europe');
  });

  test('have titles of 1 to 512 characters', async () => {
    await fails(kv.create({ account_id, title: '' }), 400);
    await fails(kv.create({ account_id }), 400, 10019, /request is missing a title definition/);
    await fails(kv.create({ account_id, title: 'x'.repeat(513) }), 400);
    for (const title of ['x'.repeat(512), 'ü'.repeat(512), '😀'.repeat(512), ' ', '/', '..', 'a\nb']) {
      const created = await kv.create({ account_id, title });
      assert.equal(created.title, title);
      assert.equal((await kv.get(created.id, { account_id })).title, title);
      await kv.delete(created.id, { account_id });
    }
  });

  test('are listed in pages, by id or title', async () => {
    const before = await all(kv.list({ account_id }));
    const titles = Array.from({ length: 45 }, (_, index) => `page ${String(index).padStart(2, '0')}`);
    for (const title of [...titles].reverse()) await kv.create({ account_id, title });
    const total = before.length + titles.length;
    const sorted = (list, by) => [...list].sort((a, b) => (a < b ? -by : by));
    for (const options of [{}, { per_page: 7 }, { per_page: 20 }, { per_page: 1000 }, { per_page: total }]) {
      for (const order of ['id', 'title']) {
        for (const direction of ['asc', 'desc']) {
          const listed = (await all(kv.list({ account_id, order, direction, ...options }))).map((one) => one[order]);
          assert.equal(listed.length, total);
          assert.deepEqual(listed, sorted(listed, direction === 'asc' ? 1 : -1));
        }
      }
    }
    assert.equal((await all(kv.list({ account_id }))).length, total);
    const path = `/accounts/${ACCOUNT}/storage/kv/namespaces`;
    const { json } = await rest(server.rest, 'GET', `${path}?page=2`);
    assert.deepEqual([json.success, json.errors, json.messages, json.result.length], [true, [], [], 20]);
    const { page, per_page, count, total_count } = json.result_info;
    assert.deepEqual([page, per_page, count, total_count], [2, 20, 20, total]);
    const beyond = (await rest(server.rest, 'GET', `${path}?page=100&per_page=1000`)).json;
    assert.deepEqual([beyond.success, beyond.result], [true, []]);
  });

  test('that are not there are an error of each call', async () => {
    for (const id of ['0'.repeat(32), 'no-id', 'x'.repeat(32)]) {
      const ids = { account_id, namespace_id: id };
      for (const [call, operation] of [
        [() => kv.get(id, { account_id }), 'get namespace'],
        [() => kv.update(id, { account_id, title: 't' }), 'rename namespace'],
        [() => kv.delete(id, { account_id }), 'remove namespace'],
        [() => kv.keys.list(id, { account_id }), 'list keys'],
        [() => kv.values.get('k', ids), 'get'],
        [() => kv.values.update('k', { ...ids, value: 'v' }), 'put'],
        [() => kv.values.delete('k', ids), 'remove key'],
        [() => kv.metadata.get('k', ids)],
        [() => kv.bulkUpdate(id, { account_id, body: [{ key: 'k', value: 'v' }] })],
        [() => kv.bulkGet(id, { account_id, keys: ['k'] })],
        [() => kv.bulkDelete(id, { account_id, body: ['k'] }), 'bulk remove keys'],
      ]) {
        await fails(call(), 404, 10013, operation && new RegExp(`^${operation}: 'namespace not found'$`));
      }
    }
  });
});

describe('values', SLOW, () => {
  let space;
  before(async () => {
    space = await namespace('values');
  });

  test('are put, read and deleted', async () => {
    const put = await space.put('k', 'välue');
    assert.ok(put === null || Object.keys(put).length === 0);
    assert.equal((await space.get('k')).toString(), 'välue');
    const response = await space.response('k');
    assert.equal(response.headers.get('expiration'), null);
    assert.equal(response.headers.get('content-length'), '6');
    const deleted = await space.delete('k');
    assert.ok(deleted === null || Object.keys(deleted).length === 0);
    await fails(space.get('k'), 404, 10009, /^get: 'key not found'$/);
    await space.delete('k');
    await space.delete('never there');
  });

  test('are bytes', async () => {
    for (const bytes of [Buffer.alloc(0), Buffer.from([0, 255, 13, 10, 10, 13, 0]), noise(100_000), Buffer.from('\r\n--x\r\n')]) {
      await space.put('bytes', await toFile(bytes, 'file.bin'));
      assert.ok((await space.get('bytes')).equals(bytes));
    }
    await space.put('bytes', '');
    assert.equal((await space.get('bytes')).length, 0);
  });

  test('have at most 25 MiB', async () => {
    const largest = noise(VALUE_MAX);
    await space.put('largest', await toFile(largest, 'largest'), { metadata: `"${'m'.repeat(1022)}"` });
    assert.ok((await space.get('largest')).equals(largest));
    await fails(space.put('largest', await toFile(Buffer.alloc(VALUE_MAX + 1), 'larger')), 413);
    await fails(space.put('largest', await toFile(Buffer.alloc(VALUE_MAX + (1 << 20)), 'larger')), 413);
    for (const extra of [0, 1]) {
      const body = Buffer.alloc(VALUE_MAX + extra, 7);
      const answer = await rest(server.rest, 'PUT', `${space.path}/values/raw`, { body });
      assert.equal(answer.status, extra ? 413 : 200, answer.bytes.toString());
      assert.equal(answer.json.success, !extra);
    }
    assert.ok((await space.get('largest')).equals(largest));
    assert.equal((await space.get('raw')).length, VALUE_MAX);
    await space.delete('largest');
    await space.delete('raw');
  });

  test('have metadata and expiration', async () => {
    const expiration = now() + 5000;
    await space.put('meta', 'v', { metadata: JSON.stringify({ a: [1, 'ü😀', null] }), expiration });
    assert.deepEqual(await space.metadata('meta'), { a: [1, 'ü😀', null] });
    assert.equal((await space.response('meta')).headers.get('expiration'), String(expiration));
    assert.deepEqual(await space.keys({ prefix: 'meta' }), [{ name: 'meta', expiration, metadata: { a: [1, 'ü😀', null] } }]);
    for (const metadata of ['"text"', '0', 'false', '[]', '{}', '""']) {
      await space.put('meta', 'v', { metadata });
      assert.deepEqual(await space.metadata('meta'), JSON.parse(metadata));
      assert.deepEqual(await space.keys({ prefix: 'meta' }), [{ name: 'meta', metadata: JSON.parse(metadata) }]);
    }
    // A put without them removes both.
    await space.put('meta', 'v');
    assert.equal(await space.metadata('meta'), null);
    assert.deepEqual(await space.keys({ prefix: 'meta' }), [{ name: 'meta' }]);
    await fails(space.metadata('none'), 404, 10009, /'key not found'$/);
    // Up to 64 bits.
    await space.put('meta', 'v', { expiration: 99_999_999_999 });
    assert.deepEqual(await space.keys({ prefix: 'meta' }), [{ name: 'meta', expiration: 99_999_999_999 }]);
    const before = now();
    await space.put('meta', 'v', { expiration: 1, expiration_ttl: 60 });
    const [{ expiration: given }] = await space.keys({ prefix: 'meta' });
    assert.ok(given >= before + 60 && given <= before + 120);
  });

  test('have no metadata that the SDK has taken apart', async () => {
    await fails(space.put('flat', 'v', { metadata: { a: 1, b: { c: ['x'] } } }), 400, 10147, /metadata must be valid json.*JSON\.stringify/);
    await fails(space.put('flat', 'v', { metadata: '' }), 400, 10147, /JSON\.stringify/);
    await fails(space.get('flat'), 404, 10009);
  });

  test('are put raw or in a form, in any order of parts', async () => {
    const target = `${space.path}/values/raw`;
    const put = async (body, headers) => {
      const answer = await rest(server.rest, 'PUT', target, { body, headers });
      assert.equal(answer.status, 200, answer.bytes.toString());
      return [(await space.get('raw')).toString(), await space.metadata('raw')];
    };
    for (const type of ['text/plain', 'application/json', 'application/octet-stream', 'application/x-www-form-urlencoded', '']) {
      assert.deepEqual(await put(Buffer.from('a=%20+\n'), type ? { 'content-type': type } : {}), ['a=%20+\n', null], type);
    }
    const form = (parts) => [
      `${parts.map(([head, body]) => `--B\r\n${head}\r\n\r\n${body}\r\n`).join('')}--B--\r\n`,
      { 'content-type': 'multipart/form-data; boundary=B' },
    ];
    const value = ['Content-Disposition: form-data; name="value"', 'a\nb'];
    const file = ['Content-Disposition: form-data; name="value"; filename="blob"\r\nContent-Type: application/octet-stream', 'a\nb'];
    const metadata = ['Content-Disposition: form-data; name="metadata"', '{"m": "ü"}'];
    const typed = ['Content-Disposition: form-data; name="metadata"\r\nContent-Type: application/json', '{"m": "ü"}'];
    const other = ['Content-Disposition: form-data; name="other"', 'x'];
    assert.deepEqual(await put(...form([value])), ['a\nb', null]);
    for (const parts of [[value, metadata], [metadata, value], [typed, file], [other, file, other, metadata]]) {
      assert.deepEqual(await put(...form(parts)), ['a\nb', { m: 'ü' }]);
    }
    const [body, headers] = form([metadata]);
    const without = await rest(server.rest, 'PUT', target, { body, headers });
    assert.deepEqual([without.status, without.json.success], [400, false]);
  });

  test('have keys of every kind', async () => {
    const keys = [
      'a/b', '/', 'a b', 'a+b', '%', '%2F', 'a?b#c', '...', '[x]^|', '../x', 'x/..', "!$&'()*+,;=:@", 'ü', '日本語', '😀', '\n', '"', '\\',
      'bulk', 'keys', 'x'.repeat(512), 'ü'.repeat(256),
    ];
    for (const key of keys) {
      const path = `${space.path}/values/${encodeURIComponent(key)}`;
      const value = `of ${encodeURIComponent(key)}`;
      await space.put(key, value, { metadata: '1' });
      assert.equal((await space.get(key)).toString(), value, key);
      assert.equal((await rest(server.rest, 'GET', path)).bytes.toString(), value, key);
      assert.equal(await space.metadata(key), 1, key);
      assert.equal((await space.keys({ prefix: key }))[0].name, key);
      await space.delete(key);
      assert.equal((await rest(server.rest, 'GET', path)).status, 404, key);
    }
  });

  test('are refused for what is wrong with them', async () => {
    const soon = now() + 30;
    await fails(space.put('bad', 'v', { expiration_ttl: 59 }), 400, 10034, /Invalid expiration_ttl of 59\. Expiration TTL must be at least 60\./);
    await fails(space.put('bad', 'v', { expiration_ttl: 0 }), 400, 10034, /Invalid expiration_ttl of 0\. Please specify integer/);
    await fails(space.put('bad', 'v', { expiration: soon }), 400, 10033, /at least 60 seconds in the future/);
    const past = /^put: 'Invalid expiration of 1\. Please specify integer greater than the current number of seconds since the UNIX epoch\.'$/;
    await fails(space.put('bad', 'v', { expiration: 1 }), 400, 10033, past);
    await fails(space.put('bad', 'v', { metadata: '{' }), 400, 10147, /metadata must be valid json/);
    await fails(space.put('bad', 'v', { metadata: `"${'x'.repeat(1023)}"` }), 413);
    await fails(space.put('x'.repeat(513), 'v'), 414);
    await fails(space.get('x'.repeat(513)), 414);
    await fails(space.get('bad'), 404, 10009);
    for (const [path, ...statuses] of [['%2E%2E', 400], ['%2E', 400], ['', 400, 404], ['%zz', 400], ['%ff', 400]]) {
      // Sent by hand, since fetch would normalize the path.
      const { request } = await import('node:http');
      const [hostname, port] = server.listen.split(':');
      const status = await new Promise((resolve, reject) => {
        const headers = { authorization: `Bearer ${TOKEN}` };
        const sent = request({ hostname, port, path: `/client/v4${space.path}/values/${path}`, headers }, (answer) => {
          answer.resume();
          resolve(answer.statusCode);
        });
        sent.on('error', reject);
        sent.end();
      });
      assert.ok(statuses.includes(status), `${path}: ${status}`);
    }
  });
});

describe('keys', SLOW, () => {
  let space;
  const names = Array.from({ length: 2500 }, (_, index) => `k/${String(index).padStart(4, '0')}`);
  const expiration = now() + 9000;
  before(async () => {
    space = await namespace('keys');
  });

  test('2,500 are put in one request', async () => {
    const body = names.map((key, index) => {
      const item = { key, value: `value ${index}` };
      if (index % 3 === 1) item.metadata = { index };
      if (index % 3 === 2) item.expiration = expiration;
      return item;
    });
    const done = await space.bulkUpdate(body);
    assert.equal(done.successful_key_count, 2500);
    assert.deepEqual(done.unsuccessful_keys, []);
    assert.equal((await space.get('k/2499')).toString(), 'value 2499');
    assert.deepEqual(await space.metadata('k/2497'), { index: 2497 });
  });

  test('are listed in pages', async () => {
    const shown = names.map((name, index) => {
      if (index % 3 === 1) return { name, metadata: { index } };
      return index % 3 === 2 ? { name, expiration } : { name };
    });
    for (const limit of [undefined, 1000, 999, 500, 123]) {
      assert.deepEqual((await space.keys({ limit })).map((key) => ({ ...key })), shown);
    }
    assert.deepEqual((await space.keys({ prefix: 'k/1', limit: 10 })).map((key) => key.name), names.slice(1000, 2000));
    const first = (await rest(server.rest, 'GET', `${space.path}/keys`)).json;
    assert.equal(first.result.length, 1000);
    assert.equal(first.result_info.count, 1000);
    assert.ok(first.result_info.cursor.length > 0);
    const last = (await rest(server.rest, 'GET', `${space.path}/keys?prefix=k%2F24&limit=1000&cursor=`)).json;
    assert.deepEqual([last.result.length, last.result_info.count, last.result_info.cursor], [100, 100, '']);
    for (const limit of [1, 9]) assert.equal((await rest(server.rest, 'GET', `${space.path}/keys?limit=${limit}`)).json.result.length, limit);
    for (const limit of ['1001', '0', '-1', 'x']) {
      const answer = await rest(server.rest, 'GET', `${space.path}/keys?limit=${limit}`);
      assert.deepEqual([answer.status, answer.json.success], [400, false], limit);
    }
    const long = await rest(server.rest, 'GET', `${space.path}/keys?prefix=${'x'.repeat(513)}`);
    assert.ok(long.status >= 400 && long.status < 500 && !long.json.success);
  });

  test('100 are read in one request', async () => {
    const some = names.slice(0, 99);
    const plain = await space.bulkGet({ keys: [...some, 'none'] });
    const expected = Object.fromEntries(some.map((key, index) => [key, `value ${index}`]));
    assert.deepEqual(plain.values, { ...expected, none: null });
    const full = await space.bulkGet({ keys: ['k/0000', 'k/0001', 'k/0002', 'none'], withMetadata: true });
    assert.deepEqual(full.values, {
      'k/0000': { value: 'value 0', metadata: null },
      'k/0001': { value: 'value 1', metadata: { index: 1 } },
      'k/0002': { value: 'value 2', metadata: null, expiration },
      none: null,
    });
    await space.put('json', '{"a":[1]}');
    assert.deepEqual((await space.bulkGet({ keys: ['json'], type: 'json' })).values, { json: { a: [1] } });
    assert.deepEqual((await space.bulkGet({ keys: ['json', 'json'], type: 'text' })).values, { json: '{"a":[1]}' });
    await fails(space.bulkGet({ keys: ['k/0000'], type: 'json' }), 400);
    await fails(space.bulkGet({ keys: [] }), 400, 10029);
    await fails(space.bulkGet({ keys: names.slice(0, 101) }), 400, 10029);
    await fails(space.bulkGet({ keys: ['x'.repeat(513)] }), 414);
    await fails(space.bulkGet({}), 400, 10012);
    // 100 keys of the maximum length.
    const long = Array.from({ length: 100 }, (_, index) => String.fromCodePoint(0x4e00 + index).repeat(170));
    assert.equal(Object.keys((await space.bulkGet({ keys: long })).values).length, 100);
    await space.delete('json');
  });

  test('are deleted in one request', async () => {
    const done = await space.bulkDelete([...names.slice(0, 1500), 'none']);
    assert.equal(done.successful_key_count, 1501);
    assert.deepEqual(done.unsuccessful_keys, []);
    assert.deepEqual((await space.keys()).map((key) => key.name), names.slice(1500));
    // As wrangler does.
    const body = JSON.stringify(names.slice(1500, 2400));
    const headers = { 'content-type': 'application/json' };
    const answer = await rest(server.rest, 'DELETE', `${space.path}/bulk`, { body, headers });
    assert.deepEqual([answer.status, answer.json.success], [200, true]);
    assert.deepEqual((await space.keys()).map((key) => key.name), names.slice(2400));
    await fails(space.get('k/0000'), 404, 10009);
  });
});

describe('bulk updates', SLOW, () => {
  let space;
  before(async () => {
    space = await namespace('bulk');
  });

  test('have base64, metadata, lifetimes and properties that mean nothing', async () => {
    const bytes = noise(1000);
    const before = now();
    await space.bulkUpdate([
      { key: 'base64', value: bytes.toString('base64'), base64: true },
      { key: 'plain', value: bytes.toString('base64'), base64: false },
      { key: 'text\0ü/😀', value: 'ü\0\n😀' },
      { key: 'ttl', value: '', expiration_ttl: 60 },
      { key: 'both', value: '', expiration_ttl: 600, expiration: before + 100_000 },
      { key: 'meta', value: '', metadata: { a: 'ü' }, colour: 'red' },
      { key: 'null', value: '', metadata: null },
      { key: 'twice', value: 'first' },
      { key: 'twice', value: 'second' },
    ]);
    assert.ok((await space.get('base64')).equals(bytes));
    assert.equal((await space.get('plain')).toString(), bytes.toString('base64'));
    assert.equal((await space.get('text\0ü/😀')).toString(), 'ü\0\n😀');
    assert.equal((await space.get('twice')).toString(), 'second');
    const keys = Object.fromEntries((await space.keys()).map((key) => [key.name, key]));
    assert.equal(Object.keys(keys).length, 8);
    assert.ok(keys.ttl.expiration >= before + 60 && keys.ttl.expiration < before + 120);
    assert.ok(keys.both.expiration >= before + 600 && keys.both.expiration < before + 660);
    assert.deepEqual(keys.meta.metadata, { a: 'ü' });
    assert.deepEqual(keys.null, { name: 'null' });
  });

  test('with one wrong item write nothing', async () => {
    const wrong = [
      { key: '', value: 'v' }, { key: '.', value: 'v' }, { key: '..', value: 'v' }, { key: 'x'.repeat(513), value: 'v' },
      { key: 'k', value: 'v', expiration_ttl: 59 }, { key: 'k', value: 'v', expiration: 1 }, { key: 'k', value: '***', base64: true },
      { key: 'k', value: 'v', metadata: { long: 'x'.repeat(1024) } }, { key: 'k' }, { value: 'v' }, { key: 1, value: 'v' },
    ];
    for (const item of wrong) {
      await assert.rejects(
        space.bulkUpdate([{ key: 'good/1', value: 'v' }, item, { key: 'good/2', value: 'v' }]),
        (error) => error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 409 && error.status !== 429,
        JSON.stringify(item),
      );
    }
    assert.deepEqual(await space.keys({ prefix: 'good/' }), []);
    await fails(space.bulkUpdate([{ key: 'k' }]), 400, 10012);
    for (const body of ['', '{', '{}', 'null', '[1]']) {
      const headers = { 'content-type': 'application/json' };
      const answer = await rest(server.rest, 'PUT', `${space.path}/bulk`, { body, headers });
      assert.deepEqual([answer.status, answer.json.success], [400, false], body);
    }
  });

  test('have at most 10,000 items', async () => {
    const items = Array.from({ length: 10_001 }, (_, index) => ({ key: `ten/${index}`, value: 'v'.repeat(100) }));
    await assert.rejects(space.bulkUpdate(items), (error) => error.status >= 400 && error.status < 500);
    assert.deepEqual(await space.keys({ prefix: 'ten/' }), []);
    assert.equal((await space.bulkUpdate(items.slice(0, 10_000))).successful_key_count, 10_000);
    assert.equal((await space.keys({ prefix: 'ten/' })).length, 10_000);
    const keys = items.map((item) => item.key);
    await assert.rejects(space.bulkDelete(keys), (error) => error.status >= 400 && error.status < 500);
    assert.equal((await space.bulkDelete(keys.slice(0, 10_000))).successful_key_count, 10_000);
    assert.deepEqual(await space.keys({ prefix: 'ten/' }), []);
  });

  test('may be as large as four of the largest values', async () => {
    const value = 'v'.repeat(24_000_000);
    const items = Array.from({ length: 4 }, (_, index) => ({ key: `large/${index}`, value }));
    assert.equal((await space.bulkUpdate(items)).successful_key_count, 4);
    assert.equal((await space.get('large/3')).length, value.length);
    await assert.rejects(space.bulkGet({ keys: items.map((item) => item.key) }), (error) => error.status === 413);
    await fails(space.bulkUpdate([{ key: 'large/4', value: 'v'.repeat(VALUE_MAX + 1) }]), 413);
  });
});

describe('errors', SLOW, () => {
  test('a wrong token', async () => {
    const wrong = clientOf({ apiToken: 'the token of somebody' }).kv.namespaces;
    for (const call of [() => wrong.list({ account_id }), () => wrong.create({ account_id, title: 'stolen' })]) {
      await assert.rejects(async () => call(), (error) => {
        assert.ok(error.status === 401 || error.status === 403, String(error.status));
        assert.equal(error.errors[0].code, 10000);
        return true;
      });
    }
    const none = await rest(server.rest, 'GET', `/accounts/${ACCOUNT}/storage/kv/namespaces`, { token: null });
    assert.ok([401, 403].includes(none.status));
    assert.deepEqual([none.json.success, none.json.result], [false, null]);
    assert.ok(!(await all(kv.list({ account_id }))).some((one) => one.title === 'stolen'));
  });

  test('a path or method that is not known', async () => {
    const base = `/accounts/${ACCOUNT}/storage/kv/namespaces`;
    for (const path of ['/', '/zones', base.slice(0, -1), `${base}/${'0'.repeat(32)}/nothing`, `${base}/a/values/b/c`]) {
      const answer = await rest(server.rest, 'GET', path);
      assert.ok([400, 404].includes(answer.status), path);
      assert.equal(answer.json.success, false);
      assert.ok([7000, 7003].includes(answer.json.errors[0].code));
    }
    for (const [method, path] of [['PATCH', base], ['POST', `${base}/${'0'.repeat(32)}/values/k`], ['DELETE', base]]) {
      const answer = await rest(server.rest, method, path);
      assert.deepEqual([answer.status, answer.json.success, answer.json.errors[0].code], [405, false, 10405], `${method} ${path}`);
    }
  });

  test('the account is there for those that ask', async () => {
    assert.equal((await client.user.tokens.verify()).status, 'active');
    assert.equal(typeof (await client.user.get()).id, 'string');
    const accounts = (await rest(server.rest, 'GET', '/accounts?page=1')).json;
    const memberships = (await rest(server.rest, 'GET', '/memberships?page=1')).json;
    assert.ok(memberships.result.some((membership) => membership.account.id === accounts.result[0].id));
    for (const { result, success } of [accounts, memberships]) assert.deepEqual([success, result.length], [true, 1]);
  });

  test('the lists of accounts and memberships have an end', async () => {
    assert.equal((await all(client.accounts.list(), 10)).length, 1);
    assert.equal((await all(client.memberships.list(), 10)).length, 1);
    for (const path of ['/accounts', '/memberships']) {
      const { page, count, total_count } = (await rest(server.rest, 'GET', `${path}?page=1`)).json.result_info ?? {};
      assert.deepEqual([page, count, total_count], [1, 1, 1], path);
    }
  });
});

describe('beyond Workers KV', SLOW, () => {
  const key = (ns) => ({ account_id, namespace_id: ns.id });

  test('a put is done on a condition, by the entity tag that a read returns', async () => {
    const ns = await namespace('conditions');
    const update = (value, headers) => kv.values.update('k', { ...key(ns), value }, { headers });
    await fails(update('never', { 'If-Match': '*' }), 412, 10412);
    await update('first', { 'If-None-Match': '*' });
    await fails(update('second', { 'If-None-Match': '*' }), 412, 10412, /Precondition Failed/);
    const etag = (await ns.response('k')).headers.get('etag');
    await update('second', { 'If-Match': etag });
    await fails(update('third', { 'If-Match': etag }), 412, 10412);
    await fails(kv.values.delete('k', key(ns), { headers: { 'If-Match': etag } }), 412, 10412);
    assert.equal((await ns.get('k')).toString(), 'second');
  });

  test('increments of several clients at the same time add up', async () => {
    const ns = await namespace('counter');
    await ns.put('counter', '0');
    const increment = async () => {
      for (;;) {
        const response = await ns.response('counter');
        const number = Number(await response.text());
        const headers = { 'If-Match': response.headers.get('etag') };
        try {
          return await kv.values.update('counter', { ...key(ns), value: String(number + 1) }, { headers });
        } catch (error) {
          assert.equal(error.status, 412, error.message);
        }
      }
    };
    const times = async (count) => { for (let done = 0; done < count; done++) await increment(); };
    await Promise.all([times(10), times(10), times(10)]);
    assert.equal((await ns.get('counter')).toString(), '30');
  });

  test('a part of a value is read', async () => {
    const ns = await namespace('parts');
    await ns.put('k', '0123456789');
    const part = await kv.values.get('k', key(ns), { headers: { Range: 'bytes=2-4' } }).asResponse();
    assert.deepEqual([part.status, part.headers.get('content-range')], [206, 'bytes 2-4/10']);
    assert.equal(await part.text(), '234');
    await fails(kv.values.get('k', key(ns), { headers: { Range: 'bytes=10-' } }), 416, 10416);
  });

  test('a namespace tells what it holds, and has a default lifetime', async () => {
    const ns = await namespace('details');
    await ns.put('a1', 'v');
    await ns.put('b1', 'v');
    const { result } = await client.get(`${ns.path}/statistics`);
    assert.deepEqual([result.id, result.title, result.keys, result.max_bytes], [ns.id, 'details', 2, null]);
    assert.equal((await client.get(`${ns.path}/count`, { query: { prefix: 'a' } })).result.count, 1);
    await client.put(`${ns.path}/default_ttl`, { body: { default_ttl: 3600 } });
    await ns.put('c', 'v');
    const expiration = Number((await ns.response('c')).headers.get('expiration'));
    assert.ok(Math.abs(expiration - now() - 3600) < 600, String(expiration));
  });
});
