// A browser whose tabs are watched for errors and for requests to anywhere else.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

export class Browser {
  #browser;
  #found = [];

  static async start() {
    const it = new Browser();
    it.#browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
    return it;
  }

  async open(options, url) {
    const context = await this.#browser.newContext(options);
    const tab = await context.newPage();
    await this.watch(tab, url);
    return tab;
  }

  async watch(tab, url) {
    const { protocol, origin } = new URL(url);
    const own = protocol === "file:" ? url : origin;
    tab.on("pageerror", error => this.#found.push(`error: ${error.message}`));
    tab.on("console", message => {
      // The browser tells by itself of answers like 401 and 404, and of a door that is gone.
      const isTold = /^Failed to load resource/.test(message.text());
      if (message.type() === "error" && !isTold) this.#found.push(`console: ${message.text()}`);
    });
    tab.on("request", request => {
      const isOwn = request.url().startsWith(own) || request.url().startsWith("data:");
      if (!isOwn) this.#found.push(`foreign request: ${request.url()}`);
    });
    await tab.goto(url);
  }

  /** Plays a step, fails if anything was found meanwhile, and tells of it. */
  async step(name, play) {
    const begun = Date.now();
    const told = await play();
    assert.deepEqual(this.#found, []);
    console.log(`ok  ${name}${told ? `: ${told}` : ""} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
  }

  close() {
    return this.#browser.close();
  }
}

/** Every update adds up, by the numbers that people read. */
export function assertAddsUp(text) {
  const sides = /([\d,]+) accepted = ([\d,]+) default \+ ([\d,]+) fallback \+ ([\d,]+) on their way/.exec(text);
  assert(sides, `no equation: ${text}`);
  const [accepted, ...parts] = sides.slice(1).map(it => Number(it.replaceAll(",", "")));
  assert.equal(accepted, parts.reduce((sum, it) => sum + it), text);
  return accepted;
}

/** Light, dark and narrow, as files of these names; nothing is wider than the window. */
export async function photograph(browser, url, ready, file) {
  const looks = { light: [1100, "light"], dark: [1100, "dark"], narrow: [360, "light"] };
  for (const [name, [width, colorScheme]] of Object.entries(looks)) {
    const look = await browser.open({ viewport: { width, height: 1400 }, colorScheme }, url);
    await look.waitForSelector("#all:visible");
    await ready(look);
    const wide = await look.evaluate(() => document.documentElement.scrollWidth);
    assert(wide <= width, `${wide} of ${width} pixels`);
    await look.screenshot({ path: file(name), fullPage: true });
    await look.context().close();
  }
}
