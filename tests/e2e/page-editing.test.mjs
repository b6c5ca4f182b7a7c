// The web page: creating, editing and deleting a key beside other clients.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';

import { SLOW } from './helpers.mjs';
import { Driver, methodsOf, png, skip, stepper } from './page-driver.mjs';

const MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
const METADATA = '{"number":12345678901234567890, "a":"ü世"}';
const ODD_KEY = `odd/a b?c=d&e#f%2F+\u202e<img src=x onerror=alert(3)>"'ü世🌍`;
const TEXT = `${MARKUP}\r\nGrüße, 世界 🌍\r\n`;
const BINARY = Buffer.from(Array.from({ length: 256 }, (_, index) => index));

describe('editing in the web page', { skip, ...SLOW }, () => {
  let driver, page, id;
  const {
    api, apiJson, stored, storedBytes, listed, until, text, isHidden, says, focused, shot, press, type, tabTo,
    activate, replace, oneRequest, open, list, withModifier, other, conflict, refused,
  } = methodsOf(() => driver);
  const problem = (selector) => text(`${selector} [role=alert]`);
  const step = stepper();

  before(async () => {
    driver = await Driver.withKeys({
      pairs: [
        { key: 'text', value: TEXT }, { key: 'binary', value: BINARY.toString('base64'), base64: true },
        { key: 'limited', value: 'a', expiration_ttl: 7200 }, { key: 'deleted', value: 'a' },
      ],
    });
    await other(ODD_KEY, ODD_KEY, { metadata: METADATA, query: '?expiration_ttl=86400' });
    await other('described', 'old', { metadata: '{"by":"first"}' });
    ({ page, id } = driver);
    await driver.openFirst();
  });

  after(() => driver?.stop());

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

  step('edits a value, and changes nothing else', async () => {
    await open('odd/');
    const before = await listed(ODD_KEY);
    await tabTo('#edit-key');
    await press('Enter');
    await tabTo('#text');
    await replace(`edited ${MARKUP}`);
    await shot('edit');
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

  step('does not overwrite a key by creating it, although it is not on the page', async () => {
    await activate('#create-key');
    await replace('page/249');
    await tabTo('#text');
    await type('mine');
    await withModifier('Control', 'Enter');
    await conflict();
    await focused('#conflict-dialog .cancel');
    assert.match(await text('#conflict-text'), /page\/249 exists already\. Nothing was saved/);
    assert.match(await text('#versions'), /Yours.*mine.*Stored now.*249/s);
    await shot('conflict-create');
    await press('Escape');
    await until('the text is still there', () => !document.querySelector('#conflict-dialog').open && document.querySelector('#text').value === 'mine');
    assert.match(await problem('#key-dialog'), /Not saved/);
    assert.equal((await storedBytes('page/249')).toString(), '249');

    await withModifier('Control', 'Enter');
    await conflict();
    await activate('#keep-theirs');
    await says('Your changes were discarded');
    assert.equal(await text('#content pre'), '249');
    assert.equal((await storedBytes('page/249')).toString(), '249');

    await activate('#create-key');
    await replace('page/249');
    await tabTo('#text');
    await type('mine');
    await withModifier('Control', 'Enter');
    await conflict();
    await activate('#keep-mine');
    await says('Saved the key "page/249"');
    assert.equal((await storedBytes('page/249')).toString(), 'mine');
    refused(3);
  });

  step('edits what is stored when the editor opens, not what was listed', async () => {
    await list('described');
    await says('Page 1: 1 key');
    await other('described', 'old', { metadata: METADATA });
    await activate('.open-key');
    await focused('#value-title');
    await activate('#edit-key');
    await tabTo('#text');
    await replace('new');
    await withModifier('Control', 'Enter');
    await says('Saved the key');
    assert((await listed('described')).includes(`"metadata":${METADATA}`), await listed('described'));
    assert.equal((await storedBytes('described')).toString(), 'new');
  });

  step('shows a conflict of an edit, as often as there is one', async () => {
    await activate('#edit-key');
    await tabTo('#text');
    await replace('mine');
    // Only the metadata change.
    await other('described', 'new', { metadata: '{"by":"second"}' });
    await withModifier('Control', 'Enter');
    await conflict();
    assert.match(await text('#conflict-text'), /was changed since you opened it/);
    assert.match(await text('#versions'), /"by":"second"/);
    await other('described', 'newer', { query: '?expiration_ttl=7200' });
    await activate('#keep-mine');
    await until('the next conflict is shown', () => document.querySelector('#versions').textContent.includes('newer'));
    await activate('#keep-mine');
    await says('Saved the key');
    assert.equal((await storedBytes('described')).toString(), 'mine');

    // What was saved can be edited and saved again.
    await activate('#edit-key');
    await tabTo('#text');
    await replace('mine again');
    assert.equal((await api('DELETE', `/${id}/values/described`)).status, 200);
    await withModifier('Control', 'Enter');
    await conflict();
    assert.match(await text('#conflict-text'), /was deleted since you opened it/);
    await shot('conflict-deleted');
    await activate('#keep-mine');
    await says('Saved the key');
    assert.equal((await storedBytes('described')).toString(), 'mine again');
    // Reading the deleted key was answered with 404.
    const statuses = driver.problems.splice(0).map((line) => /status of (\d+)/.exec(line)?.[1]);
    assert.deepEqual(statuses, ['412', '412', '412', '404']);
  });

  step('deletes only the version that is shown, after a question', async () => {
    await open('deleted');
    await activate('#delete-key');
    await focused('#delete-dialog .cancel');
    await shot('delete-key');
    driver.requests.length = 0;
    await press('Enter');
    await focused('#delete-key');
    assert.deepEqual(driver.requests, []);
    await other('deleted', 'changed');
    await press('Enter');
    await activate('#delete-dialog .risky');
    await until('it says that the key has changed', () => /has changed/.test(document.querySelector('#delete-dialog [role=alert]').textContent));
    assert.equal(await text('#content pre'), 'changed');
    await oneRequest('DELETE', /\/values\/deleted$/, async () => {
      await press('Enter');
      await says('Deleted the key "deleted"');
    });
    assert.equal((await stored('deleted')).status, 404);
    assert(await isHidden('#value'));
    assert.equal(await page.$('.open-key'), null);
    refused(1);
  });

  step('says what the API said about a key that is gone', async () => {
    await list('limited');
    await says('Page 1: 1 key');
    assert.match(await text('#key-rows td:nth-child(3)'), /^in (1[01]\d minutes|2 hours)$/);
    await api('DELETE', `/${id}/values/limited`);
    await activate('.open-key');
    await until('the page says what the API said', () => document.querySelector('#alert').textContent === "get: 'key not found' (code 10009)");
    refused(1, 404);
  });

  step('asks before it discards, by Cancel as by Escape', async () => {
    await activate('#create-key');
    await activate('#key-dialog .cancel');
    assert(await isHidden('#key-dialog'), 'without changes it closes at once');
    for (const discard of [() => activate('#key-dialog .cancel'), () => press('Escape')]) {
      await activate('#create-key');
      await replace('never saved');
      await discard();
      assert.match(await problem('#key-dialog'), /not saved/);
      assert(!await isHidden('#key-dialog'));
      await discard();
      await until('it is closed', () => !document.querySelector('#key-dialog').open);
    }
    assert.equal((await stored('never saved')).status, 404);
  });

  step('formats JSON, and says whether it is valid', async () => {
    await activate('#create-key');
    await replace('new/json');
    await tabTo('#text');
    await type('{"b":12345678901234567890,"a":[1,{}]');
    await until('it says what is wrong', () => /^Not JSON: ./.test(document.querySelector('#validity').textContent));
    assert(await page.$eval('#format-json', (button) => button.disabled));
    await type('}');
    await until('it is valid', () => document.querySelector('#validity').textContent === 'Valid JSON');
    await activate('#format-json');
    const value = () => page.$eval('#text', (field) => field.value);
    const pretty = '{\n  "b": 12345678901234567890,\n  "a": [\n    1,\n    {}\n  ]\n}';
    assert.equal(await value(), pretty);
    await shot('format');
    await activate('#compact-json');
    assert.equal(await value(), '{"b":12345678901234567890,"a":[1,{}]}');
    await activate('#format-json');
    await withModifier('Control', 'Enter');
    await says('Saved the key');
    assert.equal((await storedBytes('new/json')).toString(), pretty);
  });

  step('shows how much of a file was sent, and stops at once', async () => {
    const file = join(driver.folder, 'file.bin');
    await writeFile(file, Buffer.alloc(4 << 20, 'sent slowly '));
    const session = await page.createCDPSession();
    await session.send('Network.enable');
    const throttle = (uploadThroughput) => session.send('Network.emulateNetworkConditions', {
      offline: false, latency: 0, downloadThroughput: -1, uploadThroughput,
    });
    await activate('#create-key');
    await replace('new/slow');
    await tabTo('[name=source]');
    await press('ArrowDown');
    await (await page.$('#file')).uploadFile(file);
    await throttle(200_000);
    await withModifier('Control', 'Enter');
    await until('a part was sent', () => {
      const share = document.querySelector('#sent').value;
      return !document.querySelector('#sending').hidden && share > 0 && share < 1 && /^Sent .* of 4\.0 MiB$/.test(document.querySelector('#sent-text').textContent);
    });
    await shot('sending');
    await press('Escape');
    await until('it says that it was stopped', () => /^Stopped/.test(document.querySelector('#key-dialog [role=alert]').textContent));
    await throttle(-1);
    assert.equal((await stored('new/slow')).status, 404);
    await press('Escape');
    assert.match(await problem('#key-dialog'), /not saved/);
    assert(!await isHidden('#key-dialog'));
    await withModifier('Control', 'Enter');
    await says('Saved the key "new/slow"');
    assert.equal((await storedBytes('new/slow')).length, 4 << 20);
  });

  step('says when keys expire by the default of the namespace', async () => {
    await apiJson('PUT', `/${id}/default_ttl`, { default_ttl: 7200 });
    await page.reload();
    await until('the key is open', () => document.querySelector('#value-title').textContent === 'new/slow');
    await activate('#create-key');
    assert.match(await text('#expiry'), /after 7,200 seconds, the namespace's default/);
    await replace('new/default');
    await withModifier('Control', 'Enter');
    await says('Saved the key');
    assert.match(await text('#expires'), /\(in (1[01]\d minutes|2 hours)\)$/);
    await apiJson('DELETE', `/${id}/default_ttl`);
    await api('DELETE', `/${id}/values/${encodeURIComponent('new/default')}`);
    await page.reload();
    await until('the key is gone', () => /key not found/.test(document.querySelector('#alert').textContent));
    refused(1, 404);
  });

  step('nothing of it went wrong', () => {
    assert.deepEqual(driver.problems, []);
    assert.deepEqual(driver.dialogs, []);
  });
});
