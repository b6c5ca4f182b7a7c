// The web page: what it showed from the beginning. `page-editing` and `page-listing` have more.
import assert from 'node:assert/strict';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';

import { SLOW, TOKEN } from './helpers.mjs';
import { Driver, png, skip, stepper } from './page-driver.mjs';

const MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
const ODD_KEY = `odd/a b?c=d&e#f%2F+\u202e<img src=x onerror=alert(3)>"'ü世🌍`;
const TEXT = `${MARKUP}\r\nGrüße, 世界 🌍\r\n`;
const JSON_TEXT = '{"big":12345678901234567890,"2":1,"1":[true,{}],"a":{"b":"<b>"},"a":null}';
const BINARY = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
const LARGE = Buffer.alloc((1 << 20) + 1, 'large ');
const METADATA = `{"number":12345678901234567890,"markup":"<img src=x onerror=alert(4)>","metadata":[1]}`;

/** The widths and colours in which the page is looked at. */
const VIEWPORTS = [1440, 768, 320].flatMap((width) => ['light', 'dark'].map((scheme) => [`${width}-${scheme}`, width, scheme]));

describe('the web page', { skip, ...SLOW }, () => {
  let driver, page, id;
  const on = (name) => (...args) => driver[name](...args);
  const api = on('api'), apiJson = on('apiJson'), stored = on('stored'), storedBytes = on('storedBytes'), listed = on('listed');
  const until = on('until'), text = on('text'), isHidden = on('isHidden'), says = on('says'), focused = on('focused'), shot = on('shot');
  const press = on('press'), type = on('type'), tabTo = on('tabTo'), replace = on('replace'), oneRequest = on('oneRequest');
  const open = on('open'), pressed = on('pressed'), keys = on('keys');
  const step = stepper();

  before(async () => {
    driver = await Driver.start();
    ({ id } = await apiJson('POST', '', { title: `first ${MARKUP}` }));
    driver.id = id;
    await apiJson('POST', '', { title: 'second' });
    const pairs = Array.from({ length: 250 }, (_, index) => ({ key: `page/${String(index).padStart(3, '0')}`, value: String(index) }));
    const base64 = (key, value) => ({ key, value: value.toString('base64'), base64: true });
    pairs.push(
      { key: 'text', value: TEXT }, { key: 'json', value: JSON_TEXT }, { key: 'svg', value: '<svg onload="alert(5)"/>' },
      { key: 'empty', value: '' }, base64('image', png(320, 180)), base64('binary', BINARY), base64('large', LARGE), base64('fake image', png(1, 1).subarray(0, 20)),
      { key: 'limited', value: 'a', expiration_ttl: 7200 }, { key: 'deleted', value: 'a' },
    );
    await apiJson('PUT', `/${id}/bulk`, pairs);
    const form = new FormData();
    form.append('value', ODD_KEY);
    form.append('metadata', METADATA);
    assert.equal((await api('PUT', `/${id}/values/${encodeURIComponent(ODD_KEY)}?expiration_ttl=86400`, form)).status, 200);

    await driver.launch();
    ({ page } = driver);
  });

  after(() => driver?.stop());

  step('asks for a token until it is right, and keeps it in the tab only', async () => {
    await page.goto(driver.url('/'));
    assert.equal(await page.title(), 'embercask');
    await focused('#token');
    await shot('sign-in');
    await oneRequest('GET', /\/user\/tokens\/verify$/, async () => {
      await type('not this token');
      await press('Enter');
      await until('the token is refused', () => /refused: .*\(code 10000\)/.test(document.querySelector('#sign-in [role=alert]').textContent));
    });
    await focused('#token');
    // Chromium reports every error status.
    assert.match(driver.problems.splice(0).join(), /^console: error Failed to load resource: .* 403 \(Forbidden\)$/);
    await type(TOKEN);
    await press('Enter');
    await until('the namespaces are there', () => document.querySelectorAll('#namespace-rows a').length === 2);
    assert.equal(await page.title(), 'Namespaces – embercask');
    const kept = await page.evaluate(() => [Object.values(sessionStorage), localStorage.length, document.cookie]);
    assert.deepEqual(kept, [[TOKEN], 0, '']);
    assert.equal(await text('#namespace-rows a'), `first ${MARKUP}`);
    await shot('namespaces');
  });

  step('creates, renames and deletes namespaces', async () => {
    await tabTo('#create-namespace');
    await press('Enter');
    await focused('#title');
    await type('second');
    await press('Enter');
    await until('the title is refused', () => /already exists' \(code 10014\)/.test(document.querySelector('#title-dialog [role=alert]').textContent));
    await shot('refused');
    assert.match(driver.problems.splice(0).join(), /^console: error Failed to load resource: .* 400/);
    await press('Escape');
    await focused('#create-namespace');
    await press('Enter');
    await oneRequest('POST', /namespaces$/, async () => {
      await type('third & <b>last</b>');
      await press('Enter');
      await says('Created the namespace "third & <b>last</b>"');
    });
    await tabTo('[aria-label="Rename third & <b>last</b>"]');
    await press('Enter');
    await oneRequest('PUT', /namespaces\/[0-9a-f]{32}$/, async () => {
      await replace('a new title');
      await press('Enter');
      await says('to "a new title"');
    });
    assert.deepEqual((await apiJson('GET', '?order=title')).map(({ title }) => title), ['a new title', `first ${MARKUP}`, 'second']);
    await tabTo('[aria-label="Delete a new title"]');
    await press('Enter');
    await focused('#drop-confirm');
    driver.requests.length = 0;
    await type('a new titl');
    await press('Enter');
    await shot('delete-namespace');
    assert(await page.$eval('#drop-dialog .main', (button) => button.disabled));
    await oneRequest('DELETE', /namespaces\/[0-9a-f]{32}$/, async () => {
      await type('e');
      await press('Enter');
      await says('Deleted the namespace "a new title"');
    });
    assert.equal((await apiJson('GET', '')).length, 2);
    assert.equal(await page.$$eval('#namespace-rows tr', (rows) => rows.length), 2);
  });

  step('browses keys by prefix and page', async () => {
    await until('the numbers of keys are there', () => document.querySelector('#namespace-rows .number').textContent === '261');
    await tabTo('#namespace-rows a');
    driver.requests.length = 0;
    await press('Enter');
    await says('Page 1: 100 keys');
    assert.deepEqual(driver.requests.map((request) => request.split('/').at(-1)).sort(), ['default_ttl', 'keys?limit=100']);
    await press('/');
    await focused('#prefix');
    await oneRequest('GET', /\/keys\?limit=100&prefix=page%2F$/, async () => {
      await type('page/');
      await press('Enter');
      await until('the keys begin with the prefix', () => document.querySelector('.open-key').textContent === 'page/000');
    });
    await shot('keys');
    await tabTo('#keys-next');
    await oneRequest('GET', /&cursor=./, async () => {
      await press('Enter');
      await says('Page 2: 100 keys');
    });
    await focused('#keys-next');
    await press('Enter');
    await says('Page 3: 50 keys');
    assert.deepEqual([(await keys())[0], (await keys()).at(-1)], ['page/200', 'page/249']);
    // A button that becomes disabled passes the focus to the other one.
    await focused('#keys-previous');
    await press('Enter');
    await says('Page 2: 100 keys');
    await press('Enter');
    await says('Page 1: 100 keys');
    assert.equal((await keys())[0], 'page/000');
    await focused('#keys-next');
    await tabTo('#limit');
    await oneRequest('GET', /limit=500/, async () => {
      await press('ArrowDown');
      await says('Page 1: 250 keys');
    });
    await press('ArrowUp');
    await says('Page 1: 100 keys');
    await tabTo('.open-key');
    await press('ArrowDown', 'ArrowDown', 'ArrowUp', 'Enter');
    await until('the second key is open', () => document.querySelector('#value-title').textContent === 'page/001');
    await press('Escape');
    await focused('.open-key');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'page/001');
    await page.goBack();
    await until('the key is open again', () => document.querySelector('#value-title').textContent === 'page/001');
    assert.equal(await page.title(), `page/001 – first ${MARKUP} – embercask`);
    await page.reload();
    await until('the address is enough to come back', () => document.querySelector('#value-title').textContent === 'page/001');
    await until('its namespace is named', () => document.querySelector('#keys-title').textContent.startsWith('first <img'));
    await focused('#value-title');
    await press('/');
    await replace('no such key');
    await press('Enter');
    await until('it says that there is none', () => document.querySelector('#key-rows').textContent === 'No key begins with this prefix.');
  });

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
    await tabTo('#download');
    driver.requests.length = 0;
    await press('Enter');
    for (let steps = 0; steps < 200 && !(await readdir(driver.downloads)).includes('large'); steps += 1) await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(await readFile(join(driver.downloads, 'large')), LARGE);
  });

  step('shows odd keys, metadata and expiry as text', async () => {
    await open('odd/');
    assert.equal(await text('#value-title'), ODD_KEY.replace('\u202e', '\\u{202e}'));
    assert.equal(await text('#content pre'), ODD_KEY);
    assert.equal(JSON.stringify(JSON.parse(await text('#metadata'))), JSON.stringify(JSON.parse(METADATA)));
    assert.match(await text('#metadata'), /"number": 12345678901234567890,/);
    assert.match(await text('#expires'), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(in 2[34] hours\)$/);
    await shot('odd');
  });

  step('edits a value, and changes nothing else', async () => {
    await open('odd/');
    const before = await listed(ODD_KEY);
    await tabTo('#edit-key');
    await press('Enter');
    await tabTo('#text');
    await replace(`edited ${MARKUP}`);
    await shot('edit');
    await press('Escape');
    assert.match(await text('#key-dialog [role=alert]'), /not saved/);
    await tabTo('#key-dialog .main');
    await oneRequest('PUT', /\/values\/.*\?expiration=\d+$/, async () => {
      await press('Enter');
      await says('Saved the key');
    });
    assert.equal((await storedBytes(ODD_KEY)).toString(), `edited ${MARKUP}`);
    assert.equal(await listed(ODD_KEY), before);
    assert.equal(await text('#content pre'), `edited ${MARKUP}`);

    // Line ends are preserved, although a text field has only one kind.
    await open('text');
    await tabTo('#edit-key');
    await press('Enter');
    await tabTo('#text');
    await page.keyboard.down('Control');
    await press('End');
    await page.keyboard.up('Control');
    await type('last line');
    await tabTo('#key-dialog .main');
    await press('Enter');
    await says('Saved the key');
    assert.equal((await storedBytes('text')).toString(), `${TEXT}last line`);

    // A value that is not text is kept while the rest is changed.
    await open('binary');
    await tabTo('#edit-key');
    await press('Enter');
    await tabTo('#metadata-text');
    await type('{"a": }');
    await tabTo('#key-dialog .main');
    driver.requests.length = 0;
    await press('Enter');
    await until('it says what is wrong', () => /not JSON/.test(document.querySelector('#key-dialog [role=alert]').textContent));
    assert.deepEqual(driver.requests, []);
    await page.keyboard.down('Shift');
    await press('Tab');
    await page.keyboard.up('Shift');
    await replace('{"a":1}');
    await tabTo('#key-dialog .main');
    await press('Enter');
    await says('Saved the key');
    assert.deepEqual(await storedBytes('binary'), BINARY);
    assert.match(await listed('binary'), /"metadata":\{"a":1\}/);
  });

  step('creates a key with a lifetime and metadata, and one from a file', async () => {
    await tabTo('#create-key');
    await press('Enter');
    await focused('#name');
    await replace('new/ключ');
    await tabTo('#text');
    await type('first line\nsecond line');
    await tabTo('#expiry');
    await press('ArrowDown');
    await tabTo('#ttl');
    await type('90');
    await tabTo('#metadata-text');
    await type('{"of": "the test", "n": 1.0}');
    await shot('create');
    await tabTo('#key-dialog .main');
    await oneRequest('PUT', /\?expiration_ttl=90$/, async () => {
      await press('Enter');
      await says('Saved the key "new/ключ"');
    });
    const answer = await stored('new/ключ');
    const seconds = Number(answer.headers.get('expiration')) - Date.now() / 1000;
    assert(seconds > 60 && seconds < 92, `expires in ${seconds} s`);
    assert.equal(await answer.text(), 'first line\nsecond line');
    assert.match(await listed('new/'), /"metadata":\{"of": "the test", "n": 1.0\}/);
    assert.match(await text('#expires'), /\(in [6-9]\d seconds\)$/);

    const file = join(driver.folder, 'file.png');
    await writeFile(file, png(64, 64));
    await tabTo('#create-key');
    await press('Enter');
    await replace('new/file');
    await tabTo('[name=source]');
    await press('ArrowDown');
    await (await page.$('#file')).uploadFile(file);
    await tabTo('#expiry');
    await press('ArrowDown', 'ArrowDown');
    await page.$eval('#date', (input) => { input.value = '2099-12-31T23:59:58'; });
    await tabTo('#key-dialog .main');
    await press('Enter');
    await says('Saved the key "new/file"');
    assert.deepEqual(await storedBytes('new/file'), png(64, 64));
    assert.match(await text('#expires'), /^2099-12-31 23:59:58/);
    assert.equal(Number((await stored('new/file')).headers.get('expiration')), new Date(2099, 11, 31, 23, 59, 58) / 1000);
    await until('the image is shown', () => document.querySelector('#content img')?.naturalWidth === 64);
  });

  step('deletes a key after a question, and says what the API said', async () => {
    await open('deleted');
    await tabTo('#delete-key');
    await press('Enter');
    await focused('#delete-dialog .cancel');
    await shot('delete-key');
    driver.requests.length = 0;
    await press('Enter');
    await focused('#delete-key');
    assert.deepEqual(driver.requests, []);
    await press('Enter');
    await tabTo('#delete-dialog .risky');
    await oneRequest('DELETE', /\/values\/deleted$/, async () => {
      await press('Enter');
      await says('Deleted the key "deleted"');
    });
    assert.equal((await stored('deleted')).status, 404);
    assert(await isHidden('#value'));
    assert.equal(await page.$('.open-key'), null);

    await press('/');
    await replace('limited');
    await press('Enter');
    await says('Page 1: 1 key');
    assert.match(await text('#key-rows td:nth-child(3)'), /^in (1[01]\d minutes|2 hours)$/);
    await api('DELETE', `/${id}/values/limited`);
    await tabTo('.open-key');
    await press('Enter');
    await until('the page says what the API said', () => document.querySelector('#alert').textContent === "get: 'key not found' (code 10009)");
    assert.match(driver.problems.splice(0).join(), /^console: error Failed to load resource: .* 404/);
  });

  step('draws the segments', async () => {
    await tabTo('a[href="#statistics"]');
    await oneRequest('GET', /\/embercask\/statistics$/, async () => {
      await press('Enter');
      await until('the picture is there', () => document.querySelector('#picture svg .live')?.getBoundingClientRect().width > 0);
    });
    const numbers = await (await fetch(`${driver.server.rest}/embercask/statistics`, { headers: { authorization: `Bearer ${TOKEN}` } })).json();
    assert.equal(await page.$$eval('#picture g', (bars) => bars.length), numbers.result.segments.length);
    const shown = await text('#numbers');
    for (const wanted of [`Keys${numbers.result.keys.toLocaleString('en')}`, 'Memory', 'Compaction', 'tombstones']) assert(shown.includes(wanted), wanted);
    await shot('statistics');
  });

  step('looks right in the dark, and fits a narrow window', async () => {
    for (const [name, width, scheme] of VIEWPORTS) {
      await page.setViewport({ width, height: 740 });
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      const fits = async (what) => {
        await shot(`${name}-${what}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert(wide <= width, `${what} is ${wide} pixels wide in a window of ${width}`);
      };
      await fits('statistics');
      await page.goto(driver.url('/#namespaces'));
      await until('the namespaces are there', () => document.querySelector('#namespace-rows a'));
      await fits('namespaces');
      await tabTo('#namespace-rows a');
      await press('Enter');
      await says('Page 1: 100 keys');
      await fits('keys');
      await open('odd/');
      await fits('value');
      await open('binary');
      await fits('hex');
      await tabTo('#edit-key');
      await press('Enter');
      await fits('edit');
      await press('Escape');
      await page.goto(driver.url('/#statistics'));
      await until('the picture is there', () => document.querySelector('#picture svg'));
    }
  });

  step('signs out, and nothing stays behind', async () => {
    await tabTo('#sign-out');
    await press('Enter');
    await focused('#token');
    const left = await page.evaluate(() => [sessionStorage.length, document.querySelectorAll('.open-key, #picture, #namespace-rows a').length]);
    assert.deepEqual(left, [0, 0]);
  });

  step('nothing of it went wrong, and no markup of the data has run', () => {
    assert.deepEqual(driver.problems, []);
    assert.deepEqual(driver.dialogs, []);
  });
});
