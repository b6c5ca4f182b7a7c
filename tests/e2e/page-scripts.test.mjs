// Functions of the page's scripts that need no browser, with random input.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { generatorOf } from './helpers.mjs';

/** Functions of one script. */
function functionsOf(script, names) {
  const source = readFileSync(new URL(`../../src/command/server/page/${script}`, import.meta.url), 'utf8');
  return new Function(`${source}\nreturn { ${names} };`)();
}

/** Valid JSON, with blanks and characters that have a meaning elsewhere. */
function randomJson(draw, depth = 0) {
  const many = (most, make) => Array.from({ length: draw(most) }, make);
  const blanks = () => many(3, () => ' \n\t\r'[draw(4)]).join('');
  const pieces = ['a', '\\\\', '\\"', '{', '}', '[', ']', ',', ':', '\\u0022', ' ', 'metadata', '世'];
  const string = () => `"${many(6, () => pieces[draw(pieces.length)]).join('')}"`;
  const value = () => blanks() + randomJson(draw, depth + 1) + blanks();
  switch (draw(depth > 3 ? 4 : 6)) {
    case 0: return ['1', '-2.5e10', '12345678901234567890', '0.10'][draw(4)];
    case 1: return ['true', 'false', 'null'][draw(3)];
    case 4: return `[${blanks()}${many(4, value).join(',')}]`;
    case 5: return `{${blanks()}${many(4, () => `${blanks()}${string()}${blanks()}:${value()}`).join(',')}}`;
    default: return string();
  }
}

test('JSON as text means what it meant, whatever is cut out of it', () => {
  const names = ['pretty', 'compact', 'jsonItems', 'jsonMember', 'listedMetadata'];
  const { pretty, compact, jsonItems, jsonMember, listedMetadata } = functionsOf('json.js', names);
  const draw = generatorOf('JSON');
  const blank = () => [' ', '\n', ''][draw(3)];
  for (let round = 0; round < 3000; round += 1) {
    const json = randomJson(draw), parsed = JSON.parse(json);
    assert.deepEqual(JSON.parse(pretty(json)), parsed, json);
    assert.equal(compact(pretty(json)), compact(json));
    const items = Array.from({ length: draw(4) }, () => randomJson(draw));
    const array = `[${blank()}${items.map((item) => blank() + item + blank()).join(',')}]`;
    assert.deepEqual([...jsonItems(array)], items, array);
    const object = `{"x":${randomJson(draw)},${blank()}"metadata"${blank()}:${blank()}${json}${blank()},"metadata2":1}`;
    assert.equal(jsonMember(object, 'metadata'), json, object);
    assert.equal(jsonMember(object, 'absent'), undefined);
    const listing = `{"result":[{"name":"a","metadata":${json}},{"name":"b"}],"result_info":{"metadata":3}}`;
    assert.deepEqual(listedMetadata(listing), [json, undefined]);
  }
});

test('a part of a text has all characters that it has whole', () => {
  const { wholeCharacters } = functionsOf('kinds.js', ['wholeCharacters']);
  const draw = generatorOf('parts');
  for (let round = 0; round < 3000; round += 1) {
    const text = Array.from({ length: 1 + draw(20) }, () => ['a', 'ü', '世', '🌍'][draw(4)]).join('');
    const bytes = Buffer.from(text);
    const cuts = [0, ...[draw(bytes.length + 1), draw(bytes.length + 1)].sort((a, b) => a - b), bytes.length];
    const parts = cuts.slice(1).map((to, index) => {
      const shown = wholeCharacters(bytes.subarray(cuts[index], to), index === 0, index === 2);
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(shown);
    });
    // Only characters at the two cuts are missing.
    const missing = [...text].length - [...parts.join('')].length;
    assert(missing <= 2, `${text} cut at ${cuts}: ${parts}`);
    let at = 0;
    for (const part of parts) {
      at = text.indexOf(part, at);
      assert(at >= 0, `${text} cut at ${cuts}: ${parts}`);
      at += part.length;
    }
  }
});
