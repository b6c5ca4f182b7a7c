// The web page: pages of keys, the address, searching, counting, selecting and deleting.
import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';

import { SLOW } from './helpers.mjs';
import { Driver, methodsOf, skip, stepper } from './page-driver.mjs';

const METADATA = '{"number":12345678901234567890, "a":"ü世"}';

describe('listings in the web page', { skip, ...SLOW }, () => {
  let driver, page, id;
  const {
    listed, until, text, isHidden, says, focused, shot, press, type, tabTo, activate, replace, oneRequest, list,
    keys, other, download,
  } = methodsOf(() => driver);
  const step = stepper();

  before(async () => {
    driver = await Driver.withKeys();
    ({ page, id } = driver);
    await driver.openFirst();
  });

  after(() => driver?.stop());

  step('browses keys by prefix and page', async () => {
    await page.goto(driver.url('/#namespaces'));
    await until('the numbers of keys are there', () => document.querySelector('#namespace-rows .number').textContent === '250');
    await tabTo('#namespace-rows a');
    driver.requests.length = 0;
    await press('Enter');
    await says('Page 1: 100 keys');
    assert.deepEqual(driver.requests.map((request) => request.split('/').at(-1)), ['keys?limit=100']);
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
    await activate('#keys-next');
    await says('Page 2: 100 keys');
    await press('Enter');
    await says('Page 3: 50 keys');
    // The only button that is left enabled by this.
    await activate('#keys-first');
    await says('Page 1: 100 keys');
    await focused('#keys-next');
    await tabTo('.open-key');
    await press('ArrowDown', 'ArrowDown', 'ArrowUp', 'Enter');
    await until('the second key is open', () => document.querySelector('#value-title').textContent === 'page/001');
    await press('Escape');
    await focused('.open-key');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'page/001');
    await press('Enter');
    await until('the key is open again', () => document.querySelector('#value-title').textContent === 'page/001');
    await page.reload();
    await until('the address is enough to come back', () => document.querySelector('#value-title').textContent === 'page/001');
    await until('its namespace is named', () => document.querySelector('#keys-title').textContent === 'first');
    assert.equal(await page.title(), 'page/001 – first – embercask');
    await focused('#value-title');
    await press('/');
    await replace('no such key');
    await press('Enter');
    await until('it says that there is none', () => document.querySelector('#key-rows').textContent === 'No key begins with this prefix.');
  });

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

    // Where there is no history, the address is enough: the pages before are looked for.
    await page.goto('about:blank');
    await page.goto(address);
    await until('it is open in another tab', () => document.querySelector('#value-title').textContent === 'page/050');
    assert.equal(await page.$eval('#limit', (found) => found.value), '25');
    assert.deepEqual([(await keys())[0], (await keys()).length], ['page/050', 25]);
    await activate('#keys-previous');
    await says('Page 2: 25 keys');
    assert.equal((await keys())[0], 'page/025');
    await press('Enter');
    await says('Page 1: 25 keys');
    assert.equal((await keys())[0], 'page/000');
  });

  step('opens and closes keys without filling the history', async () => {
    const entries = () => page.evaluate(() => history.length);
    await page.goto(driver.url(`/#namespace/${id}?size=25`));
    await says('Page 1: 25 keys');
    const before = await entries();
    for (const key of ['page/001', 'page/002', 'page/003']) {
      await activate('.open-key', key);
      await until(`${key} is open`, (key) => document.querySelector('#value-title').textContent === key, key);
      await press('Escape');
      await focused('.open-key');
      assert.equal(await entries(), before + 1);
    }
    await activate('#keys-next');
    await says('Page 2: 25 keys');
    assert.equal(await entries(), before + 1);
    await activate('.open-key', 'page/026');
    await until('a key of the next page is open', () => document.querySelector('#value-title').textContent === 'page/026');
    assert.equal(await entries(), before + 2);
    await page.goBack();
    await until('the key is closed', () => document.querySelector('#value').hidden);
    await page.goBack();
    await until('the first page is there', () => document.querySelector('.open-key')?.textContent === 'page/000');
  });

  step('goes on from the page that is shown after one could not be loaded', async () => {
    await page.setRequestInterception(true);
    const refuse = (request) => (request.url().includes('cursor=') ? request.abort() : request.continue());
    page.on('request', refuse);
    await activate('#keys-next');
    await until('it says so', () => document.querySelector('#alert').textContent === 'The server did not answer.');
    page.off('request', refuse);
    await page.setRequestInterception(false);
    assert.match(driver.problems.splice(0).join(), /^console: error Failed to load resource: net::ERR_FAILED$/);
    await press('Enter');
    await says('Page 2: 25 keys');
    assert.equal((await keys())[0], 'page/025');
    await activate('#keys-previous');
    await says('Page 1: 25 keys');
  });

  step('finds and counts keys by what they contain', async () => {
    await list('');
    await tabTo('#contains');
    await replace('E/01');
    await press('Enter');
    await says('10 matches in 250 keys');
    assert.deepEqual(await keys(), Array.from({ length: 10 }, (_, index) => `page/01${index}`));
    assert(page.url().includes('contains=E%2F01'), page.url());
    await shot('found');
    await activate('#keys-count');
    await says('10 keys with "E/01" in them.');
    await activate('.open-key', 'page/013');
    await until('a found key opens', () => document.querySelector('#value-title').textContent === 'page/013');
    await press('Escape');
    for (let steps = 0; steps < 2; steps += 1) await page.goBack();
    await until('the search is left', () => document.querySelector('#contains').value === '');
    await says('25 keys');
    await activate('#keys-count');
    await says('250 keys in all.');
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

  step('selects several keys, and deletes them after a question', async () => {
    await tabTo('.open-key');
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
    assert.match(await text('#delete-text'), /even if another client has changed it.*page\/001.*page\/003.*page\/010.*and 28 more/);
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

  step('nothing of it went wrong', () => {
    assert.deepEqual(driver.problems, []);
    assert.deepEqual(driver.dialogs, []);
  });
});
