// Drives the web page by the keyboard in headless Chromium, beside a server of its own.
// CHROMIUM names a program other than /usr/bin/chromium; E2E_SCREENSHOTS a folder to keep screenshots in.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { crc32, deflateSync } from 'node:zlib';

import puppeteer from 'puppeteer-core';

import { PATIENCE, TOKEN, startServer, temporaryFolder } from './helpers.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
export const skip = existsSync(CHROMIUM) ? false : `there is no Chromium at ${CHROMIUM}; CHROMIUM can name another`;

/** An image of this size, red and green. */
export function png(width, height) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const numbers = Buffer.alloc(8);
    numbers.writeUInt32BE(data.length, 0);
    numbers.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([numbers.subarray(0, 4), body, numbers.subarray(4)]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2], 8);
  const rows = Array.from({ length: height }, (_, y) => [0, ...Array.from({ length: width }, (_, x) => [x & 255, y & 255, 60]).flat()]);
  const magic = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
  return Buffer.concat([magic, chunk('IHDR', head), chunk('IDAT', deflateSync(Buffer.from(rows.flat()))), chunk('IEND', Buffer.alloc(0))]);
}

/** A test that continues where the previous one ended. */
export function stepper() {
  let failed = false;
  return (name, run) => test(name, async (context) => {
    if (failed) return context.skip('an earlier one failed');
    failed = true;
    await run();
    failed = false;
  });
}

/** The methods of a driver that is started later, by their names alone. */
export const methodsOf = (driver) => new Proxy({}, { get: (_, name) => (...args) => driver()[name](...args) });

/** A server with a page, and a browser that shows it. */
export class Driver {
  problems = [];
  requests = [];
  dialogs = [];

  static async start({ args = [] } = {}) {
    const driver = new Driver();
    driver.shots = process.env.E2E_SCREENSHOTS ?? temporaryFolder();
    driver.folder = temporaryFolder();
    driver.downloads = join(driver.folder, 'downloads');
    await mkdir(driver.shots, { recursive: true });
    await mkdir(driver.downloads);
    driver.server = await startServer({ store: join(driver.folder, 'store'), args: ['--page', ...args] });
    return driver;
  }

  /** A driver whose namespaces are `first`, with 250 keys page/000 to page/249 and these pairs, and `second`. It is not signed in. */
  static async withKeys({ pairs = [], ...options } = {}) {
    const driver = await Driver.start(options);
    ({ id: driver.id } = await driver.apiJson('POST', '', { title: 'first' }));
    await driver.apiJson('POST', '', { title: 'second' });
    const numbered = Array.from({ length: 250 }, (_, index) => ({ key: `page/${String(index).padStart(3, '0')}`, value: String(index) }));
    await driver.apiJson('PUT', `/${driver.id}/bulk`, [...numbered, ...pairs]);
    await driver.launch();
    return driver;
  }

  /** Signs in, and lists the keys of `first`. */
  async openFirst() {
    await this.page.goto(this.url('/'));
    await this.signIn(TOKEN);
    await this.until('the namespaces are there', () => document.querySelectorAll('#namespace-rows a').length === 2);
    await this.activate('#namespace-rows a', 'first');
    await this.says('Page 1: 100 keys');
  }

  async launch() {
    this.browser = await puppeteer.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--lang=en'] });
    const page = this.page = await this.browser.newPage();
    await page.setViewport({ width: 1280, height: 800 });
    page.on('pageerror', (error) => this.problems.push(`error: ${error.stack ?? error}`));
    page.on('console', (message) => this.problems.push(`console: ${message.type()} ${message.text()}`));
    page.on('dialog', (dialog) => {
      this.dialogs.push(dialog.message());
      dialog.dismiss();
    });
    page.on('request', (request) => {
      if (/^https?:/.test(request.url())) this.requests.push(`${request.method()} ${request.url()}`);
    });
    await page.evaluateOnNewDocument(() => {
      addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
    });
    const session = await page.createCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: this.downloads });
  }

  async stop() {
    await this.browser?.close();
    await this.server?.stop();
  }

  url(path) {
    return new URL(path, this.server.rest).href;
  }

  /** A request of another client. */
  api(method, path, body, headers = {}) {
    const url = `${this.server.rest}/accounts/x/storage/kv/namespaces${path}`;
    return fetch(url, { method, body, headers: { authorization: `Bearer ${TOKEN}`, ...headers } });
  }

  async apiJson(method, path, json) {
    const response = await this.api(method, path, JSON.stringify(json), { 'content-type': 'application/json' });
    const answer = await response.json();
    assert(answer.success, JSON.stringify(answer));
    return answer.result;
  }

  /** Puts a key as another client does. */
  async other(key, value, { metadata, query = '' } = {}) {
    const form = new FormData();
    form.append('value', new Blob([value]));
    if (metadata) form.append('metadata', metadata);
    assert.equal((await this.api('PUT', `/${this.id}/values/${encodeURIComponent(key)}${query}`, form)).status, 200);
  }

  stored(key) {
    return this.api('GET', `/${this.id}/values/${encodeURIComponent(key)}`);
  }

  async storedBytes(key) {
    return Buffer.from(await (await this.stored(key)).arrayBuffer());
  }

  /** The key as the server lists it: with its expiration and verbatim metadata. */
  async listed(key) {
    return (await this.api('GET', `/${this.id}/keys?prefix=${encodeURIComponent(key)}`)).text();
  }

  async until(what, check, ...args) {
    for (const end = Date.now() + PATIENCE / 3; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 25))) {
      if (await this.page.evaluate(check, ...args)) return;
    }
    await this.shot('late');
    assert.fail(`not within ${PATIENCE / 3} ms: ${what}; the page says: ${await this.page.evaluate(() => document.body.innerText)}`);
  }

  text(selector) {
    return this.page.$eval(selector, (found) => found.textContent);
  }

  isHidden(selector) {
    return this.page.$eval(selector, (found) => !found.checkVisibility());
  }

  says(wanted) {
    return this.until(`the page says "${wanted}"`, (wanted) => document.querySelector('#status').textContent.includes(wanted), wanted);
  }

  focused(selector) {
    return this.until(`the focus is on ${selector}`, (selector) => document.activeElement.matches(selector), selector);
  }

  shot(name) {
    return this.page.screenshot({ path: join(this.shots, `${name}.png`) });
  }

  async press(...keys) {
    for (const key of keys) await this.page.keyboard.press(key);
  }

  async withModifier(modifier, ...keys) {
    await this.page.keyboard.down(modifier);
    await this.press(...keys);
    await this.page.keyboard.up(modifier);
  }

  type(typed) {
    return this.page.keyboard.type(typed);
  }

  /** Presses Tab until the focused element matches, and has the text if one is given. */
  async tabTo(selector, wanted) {
    for (let steps = 0; steps < 600; steps += 1) {
      const isThere = await this.page.evaluate((selector, wanted) => {
        const { activeElement: at } = document;
        return at.matches(selector) && (wanted === undefined || at.textContent === wanted);
      }, selector, wanted);
      if (isThere) return;
      await this.press('Tab');
    }
    assert.fail(`Tab leads to no ${selector} ${wanted ?? ''}`);
  }

  async activate(selector, wanted) {
    await this.tabTo(selector, wanted);
    await this.press('Enter');
  }

  async replace(typed) {
    await this.withModifier('Control', 'a');
    await (typed ? this.type(typed) : this.press('Delete'));
  }

  /** Runs an action, and checks that it sends one request, of this kind. */
  async oneRequest(method, path, action) {
    this.requests.length = 0;
    await action();
    assert.equal(this.requests.length, 1, `one request: ${this.requests.join(', ')}`);
    const [made, url] = this.requests[0].split(' ');
    assert.equal(made, method);
    assert.match(url, path);
  }

  conflict() {
    return this.until('a conflict is shown', () => document.querySelector('#conflict-dialog').open);
  }

  /** Checks that Chromium reported requests that were refused, and nothing else: it reports every error status. */
  refused(times, status = 412) {
    const found = this.problems.splice(0);
    assert.equal(found.length, times, found.join('\n'));
    for (const line of found) assert.match(line, new RegExp(`^console: error Failed to load resource: .* ${status}`));
  }

  /** A file that the page has saved. */
  async download(name) {
    for (const end = Date.now() + PATIENCE / 3; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 25))) {
      if ((await readdir(this.downloads)).includes(name)) return readFile(join(this.downloads, name));
    }
    return assert.fail(`${name} was not downloaded`);
  }

  /** Signs in with this token. */
  async signIn(token) {
    await this.focused('#token');
    await this.type(token);
    await this.press('Enter');
  }

  /** Lists the keys with this prefix. */
  async list(prefix) {
    await this.press('/');
    await this.focused('#prefix');
    await this.replace(prefix);
    await this.press('Enter');
  }

  /** Opens the key with this name: filters the listing by it, and presses Enter. */
  async open(key) {
    await this.list(key);
    await this.says('Page 1: 1 key');
    await this.tabTo('.open-key');
    await this.oneRequest('GET', /\/values\//, async () => {
      await this.press('Enter');
      await this.focused('#value-title');
    });
  }

  pressed() {
    return this.page.$$eval('#kinds [aria-pressed=true]', (found) => found.map((button) => button.textContent).join());
  }

  keys() {
    return this.page.$$eval('.open-key', (found) => found.map((key) => key.textContent));
  }
}
