// The web page: the address, many keys at once, how it fits and what a token does not permit.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';

import { SLOW, TOKEN, temporaryFolder } from './helpers.mjs';
import { Driver, skip, stepper } from './page-driver.mjs';

const READER = 'a token that may only read';
const OF_ONE = 'a token of one namespace';
const METADATA = '{"number":12345678901234567890, "a":"ü世"}';
const BINARY = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
const LONG = '世'.repeat(1 << 20);

/** Settings of tokens besides the one with all rights. */
async function settings() {
  const file = join(temporaryFolder(), 'serve.toml');
  const sha256 = (token) => createHash('sha256').update(token).digest('hex');
  await writeFile(file, `
[[tokens]]
name = "reader"
sha256 = "${sha256(READER)}"
read_only = true
[[tokens]]
name = "of one"
sha256 = "${sha256(OF_ONE)}"
namespaces = ["first"]
`);
  return file;
}

describe('listings in the web page', { skip, ...SLOW }, () => {
  let driver, page, id;
  const on = (name) => (...args) => driver[name](...args);
  const api = on('api'), apiJson = on('apiJson'), stored = on('stored'), storedBytes = on('storedBytes'), listed = on('listed');
  const until = on('until'), text = on('text'), isHidden = on('isHidden'), says = on('says'), focused = on('focused'), shot = on('shot');
  const press = on('press'), tabTo = on('tabTo'), activate = on('activate'), replace = on('replace');
  const open = on('open'), list = on('list'), keys = on('keys'), withModifier = on('withModifier');
  const other = on('other'), conflict = on('conflict'), refused = on('refused'), download = on('download');
  const step = stepper();

  before(async () => {
    driver = await Driver.start({ args: ['--config', await settings()] });
    ({ id } = await apiJson('POST', '', { title: 'first' }));
    driver.id = id;
    await apiJson('POST', '', { title: 'second' });
    const pairs = Array.from({ length: 250 }, (_, index) => ({ key: `page/${String(index).padStart(3, '0')}`, value: String(index) }));
    pairs.push({ key: 'binary', value: BINARY.toString('base64'), base64: true }, { key: 'replacement', value: '\ufffd' });
    await apiJson('PUT', `/${id}/bulk`, pairs);
    await other('long', LONG, { metadata: METADATA, query: '?expiration=4000000000' });
    await other('slow', Buffer.alloc(4 << 20, 'a'));
    await driver.launch();
    ({ page } = driver);
    await page.goto(driver.url('/'));
    await driver.signIn(TOKEN);
    await until('the namespaces are there', () => document.querySelectorAll('#namespace-rows a').length === 2);
    await activate('#namespace-rows a', 'first');
    await says('Page 1: 100 keys');
  });

  after(() => driver?.stop());

  step('keeps key, page and size in the address, with history and title', async () => {
    await list('page/');
    await says('Page 1: 100 keys');
    await tabTo('#limit');
    await press('ArrowUp');
    await says('Page 1: 25 keys');
    await activate('#keys-next');
    await says('Page 2: 25 keys');
    await press('Enter');
    await says('Page 3: 25 keys');
    await activate('.open-key', 'page/050');
    await focused('#value-title');
    assert.equal(await page.title(), 'page/050 – first – embercask');
    const address = page.url();
    for (const part of ['prefix=page%2F', 'size=25', 'page=3', 'cursor=', 'key=page%2F050']) assert(address.includes(part), address);

    await page.goBack();
    await until('the key is closed', () => document.querySelector('#value').hidden);
    assert.equal(await page.title(), 'first – embercask');
    await page.goBack();
    await until('the page before is there', () => document.querySelector('.open-key')?.textContent === 'page/025');
    await page.goForward();
    await page.goForward();
    await until('the key is open again', () => document.querySelector('#value-title').textContent === 'page/050');
    await page.reload();
    await until('it is open after loading anew', () => document.querySelector('#value-title').textContent === 'page/050');
    await tabTo('#keys-previous');
    await press('Enter');
    await says('Page 2: 25 keys');

    // Where there is no history, the address is enough, except for the pages before.
    await page.goto('about:blank');
    await page.goto(address);
    await until('it is open in another tab', () => document.querySelector('#value-title').textContent === 'page/050');
    assert.equal(await page.$eval('#limit', (found) => found.value), '25');
    assert.deepEqual([(await keys())[0], (await keys()).length], ['page/050', 25]);
    assert(await page.$eval('#keys-previous', (button) => button.disabled));
    await activate('#keys-first');
    await says('Page 1: 25 keys');
    assert.equal((await keys())[0], 'page/000');
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

  step('finds and counts keys by what they contain', async () => {
    await list('');
    await tabTo('#contains');
    await replace('E/01');
    await press('Enter');
    await says('10 matches in 254 keys');
    assert.deepEqual(await keys(), Array.from({ length: 10 }, (_, index) => `page/01${index}`));
    assert(page.url().includes('contains=E%2F01'), page.url());
    await shot('found');
    await activate('#keys-count');
    await says('10 keys with "E/01" in them.');
    await activate('.open-key', 'page/013');
    await until('a found key opens', () => document.querySelector('#value-title').textContent === 'page/013');
    await press('Escape');
    for (let steps = 0; steps < 3; steps += 1) await page.goBack();
    await until('the search is left', () => document.querySelector('#contains').value === '');
    await says('25 keys');
    await activate('#keys-count');
    await says('254 keys in all.');
    await list('page/24');
    await says('Page 1: 10 keys');
    await activate('#keys-count');
    await says('10 keys with the prefix "page/24".');
  });

  step('stops a search', async () => {
    await list('');
    await says('Page 1: 25 keys');
    await page.setRequestInterception(true);
    // The second page never comes.
    const hold = (request) => {
      if (!request.url().includes('limit=1000')) request.continue();
    };
    page.on('request', hold);
    await tabTo('#contains');
    await replace('nowhere');
    await press('Enter');
    await activate('#tasks button');
    await says('0 matches in 0 keys. The search was stopped.');
    page.off('request', hold);
    await page.setRequestInterception(false);
    await tabTo('#contains');
    await replace('');
    await press('Enter');
    await says('Page 1: 25 keys');
  });

  step('exports keys with their values, and imports them again', async () => {
    await other('binary', BINARY, { metadata: METADATA, query: '?expiration=4000000000' });
    await activate('#keys-refresh');
    await says('Page 1: 25 keys');
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

    // One that has expired and one more, besides what is there.
    const file = join(driver.folder, 'import.json');
    const more = `[{"key":"expired","value":"a","expiration":1},{"key":"more","value":"b"},`;
    await writeFile(file, `\ufeff${exported.toString().replace('[', more)}`);
    await apiJson('POST', `/${id}/bulk/delete`, pairs.map((pair) => pair.key));
    const put = async (name) => {
      await activate('#import-keys');
      await (await page.$('#import-file')).uploadFile(name);
      await shot('import');
      await activate('#import-dialog .main');
    };
    await put(file);
    await says('Imported 255 keys. 1 key left out, which would expire within a minute.');
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

  step('selects several keys, and deletes them after a question', async () => {
    await list('page/');
    await says('Page 1: 25 keys');
    await tabTo('.open-key', 'page/001');
    await press('x');
    await until('one is selected', () => document.querySelector('#selected-count').textContent === '1 key selected');
    await press('ArrowDown', 'ArrowDown', 'x');
    await until('two are selected', () => document.querySelector('#selected-count').textContent === '2 keys selected');
    const pick = async (name) => page.$(`[aria-label="Select ${name}"]`);
    await (await pick('page/010')).click();
    await page.keyboard.down('Shift');
    await (await pick('page/020')).click();
    await page.keyboard.up('Shift');
    await until('a range is selected', () => document.querySelector('#selected-count').textContent === '13 keys selected');
    assert(await page.$eval('#pick-all', (box) => box.indeterminate));
    await activate('#keys-next');
    await says('Page 2: 25 keys');
    await tabTo('#pick-all');
    await press('Space');
    await until('those of two pages are selected', () => document.querySelector('#selected-count').textContent === '38 keys selected, 13 of them not on this page');
    await shot('selected');
    // What is exported is of one moment, and not of the listing.
    await other('page/003', 'changed', { metadata: METADATA, query: '?expiration=4000000000' });
    await activate('#export-selected');
    await says('Exported 38 keys.');
    const exported = (await download('first-selected.json')).toString();
    assert.equal(JSON.parse(exported).length, 38);
    assert(exported.includes(`{"key":"page/003","value":"changed","expiration":4000000000,"metadata":${METADATA}}`), exported);

    await activate('#delete-selected');
    assert.equal(await text('#delete-heading'), 'Delete 38 keys');
    assert.match(await text('#delete-text'), /page\/001.*page\/003.*page\/010.*and 28 more/);
    await shot('delete-selected');
    await press('Escape');
    assert.equal(JSON.parse(await listed('page/')).result.length, 250);
    await tabTo('.open-key');
    await press('Delete');
    await activate('#delete-dialog .risky');
    await says('Deleted 38 keys.');
    const left = JSON.parse(await listed('page/')).result.map(({ name }) => name);
    assert.equal(left.length, 212);
    assert(!left.includes('page/001') && left.includes('page/002') && !left.includes('page/015') && !left.includes('page/030'));
    assert(await isHidden('#selection'));

    await activate('#keys-first');
    await says('Page 1: 25 keys');
    await tabTo('.pick');
    await press('Space');
    await activate('#clear-selection');
    assert(await isHidden('#selection'));
    await focused('#keys-title');
  });

  step('shows statistics live', async () => {
    await activate('a[href="#statistics"]');
    await says('Updated at');
    await tabTo('#statistics-live');
    await press('Enter');
    await until('there is a rate', () => document.querySelector('#numbers .spark'));
    await other('during live', 'a');
    await until('a write was counted', () => document.querySelector('.spark').getAttribute('aria-label').match(/at most ([\d.]+)/)[1] > 0
      && document.querySelector('#numbers').textContent.includes('Keys in this time+1'));
    // Measuring goes on while something has the focus, which stays.
    await tabTo('summary');
    await press('Enter');
    const before = await page.$eval('.spark polyline', (found) => found.getAttribute('points'));
    await until('it is measured again', (before) => document.querySelector('.spark polyline').getAttribute('points') !== before, before);
    assert(await page.$eval('details', (found) => found.open));
    await focused('summary');
    await shot('live');
    await activate('a[href="#namespaces"]');
    await focused('#namespaces-title');
    assert.equal(await page.$eval('#statistics-live', (button) => button.ariaPressed), 'false');
  });

  step('fits each window, also what opens in it', async () => {
    for (const width of [1440, 768, 320]) {
      for (const scheme of ['light', 'dark']) {
        await page.setViewport({ width, height: 740 });
        await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
        const fits = async (what) => {
          await shot(`${width}-${scheme}-${what}`);
          const wide = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll('dialog[open]')].map((part) => part.scrollWidth));
          assert(Math.max(...wide) <= width, `${what} is ${wide} pixels wide in a window of ${width}`);
        };
        await page.goto(driver.url(`/#namespace/${id}?prefix=binary&key=binary`));
        await until('the key is open', () => document.querySelector('#value-title').textContent === 'binary');
        await press('Escape');
        await focused('.open-key');
        await press('x');
        await fits('selection');
        await press('Enter');
        await focused('#value-title');
        await activate('#edit-key');
        await tabTo('#metadata-text');
        await replace('{"a": "quite long metadata that have to wrap somewhere"}');
        await other('binary', Buffer.concat([BINARY, Buffer.from(`${width} ${scheme}`)]), { metadata: METADATA });
        await withModifier('Control', 'Enter');
        await conflict();
        await fits('conflict');
        await press('Escape');
        await fits('editor');
        await activate('#key-dialog .cancel');
        await until('it asks', () => /not saved/.test(document.querySelector('#key-dialog [role=alert]').textContent));
        await press('Enter');
        await activate('#import-keys');
        await fits('import');
        await press('Escape');
        await page.goto(driver.url(`/#namespace/${id}?contains=0`));
        await says('matches in');
        await fits('search');
        refused(1);
      }
    }
    await page.setViewport({ width: 1280, height: 800 });
  });

  step('every control has a name, and those that change things say it when they have the focus', async () => {
    await page.goto(driver.url(`/#namespace/${id}?prefix=binary&key=binary`));
    await until('the key is open', () => document.querySelector('#value-title').textContent === 'binary');
    const unnamed = await page.evaluate(() => [...document.querySelectorAll('button, input, select, textarea, a')]
      .filter((control) => !(control.ariaLabel || control.textContent.trim() || control.labels?.[0]?.textContent.trim()
        || control.closest('label')?.textContent.trim()))
      .map((control) => control.outerHTML));
    // These are named when they are opened.
    assert.deepEqual(unnamed.filter((html) => !/id="keep-|class="risky"/.test(html)), []);
    // Each can be reached by Tab, and shows that it is reached.
    for (const control of ['#edit-key', '#copy-key', '#download', '#delete-key', '#close-value', '#pick-all', '.pick', '#keys-count']) {
      await tabTo(control);
      assert(await page.evaluate(() => parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2), control);
    }
    for (const control of ['#edit-key', '.open-key', '#create-key', '#namespaces-next']) {
      const look = () => page.$eval(control, (found) => {
        const { backgroundColor, borderColor, textDecoration } = getComputedStyle(found);
        return [backgroundColor, borderColor, textDecoration].join();
      });
      if (await isHidden(control)) continue;
      await page.mouse.move(0, 0);
      const before = await look();
      await page.hover(control);
      assert.notEqual(await look(), before, `${control} shows that the mouse is over it`);
    }
  });

  step('offers no more than the token permits', async () => {
    const shown = async (selector) => page.$$eval(selector, (all) => all.filter((found) => found.checkVisibility()).map((found) => found.id || found.ariaLabel));
    for (const [token, offered] of [[READER, { keys: [], all: [], statistics: 1 }], [OF_ONE, {
      keys: ['create-key', 'import-keys', 'delete-selected', 'edit-key', 'delete-key'], all: [], statistics: 0,
    }], [TOKEN, {
      keys: ['create-key', 'import-keys', 'delete-selected', 'edit-key', 'delete-key'],
      all: ['create-namespace', 'Rename first', 'Delete first'], statistics: 1,
    }]]) {
      await page.goto(driver.url('/#namespaces'));
      await activate('#sign-out');
      await driver.signIn(token);
      await until('the namespaces are there', () => document.querySelector('#namespace-rows a'));
      assert.deepEqual((await shown('#namespaces .writes-all')).filter((name) => !/second/.test(name)), offered.all);
      assert.equal((await shown('nav .reads-all')).length, offered.statistics);
      await activate('#namespace-rows a', 'first');
      await says('Page 1: 100 keys');
      await open('binary');
      await press('Escape');
      await press('x');
      await press('Enter');
      await focused('#value-title');
      assert.deepEqual(await shown('#keys .writes'), offered.keys);
      await tabTo('.open-key');
      await press('Delete');
      assert.equal(await page.$eval('#delete-dialog', (dialog) => dialog.open), offered.keys.length > 0);
      await shot(`may-${token.length}`);
      await press('Escape');
      await page.goto(driver.url('/#statistics'));
      const view = offered.statistics ? '#statistics' : '#namespaces';
      await until(`${view} is shown`, (view) => location.hash === view && document.querySelector(view).checkVisibility(), view);
    }
  });

  step('nothing of it went wrong', () => {
    assert.deepEqual(driver.problems, []);
    assert.deepEqual(driver.dialogs, []);
  });
});
