// The REST API through the official SDK for Python. What it does is in python_sdk.py.
import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { ACCOUNT, SLOW, TOKEN, removeFolder, run, startServer, temporaryFolder } from './helpers.mjs';

const SCRIPT = join(dirname(fileURLToPath(import.meta.url)), 'python_sdk.py');
const folder = temporaryFolder();
let server;

before(async () => {
  server = await startServer({ store: join(folder, 'store') });
});
after(async () => {
  await server?.stop();
  removeFolder(folder);
});

describe('the SDK for Python', SLOW, () => {
  for (const name of ['namespaces', 'values', 'metadata', 'listings', 'bulk', 'conditions', 'refusals']) {
    test(name, async () => {
      const { code, stdout, stderr } = await run(process.env.E2E_PYTHON, [SCRIPT, name], {
        env: { CLOUDFLARE_API_TOKEN: TOKEN, CLOUDFLARE_BASE_URL: server.rest, ACCOUNT },
      });
      assert.equal(code, 0, stderr);
      assert.equal(stdout, `${name}: ok\n`);
    });
  }
});
