// The binding protocol, spoken by workerd for Workers.
import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import {
  ACCOUNT, PATIENCE, SLOW, TOKEN, call, createNamespace, embercask, removeFolder, rest, startServer, startWorkerd, temporaryFolder,
} from './helpers.mjs';
import { cases } from './worker-binding.mjs';

const authorization = { Authorization: `Bearer ${TOKEN}` };
const named = (namespace) => ({ ...authorization, 'X-KV-Namespace': namespace });

/** Requests a path from a worker; returns the text, or fails with it. */
async function ask(workerd, path) {
  const response = await fetch(workerd.url + path, { signal: AbortSignal.timeout(2 * PATIENCE) });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return text;
}

/** Sends a raw request of the binding protocol. */
function raw(server, method, path, { headers = {}, body } = {}) {
  const [host, port] = server.binding.split(':');
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host, port, method, path, headers, timeout: PATIENCE }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const { statusCode: status, statusMessage: reason, headers } = response;
        resolve({ status, reason, headers, body: Buffer.concat(chunks).toString() });
      });
    });
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', reject);
    request.end(body);
  });
}

describe('the tutorial of Workers KV', SLOW, () => {
  for (const way of ['a header', 'a unix socket']) {
    test(`works through ${way}`, SLOW, async (context) => {
      const folder = temporaryFolder();
      const store = join(folder, 'store');
      const socket = join(folder, 'sessions.socket');
      const options = { store, bindingFor: { SESSIONS: socket } };
      let server = await startServer(options);
      const address = way === 'a header' ? server.binding : `unix:${socket}`;
      const headers = way === 'a header' ? named('SESSIONS') : authorization;
      const workerd = await startWorkerd({ worker: 'worker-tutorial.mjs', bindings: { SESSIONS: { address, headers } } });
      context.after(async () => {
        await workerd.stop();
        await server.kill();
        removeFolder(folder);
      });

      const before = Math.floor(Date.now() / 1000);
      assert.equal(await ask(workerd, '/put'), 'stored');
      const check = async () => {
        assert.equal(await ask(workerd, '/get'), 'logged-in');
        assert.deepEqual(JSON.parse(await ask(workerd, '/json')), { name: 'Zoë', visits: 3 });
        const listed = JSON.parse(await ask(workerd, '/list'));
        assert.deepEqual(listed.keys.map((key) => key.name), ['user-123', 'user-456']);
        assert.ok(listed.list_complete && !('cursor' in listed));
        const { expiration } = listed.keys[0];
        assert.ok(expiration >= before + 3600 && expiration <= before + 3660, `expiration ${expiration}`);
        assert.ok(!('expiration' in listed.keys[1]));
      };
      await check();

      // The Worker keeps working after a restart of the server.
      const again = { ...options, listen: server.listen, binding: server.binding };
      await server.stop();
      const seen = await embercask(store, 'key', 'get', '-n', 'SESSIONS', 'user-123');
      assert.equal(seen.code, 0, seen.stderr);
      assert.equal(seen.stdout.trimEnd(), 'logged-in');
      server = await startServer(again);
      await check();
      assert.equal(await ask(workerd, '/delete'), 'deleted');
      const gone = await fetch(`${workerd.url}/get`);
      assert.equal(gone.status, 404);
      await server.stop();
    });
  }
});

describe('the binding API', SLOW, () => {
  const folder = temporaryFolder();
  const socket = join(folder, 'kv.socket');
  let server;
  let workerd;
  before(async () => {
    server = await startServer({ store: join(folder, 'store'), bindingFor: { 'by socket': socket } });
    const id = await createNamespace(server.rest, 'by id');
    await createNamespace(server.rest, 'by title: "quotes", spaces');
    workerd = await startWorkerd({
      worker: 'worker-binding.mjs',
      bindings: {
        ID: { address: server.binding, headers: named(id) },
        TITLE: { address: server.binding, headers: named('by title: "quotes", spaces') },
        SOCKET: { address: `unix:${socket}`, headers: authorization },
      },
    });
  });
  after(async () => {
    await workerd?.stop();
    await server?.stop();
    removeFolder(folder);
  });
  for (const [binding, way] of [['ID', 'a header with an id'], ['TITLE', 'a header with a title'], ['SOCKET', 'a unix socket']]) {
    describe(`through ${way}`, SLOW, () => {
      for (const name of Object.keys(cases)) {
        test(name, SLOW, () => ask(workerd, `/${encodeURIComponent(name)}?binding=${binding}`));
      }
    });
  }
});

describe('bindings and namespaces', SLOW, () => {
  const folder = temporaryFolder();
  const socket = join(folder, 'kv.socket');
  const started = Math.floor(Date.now() / 1000);
  let server;
  let workerd;
  let id;
  before(async () => {
    server = await startServer({ store: join(folder, 'store'), bindingFor: { first: socket } });
    const path = `/accounts/${ACCOUNT}/storage/kv/namespaces?order=title`;
    id = (await rest(server.rest, 'GET', path)).json.result.find((namespace) => namespace.title === 'first').id;
    await createNamespace(server.rest, 'zweite ü');
    const address = server.binding;
    workerd = await startWorkerd({
      worker: 'worker-simple.mjs',
      bindings: {
        ID: { address, headers: named(id) },
        TITLE: { address, headers: named('first') },
        SOCKET: { address: `unix:${socket}`, headers: authorization },
        OTHER: { address, headers: named('zweite ü') },
        UNKNOWN: { address, headers: named('no such namespace') },
        UNKNOWN_ID: { address, headers: named('00000000000000000000000000000000') },
        NO_HEADER: { address, headers: authorization },
        NO_TOKEN: { address, headers: { 'X-KV-Namespace': 'first' } },
        WRONG_TOKEN: { address, headers: { 'X-KV-Namespace': 'first', Authorization: 'Bearer the token of somebody' } },
        SOCKET_NO_TOKEN: { address: `unix:${socket}` },
        CLOSED: { address: '127.0.0.1:1', headers: named('first') },
      },
    });
    await call(workerd, 'ID', 'put', 'expiring/k', 'v', { expirationTtl: 60, metadata: 'm' });
  });
  after(async () => {
    await workerd?.stop();
    await server?.stop();
    removeFolder(folder);
  });

  test('id, title and socket are ways to the same namespace', async () => {
    await call(workerd, 'ID', 'put', 'k', 'by id', { metadata: { ü: 1 } });
    for (const binding of ['ID', 'TITLE', 'SOCKET']) {
      const { value, metadata } = await call(workerd, binding, 'getWithMetadata', 'k');
      assert.deepEqual([value, metadata], ['by id', { ü: 1 }]);
    }
    await call(workerd, 'SOCKET', 'put', 'k', 'by socket');
    assert.equal(await call(workerd, 'TITLE', 'get', 'k'), 'by socket');
  });

  test('namespaces are apart from each other', async () => {
    await call(workerd, 'ID', 'put', 'apart', 'first');
    assert.equal(await call(workerd, 'OTHER', 'get', 'apart'), null);
    await call(workerd, 'OTHER', 'put', 'apart', 'second');
    assert.equal(await call(workerd, 'ID', 'get', 'apart'), 'first');
    assert.deepEqual((await call(workerd, 'OTHER', 'list')).keys, [{ name: 'apart' }]);
  });

  test('a namespace that is not there is an error, not an absent key', async () => {
    for (const binding of ['UNKNOWN', 'UNKNOWN_ID', 'NO_HEADER']) {
      for (const [method, operation, ...args] of [
        ['get', 'GET', 'k'], ['getWithMetadata', 'GET', 'k'], ['list', 'GET'], ['put', 'PUT', 'k', 'v'], ['delete', 'DELETE', 'k'],
        ['get', 'GET_BULK', ['k']],
      ]) {
        const wanted = new RegExp(`^Error: Error: KV ${operation} failed: 4\\d\\d .`);
        await assert.rejects(call(workerd, binding, method, ...args), (error) => wanted.test(String(error)), `${binding} ${method}`);
      }
    }
    const { result } = (await rest(server.rest, 'GET', `/accounts/${ACCOUNT}/storage/kv/namespaces`)).json;
    assert.equal(result.length, 2, 'a binding has created a namespace');
  });

  test('without the token nothing is done', async () => {
    await call(workerd, 'ID', 'put', 'guarded', 'safe');
    for (const binding of ['NO_TOKEN', 'WRONG_TOKEN', 'SOCKET_NO_TOKEN']) {
      for (const args of [['get', 'guarded'], ['list'], ['put', 'guarded', 'stolen'], ['delete', 'guarded'], ['get', ['guarded']]]) {
        await assert.rejects(call(workerd, binding, ...args), /KV [A-Z_]+ failed: 40[13] ./, `${binding} ${args}`);
      }
    }
    assert.equal(await call(workerd, 'ID', 'get', 'guarded'), 'safe');
  });

  test('a server that is away is an error', async () => {
    await assert.rejects(call(workerd, 'CLOSED', 'get', 'k'), /Error/);
  });

  test('the REST API sees what a Worker writes, and the other way round', async () => {
    const path = `/accounts/${ACCOUNT}/storage/kv/namespaces/${id}`;
    const expiration = started + 4000;
    await call(workerd, 'ID', 'put', 'both/a b+ü', 'from a Worker', { metadata: { from: 'Wörker' }, expiration });
    const key = encodeURIComponent('both/a b+ü');
    const value = await rest(server.rest, 'GET', `${path}/values/${key}`);
    assert.equal(value.bytes.toString(), 'from a Worker');
    assert.equal(value.headers.get('expiration'), String(expiration));
    assert.deepEqual((await rest(server.rest, 'GET', `${path}/metadata/${key}`)).json.result, { from: 'Wörker' });
    const form = new FormData();
    form.set('value', 'from REST');
    form.set('metadata', '{"from": "RËST"}');
    const put = await rest(server.rest, 'PUT', `${path}/values/${key}?expiration=99999999999`, { body: form });
    assert.equal(put.status, 200);
    const read = await call(workerd, 'ID', 'getWithMetadata', 'both/a b+ü');
    assert.deepEqual([read.value, read.metadata], ['from REST', { from: 'RËST' }]);
    assert.deepEqual((await call(workerd, 'ID', 'list', { prefix: 'both/' })).keys, [
      { name: 'both/a b+ü', expiration: 99_999_999_999, metadata: { from: 'RËST' } },
    ]);
  });

  test('a Worker reads all metadata that the REST API accepts', async (context) => {
    const path = `/accounts/${ACCOUNT}/storage/kv/namespaces/${id}`;
    for (const [name, metadata] of [
      ['blanks and line breaks', '{\n  "a" :\r\n\t"b \\n c"\n}'],
      ['escapes', '"\\u00fc\\ud83d\\ude00\\u0000"'],
      ['a lone surrogate', '"\\ud800"'],
      ['large numbers', '[1e400, 123456789012345678901234567890]'],
      ['the character DEL', '"\x7f"'],
      ['1024 bytes', `"${'ü'.repeat(511)}"`],
    ]) {
      await context.test(name, async () => {
        const form = new FormData();
        form.set('value', 'v');
        form.set('metadata', new Blob([metadata]));
        const put = await rest(server.rest, 'PUT', `${path}/values/rest-meta`, { body: form });
        assert.equal(put.status, 200, put.bytes.toString());
        const read = await call(workerd, 'ID', 'getWithMetadata', 'rest-meta');
        const expected = JSON.parse(JSON.stringify(JSON.parse(metadata)));
        assert.deepEqual(read.metadata, expected);
        assert.deepEqual((await call(workerd, 'ID', 'list', { prefix: 'rest-meta' })).keys[0].metadata, expected);
      });
    }
  });

  test('a renamed namespace keeps its id and keys', async () => {
    const renamed = await createNamespace(server.rest, 'before');
    const bindings = {
      ID: { address: server.binding, headers: named(renamed) },
      NEW: { address: server.binding, headers: named('after') },
    };
    const other = await startWorkerd({ worker: 'worker-simple.mjs', bindings });
    try {
      await call(other, 'ID', 'put', 'k', 'v');
      await assert.rejects(call(other, 'NEW', 'get', 'k'));
      const path = `/accounts/${ACCOUNT}/storage/kv/namespaces/${renamed}`;
      const headers = { 'content-type': 'application/json' };
      assert.equal((await rest(server.rest, 'PUT', path, { headers, body: '{"title":"after"}' })).status, 200);
      assert.equal(await call(other, 'ID', 'get', 'k'), 'v');
      assert.equal(await call(other, 'NEW', 'get', 'k'), 'v');
      assert.equal((await rest(server.rest, 'DELETE', path)).status, 200);
      await assert.rejects(call(other, 'ID', 'get', 'k'), /KV GET failed: 4/);
    } finally {
      await other.stop();
    }
  });

  test('the protocol itself', async (context) => {
    const headers = named(id);
    await context.test('without urlencoded, the path is the key', async () => {
      assert.equal((await raw(server, 'PUT', '/a%2Fb', { headers, body: 'raw' })).status, 200);
      assert.equal(await call(workerd, 'ID', 'get', 'a%2Fb'), 'raw');
      assert.equal(await call(workerd, 'ID', 'get', 'a/b'), null);
      assert.equal((await raw(server, 'GET', '/a%252Fb?urlencoded=TRUE', { headers })).body, 'raw');
    });
    await context.test('every spelling of a key is the same key', async () => {
      await call(workerd, 'ID', 'put', "s!'()*-._~$&+,;=:@", 'v');
      const spellings = [encodeURIComponent("s!'()*-._~$&+,;=:@"), "s!'()*-._~$&+,;=:@"];
      spellings.push([..."s!'()*-._~$&+,;=:@"].map((letter) => `%${letter.charCodeAt(0).toString(16)}`).join(''));
      for (const spelling of spellings) {
        assert.equal((await raw(server, 'GET', `/${spelling}?urlencoded=true`, { headers })).body, 'v', spelling);
      }
    });
    await context.test('answers have the headers of the protocol', async () => {
      const expiration = started + 5000;
      await call(workerd, 'ID', 'put', 'head', 'välue', { expiration, metadata: { a: 'ü' } });
      const full = await raw(server, 'GET', '/head?urlencoded=true', { headers });
      assert.deepEqual([full.status, full.body, full.headers['content-length']], [200, 'välue', '6']);
      assert.equal(full.headers['cf-expiration'], String(expiration));
      assert.deepEqual(JSON.parse(Buffer.from(full.headers['cf-kv-metadata'], 'latin1').toString('utf8')), { a: 'ü' });
      assert.ok(!('content-encoding' in full.headers));
      await call(workerd, 'ID', 'put', 'head', '');
      const bare = await raw(server, 'GET', '/head?urlencoded=true', { headers });
      assert.deepEqual([bare.status, bare.headers['content-length']], [200, '0']);
      assert.ok(!('cf-expiration' in bare.headers) && !('cf-kv-metadata' in bare.headers));
      const put = await raw(server, 'PUT', '/head?urlencoded=true', { headers, body: 'x' });
      assert.deepEqual([put.status, put.body], [200, '']);
      const missing = await raw(server, 'GET', '/head-none?urlencoded=true', { headers });
      assert.deepEqual([missing.status, missing.reason], [404, 'Not Found']);
    });
    await context.test('a listing has metadata as text', async () => {
      await call(workerd, 'ID', 'put', 'listed/1', '', { metadata: 'text' });
      await call(workerd, 'ID', 'put', 'listed/2', '', { metadata: { a: 1 } });
      const page = await raw(server, 'GET', '/?key_count_limit=2&prefix=listed%2F', { headers });
      assert.deepEqual(JSON.parse(page.body), {
        keys: [{ name: 'listed/1', metadata: '"text"' }, { name: 'listed/2', metadata: '{"a":1}' }],
        list_complete: true,
      });
    });
    await context.test('errors are in the reason phrase', async () => {
      for (const [method, path, status, reason] of [
        ['GET', '/%zz?urlencoded=true', 400, 'Could not URL-decode key name'],
        ['GET', '/%ff?urlencoded=true', 400, 'Could not URL-decode key name'],
        ['GET', '/%2E%2E?urlencoded=true', 400, 'Illegal key name "..". Please use a different name.'],
        ['GET', `/${'x'.repeat(513)}?urlencoded=true`, 414, 'UTF-8 encoded length of 513 exceeds key length limit of 512.'],
        ['GET', '/k?urlencoded=true&cache_ttl=x', 400, 'Invalid cache_ttl of x. Cache TTL must be at least 30.'],
        ['GET', '/?key_count_limit=0', 400, 'Invalid key_count_limit of 0. Please specify an integer greater than 0.'],
        ['GET', '/?key_count_limit=x', 400, 'Invalid key_count_limit of x. Please specify an integer greater than 0.'],
        ['PUT', '/k?urlencoded=true&expiration_ttl=x', 400, 'Invalid expiration_ttl of x. Please specify integer greater than 0.'],
      ]) {
        const answer = await raw(server, method, path, { headers });
        assert.deepEqual([answer.status, answer.reason], [status, reason], `${method} ${path.slice(0, 60)}`);
      }
      for (const method of ['PATCH', 'OPTIONS', 'QUERY']) {
        assert.equal((await raw(server, method, '/k?urlencoded=true', { headers })).status, 405, method);
      }
    });
    await context.test('a head may be as large as workerd makes it', async () => {
      const key = `/${'%F0%9F%98%80'.repeat(128)}?urlencoded=true&expiration=4000000000&expiration_ttl=60`;
      const metadata = JSON.stringify('m'.repeat(1022));
      const large = { ...headers, 'CF-KV-FLPROD-405': `https://fake-host${key}`, 'CF-KV-Metadata': metadata, 'X-Padding': 'x'.repeat(8000) };
      assert.equal((await raw(server, 'PUT', key, { headers: large, body: 'v' })).status, 200);
      assert.equal(await call(workerd, 'ID', 'get', '😀'.repeat(128)), 'v');
    });
  });

  test('an expired key is absent everywhere', SLOW, async () => {
    const path = `/accounts/${ACCOUNT}/storage/kv/namespaces/${id}`;
    const { keys } = await call(workerd, 'ID', 'list', { prefix: 'expiring/' });
    const now = () => Date.now() / 1000;
    // On a very slow machine the key may have expired already.
    const expiration = keys[0]?.expiration ?? Math.floor(now());
    const value = await call(workerd, 'ID', 'get', 'expiring/k');
    if (now() < expiration) assert.equal(value, 'v');
    while (now() < expiration) await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(await call(workerd, 'ID', 'get', 'expiring/k'), null);
    const { value: none, metadata } = await call(workerd, 'ID', 'getWithMetadata', 'expiring/k');
    assert.deepEqual([none, metadata], [null, null]);
    assert.deepEqual(await call(workerd, 'ID', 'get', ['expiring/k']), [['expiring/k', null]]);
    assert.deepEqual((await call(workerd, 'ID', 'list', { prefix: 'expiring/' })).keys, []);
    for (const of of ['values', 'metadata']) {
      assert.equal((await rest(server.rest, 'GET', `${path}/${of}/expiring%2Fk`)).status, 404);
    }
    assert.deepEqual((await rest(server.rest, 'GET', `${path}/keys?prefix=expiring%2F`)).json.result, []);
    await call(workerd, 'ID', 'put', 'expiring/k', 'new');
    assert.equal(await call(workerd, 'ID', 'get', 'expiring/k'), 'new');
  });
});
