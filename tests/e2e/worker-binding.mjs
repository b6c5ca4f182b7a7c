// A Worker that exercises the whole binding API. Each case is a separate request; tests read the names from `cases`.
import assert from 'node:assert/strict';

const MIB = 1 << 20;
const VALUE_MAX = 25 * MIB;

const bytes = (...numbers) => new Uint8Array(numbers);
const utf8 = (text) => new TextEncoder().encode(text);
const now = () => Math.floor(Date.now() / 1000);

function pattern(length, seed = 1) {
  const block = new Uint8Array(65_536);
  for (let index = 0; index < block.length; index += 1) block[index] = (index * 31 + (index >> 8) * 7 + seed) & 255;
  const all = new Uint8Array(length);
  for (let at = 0; at < length; at += block.length) all.set(block.subarray(0, Math.min(block.length, length - at)), at);
  return all;
}

function sameBytes(actual, expected) {
  const view = new Uint8Array(actual);
  assert.equal(view.length, expected.length);
  for (let index = 0; index < view.length; index += 1) {
    if (view[index] !== expected[index]) assert.fail(`byte ${index} is ${view[index]}, not ${expected[index]}`);
  }
}

/** A stream of unknown length. */
function unknownLength(all, pieceLength = 64 * 1024) {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= all.length) return controller.close();
      controller.enqueue(all.slice(at, at + pieceLength));
      at += pieceLength;
    },
  });
}

/** A stream of known length. */
function knownLength(all) {
  const { readable, writable } = new FixedLengthStream(all.length);
  const writer = writable.getWriter();
  const written = (async () => {
    if (all.length) await writer.write(all);
    await writer.close();
  })();
  written.catch(() => {});
  return readable;
}

async function fails(promise, message, kind = Error) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    assert.ok(error instanceof kind, `${error} is no ${kind.name}`);
    if (message instanceof RegExp) assert.match(error.message, message);
    else assert.equal(error.message, message);
    return;
  }
  assert.fail(`it gave ${JSON.stringify(value)} instead of failing with: ${message}`);
}

/** The error may be thrown synchronously, or reject the promise. */
const failsAnyway = (call, message, kind) => fails((async () => call())(), message, kind);

async function inGroups(items, size, action) {
  for (let at = 0; at < items.length; at += size) await Promise.all(items.slice(at, at + size).map(action));
}

async function listAll(kv, options) {
  const keys = [];
  let cursor;
  for (let pages = 1; ; pages += 1) {
    const page = await kv.list({ ...options, cursor });
    keys.push(...page.keys);
    if (page.list_complete) {
      assert.ok(!('cursor' in page), 'the last page has a cursor');
      return { keys, pages };
    }
    assert.ok(typeof page.cursor === 'string' && page.cursor.length > 0, 'a page that is not the last has no cursor');
    assert.ok(pages < 10_000, 'the pages have no end');
    cursor = page.cursor;
  }
}
const names = (page) => page.keys.map((key) => key.name);

const STRANGE_KEYS = [
  'plain', 'a/b/c', '/', '//', '/leading', 'trailing/', 'a b', ' ', '  leading', 'trailing  ', 'a+b', '+', '%', '%25', '%2F',
  'a%2Fb', '%zz', '100%', '?', 'a?b=c&d', '#', 'a#b', '&', '=', ';', ':', '@', '$', ',', '!', '*', "'", '(', ')', '~', '^', '|',
  '[x]^|', '[', ']', '{', '}', '<', '>', '"', '\\', 'C:\\dir\\file', '`', '...', '....', './x', '../x', '../../etc/passwd', 'x/..',
  'x/.', '.x', '..x', '\0', 'a\0b', 'a\0', '\n', '\r\n', 'a\tb', '\u0001\u001f\u007f', '\u0080\u009f', '\u00a0', 'ü', 'e\u0301', 'é',
  'Ω≈ç√∫', '日本語', '😀', '👩‍👩‍👧‍👦', '\u{10ffff}', '\uffff', '\ufeff', '\u2028\u2029', '\ufffd', 'bulk/get', 'bulk', 'client/v4/x', 'client',
  'urlencoded=true', '?urlencoded=false', 'null', 'undefined', 'true', 'NaN', 'toString', 'constructor', 'hasOwnProperty', 'length',
  'http://example.com/x?y#z', 'A', 'a', 'x'.repeat(512), 'ü'.repeat(256), '😀'.repeat(128), '%'.repeat(512), ' '.repeat(512),
];

/** Metadata as put, and as returned. */
const METADATA = [
  {}, { a: 1 }, { nested: { deep: [1, 2, { x: null }] }, empty: '' }, [], [1, 'two', false, null], '', 'text', 'null', '{"a":1}', '"', 0, -0.5,
  1e21, 9007199254740991, true, false, 'ü€😀 日本語', { 'klüg €': '\u{1f600}' }, 'line\nbreak\ttab\\ "quote" \u0001\u001f', '\u2028\u2029\ufeff',
  ' spaces ', [[[[]]]],
];

export const cases = {
  'a value is read as text, json, arrayBuffer and stream': async (kv) => {
    assert.equal(await kv.put('t/json', '{"a":[1,2,{"b":"ü"}]}'), undefined);
    assert.equal(await kv.get('t/json'), '{"a":[1,2,{"b":"ü"}]}');
    assert.equal(await kv.get('t/json', 'text'), '{"a":[1,2,{"b":"ü"}]}');
    assert.equal(await kv.get('t/json', { type: 'text' }), '{"a":[1,2,{"b":"ü"}]}');
    assert.equal(await kv.get('t/json', {}), '{"a":[1,2,{"b":"ü"}]}');
    assert.deepEqual(await kv.get('t/json', 'json'), { a: [1, 2, { b: 'ü' }] });
    assert.deepEqual(await kv.get('t/json', { type: 'json' }), { a: [1, 2, { b: 'ü' }] });
    sameBytes(await kv.get('t/json', 'arrayBuffer'), utf8('{"a":[1,2,{"b":"ü"}]}'));
    const stream = await kv.get('t/json', { type: 'stream' });
    assert.ok(stream instanceof ReadableStream);
    assert.equal(await new Response(stream).text(), '{"a":[1,2,{"b":"ü"}]}');
    for (const type of [undefined, 'text', 'json', 'arrayBuffer', 'stream']) assert.equal(await kv.get('t/none', type), null);
    await kv.put('t/plain', 'no json');
    await fails(kv.get('t/plain', 'json'), /./, SyntaxError);
    for (const json of ['null', 'true', '1.5', '"text"', '[]']) {
      await kv.put('t/plain', json);
      assert.deepEqual(await kv.get('t/plain', 'json'), JSON.parse(json));
    }
  },

  'text is decoded leniently': async (kv) => {
    await kv.put('t/bytes', bytes(0xef, 0xbb, 0xbf, 0x61, 0xff, 0x62, 0xc3, 0x00));
    assert.equal(await kv.get('t/bytes'), '\ufeffa\ufffdb\ufffd\0');
    sameBytes(await kv.get('t/bytes', 'arrayBuffer'), bytes(0xef, 0xbb, 0xbf, 0x61, 0xff, 0x62, 0xc3, 0x00));
    const text = 'a\r\nb\nc\rd\0ü\u{1f600}\u2028';
    await kv.put('t/text', text);
    assert.equal(await kv.get('t/text'), text);
  },

  'an unknown type is an error only if the key is there': async (kv) => {
    await kv.put('t/typed', 'value');
    await fails(
      kv.get('t/typed', 'blob'),
      'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".',
      TypeError,
    );
    assert.equal(await kv.get('t/untyped', 'blob'), null);
  },

  'keys and values of other kinds become strings': async (kv) => {
    await kv.put(123, 42);
    assert.equal(await kv.get('123'), '42');
    assert.equal(await kv.get(123), '42');
    for (const value of [true, false, null, 1.5, -0, 10n]) {
      await kv.put('v/primitive', value);
      assert.equal(await kv.get('v/primitive'), String(value));
    }
    await kv.delete(123);
    assert.equal(await kv.get('123'), null);
  },

  'values are strings, bytes and streams': async (kv) => {
    const all = pattern(1000);
    await kv.put('v/buffer', all.buffer);
    sameBytes(await kv.get('v/buffer', 'arrayBuffer'), all);
    await kv.put('v/view', all.subarray(10, 20));
    sameBytes(await kv.get('v/view', 'arrayBuffer'), all.slice(10, 20));
    await kv.put('v/data', new DataView(all.buffer, 5, 7));
    sameBytes(await kv.get('v/data', 'arrayBuffer'), all.slice(5, 12));
    await kv.put('v/wide', new Uint16Array([1, 256]));
    sameBytes(await kv.get('v/wide', 'arrayBuffer'), bytes(1, 0, 0, 1));
    for (const [key, stream] of [['v/known', knownLength(all)], ['v/unknown', unknownLength(all, 7)]]) {
      await kv.put(key, stream);
      sameBytes(await kv.get(key, 'arrayBuffer'), all);
    }
    await kv.put('v/copy', await kv.get('v/unknown', 'stream'));
    sameBytes(await kv.get('v/copy', 'arrayBuffer'), all);
    await kv.put('v/body', new Response(all).body);
    sameBytes(await kv.get('v/body', 'arrayBuffer'), all);
  },

  'other values are refused': async (kv) => {
    const message = 'KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values.';
    for (const value of [{}, { a: 1 }, [], [1], new Blob(['x']), new Map()]) {
      await failsAnyway(() => kv.put('v/refused', value), message, TypeError);
    }
    await failsAnyway(() => kv.put('v/refused'), /./, TypeError);
    assert.equal(await kv.get('v/refused'), null);
  },

  'a value may be empty': async (kv) => {
    const empty = new Uint8Array(0);
    for (const value of ['', empty, empty.buffer, knownLength(empty), unknownLength(empty)]) {
      await kv.put('v/empty', 'not empty');
      await kv.put('v/empty', value, { metadata: { empty: true } });
      assert.equal(await kv.get('v/empty'), '');
      assert.equal((await kv.get('v/empty', 'arrayBuffer')).byteLength, 0);
      assert.equal(await new Response(await kv.get('v/empty', 'stream')).text(), '');
      await fails(kv.get('v/empty', 'json'), /./, SyntaxError);
      const { value: read, metadata } = await kv.getWithMetadata('v/empty');
      assert.deepEqual([read, metadata], ['', { empty: true }]);
      assert.deepEqual(await kv.get(['v/empty']), new Map([['v/empty', '']]));
    }
  },

  'a value may be 25 MiB long': async (kv) => {
    const largest = pattern(VALUE_MAX, 3);
    await kv.put('v/largest', largest, { metadata: 'known' });
    sameBytes(await kv.get('v/largest', 'arrayBuffer'), largest);
    await kv.put('v/largest', 'small');
    await kv.put('v/largest', unknownLength(largest), { metadata: 'unknown' });
    const { value, metadata } = await kv.getWithMetadata('v/largest', 'stream');
    assert.equal(metadata, 'unknown');
    sameBytes(await new Response(value).arrayBuffer(), largest);
    await kv.delete('v/largest');
  },

  'a value may not be longer, and the old one stays': async (kv) => {
    await kv.put('v/toolong', 'old', { metadata: 'old' });
    const message = (length) => `KV PUT failed: 413 Value length of ${length} exceeds limit of 26214400.`;
    await fails(kv.put('v/toolong', new Uint8Array(VALUE_MAX + 1)), message(26_214_401));
    await fails(kv.put('v/toolong', 'x'.repeat(VALUE_MAX + 1)), message(26_214_401));
    await fails(kv.put('v/toolong', unknownLength(new Uint8Array(VALUE_MAX + 1))), message(26_214_401));
    await fails(kv.put('v/toolong', unknownLength(new Uint8Array(33 * MIB))), message(33 * MIB));
    const { value, metadata } = await kv.getWithMetadata('v/toolong');
    assert.deepEqual([value, metadata], ['old', 'old']);
  },

  'metadata are any JSON': async (kv) => {
    for (const [index, metadata] of METADATA.entries()) {
      const key = `m/${index}`;
      await kv.put(key, `value ${index}`, { metadata });
      const read = await kv.getWithMetadata(key);
      assert.deepEqual([read.value, read.metadata], [`value ${index}`, metadata]);
      const bulk = await kv.getWithMetadata([key, 'm/none']);
      assert.deepEqual([...bulk], [[key, { value: `value ${index}`, metadata }], ['m/none', null]]);
    }
    const listed = await kv.list({ prefix: 'm/' });
    const byName = new Map(listed.keys.map((key) => [key.name, key]));
    assert.equal(byName.size, METADATA.length);
    for (const [index, metadata] of METADATA.entries()) {
      assert.deepEqual(byName.get(`m/${index}`), { name: `m/${index}`, metadata });
    }
  },

  // workerd sends DEL unescaped, which no HTTP header may contain (RFC 9110, 5.5).
  'metadata with the character DEL are refused, and leave what was there': async (kv) => {
    await kv.put('mdel/k', 'before');
    await fails(kv.put('mdel/k', 'v', { metadata: { a: '\u007f' } }), 'KV PUT failed: 400 Bad Request');
    assert.equal(await kv.get('mdel/k'), 'before');
  },

  'null and undefined are no metadata': async (kv) => {
    for (const options of [undefined, null, {}, { metadata: null }, { metadata: undefined }]) {
      await kv.put('nometa/k', 'value', { metadata: 'before' });
      await kv.put('nometa/k', 'value', options);
      assert.equal((await kv.getWithMetadata('nometa/k')).metadata, null);
      assert.deepEqual([...(await kv.getWithMetadata(['nometa/k']))], [['nometa/k', { value: 'value', metadata: null }]]);
      assert.deepEqual((await kv.list({ prefix: 'nometa/' })).keys, [{ name: 'nometa/k' }]);
    }
  },

  'metadata have at most 1024 bytes of JSON in UTF-8': async (kv) => {
    for (const fits of ['a'.repeat(1022), 'ü'.repeat(511), { k: 'a'.repeat(1016) }]) {
      await kv.put('mlimit/k', 'v', { metadata: fits });
      assert.deepEqual((await kv.getWithMetadata('mlimit/k')).metadata, fits);
    }
    const message = (length) => `KV PUT failed: 413 Metadata length of ${length} exceeds limit of 1024.`;
    await fails(kv.put('mlimit/k', 'new', { metadata: 'a'.repeat(1023) }), message(1025));
    await fails(kv.put('mlimit/k', 'new', { metadata: 'ü'.repeat(512) }), message(1026));
    await fails(kv.put('mlimit/k', 'new', { metadata: ['a'.repeat(5000)] }), message(5004));
    assert.equal(await kv.get('mlimit/k'), 'v');
  },

  'keys may be strange': async (kv) => {
    await inGroups(STRANGE_KEYS, 20, (key) => kv.put(key, `value of ${key}`, { metadata: { length: key.length } }));
    await inGroups(STRANGE_KEYS, 20, async (key) => {
      assert.equal(await kv.get(key), `value of ${key}`, JSON.stringify(key));
      const { value, metadata } = await kv.getWithMetadata(key);
      assert.deepEqual([value, metadata], [`value of ${key}`, { length: key.length }], JSON.stringify(key));
    });
    for (let at = 0; at < STRANGE_KEYS.length; at += 100) {
      const some = STRANGE_KEYS.slice(at, at + 100);
      assert.deepEqual([...(await kv.get(some))], some.map((key) => [key, `value of ${key}`]));
    }
    const listed = new Set((await listAll(kv)).keys.map((key) => key.name));
    for (const key of STRANGE_KEYS) {
      assert.ok(listed.has(key), `${JSON.stringify(key)} is not listed`);
      assert.ok(names(await kv.list({ prefix: key, limit: 1 }))[0].startsWith(key));
      assert.equal(names(await kv.list({ prefix: key, limit: 1 }))[0], key);
    }
    await inGroups(STRANGE_KEYS, 20, (key) => kv.delete(key));
    for (let at = 0; at < STRANGE_KEYS.length; at += 100) {
      const some = STRANGE_KEYS.slice(at, at + 100);
      assert.deepEqual([...(await kv.get(some))], some.map((key) => [key, null]));
    }
  },

  'a page may end at any strange key': async (kv) => {
    const keys = STRANGE_KEYS.filter((key) => utf8(key).length < 500).map((key) => `page/${key}`);
    await inGroups(keys, 20, (key) => kv.put(key, ''));
    const { keys: listed, pages } = await listAll(kv, { prefix: 'page/', limit: 1 });
    assert.ok(pages >= keys.length);
    const compare = (a, b) => {
      const [left, right] = [utf8(a), utf8(b)];
      for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
        if (left[index] !== right[index]) return left[index] - right[index];
      }
      return left.length - right.length;
    };
    assert.deepEqual(listed.map((key) => key.name), [...keys].sort(compare));
  },

  'a key named __proto__ is a key': async (kv) => {
    await kv.put('__proto__', 'value', { metadata: 1 });
    assert.equal(await kv.get('__proto__'), 'value');
    await kv.delete('__proto__');
    assert.equal(await kv.get('__proto__'), null);
  },

  'a prefix may hold anything': async (kv) => {
    for (const start of ['p\0', 'p+', 'p %2B', 'p&limit=1', 'p/ü😀', 'p#?', 'p%']) {
      await kv.put(`${start}x`, '');
      assert.deepEqual((await kv.list({ prefix: start })).keys, [{ name: `${start}x` }], JSON.stringify(start));
    }
  },

  'keys keep case and form': async (kv) => {
    await kv.put('form/é', 'composed');
    await kv.put('form/e\u0301', 'decomposed');
    await kv.put('form/E\u0301', 'capital');
    assert.equal(await kv.get('form/é'), 'composed');
    assert.equal(await kv.get('form/e\u0301'), 'decomposed');
    assert.equal(await kv.get('form/E\u0301'), 'capital');
    assert.deepEqual(names(await kv.list({ prefix: 'form/' })), ['form/E\u0301', 'form/e\u0301', 'form/é']);
  },

  'some keys are refused': async (kv) => {
    const calls = (key) => [() => kv.get(key), () => kv.getWithMetadata(key), () => kv.put(key, 'v'), () => kv.delete(key)];
    for (const call of calls('')) await failsAnyway(call, 'Key name cannot be empty.', TypeError);
    for (const call of calls('.')) await failsAnyway(call, '"." is not allowed as a key name.', TypeError);
    for (const call of calls('..')) await failsAnyway(call, '".." is not allowed as a key name.', TypeError);
    for (const key of ['x'.repeat(513), `${'ü'.repeat(256)}x`]) {
      for (const [index, call] of calls(key).entries()) {
        const operation = ['GET', 'GET', 'PUT', 'DELETE'][index];
        const message = `KV ${operation} failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512.`;
        await failsAnyway(call, message);
      }
    }
  },

  'a key that is no Unicode is refused': async (kv) => {
    await fails(kv.get('\ud800'), 'KV GET failed: 400 Could not URL-decode key name');
    await fails(kv.put('x\udfff', 'v'), 'KV PUT failed: 400 Could not URL-decode key name');
    await fails(kv.delete('\ud800x'), 'KV DELETE failed: 400 Could not URL-decode key name');
  },

  'getWithMetadata reads both': async (kv) => {
    await kv.put('g/k', '{"a":1}', { metadata: { m: 1 } });
    for (const [type, expected] of [[undefined, '{"a":1}'], ['text', '{"a":1}'], ['json', { a: 1 }], [{ type: 'json' }, { a: 1 }]]) {
      const { value, metadata, cacheStatus } = await kv.getWithMetadata('g/k', type);
      assert.deepEqual([value, metadata], [expected, { m: 1 }]);
      assert.ok(cacheStatus === null || typeof cacheStatus === 'string');
    }
    const buffer = await kv.getWithMetadata('g/k', 'arrayBuffer');
    sameBytes(buffer.value, utf8('{"a":1}'));
    const stream = await kv.getWithMetadata('g/k', 'stream');
    assert.equal(await new Response(stream.value).text(), '{"a":1}');
    const missing = await kv.getWithMetadata('g/none');
    assert.deepEqual([missing.value, missing.metadata], [null, null]);
    assert.ok(missing.cacheStatus === null || typeof missing.cacheStatus === 'string');
  },

  'many keys are read at once': async (kv) => {
    await kv.put('b/1', '{"a":1}', { metadata: [1] });
    await kv.put('b/2', '"two"');
    await kv.put('b/3', 'null', { metadata: 'm' });
    const map = await kv.get(['b/2', 'b/none', 'b/1', 'b/3']);
    assert.ok(map instanceof Map);
    assert.deepEqual([...map], [['b/2', '"two"'], ['b/none', null], ['b/1', '{"a":1}'], ['b/3', 'null']]);
    assert.deepEqual([...(await kv.get(['b/1'], 'text'))], [['b/1', '{"a":1}']]);
    assert.deepEqual([...(await kv.get(['b/1', 'b/2', 'b/none'], 'json'))], [['b/1', { a: 1 }], ['b/2', 'two'], ['b/none', null]]);
    assert.deepEqual([...(await kv.get(['b/1', 'b/2'], { type: 'json', cacheTtl: 60 }))], [['b/1', { a: 1 }], ['b/2', 'two']]);
    assert.deepEqual([...(await kv.getWithMetadata(['b/1', 'b/2', 'b/none', 'b/3'], 'json'))], [
      ['b/1', { value: { a: 1 }, metadata: [1] }],
      ['b/2', { value: 'two', metadata: null }],
      ['b/none', null],
      ['b/3', { value: null, metadata: 'm' }],
    ]);
    assert.deepEqual([...(await kv.getWithMetadata(['b/1', 'b/none']))], [['b/1', { value: '{"a":1}', metadata: [1] }], ['b/none', null]]);
  },

  'a key that is asked for twice is answered once': async (kv) => {
    await kv.put('d/1', 'one');
    assert.deepEqual([...(await kv.get(['d/1', 'd/none', 'd/1', 'd/none']))], [['d/1', 'one'], ['d/none', null]]);
  },

  'bytes that are no text are read leniently in bulk': async (kv) => {
    await kv.put('l/1', bytes(0x61, 0xff, 0x62));
    assert.deepEqual([...(await kv.get(['l/1']))], [['l/1', 'a\ufffdb']]);
  },

  'a bulk get has 1 to 100 keys': async (kv) => {
    const keys = Array.from({ length: 101 }, (_, index) => `h/${index}`);
    await inGroups(keys, 50, (key) => kv.put(key, key));
    assert.deepEqual([...(await kv.get(keys.slice(0, 100)))], keys.slice(0, 100).map((key) => [key, key]));
    await fails(kv.get(keys), 'KV GET_BULK failed: 400 You can request a maximum of 100 keys');
    await fails(kv.getWithMetadata(keys), 'KV GET_BULK failed: 400 You can request a maximum of 100 keys');
    await fails(kv.get([]), 'KV GET_BULK failed: 400 You must request a minimum of 1 key');
    const long = Array.from({ length: 100 }, (_, index) => String.fromCodePoint(0x1f600 + index).repeat(128));
    assert.equal((await kv.get(long)).size, 100);
  },

  'a bulk get is refused for what it cannot give': async (kv) => {
    await kv.put('r/1', 'no json');
    const bulk = (status, text) => `KV GET_BULK failed: ${status} ${text}`;
    await fails(kv.get(['r/1'], 'json'), bulk(400, 'At least one of the requested keys corresponds to a non-json value'));
    for (const type of ['stream', 'arrayBuffer', 'blob']) {
      await fails(kv.get(['r/1'], type), bulk(400, `"${type}" is not a valid type. Use "json" or "text"`));
    }
    await fails(kv.get(['r/1', '']), bulk(400, 'Key names must not be empty'));
    await fails(kv.get(['r/1', '.']), bulk(400, 'Illegal key name ".". Please use a different name.'));
    await fails(kv.get(['r/1', '..']), bulk(400, 'Illegal key name "..". Please use a different name.'));
    await fails(kv.get(['x'.repeat(513)]), bulk(414, 'UTF-8 encoded length of 513 exceeds key length limit of 512.'));
    await fails(kv.get(['ü'.repeat(300)]), bulk(414, 'UTF-8 encoded length of 600 exceeds key length limit of 512.'));
    await fails(kv.get(['r/none'], { cacheTtl: 29 }), bulk(400, 'Invalid cache_ttl of 29. Cache TTL must be at least 30.'));
  },

  'a bulk get gives at most 25 MiB': async (kv) => {
    const half = 'h'.repeat(VALUE_MAX / 2);
    await kv.put('big/1', half);
    await kv.put('big/2', half);
    await kv.put('big/3', 'x');
    const map = await kv.get(['big/1', 'big/2']);
    assert.ok(map.get('big/1') === half && map.get('big/2') === half);
    await fails(kv.get(['big/1', 'big/2', 'big/3']), 'KV GET_BULK failed: 413 Total size of request exceeds the limit of 25MB');
    await inGroups(['big/1', 'big/2', 'big/3'], 3, (key) => kv.delete(key));
  },

  'cacheTtl is checked and does nothing': async (kv) => {
    await kv.put('c/1', 'one');
    for (const cacheTtl of [30, 60, 86_400, 2_147_483_647]) {
      assert.equal(await kv.get('c/1', { cacheTtl }), 'one');
      assert.equal((await kv.getWithMetadata('c/1', { type: 'text', cacheTtl })).value, 'one');
    }
    for (const cacheTtl of [29, 0, -1]) {
      const message = `KV GET failed: 400 Invalid cache_ttl of ${cacheTtl}. Cache TTL must be at least 30.`;
      for (const key of ['c/1', 'c/none']) {
        await fails(kv.get(key, { cacheTtl }), message);
        await fails(kv.getWithMetadata(key, { cacheTtl }), message);
      }
    }
    assert.equal(await kv.get('c/later', { cacheTtl: 3600 }), null);
    await kv.put('c/later', 'new');
    assert.equal(await kv.get('c/later', { cacheTtl: 3600 }), 'new');
    await kv.delete('c/later');
    assert.equal(await kv.get('c/later', { cacheTtl: 3600 }), null);
  },

  'a listing has pages': async (kv) => {
    const keys = Array.from({ length: 25 }, (_, index) => `pages/${String(index).padStart(2, '0')}`);
    await inGroups(keys, 25, (key) => kv.put(key, ''));
    for (const limit of [1, 2, 5, 7, 24, 25, 26, 1000]) {
      assert.deepEqual((await listAll(kv, { prefix: 'pages/', limit })).keys, keys.map((name) => ({ name })));
    }
    const first = await kv.list({ prefix: 'pages/', limit: 10 });
    assert.deepEqual(names(first), keys.slice(0, 10));
    assert.equal(first.list_complete, false);
    // A cursor may be used twice, and with another limit.
    for (const limit of [3, 3, 8]) {
      assert.deepEqual(names(await kv.list({ prefix: 'pages/', limit, cursor: first.cursor })), keys.slice(10, 10 + limit));
    }
    // A cursor is a position: keys added before it are not listed, keys after it are, and its own key may be deleted.
    await kv.put('pages/00a', '');
    await kv.put('pages/09a', '');
    await kv.delete('pages/09');
    assert.deepEqual(names(await kv.list({ prefix: 'pages/', limit: 2, cursor: first.cursor })), ['pages/09a', 'pages/10']);
    for (const nothing of [undefined, null, '']) {
      const page = await kv.list({ prefix: 'pages/', limit: 2, cursor: nothing });
      assert.deepEqual(names(page), ['pages/00', 'pages/00a']);
    }
    for (const limit of [0, -5, null, undefined]) assert.equal((await kv.list({ prefix: 'pages/', limit })).keys.length, 26);
    await fails(kv.list({ limit: 1001 }), 'KV GET failed: 400 Invalid key_count_limit of 1001. Please specify an integer less than 1000.');
  },

  'a listing has at most 1000 keys': async (kv) => {
    const keys = Array.from({ length: 1003 }, (_, index) => `many/${String(index).padStart(4, '0')}`);
    await inGroups(keys, 200, (key) => kv.put(key, '', { metadata: { key } }));
    const first = await kv.list({ prefix: 'many/' });
    assert.deepEqual(names(first), keys.slice(0, 1000));
    assert.equal(first.list_complete, false);
    const second = await kv.list({ prefix: 'many/', cursor: first.cursor });
    assert.deepEqual(second.keys, keys.slice(1000).map((name) => ({ name, metadata: { key: name } })));
    assert.ok(second.list_complete && !('cursor' in second));
    assert.equal((await kv.list({ prefix: 'many/', limit: 1000 })).keys.length, 1000);
  },

  'a prefix selects keys': async (kv) => {
    for (const key of ['sel', 'sel/', 'sel/a', 'sel/b', 'sem', 'seL/a', 'sel/\uffff', 'sel/😀']) await kv.put(key, '');
    assert.deepEqual(names(await kv.list({ prefix: 'sel/' })), ['sel/', 'sel/a', 'sel/b', 'sel/\uffff', 'sel/😀']);
    assert.deepEqual(names(await kv.list({ prefix: 'sel/a' })), ['sel/a']);
    const nothing = await kv.list({ prefix: 'sel/c' });
    assert.deepEqual([nothing.keys, nothing.list_complete, 'cursor' in nothing], [[], true, false]);
    const all = names(await kv.list());
    for (const prefix of ['', null, undefined]) assert.deepEqual(names(await kv.list({ prefix })), all);
    assert.deepEqual(names(await kv.list({ prefix: 'x'.repeat(512) })), []);
    const message = 'KV GET failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512.';
    await fails(kv.list({ prefix: 'x'.repeat(513) }), message);
  },

  'a listing shows expiration and metadata, if there are any': async (kv) => {
    const expiration = now() + 5000;
    await kv.put('show/1', '', { expiration });
    await kv.put('show/2', '', { expiration, metadata: { a: 'ü' } });
    await kv.put('show/3', '', { metadata: 'text' });
    await kv.put('show/4', '');
    const page = await kv.list({ prefix: 'show/' });
    assert.deepEqual(page.keys, [
      { name: 'show/1', expiration },
      { name: 'show/2', expiration, metadata: { a: 'ü' } },
      { name: 'show/3', metadata: 'text' },
      { name: 'show/4' },
    ]);
    assert.equal(page.list_complete, true);
    assert.ok(page.cacheStatus === null || typeof page.cacheStatus === 'string');
  },

  'a deleted key is gone': async (kv) => {
    await kv.put('del/1', 'one', { metadata: 1 });
    assert.equal(await kv.delete('del/1'), undefined);
    assert.equal(await kv.get('del/1'), null);
    assert.equal((await kv.getWithMetadata('del/1')).metadata, null);
    assert.deepEqual([...(await kv.get(['del/1']))], [['del/1', null]]);
    assert.deepEqual((await kv.list({ prefix: 'del/1' })).keys, []);
    assert.equal(await kv.delete('del/1'), undefined);
    assert.equal(await kv.delete('del/never'), undefined);
    for (const key of ['del/a', 'del/b', 'del/a,del/b']) await kv.put(key, '');
    await kv.delete(['del/a', 'del/b']);
    assert.deepEqual(names(await kv.list({ prefix: 'del/' })), ['del/a', 'del/b']);
  },

  'overwriting drops metadata and expiration': async (kv) => {
    await kv.put('over/k', 'one', { metadata: { m: 1 }, expirationTtl: 1000 });
    await kv.put('over/k', 'two');
    assert.deepEqual((await kv.list({ prefix: 'over/' })).keys, [{ name: 'over/k' }]);
    const { value, metadata } = await kv.getWithMetadata('over/k');
    assert.deepEqual([value, metadata], ['two', null]);
    await kv.put('over/k', 'three', { metadata: 3 });
    assert.deepEqual((await kv.list({ prefix: 'over/' })).keys, [{ name: 'over/k', metadata: 3 }]);
  },

  'a lifetime is given in two ways': async (kv) => {
    const of = async (options) => {
      const before = now();
      await kv.put('life/k', 'v', options);
      const { expiration } = (await kv.list({ prefix: 'life/k' })).keys[0];
      return { expiration, left: expiration - before };
    };
    const about = ({ left }, ttl) => assert.ok(left >= ttl && left <= ttl + 30, `${left} seconds, not ${ttl}`);
    about(await of({ expirationTtl: 60 }), 60);
    about(await of({ expirationTtl: 3600 }), 3600);
    about(await of({ expirationTtl: 60.9 }), 60);
    about(await of({ expirationTtl: '120' }), 120);
    const absolute = now() + 1234;
    assert.equal((await of({ expiration: absolute })).expiration, absolute);
    assert.equal((await of({ expiration: absolute + 0.9 })).expiration, absolute);
    assert.equal((await of({ expiration: 2_147_483_647 })).expiration, 2_147_483_647);
    // The TTL wins over the expiration.
    about(await of({ expiration: absolute, expirationTtl: 600 }), 600);
    about(await of({ expiration: 1, expirationTtl: 600 }), 600);
    for (const options of [{ expirationTtl: 2 ** 31 }, { expiration: 2 ** 31 }]) {
      await failsAnyway(() => kv.put('life/k', 'v', options), /./, TypeError);
    }
    assert.equal(await kv.get('life/k'), 'v');
  },

  'a lifetime that is too short is refused': async (kv) => {
    await kv.put('short/k', 'old');
    const ttl = (given, what) => `KV PUT failed: 400 Invalid expiration_ttl of ${given}. ${what}`;
    for (const [given, sent] of [[0, 0], [-1, -1], [NaN, 0], ['x', 0], [null, 0], [0.9, 0]]) {
      await fails(kv.put('short/k', 'new', { expirationTtl: given }), ttl(sent, 'Please specify integer greater than 0.'));
    }
    for (const given of [1, 59]) {
      await fails(kv.put('short/k', 'new', { expirationTtl: given }), ttl(given, 'Expiration TTL must be at least 60.'));
    }
    const at = (given, what) => `KV PUT failed: 400 Invalid expiration of ${given}. ${what}`;
    const past = 'Please specify integer greater than the current number of seconds since the UNIX epoch.';
    for (const given of [0, -1, 1, now() - 100]) await fails(kv.put('short/k', 'new', { expiration: given }), at(given, past));
    const soon = now() + 30;
    const tooSoon = 'Expiration times must be at least 60 seconds in the future.';
    await fails(kv.put('short/k', 'new', { expiration: soon }), at(soon, tooSoon));
    // A bad TTL is refused even with a good expiration.
    await fails(
      kv.put('short/k', 'new', { expiration: now() + 1000, expirationTtl: 59 }),
      ttl(59, 'Expiration TTL must be at least 60.'),
    );
    assert.equal(await kv.get('short/k'), 'old');
    assert.deepEqual((await kv.list({ prefix: 'short/' })).keys, [{ name: 'short/k' }]);
  },

  'of several faults the first one is told': async (kv) => {
    const metadata = 'x'.repeat(2000);
    const long = new Uint8Array(VALUE_MAX + 1);
    await fails(
      kv.put('order/k', long, { metadata, expirationTtl: 1 }),
      'KV PUT failed: 400 Invalid expiration_ttl of 1. Expiration TTL must be at least 60.',
    );
    await fails(kv.put('order/k', long, { metadata }), 'KV PUT failed: 413 Metadata length of 2002 exceeds limit of 1024.');
    const keys = Array.from({ length: 101 }, () => '');
    await fails(kv.get(keys, 'stream'), 'KV GET_BULK failed: 400 "stream" is not a valid type. Use "json" or "text"');
    await fails(kv.get(keys), 'KV GET_BULK failed: 400 You can request a maximum of 100 keys');
    assert.equal(await kv.get('order/k'), null);
  },

  'after an error the connection still serves': async (kv) => {
    for (let round = 0; round < 5; round += 1) {
      await fails(kv.put('conn/k', pattern(MIB), { expirationTtl: 1 }), /^KV PUT failed: 400 Invalid expiration_ttl of 1\./);
      await kv.put('conn/k', `round ${round}`);
      assert.equal(await kv.get('conn/k'), `round ${round}`);
    }
  },

  '200 puts and gets are done at a time': async (kv) => {
    const keys = Array.from({ length: 200 }, (_, index) => `par/${index}`);
    await Promise.all(keys.map((key, index) => kv.put(key, pattern(index * 100, index), { metadata: { index } })));
    await Promise.all(
      keys.map(async (key, index) => {
        const { value, metadata } = await kv.getWithMetadata(key, 'arrayBuffer');
        sameBytes(value, pattern(index * 100, index));
        assert.deepEqual(metadata, { index });
      }),
    );
    const mixed = keys.map((key, index) => {
      if (index % 4 === 0) return kv.put(key, 'new');
      if (index % 4 === 1) return kv.delete(key);
      if (index % 4 === 2) return kv.get(key, 'arrayBuffer');
      return kv.list({ prefix: key });
    });
    await Promise.all(mixed);
    assert.equal(await kv.get('par/0'), 'new');
    assert.equal(await kv.get('par/1'), null);
    // One key with many writers: one of them is the last.
    await Promise.all(keys.map((_, index) => kv.put('par/one', String(index))));
    const last = Number(await kv.get('par/one'));
    assert.ok(Number.isInteger(last) && last >= 0 && last < 200);
  },

  'what is written is read at once': async (kv) => {
    for (let round = 0; round < 50; round += 1) {
      await kv.put('fresh/k', String(round));
      assert.equal(await kv.get('fresh/k'), String(round));
    }
    await kv.delete('fresh/k');
    assert.equal(await kv.get('fresh/k'), null);
  },
};

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const name = decodeURIComponent(url.pathname.slice(1));
    try {
      await cases[name](env[url.searchParams.get('binding')]);
      return new Response('ok');
    } catch (error) {
      return new Response(error.stack ?? String(error), { status: 500 });
    }
  },
};
