// The local state of wrangler: imported with `embercask import --miniflare`, and written from an exported bulk file.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { SLOW, embercask, noise, removeFolder, temporaryFolder, wranglerFor } from './helpers.mjs';

const ID = '4501846b534b2d4a5d8f47f790fd834a';
const folder = temporaryFolder();
const store = join(folder, 'store');
let wrangler;
before(async () => {
  wrangler = await wranglerFor('http://127.0.0.1:1/client/v4');
  await writeFile(join(wrangler.folder, 'wrangler.jsonc'), `{
    // The second one has no id.
    "name": "example",
    "compatibility_date": "2026-11-01",
    "kv_namespaces": [{ "binding": "SESSIONS", "id": "${ID}" }, { "binding": "CACHE" },],
  }`);
});
after(async () => {
  await wrangler?.close();
  removeFolder(folder);
});

const kv = (...args) => wrangler.ok(['kv', ...args, '--local']);

describe('the local state of wrangler', SLOW, () => {
  test('moves to a store and back', SLOW, async () => {
    const bytes = noise(300_000);
    await writeFile(join(wrangler.folder, 'bytes'), bytes);
    const until = Math.floor(Date.now() / 1000) + 3600;
    await kv('key', 'put', 'grüße/\u{1F525}', 'ä', '--binding', 'SESSIONS', '--metadata', '{"a":[1,2.5]}');
    await kv('key', 'put', 'bytes', '--path', 'bytes', '--binding', 'SESSIONS', '--expiration', String(until));
    const wrapped = bytes.toString('base64').replace(/.{76}/g, '$&\r\n');
    await writeFile(join(wrangler.folder, 'pairs.json'), JSON.stringify([
      { key: 'wrapped', value: wrapped, base64: true },
      { key: 'unpadded', value: bytes.subarray(0, 4).toString('base64').replaceAll('=', ''), base64: true },
    ]));
    await kv('bulk', 'put', 'pairs.json', '--binding', 'CACHE');

    const imported = await embercask(store, 'import', '--miniflare', wrangler.folder);
    assert.equal(imported.code, 0, imported.stderr);
    assert.equal(imported.stdout, 'Imported 2 keys into "CACHE", 2 keys into "SESSIONS".\n');
    const list = JSON.parse((await embercask(store, 'key', 'list', '-n', 'SESSIONS')).stdout);
    assert.deepEqual(list, [
      { name: 'bytes', expiration: until },
      { name: 'grüße/\u{1F525}', metadata: { a: [1, 2.5] } },
    ]);
    const namespaces = JSON.parse((await embercask(store, 'namespace', 'list')).stdout);
    assert.equal(namespaces.find((one) => one.title === 'SESSIONS').id, ID);

    // Both read the same file of pairs alike.
    const exported = join(wrangler.folder, 'cache.json');
    await embercask(store, 'bulk', 'put', '-n', 'CACHE', join(wrangler.folder, 'pairs.json'));
    await embercask(store, 'export', '-n', 'CACHE', '--format', 'bulk', exported);
    await kv('key', 'delete', 'wrapped', '--binding', 'CACHE');
    await kv('bulk', 'put', exported, '--binding', 'CACHE');
    const again = join(folder, 'again');
    await embercask(again, 'import', '--miniflare', wrangler.folder);
    for (const one of [store, again]) {
      for (const [key, expected] of [['wrapped', bytes], ['unpadded', bytes.subarray(0, 4)]]) {
        const got = await embercask(one, 'key', 'get', '-n', 'CACHE', key);
        assert.equal(got.code, 0, got.stderr);
        assert(got.bytes.equals(expected), `${key} in ${one}`);
      }
    }
  });
});
