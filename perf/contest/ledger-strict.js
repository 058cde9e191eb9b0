// What the contest of 2024 never asked of a ledger, in one k6 script: an answer of 200 moves exactly
// the money it says, and no other answer moves any.
//
//   k6 run -e BASE_URL=http://127.0.0.1:9999 ledger-strict.js
//
// It takes the accounts as they are and leaves them changed; nobody else may use them meanwhile. One
// virtual user does it all: concurrency comes from batches, so that every answer can be compared
// with every other. It ends with status 0 only if every section came to its end and every check in
// it passed; else with 99. The restart that must not change a balance is the launcher's.
//
// Settings, all from the environment (-e NAME=value):
//   BASE_URL        the entry (default http://127.0.0.1:9999)
//   INSTANCE_URLS   both instances, with a comma between (default twice the entry)
//   HAMMER_S        how long one account is hammered through both, in seconds (default 60)

import http from 'k6/http';
import { fail } from 'k6';
import { Counter } from 'k6/metrics';

const BASE_URL = __ENV.BASE_URL || 'http://127.0.0.1:9999';
const INSTANCES = (__ENV.INSTANCE_URLS || `${BASE_URL},${BASE_URL}`).split(',');
const HAMMER_S = Number(__ENV.HAMMER_S || 60);

const OWNED = [1, 2]; // an account of each instance
const HAMMERED = 1;
const MISSING_ACCOUNT = 6;
const LISTED_MAX = 10;
const AT_ONCE = 32; // requests under way, half of them at each instance
const RUSHES = 20;

const SECTIONS = {
  'a missing account': missingAccount,
  'refused, and nothing changed': refusedAndUnchanged,
  'ten newest': tenNewest,
  'exactly the limit': exactlyTheLimit,
  'no more than fit': noMoreThanFit,
  hammered: hammered,
};

export const options = {
  scenarios: {
    all: { executor: 'per-vu-iterations', vus: 1, iterations: 1, maxDuration: `${HAMMER_S + 120}s` },
  },
  batch: AT_ONCE,
  batchPerHost: AT_ONCE,
  thresholds: {
    sections: [`count==${Object.keys(SECTIONS).length}`],
    failed: ['count==0'],
  },
};

const sections = new Counter('sections');
const passed = new Counter('passed');
const failed = new Counter('failed');
const hammer = { 200: new Counter('hammer_200'), 422: new Counter('hammer_422') };

http.setResponseCallback(http.expectedStatuses(200, 404, 405, 422));

export function setup() {
  [sections, passed, failed, ...Object.values(hammer)].forEach((counter) => counter.add(0));
}

export default function all() {
  for (const [name, section] of Object.entries(SECTIONS)) {
    section((holds, what) => expect(name, holds, what));
    sections.add(1);
  }
}

function expect(section, holds, what) {
  (holds ? passed : failed).add(1);
  if (!holds) console.error(`${section}: ${what()}`);
}

// --- requests -------------------------------------------------------------------------------------

const PARAMS = { headers: { 'content-type': 'application/json' }, tags: { name: 'ledger' } };

function request(method, url, body) {
  const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  return [method, url, text, PARAMS];
}

function send(method, url, body) {
  return http.request(...request(method, url, body));
}

const transactions = (instance, id) => `${INSTANCES[instance]}/clientes/${id}/transacoes`;
const statements = (instance, id) => `${INSTANCES[instance]}/clientes/${id}/extrato`;

// What a statement says, without the time it was asked for.
function look(instance, id) {
  const response = send('GET', statements(instance, id));
  if (response.status !== 200) {
    fail(`no statement of account ${id}: ${response.status} ${response.error} ${response.body}`);
  }
  const { saldo, ultimas_transacoes } = JSON.parse(response.body); // json() loses the order of keys
  const isWhole = Number.isSafeInteger(saldo.total) && Number.isSafeInteger(saldo.limite);
  if (!isWhole) fail(`not whole numbers: ${response.body}`);
  return { total: saldo.total, limit: saldo.limite, list: JSON.stringify(ultimas_transacoes) };
}

const balanceOf = (response) => JSON.parse(response.body).saldo;
const describe = (response) => `${response.status} ${response.error} ${response.body}`;
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function move(instance, id, valor, tipo, descricao) {
  return send('POST', transactions(instance, id), { valor, tipo, descricao });
}

// Brings the balance to this, for what comes next.
function settle(id, balance) {
  const { total } = look(0, id);
  if (total === balance) return;
  const [valor, tipo] = total < balance ? [balance - total, 'c'] : [total - balance, 'd'];
  const response = move(1, id, valor, tipo, 'settle');
  if (response.status !== 200) fail(`account ${id} to ${balance}: ${describe(response)}`);
}

// --- the sections ---------------------------------------------------------------------------------

function missingAccount(check) {
  const good = { valor: 1, tipo: 'c', descricao: 'a' };
  for (const instance of [0, 1]) {
    for (const id of [MISSING_ACCOUNT, 0, '01', '-1', 'abc', '18446744073709551617']) {
      const asked = [
        request('GET', statements(instance, id)),
        request('POST', transactions(instance, id), good),
        request('POST', transactions(instance, id), { valor: -1 }),
        request('POST', transactions(instance, id), 'not JSON'),
        request('PUT', transactions(instance, id), good),
      ];
      for (const it of asked) {
        const response = http.request(...it);
        check(response.status === 404, () => `${it[0]} ${it[1]}: ${describe(response)}`);
      }
    }
  }
}

function refusedAndUnchanged(check) {
  for (const id of OWNED) {
    settle(id, 1000);
    for (const instance of [0, 1]) {
      const before = look(instance, id);
      for (const [method, status, body] of refusedRequests(before)) {
        const url = transactions(instance, id);
        const response = send(method, url, body);
        const asked = () => `${method} ${url} ${body}: ${describe(response)}`;
        check(response.status === status, asked);
        check(same(look(instance, id), before), () => `changed by ${asked()}`);
        check(same(look(1 - instance, id), before), () => `changed elsewhere by ${asked()}`);
      }
    }
  }
}

function refusedRequests({ total, limit }) {
  const values = [
    '0', '-1', '-0', '1.0', '1.2', '1e2', '"1"', 'true', 'false', 'null', '[1]', '{}', '""',
    '9223372036854775808', '18446744073709551617', '100000000000000000000000000000', 'NaN', '+1',
  ];
  const kinds = ['"x"', '"C"', '"cd"', '""', '1', 'null', 'true', '["c"]'];
  const texts = ['""', '"12345678901"', 'null', '1', 'true', '["a"]', '{"a":1}', '"\\ud800"'];
  const bodies = [
    ...values.flatMap((it) => ['c', 'd'].map((kind) =>
      `{"valor":${it},"tipo":"${kind}","descricao":"a"}`)),
    ...kinds.map((it) => `{"valor":1,"tipo":${it},"descricao":"a"}`),
    ...texts.map((it) => `{"valor":1,"tipo":"c","descricao":${it}}`),
    '{"tipo":"c","descricao":"a"}', '{"valor":1,"descricao":"a"}', '{"valor":1,"tipo":"c"}',
    '', '{', 'null', '[]', '1', 'not JSON', '{"valor":1,"tipo":"c","descricao":"a"',
    // One cent more than there is, and as much as a number can be.
    JSON.stringify({ valor: total + limit + 1, tipo: 'd', descricao: 'a' }),
    '{"valor":9223372036854775807,"tipo":"d","descricao":"a"}',
  ];
  const good = '{"valor":1,"tipo":"c","descricao":"a"}';
  return [
    ...bodies.map((body) => ['POST', 422, body]),
    ...['GET', 'PUT', 'DELETE', 'PATCH'].map((method) => [method, 405, good]),
  ];
}

function tenNewest(check) {
  for (const id of OWNED) {
    settle(id, 0);
    const expected = [];
    for (let number = 0; number < 2 * LISTED_MAX + 1; number += 1) {
      const entry = { valor: number + 1, tipo: 'c', descricao: `n${number}` };
      const response = send('POST', transactions(number % 2, id), entry);
      check(response.status === 200, () => describe(response));
      expected.unshift(entry);
      const newest = expected.slice(0, LISTED_MAX);
      for (const instance of [0, 1]) {
        const found = JSON.parse(look(instance, id).list);
        const plain = found.map(({ valor, tipo, descricao }) => ({ valor, tipo, descricao }));
        const enough = found.length <= LISTED_MAX && same(plain.slice(0, newest.length), newest);
        check(enough, () => `${JSON.stringify(found)} is not ${JSON.stringify(newest)}`);
        const times = found.map((it) => it.realizada_em);
        check(same(times, times.slice().sort().reverse()), () => `not by time: ${times}`);
      }
    }
    check(JSON.parse(look(0, id).list).length === LISTED_MAX, () => 'not ten');
  }
}

function exactlyTheLimit(check) {
  for (const id of OWNED) {
    for (const instance of [0, 1]) {
      settle(id, 5);
      const { limit } = look(instance, id);
      const all = move(instance, id, limit + 5, 'd', 'all');
      check(all.status === 200 && balanceOf(all) === -limit, () => describe(all));
      const more = move(instance, id, 1, 'd', 'more');
      check(more.status === 422, () => describe(more));
      const back = move(1 - instance, id, 1, 'c', 'back');
      check(back.status === 200 && balanceOf(back) === 1 - limit, () => describe(back));
      const again = move(1 - instance, id, 1, 'd', 'again');
      check(again.status === 200 && balanceOf(again) === -limit, () => describe(again));
      check(look(instance, id).total === -limit, () => 'the statement does not say -limite');
    }
    settle(id, 0);
  }
}

// Debits of the same value at once, more than fit: exactly floor(room / value) are accepted.
function noMoreThanFit(check) {
  for (let rush = 0; rush < RUSHES; rush += 1) {
    const id = OWNED[rush % OWNED.length];
    const fit = rush % AT_ONCE;
    settle(id, rush);
    const { limit } = look(0, id);
    const room = limit + rush;
    const value = Math.floor(room / (fit + 1)) + 1; // as many as `fit` of it, but no more
    const expected = Math.floor(room / value);
    const requests = [];
    for (let number = 0; number < AT_ONCE; number += 1) {
      const body = { valor: value, tipo: 'd', descricao: `${rush}-${number}` };
      requests.push(request('POST', transactions(number % 2, id), body));
    }
    const statuses = http.batch(requests).map((it) => it.status);
    const accepted = statuses.filter((it) => it === 200).length;
    const refused = statuses.filter((it) => it === 422).length;
    check(accepted === expected && accepted + refused === AT_ONCE,
      () => `${accepted} of ${room}/${value} = ${expected} accepted: ${statuses}`);
    for (const instance of [0, 1]) {
      const { total } = look(instance, id);
      check(total === rush - expected * value, () => `${total} after ${accepted} of ${value}`);
    }
    settle(id, 0);
  }
}

// After every batch the balance is the sum of all accepted entries, at both instances; and the
// balances that were answered are one chain, each entry going on from where another ended.
function hammered(check) {
  settle(HAMMERED, 0);
  const { limit } = look(0, HAMMERED);
  const until = Date.now() + HAMMER_S * 1000;
  let balance = 0;
  for (let round = 0; round === 0 || Date.now() < until; round += 1) {
    const requests = [];
    const changes = [];
    for (let number = 0; number < AT_ONCE; number += 1) {
      const valor = 1 + Math.floor((Math.random() * limit) / 10);
      const tipo = Math.random() < 0.45 ? 'c' : 'd';
      const body = { valor, tipo, descricao: `${number}` };
      requests.push(request('POST', transactions(number % 2, HAMMERED), body));
      changes.push(tipo === 'c' ? valor : -valor);
    }
    const steps = [];
    http.batch(requests).forEach((response, number) => {
      const change = changes[number];
      const isAllowed = response.status === 200 || (response.status === 422 && change < 0);
      check(isAllowed, () => `${change}: ${describe(response)}`);
      if (isAllowed) hammer[response.status].add(1);
      if (response.status !== 200) return;
      const after = balanceOf(response);
      check(after >= -limit, () => `${after} is below the limit`);
      steps.push([after - change, after]);
    });
    const end = steps.reduce((sum, [before, after]) => sum + after - before, balance);
    check(isChain(balance, steps, end), () => `from ${balance} to ${end}: ${JSON.stringify(steps)}`);
    balance = end;
    for (const instance of [0, 1]) {
      const { total } = look(instance, HAMMERED);
      check(total === balance, () => `${total} where all entries come to ${balance}`);
    }
  }
  settle(HAMMERED, 0);
}

// What each entry found and what each left are the same balances, but for the first and the last.
function isChain(start, steps, end) {
  const sorted = (numbers) => numbers.sort((a, b) => a - b);
  const left = sorted([start, ...steps.map(([, after]) => after)]);
  const found = sorted([end, ...steps.map(([before]) => before)]);
  return same(left, found);
}

// --- the sheet ------------------------------------------------------------------------------------

export function handleSummary(data) {
  const count = (name) => (data.metrics[name] ? data.metrics[name].values.count : 0);
  const all = Object.keys(SECTIONS).length;
  const lines = [
    '',
    'The ledger, strictly',
    `  sections          ${count('sections')} of ${all}: ${Object.keys(SECTIONS).join('; ')}`,
    `  checks            ${count('passed')} passed, ${count('failed')} failed`,
    `  hammered          ${count('hammer_200')} transactions accepted, ${count('hammer_422')} ` +
      `refused in ${HAMMER_S} s on account ${HAMMERED}`,
  ];
  if (count('sections') !== all) lines.push('  WRONG: not every section came to its end');
  if (count('failed') > 0) lines.push('  WRONG: checks failed');
  return { stdout: `${lines.join('\n')}\n` };
}
