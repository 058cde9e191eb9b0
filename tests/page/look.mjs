// Looks at the page as people do, while the system goes through weather. See run.
import assert from "node:assert/strict";
import { Browser, assertAddsUp, photograph } from "./browser.mjs";
import { System, TOKEN, pause, until } from "./system.mjs";

const [galo, folder] = process.argv.slice(2);
const WEATHER_MS = 30_000;
const TURNS_RED_WITHIN_MS = 2_000;
const SILENCE_MS = 3_000;
const TAB_SHARE_MAX = 0.2;

const system = await System.start(galo);
const browser = await Browser.start();

const verdict = tab => tab.textContent("#verdict");
const level = tab => tab.getAttribute("#verdict", "class");
const card = (tab, where, title) => tab.locator(`#${where} .card`, { has: tab.locator(`h3:text-is("${title}")`) });
const isBad = async (tab, where, title) => (await card(tab, where, title).getAttribute("class")).includes("bad");

const step = (name, play) => browser.step(name, play);
const url = index => `http://127.0.0.1:${system.admins[index]}/`;
try {
  system.rate = 200;
  const tab = await browser.open({ viewport: { width: 1100, height: 1500 }, colorScheme: "light" }, url(0));

  await step("without its token it shows nothing, and with it all, by the keyboard alone", async () => {
    assert(await tab.isVisible("#ask") && !(await tab.isVisible("#all")));
    await tab.keyboard.type("wrong-token");
    await tab.keyboard.press("Enter");
    await tab.waitForSelector("text=The token is wrong.");
    await tab.keyboard.type(TOKEN);
    await tab.keyboard.press("Enter");
    await tab.waitForSelector("#all:visible");
    assert(!(await tab.isVisible("#ask")));
  });

  await step("a processor's card turns red soon after it fails, and green again", async () => {
    await until("both are up", async () => !(await isBad(tab, "processors", "default")));
    await system.setFailing(0, true);
    const took = await until("it is red", () => isBad(tab, "processors", "default"), TURNS_RED_WITHIN_MS);
    assert.match(await card(tab, "processors", "default").innerText(), /✗ down: failing/);
    await system.setFailing(0, false);
    await until("it is green", async () => !(await isBad(tab, "processors", "default")));
    return `red after ${took} ms`;
  });

  await step("the equation holds in every update under weather", async () => {
    const seen = new Set();
    const end = Date.now() + WEATHER_MS;
    for (let turn = 0; Date.now() < end; turn++) {
      if (turn % 40 === 10) await system.setFailing(0, turn % 80 === 10);
      if (turn % 40 === 30) await system.setFailing(1, turn % 80 === 30);
      const text = await verdict(tab);
      seen.add(assertAddsUp(text));
      assert.notEqual(await level(tab), "red", text);
      await pause(100);
    }
    await Promise.all([0, 1].map(index => system.setFailing(index, false)));
    assert(seen.size >= WEATHER_MS / 1000 - 5, `only ${seen.size} updates`);
    return `${seen.size} updates`;
  });

  await step("an instance is killed and comes back, and the totals are right", async () => {
    await system.kill("instance 2");
    await until("amber says so", async () => (await level(tab)) === "amber" &&
      (await verdict(tab)).includes("The other instance does not answer"));
    await system.startInstance(1);
    await until("both are shown", async () => (await tab.locator("#instances .card").count()) === 2);
    system.rate = 0;
    let accepted = 0;
    await until("all is settled", async () => {
      const text = await verdict(tab);
      accepted = assertAddsUp(text);
      return text.includes("+ 0 on their way") && (await level(tab)) === "green";
    });
    assert.equal(accepted, await system.held());
    assert(accepted >= system.accepted, `${accepted} of ${system.accepted}`);
    return `${accepted} payments`;
  });

  await step("a payment is found by its id", async () => {
    await tab.fill("#id", system.last);
    await tab.click("text=Find");
    await tab.waitForSelector("#found >> text=settled");
    await tab.fill("#id", "00000000-0000-4000-8000-000000000000");
    await tab.keyboard.press("Enter");
    await tab.waitForSelector("#found >> text=No such payment");
  });

  await step("charts are read by keyboard and by pointing", async () => {
    const chart = tab.locator("#charts figure").first();
    await chart.focus();
    await tab.keyboard.press("ArrowLeft");
    assert.match(await chart.getAttribute("aria-label"), /accepted a second: \d\d:\d\d:\d\d/);
    await tab.locator("h1").click();
    await tab.locator("#charts svg").nth(1).hover({ position: { x: 300, y: 30 } });
    assert.match(await tab.locator("#charts figure").nth(1).innerText(), /\d\d:\d\d:\d\d/);
  });

  await step("without news a banner says so, and goes when the door is back", async () => {
    await system.kill("instance 1");
    const took = await until("the banner", () => tab.isVisible("#late"), SILENCE_MS + 2_000);
    assert(took >= SILENCE_MS - 1_500, `after ${took} ms`);
    assert.match(await tab.textContent("#late"), /^No news for \d+ s/);
    await system.startInstance(0);
    await until("it is gone", async () => !(await tab.isVisible("#late")));
    return `after ${took} ms`;
  });

  await step("two tabs, and there and back again", async () => {
    const second = await tab.context().newPage();
    await browser.watch(second, `${url(1)}#token=${TOKEN}`);
    assert(!second.url().includes(TOKEN), "the token stays in the address");
    await second.goto("about:blank");
    await second.goBack();
    const when = it => it.textContent("#when");
    for (const it of [second, tab]) {
      await it.bringToFront();
      const before = await when(it);
      await until("it goes on", async () => (await when(it)) !== before);
    }
    await second.close();
  });

  await step("a thousand payments a second leave the tab at rest", async () => {
    system.rate = 1_000;
    const session = await tab.context().newCDPSession(tab);
    await session.send("Performance.enable");
    const busy = async () => {
      const { metrics } = await session.send("Performance.getMetrics");
      return metrics.find(it => it.name === "TaskDuration").value;
    };
    const flow = () => tab.textContent("#flow");
    await until("they flow", async () => /entry(9\d\d|1,[01]\d\d)\/s/.test(await flow()));
    const before = await busy();
    await pause(10_000);
    const share = (await busy() - before) / 10;
    assert(share < TAB_SHARE_MAX, `${share} of a core`);
    system.rate = 200;
    return `${(100 * share).toFixed(1)} % of a core`;
  });

  await step("it is readable in light, dark and narrow", async () => {
    await system.setFailing(0, true);
    const ready = async look => {
      await until("it is red", () => isBad(look, "processors", "default"));
      await pause(2_500);
    };
    await photograph(browser, `${url(0)}#token=${TOKEN}`, ready, name => `${folder}/${name}.png`);
  });
} finally {
  await browser.close();
  system.stop();
}
