// Shows what /status tells, once a second. Every text of it is put in as text: names are other people's.
"use strict";

const SHOWN_S = 300; // What the charts show.
const SILENCE_MS = 5000; // After this time without news the connection counts as lost.
const AGAIN_MS = 1000; // Between two attempts where the browser makes none of its own.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 60;

const TONES = {
  ready: "good", starting: "wait", waiting: "wait", waking: "wait", draining: "wait", stopping: "wait", leaving: "wait",
  "falling-asleep": "wait", down: "bad", replacing: "bad", "backing-off": "bad", lost: "bad",
};

const CHARTS = [
  { name: "in flight", of: (now) => now.inFlight, shown: whole },
  { name: "queued", of: (now) => now.queued, shown: whole },
  { name: "requests", of: (now) => now.rate, shown: perSecond },
  { name: "object store", of: (now) => now.arena, shown: bytes, top: (now) => now.arenaTop },
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

function bytes(value) {
  if (value === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (value >= 1024 && place < units.length - 1) {
    value /= 1024;
    place += 1;
  }
  return `${place === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[place]}`;
}

function milliseconds(value) {
  if (value === null) return "–";
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

// Groups of an earlier load of the app may have the name of a newer one.
function keyOf(group) {
  return `${group.state === "leaving"} ${group.name}`;
}

function endedOf(group) {
  return group.succeeded + group.failed;
}

// Requests a second by group; nothing for a group that was not there before.
function ratesOf(status) {
  const rates = new Map();
  const passed = before === null ? 0 : status.uptime_s - before.uptime_s;
  if (passed <= 0) return rates;
  const known = new Map(before.groups.map((group) => [keyOf(group), endedOf(group)]));
  for (const group of status.groups) {
    if (!known.has(keyOf(group))) continue;
    const more = endedOf(group) - known.get(keyOf(group));
    rates.set(keyOf(group), Math.max(more < 0 ? endedOf(group) : more, 0) / passed);
  }
  return rates;
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

function remember(status, rates) {
  if (before !== null && status.uptime_s < before.uptime_s) history = [];
  const objects = status.objects;
  history.push({
    at: status.uptime_s,
    inFlight: status.in_flight,
    queued: sum(status.groups.map((group) => group.queued)),
    rate: rates.size === 0 ? null : sum([...rates.values()]),
    arena: objects === null ? null : objects.used_bytes,
    arenaTop: objects === null ? null : objects.capacity_bytes,
  });
  history = history.filter((one) => one.at > status.uptime_s - SHOWN_S);
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

function state(value) {
  return { value, tone: TONES[value] ?? "" };
}

function needsOf(needs) {
  const tokens = Object.entries(needs.tokens).filter(([, amount]) => amount > 0);
  const parts = tokens.map(([name, amount]) => `${amount} ${name}`);
  if (needs.gpus > 0) parts.unshift(`${needs.gpus} gpu`);
  return parts.join(", ") || "–";
}

function workersOf(group) {
  const ready = group.workers.filter((worker) => worker.state === "ready").length;
  const bounds = group.min_workers === group.max_workers ? group.max_workers : `${group.min_workers}–${group.max_workers}`;
  return `${ready} ready of ${group.workers.length} (${bounds})`;
}

function groupRow(group, rates) {
  return [
    group.name, state(group.state), group.models.join(", "), workersOf(group), needsOf(group.needs),
    number(whole(group.queued)), number(whole(group.in_flight)), number(milliseconds(group.oldest_wait_ms)),
    number(perSecond(rates.get(keyOf(group)) ?? null)), number(whole(group.succeeded)), number(whole(group.failed)),
    number(whole(group.starts)), number(whole(group.restarts)), number(milliseconds(group.start_time_ms)),
    number(milliseconds(group.wake_time_ms)),
  ];
}

function workerRow(worker, group) {
  return [
    worker.name, group.name, state(worker.state), number(seconds(worker.since_s)), number(whole(worker.pid)),
    number(whole(worker.in_flight)), worker.gpus.join(", ") || "–", number(bytes(worker.memory_bytes)), worker.detail,
  ];
}

function resourceRows(status) {
  const rows = status.resources.map((one) => [one.name, number(whole(one.used)), number(whole(one.total))]);
  if (status.objects !== null) {
    rows.push(["object store", number(bytes(status.objects.used_bytes)), number(bytes(status.objects.capacity_bytes))]);
  }
  return rows;
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
  const top = Math.max(chart.top?.(now) ?? most, Number.MIN_VALUE);
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
  if (status.safe_to_stop) return "drained: safe to stop";
  return status.draining ? `draining: ${status.in_flight} in flight` : "serving";
}

function show(status) {
  const rates = ratesOf(status);
  remember(status, rates);
  text(document.getElementById("state"), phase(status));
  text(document.getElementById("age"), `up for ${seconds(status.uptime_s)}, load ${status.generation} of the app`);
  fill("groups", status.groups.map((group) => groupRow(group, rates)));
  fill("workers", status.groups.flatMap((group) => group.workers.map((worker) => workerRow(worker, group))));
  fill("resources", resourceRows(status));
  CHARTS.forEach(draw);
  before = status;
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
listen();
setInterval(() => {
  if (newest > 0 && performance.now() - newest > SILENCE_MS) lost(true);
}, AGAIN_MS);
