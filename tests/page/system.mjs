// Two processors, two instances with journals and admin doors, and clients: what is looked at.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomUUID } from "node:crypto";

export const TOKEN = "a-token-of-the-page";
const PATIENCE_MS = 20_000;

export const pause = ms => new Promise(done => setTimeout(done, ms));

/** Waits until it gives something true; fails with `what` otherwise. Returns how many ms that took. */
export async function until(what, look, within = PATIENCE_MS) {
  const begun = Date.now();
  for (;;) {
    if (await look()) return Date.now() - begun;
    if (Date.now() - begun > within) throw new Error(`not within ${within} ms: ${what}`);
    await pause(25);
  }
}

async function freePort() {
  const server = net.createServer();
  await new Promise(done => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise(done => server.close(done));
  return port;
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });

export function call(port, method, path, body, headers = {}) {
  return new Promise((done, fail) => {
    const request = http.request({ host: "127.0.0.1", port, method, path, agent, headers }, answer => {
      let text = "";
      answer.on("data", part => (text += part)).on("end", () => done({ status: answer.statusCode, text }));
    });
    request.on("error", fail).setTimeout(5_000, () => request.destroy(new Error("no answer")));
    request.end(body);
  });
}

export class System {
  #galo;
  #children = new Map();
  #folder = mkdtempSync(join(tmpdir(), "galo-page-"));
  accepted = 0;
  refused = 0;
  last = "";
  #rate = 0;

  static async start(galo) {
    const system = new System();
    system.#galo = galo;
    const ports = [];
    for (let at = 0; at < 8; at++) ports.push(await freePort());
    const [default_, fallback, ...doors] = ports;
    Object.assign(system, { processors: [default_, fallback], entries: doors.slice(0, 2), admins: doors.slice(2, 4) });
    system.peers = doors.slice(4, 6);
    writeFileSync(join(system.#folder, "token"), TOKEN);
    for (const port of system.processors) {
      await system.#run(`processor ${port}`, ["processor", "--listen", `127.0.0.1:${port}`, "--token", "123"]);
    }
    await Promise.all([0, 1].map(index => system.startInstance(index)));
    system.#pay();
    return system;
  }

  startInstance(index) {
    const at = port => `127.0.0.1:${port}`;
    const url = port => `http://${at(port)}`;
    return this.#run(`instance ${index + 1}`, ["serve", "--instance", String(index + 1),
      "--listen", at(this.entries[index]), "--peer-listen", at(this.peers[index]),
      "--peer", url(this.peers[1 - index]), "--peer-token", "a-token-of-the-pair",
      "--default-url", url(this.processors[0]), "--fallback-url", url(this.processors[1]),
      "--admin-listen", at(this.admins[index]), "--admin-token-file", join(this.#folder, "token"),
      "--data", join(this.#folder, String(index + 1))]);
  }

  #run(name, args) {
    const child = spawn(this.#galo, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.#children.set(name, child);
    let told = "";
    child.stderr.on("data", part => (told += part));
    return new Promise((done, fail) => {
      child.stdout.once("data", done);
      child.once("exit", status => fail(new Error(`${name} ended with ${status}: ${told}`)));
    });
  }

  async kill(name) {
    const child = this.#children.get(name);
    const ended = new Promise(done => child.once("exit", done));
    child.kill("SIGKILL");
    await ended;
  }

  stop() {
    this.#rate = -1;
    for (const child of this.#children.values()) child.kill("SIGKILL");
    agent.destroy();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Payments a second from now on, at both instances in turns. */
  set rate(rate) {
    this.#rate = rate;
  }

  async #pay() {
    for (let due = 0, at = 0, last = Date.now(); this.#rate >= 0; await pause(20)) {
      const now = Date.now();
      due += this.#rate * Math.min(now - last, 1_000) / 1_000;
      last = now;
      for (; due >= 1; due--, at++) {
        const id = randomUUID();
        call(this.entries[at % 2], "POST", "/payments", `{"correlationId":"${id}","amount":19.9}`)
          .then(({ status }) => (status === 202 ? ((this.accepted++), (this.last = id)) : this.refused++))
          .catch(() => this.refused++);
      }
    }
  }

  async setFailing(index, failure) {
    const headers = { "X-Rinha-Token": "123", "Content-Type": "application/json" };
    const path = "/admin/configurations/failure";
    const { status } = await call(this.processors[index], "PUT", path, JSON.stringify({ failure }), headers);
    if (status !== 200) throw new Error(`the processor answers ${status}`);
  }

  /** Payments that both processors hold together. */
  async held() {
    const headers = { "X-Rinha-Token": "123" };
    const ask = port => call(port, "GET", "/admin/payments-summary", "", headers);
    const both = await Promise.all(this.processors.map(ask));
    return both.reduce((sum, { text }) => sum + JSON.parse(text).totalRequests, 0);
  }
}
