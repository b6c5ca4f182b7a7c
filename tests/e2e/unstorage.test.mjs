// The REST API through `unstorage`, whose driver many frameworks use for their storage.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { createStorage } from 'unstorage';
import driver from 'unstorage/drivers/cloudflare-kv-http';

import { ACCOUNT, SLOW, TOKEN, removeFolder, rest, startServer, temporaryFolder } from './helpers.mjs';

const folder = temporaryFolder();
let server;
let storage;
let path;

before(async () => {
  server = await startServer({ store: join(folder, 'store') });
  path = `/accounts/${ACCOUNT}/storage/kv/namespaces`;
  const created = await rest(server.rest, 'POST', path, { body: JSON.stringify({ title: 'unstorage' }) });
  path += `/${created.json.result.id}`;
  storage = createStorage({
    driver: driver({
      apiURL: server.rest.replace('/client/v4', ''),
      accountId: ACCOUNT,
      namespaceId: created.json.result.id,
      apiToken: TOKEN,
    }),
  });
});
after(async () => {
  await server?.stop();
  removeFolder(folder);
});

describe('unstorage', SLOW, () => {
  test('gets what it has set, of each type', async () => {
    for (const [key, value] of [
      ['text', 'some text'],
      ['user:1', { name: 'Ada', logins: 3 }],
      ['a key/with ü', [1, 2, 3]],
      ['number', 42],
      ['no', false],
    ]) {
      await storage.setItem(key, value);
      assert.equal(await storage.hasItem(key), true, key);
      assert.deepEqual(await storage.getItem(key), value, key);
    }
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    await storage.setItemRaw('bytes', bytes);
    assert.deepEqual(Uint8Array.from(await storage.getItemRaw('bytes')), bytes);
  });

  test('finds nothing where nothing is', async () => {
    assert.equal(await storage.getItem('absent'), null);
    assert.equal(await storage.hasItem('absent'), false);
    await storage.removeItem('absent');
  });

  test('has its keys expire', async () => {
    await storage.setItem('session', 'logged in', { ttl: 3600 });
    const listed = await rest(server.rest, 'GET', `${path}/keys?prefix=session`);
    const [{ expiration }] = listed.json.result;
    assert.ok(Math.abs(expiration - Date.now() / 1000 - 3600) < 120, String(expiration));
  });

  test('lists by prefix, removes, and clears', async () => {
    // More than a page of keys.
    const bulk = Array.from({ length: 1500 }, (_, index) => ({ key: `many:${index}`, value: String(index) }));
    await rest(server.rest, 'PUT', `${path}/bulk`, { body: JSON.stringify(bulk) });
    await storage.setItem('other:1', 'stays');
    const keys = await storage.getKeys('many');
    assert.deepEqual(keys.sort(), bulk.map(({ key }) => key).sort());
    await storage.removeItem('many:7');
    assert.equal((await storage.getKeys('many')).length, 1499);
    assert.equal(await storage.getItem('other:1'), 'stays');
    await storage.clear();
    assert.deepEqual(await storage.getKeys(), []);
  });
});
