// The web page: exporting keys to a file, and importing them.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';

import { SLOW } from './helpers.mjs';
import { Driver, methodsOf, skip, stepper } from './page-driver.mjs';

const METADATA = '{"number":12345678901234567890, "a":"ü世"}';
const BINARY = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
const LONG = '世'.repeat(1 << 20);

describe('export and import in the web page', { skip, ...SLOW }, () => {
  let driver, page, id;
  const {
    apiJson, stored, storedBytes, listed, until, says, shot, press, tabTo, activate, other, refused, download,
  } = methodsOf(() => driver);
  const step = stepper();

  before(async () => {
    driver = await Driver.withKeys({
      args: ['--minimum-ttl', '1000'],
      pairs: [{ key: 'binary', value: BINARY.toString('base64'), base64: true }, { key: 'replacement', value: '\ufffd' }],
    });
    await other('long', LONG, { metadata: METADATA, query: '?expiration=4000000000' });
    await other('slow', Buffer.alloc(4 << 20, 'a'));
    ({ page, id } = driver);
    await driver.openFirst();
  });

  after(() => driver?.stop());

  const put = async (name, { keeps = false } = {}) => {
    await activate('#import-keys');
    await (await page.$('#import-file')).uploadFile(name);
    await tabTo('[name=existing]');
    if (keeps) await press('ArrowDown');
    await shot('import');
    await activate('#import-dialog .main');
  };

  step('exports keys with their values, and imports them again', async () => {
    await other('binary', BINARY, { metadata: METADATA, query: '?expiration=4000000000' });
    await activate('#keys-refresh');
    await says('Page 1: 100 keys');
    await activate('#export-keys');
    await says('Exported 254 keys.');
    const exported = await download('first.json');
    const pairs = JSON.parse(exported);
    assert.equal(pairs.length, 254);
    const pairOf = (key) => pairs.find((pair) => pair.key === key);
    assert.deepEqual(pairOf('page/013'), { key: 'page/013', value: '13' });
    assert.deepEqual(pairOf('replacement'), { key: 'replacement', value: '\ufffd' });
    assert.equal(pairOf('binary').value, BINARY.toString('base64'));
    assert(exported.includes(`"base64":true,"expiration":4000000000,"metadata":${METADATA}`));
    assert.equal(pairOf('long').value, LONG);
    assert.equal(pairOf('slow').value.length, 4 << 20);

    // Two that expire too soon and one more, besides what is there.
    const file = join(driver.folder, 'import.json');
    const soon = Math.floor(Date.now() / 1000) + 900;
    const more = `[{"key":"expired","value":"a","expiration":1},{"key":"soon","value":"a","expiration":${soon}},{"key":"more","value":"b"},`;
    await writeFile(file, `\ufeff${exported.toString().replace('[', more)}`);
    await apiJson('POST', `/${id}/bulk/delete`, pairs.map((pair) => pair.key));
    await put(file);
    await says('Imported 255 keys. 2 keys left out, which would expire within 1,000 seconds.');
    assert.deepEqual(await storedBytes('binary'), BINARY);
    assert((await listed('binary')).includes(`"expiration":4000000000,"metadata":${METADATA}`));
    assert.equal((await storedBytes('long')).toString(), LONG);
    assert.equal((await storedBytes('more')).toString(), 'b');
    assert.equal((await stored('expired')).status, 404);

    for (const [content, wrong] of [
      ['{"key":"a","value":"b"}', /no array/], ['[{"key":"a"}]', /Item 1 .*"value" is not a string/], ['[1', /not JSON/],
      ['[{"key":"a","value":"b"},[]]', /Item 2 .*not an object/], [Buffer.from([0xff]), /not UTF-8/],
    ]) {
      await writeFile(file, content);
      await put(file);
      await until(`it says ${wrong}`, (wrong) => new RegExp(wrong).test(document.querySelector('#import-dialog [role=alert]').textContent), wrong.source);
      await press('Escape');
    }
    await writeFile(file, '[{"key":"..","value":"b"}]');
    await put(file);
    await until('it says what the server said', () => /^Imported 0 of 1 key\..*Illegal key/s.test(document.querySelector('#alert').textContent));
    refused(1, 400);
  });

  step('imports only the keys that are absent, if it should', async () => {
    const file = join(driver.folder, 'absent.json');
    const metadata = '{"big":12345678901234567890, "a":"ü"}';
    await writeFile(file, `[{"key":"page/000","value":"not this"},{"key":"twice","value":"first"},
      {"key":"added/text","value":"世","expiration":4000000000,"metadata":${metadata}},
      {"key":"added/bytes","value":"-_8=","base64":true,"expiration_ttl":5000},{"key":"twice","value":"last","metadata":null}]`);
    await put(file, { keeps: true });
    await says('Imported 3 of 5 keys. 1 key existed and stayed as before.');
    assert.equal((await storedBytes('page/000')).toString(), '0');
    assert.equal((await storedBytes('twice')).toString(), 'last');
    assert.equal((await storedBytes('added/text')).toString(), '世');
    assert((await listed('added/text')).includes(`"expiration":4000000000,"metadata":${metadata}`));
    assert.deepEqual(await storedBytes('added/bytes'), Buffer.from([0xfb, 0xff]));
    assert.match(await listed('added/bytes'), /"expiration":\d+\}/);
    refused(1);

    await writeFile(file, '[{"key":"wrong","value":"a","expiration_ttl":1},{"key":"page/000","value":"a"}]');
    await put(file, { keeps: true });
    await until('it says which one was refused', () => /^Imported 0 of 2 keys\. 1 key existed.*\n"wrong": .*at least 1000/s.test(document.querySelector('#alert').textContent));
    assert.equal(driver.problems.splice(0).length, 2);
  });

  step('nothing of it went wrong', () => {
    assert.deepEqual(driver.problems, []);
    assert.deepEqual(driver.dialogs, []);
  });
});
