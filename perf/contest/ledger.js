// The simulation of the contest of 2024 (an account ledger), in one k6 script: its phases A to F
// with their checks, and its money sheet.
//
//   k6 run -e BASE_URL=http://127.0.0.1:9999 ledger.js
//
// It wants a system that has just been started: the accounts' balances must be 0.
// It ends with status 0 only if every request was sent, passed its checks and took less than 250 ms,
// none was dropped, and each phase was over before the next began; else with 99.
//
// As in the contest, F is an open load of three streams and every one of its requests has a
// connection of its own, whose set-up counts. Unlike there, F begins after E1 and not in the middle of
// it: E1 expects to be alone on its accounts. OVERLAP=1 plays it as the contest did.
//
// Settings, all from the environment (-e NAME=value):
//   BASE_URL       the entry (default http://127.0.0.1:9999)
//   SHEET          file for the money sheet as JSON (default money-sheet.json)
//   TIME_DIVISOR   makes the load that many times shorter at the same rates (default 1)
//   PHASE_GAP_S    from the beginning of a phase to that of the next, in seconds (default 1)
//   OVERLAP        1: the load begins together with E1

import http from 'k6/http';
import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';

const BASE_URL = __ENV.BASE_URL || 'http://127.0.0.1:9999';
const TIME_DIVISOR = positive('TIME_DIVISOR', 1);
const PHASE_GAP_S = positive('PHASE_GAP_S', 1);
const OVERLAP = __ENV.OVERLAP === '1';

// The contest's accounts: id and limit in cents. The sixth is known to be missing.
const LIMITS = { 1: 100000, 2: 80000, 3: 1000000, 4: 10000000, 5: 500000 };
const ACCOUNTS = Object.keys(LIMITS).length;
const MISSING_ACCOUNT = 6;

const AT_ONCE = 25; // requests in phase A, and in C
const E1_REQUESTS = 14;
const PARALLEL_READS = 4;
// Even, so that the ramp's trapezoid holds a whole number of requests.
const RAMP_S = 2 * Math.max(1, Math.round(60 / TIME_DIVISOR));
const HOLD_S = RAMP_S;
const START_RATE = 1;
const RATES = { debits: 220, credits: 110, statements: 10 };
const AMOUNT_MAX = 10000;

const IN_TIME_MS = 250;
const TIMEOUT = '60s';
const CONTRACT_CENTS = 10000000;
const SLA_PERCENT = 98;
const SLA_POINT_CENTS = 100000;
const INCONSISTENCY_CENTS = 80301;

// How many requests a stream has: a linear ramp is a trapezoid.
function arrivals(rate) {
  return ((START_RATE + rate) * RAMP_S) / 2 + rate * HOLD_S;
}
const EXPECTED = {
  a: AT_ONCE,
  b: 1,
  c: AT_ONCE,
  d: 1,
  e1: ACCOUNTS * E1_REQUESTS,
  e2: 1,
  debits: arrivals(RATES.debits),
  credits: arrivals(RATES.credits),
  statements: arrivals(RATES.statements),
};
const TOTAL = Object.values(EXPECTED).reduce((sum, count) => sum + count);
const COMPARABLE = TIME_DIVISOR === 1;

function positive(name, otherwise) {
  const value = Number(__ENV[name] || otherwise);
  if (!(value > 0)) throw new Error(`${name} is '${__ENV[name]}'; it must be a number above 0`);
  return value;
}

function phase(exec, number, vus) {
  const startTime = `${number * PHASE_GAP_S}s`;
  return { exec, executor: 'per-vu-iterations', vus, iterations: 1, maxDuration: '2m', startTime };
}

function load(exec, rate) {
  return {
    exec,
    executor: 'ramping-arrival-rate',
    startTime: `${(OVERLAP ? 4 : 5) * PHASE_GAP_S}s`,
    startRate: START_RATE,
    timeUnit: '1s',
    // Enough for answers that take a second; a system slower than that shows as dropped iterations.
    preAllocatedVUs: rate + 20,
    stages: [
      { target: rate, duration: `${RAMP_S}s` },
      { target: rate, duration: `${HOLD_S}s` },
      // The last one is due just when the time is over, and would be left out: half an interval more.
      { target: 1, duration: '0s' },
      { target: 1, duration: '500ms' },
    ],
    gracefulStop: '60s',
  };
}

export const options = {
  scenarios: {
    a: phase('debitOne', 0, AT_ONCE),
    b: phase('expectAllDebited', 1, 1),
    c: phase('creditOne', 2, AT_ONCE),
    d: phase('expectNothingLeft', 3, 1),
    e1: phase('validateAccount', 4, ACCOUNTS),
    e2: phase('missAccount', 4, 1),
    debits: load('debit', RATES.debits),
    credits: load('credit', RATES.credits),
    statements: load('statement', RATES.statements),
  },
  // A new connection for every iteration; within one (E1) it is kept.
  noVUConnectionReuse: true,
  batchPerHost: 6,
  userAgent: 'Agente do Caos - 2024/Q1',
  summaryTrendStats: ['p(50)', 'p(90)', 'p(99)', 'p(99.9)', 'max'],
  thresholds: Object.fromEntries([
    ...Object.entries(EXPECTED).map(([stream, count]) => [`sent_${stream}`, [`count==${count}`]]),
    ...['failed', 'late', 'out_of_order', 'dropped_iterations'].map((it) => [it, ['count==0']]),
  ]),
};

const sent = {};
for (const stream of Object.keys(EXPECTED)) sent[stream] = new Counter(`sent_${stream}`);
const passed = new Counter('passed'); // all checks, and in time
const failed = new Counter('failed'); // a check
const late = new Counter('late'); // the checks passed, but not in time
const inconsistent = new Counter('inconsistent'); // of the failed ones, those that cost money
const refused = new Counter('refused'); // debits answered 422, as they may be
const outOfOrder = new Counter('out_of_order'); // users of a phase that were not done in time
const time = new Trend('time_ms'); // connecting included

http.setResponseCallback(http.expectedStatuses(200, 400, 404, 422));

export function setup() {
  [...Object.values(sent), passed, failed, late, inconsistent, refused, outOfOrder]
    .forEach((counter) => counter.add(0));
}

// --- the phases -----------------------------------------------------------------------------------

export function debitOne() {
  judge('a', post(1, 1, 'd', 'validacao'), [(it) => status(it, 200)]);
  mustBeOver();
}

export function expectAllDebited() {
  judge('b', get(1), [(it) => status(it, 200), (it) => total(it, -AT_ONCE)]);
  mustBeOver();
}

export function creditOne() {
  judge('c', post(1, 1, 'c', 'validacao'), [(it) => status(it, 200)]);
  mustBeOver();
}

export function expectNothingLeft() {
  judge('d', get(1), [(it) => status(it, 200), (it) => total(it, 0)]);
  mustBeOver();
}

// E1: one user for each account, one request after the other but for the parallel reads.
export function validateAccount() {
  const id = exec.scenario.iterationInTest + 1;
  const ok = (it) => status(it, 200);
  const first = { valor: 1, tipo: 'c', descricao: 'toma' };
  const second = { valor: 1, tipo: 'd', descricao: 'devolve' };
  const third = { valor: 1, tipo: 'c', descricao: 'danada' };

  judge('e1', get(id), [ok, (it) => limit(it, LIMITS[id]), (it) => total(it, 0)]);
  judge('e1', postJson(id, first), [ok, balanceAllowed]);
  judge('e1', postJson(id, second), [ok, balanceAllowed]);
  judge('e1', get(id), [ok, (it) => items(it, [second, first])]);

  const written = postJson(id, third);
  if (judge('e1', written, [ok, balanceAllowed])) {
    const { saldo, limite } = json(written);
    const reads = Array(PARALLEL_READS).fill(['GET', statementUrl(id), null, params('extrato')]);
    const agrees = [
      ok, (it) => items(it, [third]), (it) => limit(it, limite), (it) => total(it, saldo),
    ];
    http.batch(reads).forEach((it) => judge('e1', it, agrees));
  }
  const invalid = [
    { valor: 1.2, tipo: 'd', descricao: 'devolve' },
    { valor: 1, tipo: 'x', descricao: 'devolve' },
    { valor: 1, tipo: 'c', descricao: '123456789 e mais um pouco' },
    { valor: 1, tipo: 'c', descricao: '' },
    { valor: 1, tipo: 'c', descricao: null },
  ];
  invalid.forEach((body) => judge('e1', postJson(id, body), [(it) => status(it, 422, 400)]));
  if (!OVERLAP) mustBeOver();
}

export function missAccount() {
  judge('e2', get(MISSING_ACCOUNT), [(it) => status(it, 404)]);
  mustBeOver();
}

export function debit() {
  const response = post(randomAccount(), randomAmount(), 'd', randomText());
  if (response.status === 422) refused.add(1);
  const checks = [(it) => status(it, 200, 422)];
  if (response.status === 200) checks.push(balanceAllowed);
  judge('debits', response, checks);
}

export function credit() {
  const response = post(randomAccount(), randomAmount(), 'c', randomText());
  judge('credits', response, [(it) => status(it, 200), balanceAllowed]);
}

export function statement() {
  judge('statements', get(randomAccount()), [(it) => status(it, 200), statementAllowed]);
}

function mustBeOver() {
  if (Date.now() - exec.scenario.startTime > PHASE_GAP_S * 1000) outOfOrder.add(1);
}

function below(limit) {
  return Math.floor(Math.random() * limit);
}

const randomAccount = () => 1 + below(ACCOUNTS);
const randomAmount = () => 1 + below(AMOUNT_MAX);

const ALPHANUMERICS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
function randomText() {
  let text = '';
  for (let i = 0; i < 10; i += 1) text += ALPHANUMERICS[below(ALPHANUMERICS.length)];
  return text;
}

// --- requests -------------------------------------------------------------------------------------

// The name keeps ids out of the tags.
function params(name) {
  return { headers: { 'content-type': 'application/json' }, timeout: TIMEOUT, tags: { name } };
}

const POST_PARAMS = params('transacoes');
const GET_PARAMS = params('extrato');

function statementUrl(id) {
  return `${BASE_URL}/clientes/${id}/extrato`;
}

function get(id) {
  return http.get(statementUrl(id), GET_PARAMS);
}

function post(id, valor, tipo, descricao) {
  return postJson(id, { valor, tipo, descricao });
}

function postJson(id, body) {
  return http.post(`${BASE_URL}/clientes/${id}/transacoes`, JSON.stringify(body), POST_PARAMS);
}

// --- checks: each returns what is wrong, or nothing -----------------------------------------------

// The first check that fails is what the request is held for, as in the contest; so its order is
// that of the contest's, the status before the body.
function judge(stream, response, checks) {
  sent[stream].add(1);
  const took_ms = response.timings.blocked + response.timings.duration;
  time.add(took_ms);
  let problem = null;
  for (const check of checks) {
    problem = check(response);
    if (problem) break;
  }
  if (problem) {
    failed.add(1);
    if (problem.costs) inconsistent.add(1);
    console.error(`${stream}: ${problem.text}; status ${response.status} ${response.error}, ` +
      `${String(response.body).slice(0, 300)}`);
    return false;
  }
  (took_ms < IN_TIME_MS ? passed : late).add(1);
  if (took_ms >= IN_TIME_MS) console.error(`${stream}: ${took_ms.toFixed(0)} ms`);
  return true;
}

const wrong = (text) => ({ text, costs: false });
const inconsistency = (text) => ({ text, costs: true });

function status(response, ...allowed) {
  return allowed.includes(response.status) ? null : wrong(`status is not ${allowed.join(' or ')}`);
}

function json(response) {
  try {
    const value = JSON.parse(response.body);
    return typeof value === 'object' && value !== null ? value : {};
  } catch (_) {
    return {};
  }
}

// JavaScript reads 1.0 as it does 1; the contest did not.
function isWhole(response, ...numbers) {
  return numbers.every(Number.isSafeInteger) && !/"\s*:\s*-?\d+[.eE]/.test(response.body);
}

function balanceAllowed(response) {
  const { limite, saldo } = json(response);
  if (limite === undefined) return wrong('no limite');
  if (!isWhole(response, limite, saldo)) return inconsistency('WTF?! not whole numbers');
  return saldo >= -limite ? null : inconsistency('Limite ultrapassado!');
}

function statementAllowed(response) {
  const { limite, total } = json(response).saldo || {};
  if (limite === undefined) return wrong('no saldo.limite');
  if (!isWhole(response, limite, total)) return inconsistency('WTF?! not whole numbers');
  return total >= -limite ? null : inconsistency('Limite ultrapassado!');
}

function total(response, expected) {
  const found = (json(response).saldo || {}).total;
  const same = found === expected && isWhole(response, found);
  return same ? null : inconsistency(`saldo.total is not ${expected}`);
}

function limit(response, expected) {
  const found = (json(response).saldo || {}).limite;
  return found === expected ? null : wrong(`saldo.limite is not ${expected}`);
}

function items(response, expected) {
  const found = json(response).ultimas_transacoes || [];
  const same = (item, wanted) => item && Object.keys(wanted).every((it) => item[it] === wanted[it]);
  const all = expected.every((wanted, index) => same(found[index], wanted));
  return all ? null : wrong(`the newest are not ${JSON.stringify(expected)}`);
}

// --- the money sheet ------------------------------------------------------------------------------

export function handleSummary(data) {
  const sheet = moneySheet(data.metrics);
  const files = { stdout: asText(sheet) };
  files[__ENV.SHEET || 'money-sheet.json'] = `${JSON.stringify(sheet, null, 2)}\n`;
  return files;
}

// A request that was never sent counts as one that failed.
function moneySheet(metrics) {
  const count = (name) => (metrics[name] ? metrics[name].values.count : 0);
  const counts = Object.fromEntries(Object.keys(EXPECTED).map((it) => [it, count(`sent_${it}`)]));
  const hundredths = Math.round((count('passed') * 10000) / TOTAL);
  const latencyFine_cents =
    Math.max(0, Math.round(((SLA_PERCENT * 100 - hundredths) * SLA_POINT_CENTS) / 100));
  const consistencyFine_cents = count('inconsistent') * INCONSISTENCY_CENTS;
  const sheet = {
    comparable: COMPARABLE,
    order: OVERLAP ? 'as in the contest: the load begins with E1' : 'the load begins after E1',
    expected: EXPECTED,
    sent: counts,
    total: TOTAL,
    totalSent: Object.values(counts).reduce((sum, it) => sum + it),
    passed: count('passed'),
    failed: count('failed'),
    late: count('late'),
    inconsistent: count('inconsistent'),
    refused: count('refused'),
    droppedIterations: count('dropped_iterations'),
    outOfOrder: count('out_of_order'),
    timeMs: metrics.time_ms ? metrics.time_ms.values : null,
    slaPercent: hundredths / 100,
    latencyFineCents: latencyFine_cents,
    consistencyFineCents: consistencyFine_cents,
    paidCents: Math.max(0, CONTRACT_CENTS - latencyFine_cents - consistencyFine_cents),
  };
  sheet.wrong = whatIsWrong(sheet);
  return sheet;
}

function whatIsWrong(sheet) {
  const lines = Object.keys(EXPECTED)
    .filter((stream) => sheet.sent[stream] !== EXPECTED[stream])
    .map((stream) => `${stream}: ${sheet.sent[stream]} of ${EXPECTED[stream]} requests`);
  const none = (number, text) => number > 0 && lines.push(`${number} ${text}`);
  none(sheet.failed, 'requests failed a check');
  none(sheet.late, `requests took ${IN_TIME_MS} ms or more`);
  none(sheet.droppedIterations, 'iterations dropped');
  none(sheet.outOfOrder, 'users not done when the next phase began');
  return lines;
}

function money(cents) {
  const [whole, fraction] = (cents / 100).toFixed(2).split('.');
  return `${whole.replace(/\B(?=(\d{3})+$)/g, ',')}.${fraction}`;
}

function asText(sheet) {
  const lines = ['', `Money sheet: the ledger${sheet.comparable ? '' : ', NOT COMPARABLE'}`];
  const line = (label, text) => lines.push(`  ${label.padEnd(18)}${text}`);
  const number = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ',');
  if (!sheet.comparable) line('shortened', `the load has ${RAMP_S} + ${HOLD_S} s instead of 240`);
  line('order', sheet.order);
  line('requests', `${number(sheet.totalSent)} of ${number(sheet.total)}: ` +
    Object.entries(sheet.sent).map(([stream, it]) => `${stream} ${number(it)}`).join(', '));
  line('passed', `${number(sheet.passed)}; ${sheet.failed} failed, ${sheet.late} late, ` +
    `${sheet.droppedIterations} dropped`);
  line('refused debits', `${number(sheet.refused)} ` +
    `(${((100 * sheet.refused) / Math.max(1, sheet.sent.debits)).toFixed(1)} %)`);
  if (sheet.timeMs) {
    const at = (name) => sheet.timeMs[name].toFixed(2);
    line('time', `p50 ${at('p(50)')}, p90 ${at('p(90)')}, p99 ${at('p(99)')}, ` +
      `p99.9 ${at('p(99.9)')}, max ${at('max')} ms, connecting included`);
  }
  line('SLA', `${sheet.slaPercent.toFixed(2)} % passed under ${IN_TIME_MS} ms`);
  line('latency fine', money(sheet.latencyFineCents));
  line('consistency fine', `${money(sheet.consistencyFineCents)} ` +
    `for ${sheet.inconsistent} inconsistencies`);
  line('paid', `${money(sheet.paidCents)} of ${money(CONTRACT_CENTS)}`);
  sheet.wrong.forEach((text) => lines.push(`  WRONG: ${text}`));
  return `${lines.join('\n')}\n`;
}
