// Looks at the demo's page as people do: its buttons, the ledger's accounts, and the report of the
// run. See run.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { resolve } from "node:path";
import { Browser, assertAddsUp, photograph } from "./browser.mjs";
import { until } from "./system.mjs";

const [galo, folder] = process.argv.slice(2);
const report = resolve(folder, "report.html");
rmSync(report, { force: true });

/** A running demo on free ports, and all that it has written. */
class Demo {
  told = "";
  #child;
  #ended;

  static async start(...args) {
    const demo = new Demo();
    const ports = ["--port", "0", "--processor-ports", "0,0", "--peer-ports", "0,0", "--admin-ports", "0,0"];
    demo.#child = spawn(galo, ["demo", ...ports, "--page-port", "0", ...args], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [demo.#child.stdout, demo.#child.stderr]) stream.on("data", part => (demo.told += part));
    demo.#ended = new Promise(done => demo.#child.once("exit", done));
    await until("the address", () => demo.address);
    return demo;
  }

  get address() {
    return /http:\S+#token=\S+/.exec(this.told)?.[0];
  }

  /** Ends it as Ctrl-C does, and gives its exit status. */
  end() {
    this.#child.kill("SIGINT");
    return this.#ended;
  }

  kill() {
    this.#child.kill("SIGKILL");
  }
}

const demo = await Demo.start("--report", report);
const browser = await Browser.start();
const step = (name, play) => browser.step(name, play);
const verdict = tab => tab.textContent("#verdict");
const level = tab => tab.getAttribute("#verdict", "class");
const instances = tab => tab.locator("#instances .card");
const card = (tab, where, title) => tab.locator(`#${where} .card`, { has: tab.locator(`h3:text-is("${title}")`) });
const isBad = async (tab, where, title) => (await card(tab, where, title).getAttribute("class")).includes("bad");
const says = async (tab, id, text) => (await tab.textContent(id)).includes(text);

/** Presses a button by its words, and waits for what it says that was done. */
async function press(tab, label, done) {
  await tab.getByRole("button", { name: label, exact: true }).click();
  await until(`it says: ${done}`, () => says(tab, "#done", done));
}

/** The page goes on adding up; red would be a payment that is nowhere. */
async function assertBalanced(tab) {
  assertAddsUp(await verdict(tab));
  assert.notEqual(await level(tab), "red", await verdict(tab));
}

try {
  const tab = await browser.open({ viewport: { width: 1100, height: 1500 }, colorScheme: "light" }, demo.address);

  await step("the printed address shows the whole system, and hides its token", async () => {
    await tab.waitForSelector("#all:visible");
    assert(!tab.url().includes("token"), tab.url());
    await until("both instances", async () => (await instances(tab).count()) === 2);
    await until("the story", () => says(tab, "#told", "Both processors are well"));
    await until("five accounts", async () => (await tab.locator("#accounts .card").count()) === 5);
    await until("their entries", () => says(tab, "#accounts", "salary"));
    await assertBalanced(tab);
  });

  await step("another page, and who has no token, may do nothing", async () => {
    const { origin } = new URL(demo.address);
    const token = demo.address.split("token=")[1];
    const ask = async headers => (await fetch(`${origin}/do/kill`, { method: "POST", headers })).status;
    assert.equal(await ask({}), 401);
    assert.equal(await ask({ authorization: "Bearer wrong" }), 401);
    assert.equal(await ask({ authorization: `Bearer ${token}`, origin: "http://example.org" }), 403);
    assert.equal((await fetch(`${origin}/status.json`)).status, 401);
    assert.equal(await instances(tab).count(), 2);
  });

  await step("default fails and works again, by the keyboard", async () => {
    const button = tab.getByRole("button", { name: "Let default fail", exact: true });
    await button.focus();
    await tab.keyboard.press("Enter");
    await until("it says so", () => says(tab, "#done", "Default fails from now on."));
    await until("the card is red", () => isBad(tab, "processors", "default"));
    assert(await says(tab, "#scene", "The story is stopped: default is failing"));
    await until("fallback settles", async () => /[1-9]\d* \/s|[1-9]\d*\/s/.test(await tab.textContent("#flow g:last-child")));
    await assertBalanced(tab);
    // The focus has stayed on the same button, which now does the contrary.
    assert.equal(await tab.evaluate(() => document.activeElement.textContent), "Let default work again");
    await tab.keyboard.press("Enter");
    await until("the card is green", async () => !(await isBad(tab, "processors", "default")));
  });

  await step("default is slow, and fast again", async () => {
    await press(tab, "Make default slow (500 ms)", "Default takes 500 ms");
    await until("it is expected", () => says(tab, "#processors", "50"), 10_000);
    await press(tab, "Make default fast again", "Default is well again.");
    await assertBalanced(tab);
  });

  await step("instance 2 is killed and started again, and its accounts with it", async () => {
    await press(tab, "Kill instance 2 (kill -9)", "Instance 2 has been killed.");
    await until("one is left", async () => (await instances(tab).count()) === 1);
    await until("amber", async () => (await level(tab)) === "amber");
    await until("its accounts are away", () => isBad(tab, "accounts", "account 1"));
    assert(!(await isBad(tab, "accounts", "account 2")));
    await press(tab, "Start instance 2 again", "Instance 2 has been started again.");
    await until("both are there", async () => (await instances(tab).count()) === 2);
    await until("green", async () => (await level(tab)) === "green");
    await until("its accounts are back", async () => !(await isBad(tab, "accounts", "account 1")));
    await assertBalanced(tab);
  });

  await step("the instances are cut apart and joined again", async () => {
    await press(tab, "Cut the instances apart", "The instances do not hear each other");
    await until("one is alone", async () => (await instances(tab).count()) === 1);
    await until("it says so", () => says(tab, "#instances", "the other is away"));
    await press(tab, "Join the instances again", "The instances hear each other again.");
    await until("both are there", async () => (await instances(tab).count()) === 2);
    await until("green", async () => (await level(tab)) === "green");
    await assertBalanced(tab);
  });

  await step("the story begins again", async () => {
    await press(tab, "Make all well, tell the story again", "the story begins");
    await until("it goes on", () => says(tab, "#scene", "The story goes on"));
  });

  await step("a payment is found by its id", async () => {
    const id = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";
    const entry = /entry\s+(http:\S+)/.exec(demo.told)[1];
    const body = `{"correlationId":"${id}","amount":19.90}`;
    assert.equal((await fetch(`${entry}/payments`, { method: "POST", body })).status, 202);
    await tab.fill("#id", id);
    await until("it is settled", async () => {
      await tab.click("text=Find");
      return says(tab, "#found", "settled");
    });
  });

  await step("it is readable in light, dark and narrow", async () => {
    const ready = look => until("charts", async () => (await look.textContent("#charts")).includes("most"));
    await photograph(browser, demo.address, ready, name => `${folder}/demo-${name}.png`);
  });

  await step("Ctrl-C writes the report, which opens without a server", async () => {
    await tab.close();
    assert.equal(await demo.end(), 0, demo.told);
    assert(demo.told.includes("the books agree"), demo.told);
    const wide = demo.told.split("\n").find(line => line.length > 80 && !line.includes("report"));
    assert.equal(wide, undefined);
    const ready = async look => {
      assert(await says(look, "#mark", "✓ all is there"));
      assert(await says(look, "#ended", "the books agree, to the cent"));
      assertAddsUp(await verdict(look));
      assert.equal(await look.locator("#charts path").first().evaluate(it => it.getTotalLength() > 10), true);
      assert.equal(await look.getByRole("button").count(), 0);
    };
    await photograph(browser, `file://${report}`, ready, name => `${folder}/report-${name}.png`);
  });
} finally {
  await browser.close();
  demo.kill();
}
