// The web page: creating, editing and deleting a key beside other clients.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';

import { SLOW, TOKEN } from './helpers.mjs';
import { Driver, skip, stepper } from './page-driver.mjs';

const METADATA = '{"number":12345678901234567890, "a":"ü世"}';
/** Three bytes a character, so that each end of a part cuts one. */
const LONG = '世'.repeat(1 << 20);

describe('editing in the web page', { skip, ...SLOW }, () => {
  let driver, page, id;
  const on = (name) => (...args) => driver[name](...args);
  const api = on('api'), apiJson = on('apiJson'), stored = on('stored'), storedBytes = on('storedBytes'), listed = on('listed');
  const until = on('until'), text = on('text'), isHidden = on('isHidden'), says = on('says'), focused = on('focused'), shot = on('shot');
  const press = on('press'), type = on('type'), tabTo = on('tabTo'), activate = on('activate'), replace = on('replace');
  const list = on('list'), withModifier = on('withModifier'), other = on('other'), conflict = on('conflict'), refused = on('refused');
  const problem = (selector) => text(`${selector} [role=alert]`);
  const step = stepper();

  before(async () => {
    driver = await Driver.start();
    ({ id } = await apiJson('POST', '', { title: 'first' }));
    driver.id = id;
    const pairs = Array.from({ length: 250 }, (_, index) => ({ key: `page/${String(index).padStart(3, '0')}`, value: String(index) }));
    await apiJson('PUT', `/${id}/bulk`, pairs);
    await other('long', LONG, { metadata: METADATA, query: '?expiration=4000000000' });
    await other('described', 'old', { metadata: '{"by":"first"}' });
    await driver.launch();
    ({ page } = driver);
    await page.goto(driver.url('/'));
    await driver.signIn(TOKEN);
    await until('the namespaces are there', () => document.querySelector('#namespace-rows a'));
    await activate('#namespace-rows a', 'first');
    await says('Page 1: 100 keys');
  });

  after(() => driver?.stop());

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

  step('deletes only the version that is shown', async () => {
    await other('described', 'changed');
    await activate('#delete-key');
    await activate('#delete-dialog .risky');
    await until('it says that the key has changed', () => /has changed/.test(document.querySelector('#delete-dialog [role=alert]').textContent));
    assert.equal(await text('#content pre'), 'changed');
    await activate('#delete-dialog .risky');
    await says('Deleted the key "described"');
    assert.equal((await stored('described')).status, 404);
    refused(1);
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
