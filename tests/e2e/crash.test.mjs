// The server is killed while clients write: nothing that was acknowledged may be missing or older afterwards.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import Cloudflare from 'cloudflare';

import {
  ACCOUNT, PATIENCE, SLOW, TOKEN, call, createNamespace, embercask, generatorOf, removeFolder, rest, startServer, startWorkerd, temporaryFolder,
  wranglerFor,
} from './helpers.mjs';

const ROUNDS = 5;
const FAR = 4_000_000_000;

/** Attempted and acknowledged writes of the clients. Each key has one writer, so that its states are ordered. */
class Ledger {
  #keys = new Map();
  acknowledged = 0;

  /** Records an attempt; calling the result records its acknowledgement. */
  attempt(key, state) {
    const entry = this.#keys.get(key) ?? { states: [null], sure: 0 };
    this.#keys.set(key, entry);
    const index = entry.states.push(state) - 1;
    return () => {
      entry.sure = index;
      this.acknowledged += 1;
    };
  }

  keys() {
    return [...this.#keys.keys()];
  }

  /** Fails unless the key has the state of its last acknowledged write, or of a later attempt. */
  check(key, found) {
    const entry = this.#keys.get(key);
    const possible = entry.states.slice(entry.sure);
    const shown = (state) => JSON.stringify(state, (name, value) => (name === 'value' ? `${value.slice(0, 40)} (${value.length})` : value));
    const isPossible = possible.some((state) => isSame(state, found));
    assert.ok(isPossible, `${key} is ${shown(found)}, and may be ${possible.map(shown).join(' or ')}`);
    this.#keys.set(key, { states: [found], sure: 0 });
  }
}

function isSame(a, b) {
  if (a === null || b === null) return a === b;
  return a.value === b.value && a.expiration === b.expiration && JSON.stringify(a.metadata) === JSON.stringify(b.metadata);
}

let written = 0;
/** A state unique to one write. */
function nextState() {
  written += 1;
  const length = written % 50 === 0 ? 300_000 : [0, 10, 200, 3000][written % 4];
  const state = { value: `${written}:${String.fromCharCode(97 + (written % 26)).repeat(length)}` };
  if (written % 2) state.metadata = { written };
  if (written % 3 === 0) state.expiration = FAR + written;
  return state;
}

/**
 * Several times: runs writers until the server is killed, restarts it, and checks everything.
 * A writer is a function that does one write, and records it in the ledger; `check` fails unless the ledger allows the state of all keys.
 */
async function crashAgainAndAgain({ name, options, setUp, rounds = ROUNDS }) {
  const random = generatorOf(name);
  const folder = temporaryFolder();
  const store = join(folder, 'store');
  const ledger = new Ledger();
  let server = await startServer({ store, ...options(folder) });
  const again = { store, ...options(folder), listen: server.listen, binding: server.binding };
  const { writers, check, close } = await setUp({ server, ledger, folder, random });
  try {
    for (let round = 1; round <= rounds; round += 1) {
      const enough = ledger.acknowledged + 100 + random(300);
      let isKilled = false;
      let failure;
      const write = async (writer) => {
        while (!isKilled && !failure) {
          try {
            await writer();
          } catch (error) {
            // Only the kill may be the cause.
            if (!isKilled) failure ??= error;
            return;
          }
          if (ledger.acknowledged >= enough && !isKilled) {
            isKilled = true;
            server.child.kill('SIGKILL');
          }
        }
      };
      await Promise.all(writers.map(write));
      if (failure) throw failure;
      await server.kill();
      server = await startServer(again);
      await check(round);
    }
    await server.stop();
    const verified = await embercask(store, 'verify');
    assert.equal(verified.code, 0, verified.stdout + verified.stderr);
  } finally {
    await close();
    await server.kill();
    removeFolder(folder);
  }
}

describe('nothing acknowledged is lost when the server is killed', SLOW, () => {
  test('of what Workers write, through a header and a unix socket', SLOW, async () => {
    await crashAgainAndAgain({
      name: 'Workers',
      options: (folder) => ({ bindingFor: { crash: join(folder, 'kv.socket') } }),
      async setUp({ server, ledger, folder, random: parent }) {
        const authorization = { Authorization: `Bearer ${TOKEN}` };
        const workerd = await startWorkerd({
          worker: 'worker-simple.mjs',
          bindings: {
            HEADER: { address: server.binding, headers: { ...authorization, 'X-KV-Namespace': 'crash' } },
            SOCKET: { address: `unix:${join(folder, 'kv.socket')}`, headers: authorization },
          },
        });
        const writers = Array.from({ length: 12 }, (_, number) => {
          const random = parent.split(number);
          const binding = number % 2 ? 'HEADER' : 'SOCKET';
          return async () => {
            const key = `writer ${number}/${random(6)}`;
            if (random(5) === 0) {
              const done = ledger.attempt(key, null);
              await call(workerd, binding, 'delete', key);
              return done();
            }
            // Through a binding, expirations have at most 31 bits.
            const state = nextState();
            if (state.expiration) state.expiration = 2_000_000_000 + (state.expiration - FAR);
            const done = ledger.attempt(key, state);
            await call(workerd, binding, 'put', key, state.value, { metadata: state.metadata, expiration: state.expiration });
            return done();
          };
        });
        const check = async (round) => {
          const listed = new Map();
          for (let cursor, page = {}; !page.list_complete; cursor = page.cursor) {
            page = await call(workerd, 'HEADER', 'list', { prefix: 'writer ', cursor });
            for (const key of page.keys) listed.set(key.name, key);
          }
          for (const key of ledger.keys()) {
            const { value, metadata } = await call(workerd, round % 2 ? 'HEADER' : 'SOCKET', 'getWithMetadata', key);
            const shown = listed.get(key);
            assert.equal(value === null, shown === undefined, `${key} is listed and not there, or there and not listed`);
            assert.deepEqual(shown?.metadata ?? null, metadata);
            const state = value === null ? null : { value, metadata: metadata ?? undefined, expiration: shown.expiration };
            ledger.check(key, state);
          }
        };
        return { writers, check, close: () => workerd.stop() };
      },
    });
  });

  test('of what wrangler puts, one by one and in bulk', SLOW, async () => {
    await crashAgainAndAgain({
      name: 'wrangler',
      // wrangler takes a second to start.
      rounds: 3,
      options: () => ({}),
      async setUp({ server, ledger, folder, random }) {
        const wrangler = await wranglerFor(server.rest);
        const id = await createNamespace(server.rest, 'crash');
        const remote = ['--namespace-id', id, '--remote'];
        const one = (number) => async () => {
          const key = `one ${number}/${random(3)}`;
          written += 1;
          const state = { value: `${written}` };
          const done = ledger.attempt(key, state);
          await wrangler.ok(['kv', 'key', 'put', key, state.value, ...remote]);
          return done();
        };
        const bulk = (number) => async () => {
          const keys = Array.from({ length: 100 }, (_, index) => `bulk ${number}/${index}`);
          const states = keys.map(nextState);
          const done = keys.map((key, index) => ledger.attempt(key, states[index]));
          const file = join(folder, `bulk ${number}.json`);
          await writeFile(file, JSON.stringify(keys.map((key, index) => ({ key, ...states[index] }))));
          await wrangler.ok(['kv', 'bulk', 'put', file, ...remote]);
          done.forEach((acknowledge) => acknowledge());
        };
        const check = async () => {
          const listed = new Map();
          const { stdout } = await wrangler.ok(['kv', 'key', 'list', ...remote]);
          for (const key of JSON.parse(stdout)) listed.set(key.name, key);
          const path = `/accounts/${ACCOUNT}/storage/kv/namespaces/${id}`;
          for (const key of ledger.keys()) {
            const answer = await rest(server.rest, 'GET', `${path}/values/${encodeURIComponent(key)}`);
            const shown = listed.get(key);
            assert.equal(answer.status === 404, shown === undefined, `${key} is listed and not there, or there and not listed`);
            const { metadata, expiration } = shown ?? {};
            ledger.check(key, shown ? { value: answer.bytes.toString(), metadata, expiration } : null);
          }
        };
        return { writers: [one(1), bulk(1), bulk(2)], check, close: () => wrangler.close() };
      },
    });
  });

  test('of what the REST API takes, one by one and in bulk', SLOW, async () => {
    await crashAgainAndAgain({
      name: 'the REST API',
      options: () => ({}),
      async setUp({ server, ledger, random: parent }) {
        const account_id = ACCOUNT;
        const client = new Cloudflare({ apiToken: TOKEN, baseURL: server.rest, maxRetries: 0, timeout: PATIENCE });
        const kv = client.kv.namespaces;
        const id = await createNamespace(server.rest, 'crash');
        const ids = { account_id, namespace_id: id };
        const path = `/accounts/${ACCOUNT}/storage/kv/namespaces/${id}`;
        const titles = new Map();
        const withoutUndefined = (item) => JSON.parse(JSON.stringify(item));
        // Keys put in one request must be there together.
        const groups = new Map();

        const one = (number, random = parent.split(`one ${number}`)) => async () => {
          const key = `one ${number}/${random(6)}`;
          if (random(5) === 0) {
            const done = ledger.attempt(key, null);
            await kv.values.delete(key, ids);
            return done();
          }
          const state = nextState();
          const done = ledger.attempt(key, state);
          const { value, metadata, expiration } = state;
          await kv.values.update(key, { ...ids, value, metadata: metadata && JSON.stringify(metadata), expiration });
          return done();
        };
        /** As wrangler does: the value is the body. */
        const raw = (number, random = parent.split(`raw ${number}`)) => async () => {
          const key = `raw ${number}/${random(6)}`;
          const state = nextState();
          delete state.metadata;
          const done = ledger.attempt(key, state);
          const query = state.expiration ? `?expiration=${state.expiration}` : '';
          const answer = await rest(server.rest, 'PUT', `${path}/values/${encodeURIComponent(key)}${query}`, { body: state.value });
          assert.equal(answer.status, 200, answer.bytes.toString());
          return done();
        };
        const bulk = (number, random = parent.split(`bulk ${number}`)) => async () => {
          const keys = Array.from({ length: 30 }, (_, index) => `bulk ${number}/${index}`);
          if (random(4) === 0) {
            const done = keys.map((key) => ledger.attempt(key, null));
            const result = await kv.bulkDelete(id, { account_id, body: keys });
            assert.equal(result.successful_key_count, keys.length);
            done.forEach((acknowledge) => acknowledge());
            return;
          }
          const states = keys.map(nextState);
          const group = states[0].value.split(':')[0];
          states.forEach((state) => groups.set(state.value, group));
          const done = keys.map((key, index) => ledger.attempt(key, states[index]));
          const body = keys.map((key, index) => withoutUndefined({ key, ...states[index] }));
          const result = await kv.bulkUpdate(id, { account_id, body });
          assert.equal(result.successful_key_count, keys.length);
          done.forEach((acknowledge) => acknowledge());
        };
        /** Creates, renames and deletes namespaces. */
        const namespaces = (number, random = parent.split(`namespaces ${number}`)) => async () => {
          const title = `crash ${number}/${random(1_000_000_000)}`;
          const created = await kv.create({ account_id, title });
          titles.set(created.id, title);
          const renamed = `${title} renamed`;
          titles.set(created.id, [title, renamed]);
          await kv.update(created.id, { account_id, title: renamed });
          titles.set(created.id, renamed);
          if (random(2)) {
            titles.set(created.id, [renamed, undefined]);
            await kv.delete(created.id, { account_id });
            titles.set(created.id, undefined);
          }
        };
        const writers = [one(1), one(2), one(3), one(4), raw(1), raw(2), bulk(1), bulk(2), namespaces(1)];

        const check = async () => {
          const listed = new Map();
          for await (const key of kv.keys.list(id, { account_id })) listed.set(key.name, key);
          const found = new Map();
          for (const key of ledger.keys()) {
            const answer = await rest(server.rest, 'GET', `${path}/values/${encodeURIComponent(key)}`);
            assert.ok(answer.status === 200 || answer.status === 404, `${key}: ${answer.status}`);
            const shown = listed.get(key);
            assert.equal(answer.status === 404, shown === undefined, `${key} is listed and not there, or there and not listed`);
            const { metadata, expiration } = shown ?? {};
            const state = shown ? { value: answer.bytes.toString(), metadata, expiration } : null;
            if (state) assert.equal(answer.headers.get('expiration') ?? undefined, expiration && String(expiration));
            ledger.check(key, state);
            if (key.startsWith('bulk ')) {
              const [writer] = key.split('/');
              found.set(writer, (found.get(writer) ?? new Set()).add(state && groups.get(state.value)));
            }
          }
          for (const [writer, of] of found) assert.equal(of.size, 1, `what ${writer} put together is there in part: ${[...of]}`);
          const there = new Map();
          for await (const namespace of kv.list({ account_id, per_page: 1000 })) there.set(namespace.id, namespace.title);
          for (const [namespace, wanted] of titles) {
            const possible = Array.isArray(wanted) ? wanted : [wanted];
            const title = there.get(namespace);
            assert.ok(possible.includes(title), `a namespace is called ${title}, and may be ${possible.join(' or ')}`);
            titles.set(namespace, title);
          }
        };
        return { writers, check, close: async () => {} };
      },
    });
  });
});
