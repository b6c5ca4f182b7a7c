// The web page: signing in and out, namespaces, and what a token permits.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';

import { SLOW, TOKEN, temporaryFolder } from './helpers.mjs';
import { Driver, methodsOf, skip, stepper } from './page-driver.mjs';

const MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
const READER = 'a token that may only read';
const OF_ONE = 'a token of one namespace';

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

describe('the web page', { skip, ...SLOW }, () => {
  let driver, page;
  const {
    apiJson, until, text, says, focused, shot, press, type, tabTo, activate, replace, oneRequest, open,
    withModifier,
  } = methodsOf(() => driver);
  const step = stepper();

  before(async () => {
    driver = await Driver.withKeys({ args: ['--config', await settings()], pairs: [{ key: 'binary', value: 'AA==', base64: true }] });
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
      await type(MARKUP);
      await press('Enter');
      await says(`Created the namespace "${MARKUP}"`);
    });
    assert.equal(await text('#namespace-rows a'), MARKUP);
    await activate(`[aria-label=${JSON.stringify(`Rename ${MARKUP}`)}]`);
    await oneRequest('PUT', /namespaces\/[0-9a-f]{32}$/, async () => {
      await replace('a new title');
      await press('Enter');
      await says('to "a new title"');
    });
    assert.deepEqual((await apiJson('GET', '?order=title')).map(({ title }) => title), ['a new title', 'first', 'second']);
    await tabTo('[aria-label="Delete a new title"]');
    await press('Enter');
    await focused('#drop-confirm');
    driver.requests.length = 0;
    await type('a new titl');
    await press('Enter');
    await withModifier('Control', 'Enter');
    assert.deepEqual(driver.requests, []);
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
      assert.deepEqual(await shown('#keys button.writes'), offered.keys);
      if (token === READER) {
        const said = await page.evaluate(() => document.body.innerText);
        assert.doesNotMatch(said, /create|import|edit|save|rename|delete/i);
      }
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

  step('signs out, and nothing stays behind', async () => {
    await page.goto(driver.url('/#namespaces'));
    await activate('#namespace-rows a', 'first');
    await says('Page 1: 100 keys');
    await open('binary');
    await activate('#create-key');
    await replace('secret');
    await tabTo('#text');
    await type('secret');
    await press('Escape', 'Escape');
    await activate('#sign-out');
    await focused('#token');
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    const left = await page.$$eval('.open-key, #picture, #namespace-rows a, #content *, .key', (found) => found.map((each) => each.outerHTML));
    assert.deepEqual(left, []);
    assert(!(await page.$$eval('input, textarea', (fields) => fields.map((field) => field.value))).includes('secret'));
  });

  step('nothing of it went wrong, and no markup of the data has run', () => {
    assert.deepEqual(driver.problems, []);
    assert.deepEqual(driver.dialogs, []);
  });
});
