// Asks /live every second while somebody looks, and draws the answer. Text enters the page as text, never as markup.
"use strict";

const ASK_EVERY = 1000;
const HISTORY = 60;
const RATE_OVER = 5;
const history = [];
let verdictShown = "";
let latest = null;

const byId = (id) => document.getElementById(id);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const whole = (value) => Math.round(value).toLocaleString("en");
const percent = (share) => `${Math.round(share * 100)} %`;

function seconds(value) {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

function ago(age) {
  const rounded = Math.max(0, Math.round(age));
  return rounded === 0 ? "now" : rounded < 10 ? `${rounded} s` : seconds(rounded);
}

function short(count) {
  if (count < 10000) return whole(count);
  return count < 1e6 ? `${Math.round(count / 1000)} k` : `${(count / 1e6).toFixed(1)} M`;
}

function rate(value) {
  return value === 0 ? "0" : value < 10 ? value.toFixed(1) : whole(value);
}

function dollars(value) {
  return value === 0 ? "$0" : `$${value < 0.01 ? value.toPrecision(2) : value.toFixed(2)}`;
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

function bar(parts, title) {
  const made = element("div", "bar");
  if (title) made.title = title;
  for (const [share, className] of parts) {
    const part = element("i", className);
    part.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
    made.append(part);
  }
  return made;
}

const heat = (share) => (share >= 0.95 ? "hot" : share >= 0.8 ? "warm" : "");
const fact = (text, className) => element("span", className, text);
const facts = (className, ...items) => element("div", `facts ${className}`, ...items);

function counted(snapshot) {
  const verdicts = snapshot.tiers.map((tier) => tier.verdicts);
  const refused = sum(verdicts.map((each) => each.REJECT || 0));
  return {
    at: snapshot.process.now,
    started: snapshot.process.now - snapshot.process.uptime_seconds,
    decided: sum(verdicts.map((each) => sum(Object.values(each)))),
    refused,
    running: sum(snapshot.tiers.map((tier) => tier.in_flight || 0)),
    waiting: sum(snapshot.tiers.map((tier) => tier.waiting || 0)),
    byTier: Object.fromEntries(snapshot.tiers.map((tier) => [tier.name, tier.verdicts])),
  };
}

function remember(snapshot) {
  const now = counted(snapshot);
  const last = history.at(-1);
  if (last && last.at === now.at) return;
  // A sidecar that began anew counts from zero again.
  if (last && now.started - last.started > 2) history.length = 0;
  history.push(now);
  if (history.length > HISTORY + 1) history.shift();
}

function perSecond(key, index = history.length - 1) {
  const from = history[Math.max(0, index - RATE_OVER)];
  const to = history[index];
  return to.at > from.at ? (to[key] - from[key]) / (to.at - from.at) : 0;
}

function lastMinute(tier, verdict) {
  const before = history[0].byTier[tier] || {};
  const now = history.at(-1).byTier[tier] || {};
  return (now[verdict] || 0) - (before[verdict] || 0);
}

function line(id, values) {
  const highest = Math.max(1, ...values);
  const step = 120 / (HISTORY - 1);
  const points = values.map((value, index) => {
    const x = 120 - (values.length - 1 - index) * step;
    return `${x.toFixed(1)},${(26 - (value / highest) * 24).toFixed(1)}`;
  });
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
  byId(id).replaceChildren(path);
}

function drawFigures() {
  const now = history.at(-1);
  const indices = history.map((_, index) => index).slice(1);
  byId("rate").textContent = rate(perSecond("decided"));
  byId("refused").textContent = rate(perSecond("refused"));
  byId("running").textContent = whole(now.running);
  byId("waiting").textContent = whole(now.waiting);
  line("rate-line", indices.map((index) => perSecond("decided", index)));
  line("refused-line", indices.map((index) => perSecond("refused", index)));
  line("running-line", history.slice(1).map((each) => each.running));
  line("waiting-line", history.slice(1).map((each) => each.waiting));
}

function server(said) {
  if (said === null) return null;
  if (said.is_stale) return facts("server", fact(`servers silent for ${seconds(said.age_seconds)}`, "bad"));
  const told = [];
  if (said.is_ready === false) told.push(fact("not ready", "bad"));
  if (said.running !== null) told.push(fact(`${whole(said.running)}${said.slots ? ` of ${whole(said.slots)}` : ""} running`));
  if (said.waiting !== null) told.push(fact(`${whole(said.waiting)} queued`, said.waiting ? "strong" : ""));
  if (said.kv_cache_usage !== null) told.push(fact(`KV cache ${percent(said.kv_cache_usage)}`));
  if (said.gpu_utilization !== null) told.push(fact(`GPU ${percent(said.gpu_utilization)}`));
  return facts("server", fact("servers:"), ...told);
}

function cluster(it) {
  const limit = it.max_requests === null ? "" : ` of ${whole(it.max_requests)}`;
  return element("div", "card",
    element("div", "top", element("span", "name", it.name), element("b", "", percent(it.saturation))),
    bar([[it.saturation, heat(it.saturation)]]),
    facts("",
      fact(`${whole(it.requests)}${limit} in flight`),
      it.waiting ? fact(`${whole(it.waiting)} waiting`, "strong") : null,
      it.max_tokens === null ? null : fact(`${short(it.tokens)} of ${short(it.max_tokens)} tokens`)),
    server(it.servers));
}

function tier(it) {
  const verdicts = ["ADMIT", "QUEUE", "DEGRADE", "REJECT"].map((verdict) => [verdict, lastMinute(it.name, verdict)]);
  const decided = sum(verdicts.map(([, count]) => count));
  const words = verdicts.filter(([, count]) => count).map(([verdict, count]) => `${whole(count)} ${verdict.toLowerCase()}`);
  const parts = verdicts.map(([verdict, count]) => [decided ? count / decided : 0, verdict.toLowerCase()]);
  const isLate = it.first_token_p95_seconds > it.first_token_slo_seconds && it.first_token_slo_seconds !== null;
  return element("div", "row",
    element("div", "top", element("span", "name", it.name || "unknown callers"), element("span", "quiet", `${whole(decided)} in a minute`)),
    bar(parts, words.join(", ")),
    facts("",
      it.in_flight === undefined ? null : fact(`${whole(it.in_flight)}${it.limit === null ? "" : ` of ${whole(it.limit)}`} in flight`),
      it.waiting ? fact(`${whole(it.waiting)} waiting`, "strong") : null,
      it.first_token_p95_seconds ? fact(
        `first token ${seconds(it.first_token_p95_seconds)}${it.first_token_slo_seconds ? `, owed ${seconds(it.first_token_slo_seconds)}` : ""}`,
        isLate ? "bad" : "") : null));
}

function tenant(it) {
  return element("div", "row",
    element("div", "top", element("span", "name", it.name), element("b", "", percent(it.share))),
    bar([[it.share, ""]]),
    facts("",
      it.tier ? fact(it.tier) : null,
      it.in_flight ? fact(`${whole(it.in_flight)} in flight`, "strong") : null,
      fact(`${whole(it.requests)} ${it.requests === 1 ? "request" : "requests"}`),
      fact(`${short(it.tokens)} tokens`),
      fact(dollars(it.cost_dollars))));
}

const VERDICTS = { ADMIT: "admitted", QUEUE: "waited", DEGRADE: "degraded", REJECT: "refused" };

// Many requests get the same answer for the same reason; a line says how many of those kept here.
function alike(decisions) {
  const groups = new Map();
  for (const it of decisions) {
    const key = JSON.stringify([it.verdict, it.tenant, it.tier, it.model, it.cluster, it.reason]);
    const group = groups.get(key);
    if (group) group.times += 1;
    else groups.set(key, { ...it, times: 1 });
  }
  return [...groups.values()];
}

function decision(it, now) {
  const way = it.cluster ? `${it.model} → ${it.cluster}` : it.model;
  const why = it.reason.replaceAll("_", " ") + (it.verdict === "REJECT" ? ` (${it.status})` : "");
  const made = element("li", "",
    element("span", "", element("span", `chip ${it.verdict}`, VERDICTS[it.verdict] || it.verdict)),
    element("span", "who", it.tenant || "unknown", it.tier ? element("span", "quiet", ` ${it.tier}`) : null),
    element("span", "what", way, why ? element("span", it.verdict === "REJECT" ? "bad" : "quiet", `${way ? ": " : ""}${why}`) : null),
    element("span", "number times", it.times > 1 ? `× ${it.times}` : ""),
    element("span", "number tokens", it.prompt_tokens ? `${short(it.prompt_tokens)} + ${short(it.max_output_tokens)} tokens` : ""),
    element("span", "number wait", it.queue_wait_seconds ? `${seconds(it.queue_wait_seconds)} wait` : ""),
    element("span", "ago", ago(now - it.at)));
  made.title = it.id;
  return made;
}

function drawDecisions() {
  if (latest === null) return;
  const shown = latest.decisions.filter((it) => !verdictShown || it.verdict === verdictShown);
  byId("decisions").replaceChildren(...alike(shown).map((it) => decision(it, latest.process.now)));
}

function drawState(text, className) {
  byId("state").textContent = text;
  byId("state").className = `pill ${className}`;
}

function draw(answer) {
  // A process that runs the rate limit service alone has nothing to say about the rest.
  const snapshot = { clusters: [], tiers: [], tenants: [], decisions: [], ...answer };
  latest = snapshot;
  remember(snapshot);
  const about = snapshot.process;
  if (about.policy_is_refused) drawState("the new policy file is refused", "bad");
  else drawState(about.is_serving ? "live" : "draining", about.is_serving ? "good" : "bad");
  byId("about").textContent = `${about.version}, policy ${about.policy}, up ${seconds(about.uptime_seconds)}`;
  drawFigures();
  byId("clusters").replaceChildren(...snapshot.clusters.map(cluster));
  byId("tiers").replaceChildren(...snapshot.tiers.map(tier));
  byId("tenants").replaceChildren(...snapshot.tenants.map(tenant));
  drawDecisions();
}

async function ask() {
  try {
    const answer = await fetch("live", { signal: AbortSignal.timeout(5 * ASK_EVERY) });
    if (!answer.ok) throw new Error(`${answer.status}`);
    draw(await answer.json());
  } catch {
    drawState("no answer from the sidecar", "bad");
  }
}

async function keepAsking() {
  if (document.visibilityState === "visible") await ask();
  setTimeout(keepAsking, ASK_EVERY);
}

byId("filter").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button === null) return;
  verdictShown = button.dataset.verdict;
  for (const each of byId("filter").children) each.setAttribute("aria-pressed", String(each === button));
  drawDecisions();
});
keepAsking();
