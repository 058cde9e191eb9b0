// The load, the stages, the audits and the score of both contests of 2025, in one k6 script.
//
//   k6 run -e CONTEST=preview -e SHEET=sheet.json contest.js
//
// What lives here: everything that happens over HTTP while the load runs, and the score sheet.
// What it does not do: judge. The sheet states facts; `galo judge` decides whether the run was good.
// The one invariant: payment number n of a run has the id paymentId(seed, n) and n counts up from 0
// without gaps, so whoever knows the seed and the number of posts knows every id that was sent.
//
// Settings, all from the environment (-e NAME=value):
//   CONTEST        preview or final
//   SHEET          file for the score sheet as JSON (default score-sheet.json)
//   TIME_DIVISOR   plays the timetable that many times faster (default 1); the sheet says so
//   MAX_VUS        another number of virtual users than the contest's; the sheet says so
//   SEED           32 bits that choose the payments' ids (default random)
//   BACKEND_URL, DEFAULT_URL, FALLBACK_URL   default http://127.0.0.1:9999, :8001, :8002
//   TOKEN          the processors' X-Rinha-Token for this run (default 123, their initial one)

import http from 'k6/http';
import exec from 'k6/execution';
import { sleep } from 'k6';
import { Counter, Gauge } from 'k6/metrics';

// The two timetables, times in seconds, delays and the audit's window in milliseconds.
const CONTESTS = {
  preview: {
    duration_s: 60,
    vus_max: 550,
    amount_cents: 1990,
    fees: { default: 0.05, fallback: 0.15 },
    audit: { from_ms: 15000, to_ms: 1500 },
    // One processor's surplus can hide the other's shortfall.
    difference: (a, b) => Math.abs(a + b),
    stages: [
      // at, default's delay, default fails, fallback's delay, fallback fails
      [1, 0, false, 0, false],
      [10, 100, false, 0, false],
      [20, 100, true, 0, false],
      [30, 2000, true, 1000, true],
      [40, 20, false, 20, false],
      [50, 0, false, 5000, false],
    ],
  },
  final: {
    duration_s: 300,
    vus_max: 603,
    amount_cents: 2005,
    fees: { default: 0.07, fallback: 0.1 },
    audit: { from_ms: 15000, to_ms: 2000 },
    difference: (a, b) => Math.abs(a) + Math.abs(b),
    stages: [
      // at, default's delay, default fails, fallback's delay, fallback fails
      [1, 0, false, 0, false],
      [30, 1000, false, 0, false],
      [60, 500, false, 0, false],
      [90, 2000, true, 1000, false],
      [120, 5000, true, 5, false],
      [150, 0, false, 5, true],
      [180, 100, false, 5, false],
      [210, 50, false, 0, false],
      [240, 103, false, 10, false],
      [270, 2000, false, 0, false],
    ],
  },
};

const AUDIT_INTERVAL_S = 10;
const AUDIT_END_MARGIN_S = 0.05;
const THINK_TIME_S = 1;
const CLIENT_TIMEOUT = '1500ms';
const INITIAL_TOKEN = '123';
const ACCEPTED_STATUSES = [200, 201, 202, 204];
const FINE_PERCENT = 35;

const contestName = __ENV.CONTEST || 'preview';
const contest = CONTESTS[contestName];
if (!contest) throw new Error(`CONTEST is '${contestName}'; it must be preview or final`);
const timeDivisor = positive('TIME_DIVISOR', 1);
const vusMax = positive('MAX_VUS', contest.vus_max);
const token = __ENV.TOKEN || INITIAL_TOKEN;
const urls = {
  backend: __ENV.BACKEND_URL || 'http://127.0.0.1:9999',
  default: __ENV.DEFAULT_URL || 'http://127.0.0.1:8001',
  fallback: __ENV.FALLBACK_URL || 'http://127.0.0.1:8002',
};

function positive(name, otherwise) {
  const value = Number(__ENV[name] || otherwise);
  if (!(value >= 1)) throw new Error(`${name} is '${__ENV[name]}'; it must be a number from 1 up`);
  return value;
}

// In a hurried run the audits begin half an interval later. Else their windows would end at the moments
// at which a stage begins, and be asked about when the payments sent then are answered: no backend
// can be right about those every time, and in a contest's own timetable nobody asks.
const auditsFrom_s = timeDivisor === 1 ? 0 : AUDIT_INTERVAL_S / 2;

// Only the timetable shrinks. The processors' delays and the audit's window keep their length: how
// those two relate is what a backend is tuned to.
function scaled(seconds) {
  return `${Math.round((seconds * 1000) / timeDivisor)}ms`;
}

function scenarios() {
  const all = {
    payments: {
      exec: 'pay',
      executor: 'ramping-vus',
      startVUs: 1,
      gracefulRampDown: '0s',
      stages: [{ target: vusMax, duration: scaled(contest.duration_s) }],
    },
    audits: {
      exec: 'audit',
      executor: 'constant-vus',
      vus: 1,
      startTime: scaled(auditsFrom_s),
      duration: scaled(contest.duration_s - auditsFrom_s),
    },
  };
  contest.stages.forEach(([at_s], index) => {
    all[`stage_${String(index).padStart(2, '0')}`] = {
      exec: 'enterStage',
      executor: 'per-vu-iterations',
      vus: 1,
      iterations: 1,
      startTime: scaled(at_s),
      env: { STAGE: String(index) },
    };
  });
  return all;
}

export const options = {
  scenarios: scenarios(),
  discardResponseBodies: true,
  summaryTrendStats: ['p(50)', 'p(90)', 'p(99)', 'max', 'count'],
};

const postsAttempted = new Counter('posts_attempted');
const postsAccepted = new Counter('posts_accepted');
const postsRefused = new Counter('posts_refused');
const postsUnanswered = new Counter('posts_unanswered');
const auditsDone = new Counter('audits_done');
const auditsUnanswered = new Counter('audits_unanswered');
const auditsInconsistent = new Counter('audits_inconsistent');
const auditDifference = new Counter('audit_difference_payments');
const auditsInconsistentStrict = new Counter('audits_inconsistent_strict');
const auditDifferenceCentsStrict = new Counter('audit_difference_cents_strict');
const COUNTERS = [
  postsAttempted, postsAccepted, postsRefused, postsUnanswered, auditsDone, auditsUnanswered,
  auditsInconsistent, auditDifference, auditsInconsistentStrict, auditDifferenceCentsStrict,
];

const seedGauge = new Gauge('run_seed');
const heldGauges = {};
const backendGauges = {};
for (const name of ['default', 'fallback']) {
  heldGauges[name] = {
    payments: new Gauge(`held_${name}_payments`),
    cents: new Gauge(`held_${name}_cents`),
    fee: new Gauge(`held_${name}_fee`),
  };
  backendGauges[name] = {
    payments: new Gauge(`backend_${name}_payments`),
    cents: new Gauge(`backend_${name}_cents`),
  };
}

// A bijection of 32-bit words that leaves no visible pattern (the finaliser of MurmurHash3).
function mix(word) {
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return (word ^ (word >>> 16)) >>> 0;
}

// The id of payment n: a well-formed random-looking UUID version 4, different for each n. The first
// word is a bijection of n, so n can be read back; the others follow from it and prove the seed.
// src/tools/judge/k6.rs has the same function; the sheet carries a few ids so that the two are compared.
function paymentId(seed, n) {
  const a = mix(n ^ seed);
  const b = mix(a + seed + 0x9e3779b9);
  const c = mix(b + seed + 0x9e3779b9);
  const d = mix(c + seed + 0x9e3779b9);
  const version = 0x4000 | (b & 0x0fff);
  const variant = 0x8000 | ((c >>> 16) & 0x3fff);
  return `${hex(a, 8)}-${hex(b >>> 16, 4)}-${hex(version, 4)}-${hex(variant, 4)}-` +
    `${hex(c & 0xffff, 4)}${hex(d, 8)}`;
}

function hex(word, digits) {
  return word.toString(16).padStart(digits, '0');
}

// Parameters of a call to the backend. The name keeps URLs with timestamps out of the tags.
function backendCall(name, responseType) {
  return {
    headers: { 'Content-Type': 'application/json' },
    timeout: CLIENT_TIMEOUT,
    responseType: responseType,
    tags: { name: name },
  };
}

function adminCall(name, withToken) {
  const call = backendCall(name, 'text');
  call.headers['X-Rinha-Token'] = withToken || token;
  return call;
}

const POST_CALL = backendCall('POST /payments', 'none');

export function setup() {
  for (const counter of COUNTERS) counter.add(0);
  const seed = (__ENV.SEED ? Number(__ENV.SEED) : Math.floor(Math.random() * 0x100000000)) >>> 0;
  seedGauge.add(seed);
  for (const name of ['default', 'fallback']) {
    if (token !== INITIAL_TOKEN) {
      const call = adminCall('PUT token', INITIAL_TOKEN);
      const body = JSON.stringify({ token: token });
      mustSucceed(name, http.put(`${urls[name]}/admin/configurations/token`, body, call));
    }
    mustSucceed(name, http.post(`${urls[name]}/admin/purge-payments`, null, adminCall('purge')));
    configure(name, 'delay', { delay: 0 });
    configure(name, 'failure', { failure: false });
    checkFee(name);
  }
  const purged = http.post(`${urls.backend}/purge-payments`, null, backendCall('purge', 'none'));
  if (purged.status !== 200) {
    console.warn(`the backend was not purged (status ${purged.status}); the call is optional`);
  }
  return { seed: seed };
}

function mustSucceed(name, response) {
  if (response.status < 200 || response.status > 299) {
    exec.test.abort(`${response.request.method} ${response.url} at the ${name} processor: ` +
      `status ${response.status} ${response.error}`);
  }
  return response;
}

function configure(name, what, body) {
  const url = `${urls[name]}/admin/configurations/${what}`;
  mustSucceed(name, http.put(url, JSON.stringify(body), adminCall(`PUT ${what}`)));
}

// A score computed with the other contest's fees would look right and be wrong.
function checkFee(name) {
  const url = `${urls[name]}/admin/payments-summary`;
  const fee = mustSucceed(name, http.get(url, adminCall('summary'))).json().feePerTransaction;
  if (fee !== contest.fees[name]) {
    exec.test.abort(`the ${name} processor takes ${fee}; ${contestName} has ${contest.fees[name]}`);
  }
}

export function pay(run) {
  const n = exec.scenario.iterationInTest;
  const id = paymentId(run.seed, n);
  postsAttempted.add(1);
  const body = JSON.stringify({ correlationId: id, amount: contest.amount_cents / 100 });
  const began_ms = Date.now();
  const response = http.post(`${urls.backend}/payments`, body, POST_CALL);
  if (ACCEPTED_STATUSES.includes(response.status)) {
    postsAccepted.add(1);
  } else {
    (response.status === 0 ? postsUnanswered : postsRefused).add(1);
    console.error(`failed-post ${n} ${response.status} ${id} from ${began_ms} to ${Date.now()} ` +
      `${response.error}`);
  }
  sleep(THINK_TIME_S);
}

export function audit() {
  const now_ms = Date.now();
  const from = new Date(now_ms - contest.audit.from_ms).toISOString();
  const to = new Date(now_ms - contest.audit.to_ms).toISOString();
  const answer = askAll(`?from=${from}&to=${to}`);
  const delta = (name, what) => answer.backend[name][what] - answer.held[name][what];

  const strictly = (a, b) => Math.abs(a) + Math.abs(b);
  const payments = [delta('default', 'payments'), delta('fallback', 'payments')];
  const difference = contest.difference(...payments);
  const strict_payments = strictly(...payments);
  const strict_cents = strictly(delta('default', 'cents'), delta('fallback', 'cents'));
  auditsDone.add(1);
  auditsUnanswered.add(answer.unanswered.length > 0 ? 1 : 0);
  auditDifference.add(difference);
  auditsInconsistent.add(difference > 0 ? 1 : 0);
  auditDifferenceCentsStrict.add(strict_cents);
  auditsInconsistentStrict.add(strict_payments + strict_cents > 0 ? 1 : 0);
  if (strict_payments + strict_cents > 0 || answer.unanswered.length > 0) {
    console.warn(`audit ${from} .. ${to}: backend ${JSON.stringify(answer.backend)}, ` +
      `processors ${JSON.stringify(answer.held)}, unanswered [${answer.unanswered.join(', ')}]`);
  }
  sleep(auditPause_s());
}

// An audit that begins just before the end must not hold up the reading of the totals by its pause.
function auditPause_s() {
  const length_s = (contest.duration_s - auditsFrom_s) / timeDivisor;
  const end_ms = exec.scenario.startTime + length_s * 1000;
  const left_s = Math.max((end_ms - Date.now()) / 1000, 0) + AUDIT_END_MARGIN_S;
  return Math.min(AUDIT_INTERVAL_S / timeDivisor, left_s);
}

// The three questions leave at the same moment. A missing answer counts as zero, as it does in the
// contest, and is counted by itself too.
function askAll(query) {
  const [ofDefault, ofFallback, ofBackend] = http.batch([
    ['GET', `${urls.default}/admin/payments-summary${query}`, null, adminCall('summary')],
    ['GET', `${urls.fallback}/admin/payments-summary${query}`, null, adminCall('summary')],
    ['GET', `${urls.backend}/payments-summary${query}`, null,
      backendCall('GET /payments-summary', 'text')],
  ]).map(bodyOf);
  const backend = ofBackend || {};
  return {
    held: { default: totals(ofDefault), fallback: totals(ofFallback) },
    backend: { default: totals(backend.default), fallback: totals(backend.fallback) },
    fees: {
      default: ofDefault ? ofDefault.feePerTransaction : 0,
      fallback: ofFallback ? ofFallback.feePerTransaction : 0,
    },
    unanswered: Object.entries({ default: ofDefault, fallback: ofFallback, backend: ofBackend })
      .filter(([, body]) => body === null).map(([name]) => name),
  };
}

function bodyOf(response) {
  if (response.status !== 200) return null;
  try {
    return response.json();
  } catch (_) {
    return null;
  }
}

function totals(summary) {
  if (!summary) return { payments: 0, cents: 0 };
  return { payments: summary.totalRequests, cents: Math.round(summary.totalAmount * 100) };
}

// The order is the contest's: both delays, then both failure switches.
export function enterStage() {
  const [, defaultDelay_ms, defaultFails, fallbackDelay_ms, fallbackFails] =
    contest.stages[Number(__ENV.STAGE)];
  configure('default', 'delay', { delay: defaultDelay_ms });
  configure('fallback', 'delay', { delay: fallbackDelay_ms });
  configure('default', 'failure', { failure: defaultFails });
  configure('fallback', 'failure', { failure: fallbackFails });
}

// The totals are read before anything else: what is still queued now earns nothing. handleSummary
// cannot make calls, so the numbers travel as gauges.
export function teardown() {
  const answer = askAll('');
  if (answer.unanswered.length > 0) {
    console.error(`final totals that could not be read: ${answer.unanswered.join(', ')}`);
  }
  for (const name of ['default', 'fallback']) {
    if (!answer.unanswered.includes(name)) {
      heldGauges[name].payments.add(answer.held[name].payments);
      heldGauges[name].cents.add(answer.held[name].cents);
      heldGauges[name].fee.add(answer.fees[name]);
    }
    if (!answer.unanswered.includes('backend')) {
      backendGauges[name].payments.add(answer.backend[name].payments);
      backendGauges[name].cents.add(answer.backend[name].cents);
    }
  }
}

export function handleSummary(data) {
  const sheet = scoreSheet(data.metrics);
  const files = { stdout: asText(sheet) };
  files[__ENV.SHEET || 'score-sheet.json'] = `${JSON.stringify(sheet, null, 2)}\n`;
  return files;
}

function scoreSheet(metrics) {
  const count = (name) => (metrics[name] ? metrics[name].values.count : 0);
  const gauge = (name) => (metrics[name] ? metrics[name].values.value : null);
  const successful = metrics['http_req_duration{expected_response:true}'];
  const posts = {
    attempted: count('posts_attempted'),
    accepted: count('posts_accepted'),
    failed: count('posts_refused') + count('posts_unanswered'),
    refused: count('posts_refused'),
    unanswered: count('posts_unanswered'),
  };
  const held = {};
  const backend = {};
  for (const name of ['default', 'fallback']) {
    held[name] = {
      payments: gauge(`held_${name}_payments`),
      cents: gauge(`held_${name}_cents`),
      fee: gauge(`held_${name}_fee`),
    };
    backend[name] = {
      payments: gauge(`backend_${name}_payments`),
      cents: gauge(`backend_${name}_cents`),
    };
  }
  const latency_ms = successful ? {
    p50: successful.values['p(50)'],
    p90: successful.values['p(90)'],
    p99: Math.round(successful.values['p(99)'] * 100) / 100,
    max: successful.values.max,
    requests: successful.values.count,
  } : null;
  const seed = gauge('run_seed');
  const runScore = score(posts, held, latency_ms, count('audit_difference_payments'));
  return {
    contest: contestName,
    timeDivisor: timeDivisor,
    vusMax: vusMax,
    comparable: timeDivisor === 1 && vusMax === contest.vus_max,
    complete: runScore !== null,
    amountCents: contest.amount_cents,
    seed: seed,
    firstIds: seed === null ? [] : [0, 1, 2].map((n) => paymentId(seed, n)),
    posts: posts,
    droppedIterations: count('dropped_iterations'),
    audits: {
      done: count('audits_done'),
      unanswered: count('audits_unanswered'),
      inconsistent: count('audits_inconsistent'),
      differencePayments: count('audit_difference_payments'),
      inconsistentStrict: count('audits_inconsistent_strict'),
      differenceCentsStrict: count('audit_difference_cents_strict'),
    },
    latencyMs: latency_ms,
    held: held,
    backend: backend,
    score: runScore,
  };
}

// Whole numbers throughout (cents, basis points, percent), so that no score depends on how a
// fraction happens to be stored.
function score(posts, held, latency_ms, difference) {
  const totalsKnown = held.default.payments !== null && held.fallback.payments !== null;
  if (!totalsKnown || latency_ms === null) return null;
  const feeOf = (side) => side.cents * Math.round(side.fee * 10000);
  const gross_cents = held.default.cents + held.fallback.cents;
  const fees = feeOf(held.default) + feeOf(held.fallback);
  const net = gross_cents * 10000 - fees;
  const p99_hundredths = Math.round(latency_ms.p99 * 100);
  const bonus_percent = Math.max(Math.floor((1100 - p99_hundredths + 25) / 50), 0);
  const fine_percent = difference > 0 ? FINE_PERCENT : 0;
  const lag = posts.accepted - held.default.payments - held.fallback.payments;
  return {
    grossCents: gross_cents,
    feesCents: Math.round(fees / 10000),
    bonusPercent: bonus_percent,
    finePercent: fine_percent,
    lag: lag,
    disqualified: lag < 0,
    scoreCents: lag < 0 ? null : Math.round((net * (100 + bonus_percent - fine_percent)) / 1000000),
  };
}

function money(cents) {
  const [whole, fraction] = (cents / 100).toFixed(2).split('.');
  return `${whole.replace(/\B(?=(\d{3})+$)/g, ',')}.${fraction}`;
}

function asText(sheet) {
  const lines = [];
  const line = (label, text) => lines.push(`  ${label.padEnd(16)}${text}`);
  lines.push('', `Score sheet: ${sheet.contest}${sheet.comparable ? '' : ', NOT COMPARABLE'}`);
  if (sheet.timeDivisor !== 1) {
    line('shortened', `the timetable ran ${sheet.timeDivisor} times faster than the contest's`);
  }
  if (sheet.vusMax !== contest.vus_max) {
    line('reduced', `${sheet.vusMax} virtual users where the contest has ${contest.vus_max}`);
  }
  line('payments', `${sheet.posts.accepted} accepted, ${sheet.posts.failed} failed ` +
    `(${sheet.posts.refused} refused, ${sheet.posts.unanswered} unanswered), ` +
    `${sheet.droppedIterations} iterations dropped`);
  line('audits', `${sheet.audits.done} done, ${sheet.audits.inconsistent} inconsistent by ` +
    `${sheet.audits.differencePayments} payments, ${sheet.audits.unanswered} unanswered`);
  line('', `strictly: ${sheet.audits.inconsistentStrict} inconsistent by ` +
    `${money(sheet.audits.differenceCentsStrict)}`);
  if (!sheet.complete) {
    line('INCOMPLETE', 'the run ended before the totals could be read; there is no score');
    return `${lines.join('\n')}\n`;
  }
  for (const name of ['default', 'fallback']) {
    const side = sheet.held[name];
    const said = sheet.backend[name];
    line(`${name} holds`, `${side.payments} payments, ${money(side.cents)}, ` +
      `fee ${Math.round(side.fee * 10000) / 100} %; the backend says ` +
      (said.payments === null ? 'nothing' : `${said.payments}, ${money(said.cents)}`));
  }
  const latency = sheet.latencyMs;
  line('latency', `p50 ${latency.p50.toFixed(2)}, p90 ${latency.p90.toFixed(2)}, ` +
    `p99 ${latency.p99.toFixed(2)}, max ${latency.max.toFixed(2)} ms ` +
    `over ${latency.requests} successful requests`);
  line('gross', money(sheet.score.grossCents));
  line('fees', money(sheet.score.feesCents));
  line('bonus', `${sheet.score.bonusPercent} %`);
  line('fine', `${sheet.score.finePercent} %`);
  line('lag', `${sheet.score.lag}`);
  line('score', sheet.score.disqualified ?
    'DISQUALIFIED: the processors hold more payments than were accepted' :
    money(sheet.score.scoreCents));
  return `${lines.join('\n')}\n`;
}
