// Shows what /status tells, once a second. Every text of it is put in as text: names are other people's.
"use strict";

const SHOWN_S = 300; // What the charts show.
const SILENCE_MS = 5000; // After this time without news the connection counts as lost.
const AGAIN_MS = 1000; // Between two attempts where the browser makes none of its own.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 60;

const TONES = { up: "good", draining: "wait", probing: "bad", ejected: "bad" };
const TOO_LONG_MS = 10 * 365 * 24 * 3600 * 1000; // An epoch that is longer ago is no start in milliseconds.

const CHARTS = [
  { name: "requests", of: (now) => now.rate, shown: perSecond },
  { name: "failed", of: (now) => now.failing, shown: perSecond },
  { name: "in flight", of: (now) => now.inFlight, shown: whole },
  { name: "replicas up", of: (now) => now.up, shown: whole, top: (now) => now.count },
];

let before = null; // The status before this one.
let history = []; // What the charts show, the oldest first.
let newest = 0; // When the newest status came, by the clock of the page.

// === numbers as text ===

function whole(value) {
  return value === null ? "–" : String(value);
}

function perSecond(value) {
  if (value === null) return "–";
  return `${value >= 100 ? Math.round(value) : value.toFixed(1)}/s`;
}

function milliseconds(value) {
  return value < 1000 ? `${Number(value.toPrecision(3))} ms` : seconds(value / 1000);
}

function seconds(value) {
  if (value < 60) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d`;
}

// === what is computed from two statuses ===

function rateOf(status, count) {
  const passed = before === null ? 0 : status.uptime_s - before.uptime_s;
  return passed <= 0 ? null : Math.max(count(status) - count(before), 0) / passed;
}

function remember(status) {
  if (before !== null && status.uptime_s < before.uptime_s) {
    history = [];
    before = null;
  }
  history.push({
    at: status.uptime_s,
    rate: rateOf(status, (one) => one.succeeded + one.failed),
    failing: rateOf(status, (one) => one.failed),
    inFlight: status.in_flight,
    up: status.up,
    count: status.count,
  });
  history = history.filter((one) => one.at > status.uptime_s - SHOWN_S);
}

function byName(one, other) {
  return one.capability < other.capability ? -1 : 1;
}

function countOf(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

// How long a replica runs: its epoch is when it started, unless it speaks for itself and counts otherwise.
function ageOf(replica) {
  const age = Date.now() - replica.epoch;
  return age < 0 || age > TOO_LONG_MS ? "–" : `${seconds(age / 1000)} ago`;
}

function has(replica, wanted) {
  const texts = [replica.id, replica.endpoint, replica.state, replica.why ?? "", servesOf(replica)];
  return texts.some((one) => one.toLowerCase().includes(wanted));
}

// === tables ===

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

// Writes rows of cells, each a text, or a text with a class and a tone; elements that are there stay.
function fill(table, rows) {
  const body = document.querySelector(`#${table} tbody`);
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, place) => {
    const row = body.rows[place] ?? body.insertRow();
    cells.forEach((cell, column) => {
      const { value, tone = "", kind = "" } = typeof cell === "object" ? cell : { value: cell };
      const element = row.cells[column] ?? appended(row, column);
      text(element, value);
      element.className = kind;
      element.dataset.tone = tone;
    });
  });
}

function appended(row, column) {
  const element = document.createElement(column === 0 ? "th" : "td");
  if (column === 0) element.scope = "row";
  return row.appendChild(element);
}

function number(value) {
  return { value, kind: "number" };
}

// What it serves, and how fit it is for each. Where it is not up, it is fit for none.
function servesOf(replica) {
  const shown = replica.capabilities.map((one) => {
    const fit = replica.state === "up" ? [one.standing] : [];
    if (one.pending > 0) fit.push(`${one.pending} pending`, milliseconds(one.wait_ms));
    return fit.length > 0 ? `${one.capability} (${fit.join(", ")})` : one.capability;
  });
  if (replica.more > 0) shown.push(`and ${replica.more} more`);
  return shown.join("; ") || "–";
}

function replicaRow(replica) {
  const why = replica.why ?? "";
  return [
    { value: replica.id, kind: "name" }, { value: replica.state, tone: TONES[replica.state] ?? "" },
    number(whole(replica.pending)), number(whole(replica.slots)), number(seconds(replica.lease_s)),
    number(ageOf(replica)), replica.heard === "here" ? "here" : "elsewhere", { value: replica.endpoint, kind: "name" },
    { value: why, kind: why === "" ? "" : "long" }, { value: servesOf(replica), kind: "long" },
  ];
}

function capabilityRow(one) {
  const counts = [one.replicas, one.ready, one.cold, one.saturated, one.ejected, one.pending];
  return [
    { value: one.capability, kind: "name" }, ...counts.map((count) => number(whole(count))),
    number(one.wait_ms === null ? "–" : milliseconds(one.wait_ms)),
  ];
}

// === charts ===

function drawn(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function prepare(chart) {
  const figure = document.createElement("figure");
  const caption = figure.appendChild(document.createElement("figcaption"));
  caption.appendChild(document.createElement("span")).textContent = chart.name;
  chart.value = caption.appendChild(document.createElement("output"));
  chart.picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  chart.area = chart.picture.appendChild(drawn("polygon", { class: "area" }));
  chart.curve = chart.picture.appendChild(drawn("polyline", { class: "curve" }));
  figure.appendChild(chart.picture);
  document.getElementById("charts").appendChild(figure);
}

function draw(chart) {
  const now = history[history.length - 1];
  const points = history.filter((one) => chart.of(one) !== null);
  const most = Math.max(...points.map(chart.of), 0);
  const top = Math.max(chart.top?.(now) ?? most, most, Number.MIN_VALUE);
  const place = (one) => {
    const x = WIDTH - ((now.at - one.at) / SHOWN_S) * WIDTH;
    const y = HEIGHT - 2 - (chart.of(one) / top) * (HEIGHT - 4);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  };
  const line = points.map(place);
  const first = line.length > 0 ? line[0].split(",")[0] : WIDTH;
  chart.curve.setAttribute("points", line.join(" "));
  chart.area.setAttribute("points", [`${first},${HEIGHT}`, ...line, `${WIDTH},${HEIGHT}`].join(" "));
  text(chart.value, chart.shown(chart.of(now)));
  chart.picture.setAttribute("aria-label", `${chart.name}: now ${chart.shown(chart.of(now))}, at most ${chart.shown(most)}`);
}

// === the whole ===

function phase(status) {
  const store = status.store === "disconnected" ? ", store disconnected" : "";
  return status.draining ? `draining: ${status.in_flight} in flight${store}` : `serving${store}`;
}

function about(status) {
  const { up, ...others } = status.states;
  const wrong = Object.entries(others).filter(([, count]) => count > 0).map(([name, count]) => `, ${count} ${name}`);
  const parts = [
    `version ${status.version}`, `up for ${seconds(status.uptime_s)}`,
    `${up} of ${countOf(status.count, "replica")} up${wrong.join("")}`, `policy ${status.policy}`,
  ];
  if (status.store !== "memory") parts.push(`shared through etcd: ${status.count - status.heard_here} heard by other servers`);
  return parts.join(", ");
}

function more(place, count, where) {
  const element = document.getElementById(place);
  element.hidden = count <= 0;
  text(element, `and ${count} more${where}`);
}

function showReplicas() {
  const wanted = document.getElementById("filter").value.trim().toLowerCase();
  const found = before.replicas.filter((one) => wanted === "" || has(one, wanted));
  fill("replicas", found.map(replicaRow));
  text(document.getElementById("found"), wanted === "" ? "" : `${found.length} of the ${before.replicas.length} shown`);
}

function show(status) {
  remember(status);
  before = status;
  text(document.getElementById("state"), phase(status));
  text(document.getElementById("age"), about(status));
  showReplicas();
  fill("capabilities", status.capabilities.sort(byName).map(capabilityRow));
  more("more", status.count - status.replicas.length, ": GET /registry?after=ID goes through all of them");
  more("more-capabilities", status.more_capabilities, " of which nothing is shown");
  CHARTS.forEach(draw);
}

function lost(is) {
  document.getElementById("lost").hidden = !is;
  document.body.classList.toggle("is-lost", is);
  if (is) text(document.getElementById("state"), "connection lost");
}

function listen() {
  const source = new EventSource("/status");
  source.onmessage = (event) => {
    newest = performance.now();
    lost(false);
    show(JSON.parse(event.data));
  };
  source.onerror = () => {
    lost(true);
    // A refusal ends it for good; a connection that broke off it makes anew by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
  };
}

CHARTS.forEach(prepare);
document.getElementById("filter").addEventListener("input", () => before === null || showReplicas());
listen();
setInterval(() => {
  if (newest > 0 && performance.now() - newest > SILENCE_MS) lost(true);
}, AGAIN_MS);
