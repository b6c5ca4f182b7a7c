// The web page: how values, metadata and keys are shown and copied.
import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';

import { SLOW } from './helpers.mjs';
import { Driver, methodsOf, png, skip, stepper } from './page-driver.mjs';

const MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
const ODD_KEY = `odd/a b?c=d&e#f%2F+\u202e<img src=x onerror=alert(3)>"'ü世🌍`;
const TEXT = `${MARKUP}\r\nGrüße, 世界 🌍\r\n`;
const JSON_TEXT = '{"big":12345678901234567890,"2":1,"1":[true,{}],"a":{"b":"<b>"},"a":null}';
const BINARY = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
const LARGE = Buffer.alloc((1 << 20) + 1, 'large ');
/** Three bytes a character, so that each end of a part cuts one. */
const LONG = '世'.repeat(1 << 20);
const METADATA = `{"number":12345678901234567890,"markup":"<img src=x onerror=alert(4)>","metadata":[1],"odd":"\u202e"}`;

describe('values in the web page', { skip, ...SLOW }, () => {
  let driver, page;
  const {
    stored, listed, until, text, says, focused, shot, press, tabTo, activate, replace, open, list, pressed,
    withModifier, other, download,
  } = methodsOf(() => driver);
  const step = stepper();

  before(async () => {
    const base64 = (key, value) => ({ key, value: value.toString('base64'), base64: true });
    driver = await Driver.withKeys({
      pairs: [
        { key: 'text', value: TEXT }, { key: 'json', value: JSON_TEXT }, { key: 'svg', value: '<svg onload="alert(5)"/>' },
        { key: 'empty', value: '' }, base64('image', png(320, 180)), base64('binary', BINARY), base64('large', LARGE),
        base64('fake image', png(1, 1).subarray(0, 20)), { key: 'directed', value: 'a\u202eb' },
      ],
    });
    await other(ODD_KEY, ODD_KEY, { metadata: METADATA, query: '?expiration_ttl=86400' });
    await other('long', LONG, { metadata: METADATA, query: '?expiration=4000000000' });
    ({ page } = driver);
    await driver.openFirst();
  });

  after(() => driver?.stop());

  step('shows text, JSON, bytes and images as what they are', async () => {
    await open('text');
    assert.deepEqual([await pressed(), await text('#content pre')], ['Text', TEXT]);
    assert.equal(await text('#expires'), 'never');
    await shot('text');

    await open('json');
    assert.equal(await pressed(), 'JSON');
    const pretty = '{\n  "big": 12345678901234567890,\n  "2": 1,\n  "1": [\n    true,\n    {}\n  ],\n  "a": {\n    "b": "<b>"\n  },\n  "a": null\n}';
    assert.equal(await text('#content pre'), pretty);
    await shot('json');
    await tabTo('[data-kind=text]');
    await press('Enter');
    assert.equal(await text('#content pre'), JSON_TEXT);

    await open('image');
    assert.equal(await pressed(), 'Image');
    await until('the image is shown', () => document.querySelector('#content img').naturalWidth === 320);
    await shot('image');
    await tabTo('[data-kind=hex]');
    await press('Enter');
    assert.match(await text('#content pre'), /^000000 {2}89 50 4e 47 0d 0a 1a 0a /);

    await open('fake image');
    await until('it says that it is no image', () => /cannot be shown/.test(document.querySelector('#value-note').textContent));

    await open('binary');
    assert.equal(await pressed(), 'Hex');
    assert.match(await text('#content pre'), /^0000[34]0 .* 40 41 42 43 44 45 46 47 .*@ABCDEFG/m);
    await shot('hex');
    await tabTo('[data-kind=text]');
    await press('Enter');
    assert.match(await text('#value-note'), /not UTF-8/);

    await open('directed');
    assert.match(await text('#value-note'), /change its direction/);

    await open('svg');
    assert.equal(await pressed(), 'Text');
    assert(await page.$eval('[data-kind=image]', (button) => button.disabled));

    await open('empty');
    assert.match(await text('#value-note'), /empty/);

    await open('large');
    assert.equal(await pressed(), 'Text');
    assert.match(await text('#value-note'), /larger than 1 MiB: this is a part of it/);
    assert.equal((await text('#content pre')).length, LARGE.length - 1);
    await tabTo('[data-kind=hex]');
    await press('Enter');
    assert.match(await text('#value-note'), /the first 64 KiB of the part/);
    assert.match((await text('#content pre')).split('\n').at(-1), /^00fff[08] /);
    await tabTo('#part-next');
    await press('Enter');
    await until('the rest is shown', () => /^Bytes 1,048,576 to 1,048,576 of 1,048,577$/.test(document.querySelector('#parts-place').textContent));
    await focused('#part-previous');
    await activate('#download');
    assert.deepEqual(await download('large'), LARGE);
  });

  step('shows odd keys, metadata and expiry as text', async () => {
    await open('odd/');
    assert.equal(await text('#value-title'), ODD_KEY.replace('\u202e', '\\u{202e}'));
    assert.equal(await text('#content pre'), ODD_KEY);
    assert.equal(JSON.stringify(JSON.parse(await text('#metadata'))), JSON.stringify(JSON.parse(METADATA)));
    assert.match(await text('#metadata'), /"number": 12345678901234567890,.*"odd": "\\u202e"/s);
    assert.match(await text('#key-rows td:nth-child(4)'), /"odd":"\\u202e"/);
    assert.match(await text('#expires'), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(in 2[34] hours\)$/);
    await shot('odd');
  });

  step('copies keys and values', async () => {
    await page.browserContext().overridePermissions(driver.url('/').slice(0, -1), ['clipboard-read', 'clipboard-write', 'clipboard-sanitized-write']);
    await open('page/007');
    await activate('#copy-key');
    await says('Copied the key');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'page/007');
    await activate('#copy-value');
    await says('Copied the value');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), '7');
    // Without the clipboard of secure pages.
    await page.evaluate(() => Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true }));
    await activate('#copy-key');
    await says('Copied the key');
    await page.evaluate(() => delete navigator.clipboard);
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'page/007');
    await focused('#copy-key');
    await press('Escape');
  });

  step('shows long values in parts, and keeps them whole', async () => {
    await list('long');
    await says('Page 1: 1 key');
    await activate('.open-key');
    await focused('#value-title');
    assert.match(await text('#parts-place'), /^Bytes 0 to 1,048,575 of 3,145,728$/);
    assert.equal(await text('#content pre'), '世'.repeat(349525));
    assert(await page.$eval('#copy-value', (button) => button.disabled));
    await shot('part');
    await activate('#part-next');
    await until('the second part is shown', () => document.querySelector('#parts-place').textContent.startsWith('Bytes 1,048,576 to 2,097,151'));
    assert.match(await text('#content pre'), /^世+$/);

    // The metadata can be changed while the value stays.
    await activate('#edit-key');
    assert.equal(await page.$eval('[name=source]:checked', (found) => found.value), 'kept');
    await tabTo('#metadata-text');
    await replace('{"c":1}');
    await withModifier('Control', 'Enter');
    await says('Saved the key');
    const answer = await stored('long');
    assert.equal(answer.headers.get('expiration'), '4000000000');
    assert.equal(await answer.text(), LONG);
    assert.match(await listed('long'), /"metadata":\{"c":1\}/);
    await activate('#edit-key');
    await tabTo('#metadata-text');
    await replace(METADATA);
    await other('long', `${LONG}!`);
    await withModifier('Control', 'Enter');
    await until('the change is noticed', () => /has changed/.test(document.querySelector('#key-dialog [role=alert]').textContent));
    await press('Escape', 'Escape');
    await until('it is closed', () => !document.querySelector('#key-dialog').open);

    // Another part of what is no longer there.
    await activate('#part-next');
    await says('The value has changed, so this is its beginning.');
    assert.match(await text('#parts-place'), /^Bytes 0 to 1,048,575 of 3,145,729$/);
  });

  step('nothing of it went wrong, and no markup of the data has run', () => {
    assert.deepEqual(driver.problems, []);
    assert.deepEqual(driver.dialogs, []);
  });
});
