// The page: data in, a forecast with its fan, indicators, headlines, a live replay, and the same calls as code.

import { Problem, getJson, getText, ownKey, postFile, postJson, useKey, watch } from "/page/api.js";
import { candles, pane, quantile, short } from "/page/chart.js";

const LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];
const BANDS = [[50, 0.25, 0.75], [80, 0.1, 0.9], [90, 0.05, 0.95]];
const SHOWN = 160, REPLAYED = 40;
const INDICATORS = ["RSI", "MACD", "BBANDS", "ATR", "STOCH", "OBV"];
const NEEDS = { ATR: ["high", "low"], STOCH: ["high", "low"], OBV: ["volume"] };

const $ = id => document.getElementById(id);
const state = { data: null, instruments: [], fan: null, answer: null, picked: new Set(["RSI", "MACD"]), tab: "curl", view: null, run: 0, replay: null };

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

// ---- failures and the key

function tell(error) {
  if (error instanceof DOMException && error.name === "AbortError") return;
  if (error instanceof Problem && error.status === 401) {
    $("login").hidden = false;
    $("login-fault").textContent = ownKey() ? error.message : "";
    return;
  }
  $("fault").hidden = false;
  $("fault").textContent = error.message + (error.requestId ? ` (request id ${error.requestId})` : "");
  if (!(error instanceof Problem)) console.error(error);
}

$("login").addEventListener("submit", async event => {
  event.preventDefault();
  useKey($("key").value);
  try {
    await begin();
    $("login").hidden = true;
  } catch (error) { tell(error); }
});

// ---- status

async function showStatus() {
  try {
    const found = await getJson("/v1/status");
    $("health").className = `chip ${found.health}`;
    const count = found.replicas.length;
    $("health").replaceChildren(found.health, element("span", {}, `, ${count} replica${count === 1 ? "" : "s"}`));
    const rows = found.replicas.flatMap(replica => replica.engines.map(engine => element("tr", {},
      ...[replica.name, engine.name, engine.model, engine.model_version, engine.health, `${(engine.probe_seconds * 1000).toFixed(1)} ms`, engine.message]
        .map(cell => element("td", {}, cell ?? "")))));
    $("status").replaceChildren(element("h2", {}, `Service ${found.version}`), element("div", { class: "wide" }, element("table", {},
      element("tr", {}, ...["replica", "engine", "model", "version", "health", "own test", ""].map(head => element("th", {}, head))), ...rows)));
  } catch (error) {
    $("health").className = "chip unhealthy";
    $("health").textContent = error.status === 401 ? "key needed" : "not reachable";
    throw error;
  }
}

$("health").addEventListener("click", () => {
  $("status").hidden = !$("status").hidden;
  $("health").setAttribute("aria-expanded", String(!$("status").hidden));
});

async function showModels() {
  const { models } = await getJson("/v1/models");
  const own = models.filter(model => model.engine === "forecast" && model.state !== "failed");
  $("model").replaceChildren(...own.map(model => {
    const option = element("option", { value: model.name }, model.name + (model.is_default ? " (default)" : ""));
    option.selected = model.is_default;
    return option;
  }));
}

// ---- data

// "Title (explanation)" as a title with a small explanation, which phones leave out.
function named(title) {
  const [, name, text] = title.match(/^(.*?)(?: \((.*)\))?$/);
  return text ? [name, element("small", {}, text)] : [name];
}

async function showSamples() {
  const samples = await getJson("/v1/samples");
  $("samples").replaceChildren(...samples.map(sample => {
    const button = element("button", { type: "button", "data-sample": sample.name, "aria-pressed": "false" }, ...named(sample.title));
    button.addEventListener("click", () => openSample(sample.name));
    return button;
  }));
  return samples[0].name;
}

async function openSample(name) {
  try {
    const text = await getText(`/v1/samples/${name}`);
    await load(new Blob([text]), name, name);
  } catch (error) { tell(error); }
}

async function load(blob, name, sample = "") {
  stopReplay();
  $("fault").hidden = true;
  const { instruments } = await postFile("/v1/bars", blob);
  for (const button of $("samples").children) button.setAttribute("aria-pressed", String(button.dataset.sample === sample));
  state.instruments = instruments.map(one => ({ ...one, symbol: one.symbol || name.replace(/\.[^.]*$/, ""), file: sample ? `${sample}.csv` : name }));
  $("instrument-label").hidden = instruments.length < 2;
  $("instrument").replaceChildren(...state.instruments.map((one, at) => element("option", { value: at }, one.symbol)));
  await choose(0);
}

async function choose(at) {
  const data = state.instruments[at];
  if (!data.columns.close) throw new Error("The file has no column of closes that is whole; the notes of `market-inference inspect` say why.");
  state.data = data;
  clear();
  $("title").textContent = data.symbol;
  const count = data.columns.close.length;
  $("subtitle").textContent = `${count.toLocaleString("en")} bars` + (data.times ? `, ${data.times[0]} to ${data.times.at(-1)}` : "");
  await refresh();
}

// Nothing of the series before stays under the name of the new one, also when the new forecast fails.
function clear() {
  state.fan = state.answer = state.view = null;
  for (const id of ["chart", "facts", "notes", "panes", "live", "live-fault", "code"]) $(id).replaceChildren();
  $("readout").textContent = "\u00a0";
}

$("file").addEventListener("change", event => {
  const [file] = event.target.files;
  if (file) load(file, file.name).catch(tell);
  event.target.value = "";
});
$("instrument").addEventListener("change", event => choose(Number(event.target.value)).catch(tell));
for (const name of ["dragenter", "dragover"]) addEventListener(name, event => { event.preventDefault(); document.body.classList.add("dropping"); });
for (const name of ["dragleave", "drop"]) addEventListener(name, event => { event.preventDefault(); if (name === "drop" || !event.relatedTarget) document.body.classList.remove("dropping"); });
addEventListener("drop", event => { const [file] = event.dataTransfer.files; if (file) load(file, file.name).catch(tell); });

// ---- the forecast

const horizon = () => Number($("horizon").value);
const held = () => $("hold").checked ? Math.min(horizon(), Math.max(0, state.data.columns.close.length - 60)) : 0;
const until = (column, drop) => drop ? column.slice(0, -drop) : column;

async function refresh() {
  if (!state.data) return;
  // Not after the answer: an answer that comes late must not hide the fault of a file opened meanwhile.
  $("fault").hidden = true;
  const run = ++state.run, drop = held(), closes = until(state.data.columns.close, drop).slice(-10000);
  try {
    const body = { symbol: state.data.symbol.slice(0, 64), time_series: closes, horizon: horizon(), quantiles: LEVELS, model: $("model").value };
    const [answer] = await Promise.all([postJson("/v1/predict", body), showIndicators(run, drop)]);
    if (run !== state.run) return;
    state.answer = { ...answer, forecast: answer.forecasts[0].forecast };
    if (!state.answer.forecast) throw new Problem({ detail: answer.forecasts[0].error }, 200);
    state.fan = fanOf(state.answer.forecast, answer.quantile_levels);
    draw();
    showFacts(drop);
    showCode();
  } catch (error) { if (run === state.run) tell(error); }
}

const fanOf = (forecast, levels) => ({ levels, point: forecast.point, quantiles: forecast.quantiles });

function draw(live = null) {
  const drop = live ? live.drop : held(), { columns, times } = state.data;
  const cut = name => columns[name] ? until(columns[name], drop).slice(-SHOWN) : undefined;
  const bars = { open: cut("open"), high: cut("high"), low: cut("low"), close: cut("close") };
  const came = live || !drop ? null : columns.close.slice(-drop);
  const all = times ? times.slice(Math.max(0, times.length - drop - bars.close.length)) : null;
  state.view = { ...candles($("chart"), { bars, times: all, fan: state.fan, came }), bars, times: all, came, at: null };
  $("held-legend").hidden = !came;
  $("readout").textContent = "\u00a0";
}

function showFacts(drop) {
  const { coverage, gate } = state.answer.forecast, facts = [];
  if (coverage && coverage.measured !== null) facts.push([`${Math.round(coverage.measured * 100)} %`, `of ${coverage.origins} backtests inside this series fell into the ${Math.round(coverage.nominal * 100)} % interval`]);
  if (drop) for (const [share, low, high] of BANDS) {
    const under = quantile(state.fan, low), over = quantile(state.fan, high), came = state.data.columns.close.slice(-drop);
    const inside = came.filter((value, at) => value >= under[at] && value <= over[at]).length;
    facts.push([`${inside} of ${drop}`, `bars that came were inside the ${share} % band`]);
  }
  const step = state.fan.point.length, last = quantile(state.fan, 0.1).at(-1), top = quantile(state.fan, 0.9).at(-1);
  facts.push([`${short(last)} – ${short(top)}`, `80 % interval ${step} bar${step === 1 ? "" : "s"} ahead`]);
  if (state.answer.model === "auto") facts.push([gate < 0.05 ? "random walk" : `${Math.round(gate * 100)} % structure`, gate < 0.05 ? "no pattern found that would beat the last value" : "season, trend or mean reversion was found"]);
  $("facts").replaceChildren(...facts.map(([value, text]) => element("div", { class: "fact" }, element("b", {}, value), element("span", {}, text))));
  showNotes(state.answer.forecast.warnings);
}

function showNotes(warnings) {
  $("notes").replaceChildren(...doubts("li", warnings), ...state.data.notes.map(note => element("li", {}, note)));
}

const doubts = (tag, warnings) => (warnings ?? []).map(one => element(tag, { class: "warning" }, one.message));

$("horizon").addEventListener("input", () => { $("horizon-shown").textContent = $("horizon").value; });
for (const id of ["horizon", "hold", "model"]) $(id).addEventListener("change", () => { stopReplay(); refresh(); });

// ---- the crosshair

function look(at) {
  const view = state.view;
  if (!view) return;
  const count = view.bars.close.length;
  view.at = Math.max(0, Math.min(view.slots - 1, at));
  view.cross.setAttribute("visibility", "visible");
  for (const end of ["x1", "x2"]) view.cross.setAttribute(end, view.x(view.at));
  const time = view.times?.[view.at] ?? (view.at < count ? `bar ${view.at - count}` : `step ${view.at - count + 1}`);
  if (view.at < count) {
    const parts = ["open", "high", "low", "close"].filter(name => view.bars[name]).map(name => `${name} ${short(view.bars[name][view.at])}`);
    $("readout").textContent = `${time}   ${parts.join("   ")}`;
    return;
  }
  const step = view.at - count, of = level => short(quantile(state.fan, level)?.[step]);
  const came = view.came?.[step] === undefined ? "" : `   came ${short(view.came[step])}`;
  $("readout").textContent = `${time}   median ${short(state.fan.point[step])}   80 %: ${of(0.1)} – ${of(0.9)}   90 %: ${of(0.05)} – ${of(0.95)}${came}`;
}

$("chart").addEventListener("pointermove", event => {
  const view = state.view;
  if (!view) return;
  const box = $("chart").getBoundingClientRect();
  look(Math.round((event.clientX - box.left - view.x(0)) / (view.x(1) - view.x(0))));
});
$("chart").addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 }[event.key];
  if (!step || !state.view) return;
  event.preventDefault();
  look((state.view.at ?? state.view.bars.close.length) + step);
});

// ---- indicators

function showPicks() {
  $("picks").replaceChildren(...INDICATORS.map(name => {
    const button = element("button", { type: "button", "aria-pressed": String(state.picked.has(name)) }, name);
    button.addEventListener("click", () => {
      state.picked.has(name) ? state.picked.delete(name) : state.picked.add(name);
      button.setAttribute("aria-pressed", String(state.picked.has(name)));
      showIndicators(state.run, held()).catch(tell);
      showCode();
    });
    return button;
  }));
}

const usable = () => [...state.picked].filter(name => (NEEDS[name] ?? []).every(column => state.data.columns[column]));

async function showIndicators(run, drop) {
  const asked = usable();
  if (!asked.length) { $("panes").replaceChildren(); return; }
  const ohlcv = Object.fromEntries(Object.entries(state.data.columns).map(([name, column]) => [name, until(column, drop).slice(-10000)]));
  const answer = await postJson("/v1/indicators", { ohlcv, indicators: asked.map(name => ({ name, last: Math.min(SHOWN, ohlcv.close.length) })) });
  if (run !== state.run) return;
  const [panel] = answer.panels;
  if (panel.error) throw new Problem({ detail: panel.error }, 200);
  const count = Math.min(SHOWN, ohlcv.close.length);
  $("panes").replaceChildren();
  for (const one of panel.indicators.indicators) pane($("panes"), { name: one.name, outputs: one.outputs, count, ahead: horizon() });
}

// ---- live replay

function stopReplay() {
  if (!state.replay) return;
  clearInterval(state.replay.timer);
  state.replay.socket.close();
  state.replay = null;
  $("replay").textContent = "Play the last bars";
}

$("replay").addEventListener("click", () => {
  if (state.replay) { stopReplay(); refresh(); return; }
  if (!state.data) return;
  const total = state.data.columns.close.length, count = Math.min(REPLAYED, total - 60);
  if (count < 1) { $("live-fault").textContent = "A replay needs more than 60 bars."; return; }
  $("live-fault").textContent = "";
  const names = Object.keys(state.data.columns), start = total - count;
  const ohlcv = Object.fromEntries(names.map(name => [name, state.data.columns[name].slice(Math.max(0, start - 500), start)]));
  const bar = at => Object.fromEntries(names.map(name => [name, state.data.columns[name][at]]));
  const open = { symbol: state.data.symbol.slice(0, 64), ohlcv, indicators: usable(), forecast: { horizon: horizon(), quantiles: LEVELS } };
  const replay = { sent: 0, got: 0, checked: 0, inside: 0, before: null, began: new Map(), timer: 0, socket: null };
  state.replay = replay;
  state.run++;
  $("replay").textContent = "Stop";
  replay.socket = watch(open, message => live(message, replay, { count, total, start, bar }), () => {
    if (state.replay === replay) { clearInterval(replay.timer); state.replay = null; $("replay").textContent = "Play the last bars"; }
  });
});

function live(message, replay, { count, total, start, bar }) {
  if (state.replay !== replay) return;
  if (message.error) $("live-fault").textContent = message.error.detail;
  if (message.opened) {
    replay.timer = setInterval(() => {
      if (replay.sent >= count) { clearInterval(replay.timer); return; }
      // A busy service answers later than the next bar is due: bars in a queue would only have their forecasts refused.
      if (replay.sent > replay.got) return;
      replay.began.set(replay.sent + 1, performance.now());
      replay.socket.send(JSON.stringify({ bar: bar(start + replay.sent++) }));
    }, 1000 / Number($("speed").value));
    return;
  }
  if (!message.sequence) return;
  replay.got = message.sequence;
  const close = state.data.columns.close[start + replay.got - 1], took = performance.now() - replay.began.get(replay.got);
  if (replay.before) {
    replay.checked++;
    replay.inside += close >= quantile(replay.before, 0.1)[0] && close <= quantile(replay.before, 0.9)[0];
  }
  replay.before = message.forecast ? fanOf(message.forecast, message.forecast.quantile_levels) : null;
  if (replay.before) {
    state.fan = replay.before;
    showNotes(message.forecast.warnings);
  }
  draw({ drop: total - start - replay.got });
  const values = Object.entries(message.values).slice(0, 4).map(([name, value]) => [short(value), name]);
  $("live").replaceChildren(...[[`${replay.got} of ${count}`, "bars answered"], [`${took.toFixed(1)} ms`, "from bar to update"],
    [replay.checked ? `${replay.inside} of ${replay.checked}` : "–", "bars inside the 80 % band of the bar before"], ...values]
    .map(([value, text]) => element("div", { class: "fact" }, element("b", {}, value), element("span", {}, text))));
  if (replay.got >= count) { replay.socket.send(JSON.stringify({ finish: true })); }
}

// ---- headlines

$("headlines").addEventListener("submit", event => { event.preventDefault(); score().catch(tell); });

async function score() {
  const texts = $("texts").value.split("\n").map(text => text.trim()).filter(Boolean).slice(0, 100);
  if (!texts.length) { $("moods").replaceChildren(); return; }
  const { sentiments } = await postJson("/v1/sentiment", { texts });
  $("moods").replaceChildren(...sentiments.map((one, at) => {
    const found = one.sentiment, meter = element("span", { class: "meter", role: "img", "aria-label": found ? found.label : "failed" });
    if (found) {
      const bar = element("i", { style: `left:${found.score < 0 ? 50 + found.score * 50 : 50}%;width:${Math.abs(found.score) * 50}%;background:var(--${found.score < 0 ? "down" : "up"})` });
      meter.append(bar);
    }
    return element("li", {}, element("span", {}, texts[at], ...doubts("small", found?.warnings)), meter, element("span", { class: "number" }, found ? (found.score >= 0 ? "+" : "") + found.score.toFixed(2) : "–"));
  }));
}

// ---- the same as code

function showCode() {
  if (!state.data) return;
  const file = state.data.file, names = usable();
  const curl = `# a forecast as CSV, from the file as it is
curl -H "Authorization: Bearer $KEY" -H "Content-Type: text/csv" --data-binary @${file} \\
  "${location.origin}/v1/predict?horizon=${horizon()}&quantiles=${LEVELS.join(",")}"
${names.length ? `
# indicators as CSV
curl -H "Authorization: Bearer $KEY" -H "Content-Type: text/csv" --data-binary @${file} \\
  "${location.origin}/v1/indicators?indicators=${names.join(",")}&last=5"
` : ""}
# the sentiment of a headline
curl -H "Authorization: Bearer $KEY" -d '{"text": "Profit rose sharply"}' ${location.origin}/v1/sentiment`;
  const python = `import market_inference

bars = market_inference.read_bars("${file}")
with market_inference.Client() as client:  # the gateway, 127.0.0.1:8470 by default
    forecast = client.predict(bars["close"], horizon=${horizon()}, quantiles=${JSON.stringify(LEVELS)})
    print(forecast.coverage.measured, forecast.interval(0.8))
${names.length ? `    print(client.indicators(bars, ${JSON.stringify(names)}, last=5))\n` : ""}    print(client.sentiment("Profit rose sharply").label)`;
  $("code").textContent = state.tab === "curl" ? curl : python;
}

for (const tab of ["curl", "python"]) $(`tab-${tab}`).addEventListener("click", () => {
  state.tab = tab;
  for (const other of ["curl", "python"]) $(`tab-${other}`).setAttribute("aria-selected", String(other === tab));
  showCode();
});
$("copy").addEventListener("click", async () => {
  try { await navigator.clipboard.writeText($("code").textContent); $("copy").textContent = "Copied"; }
  catch { getSelection().selectAllChildren($("code")); $("copy").textContent = "Press Ctrl+C"; }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
});

// ---- light and dark, width

$("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; if (state.fan) { draw(); showIndicators(state.run, held()).catch(tell); } } });

// ---- begin

async function begin() {
  await showStatus();
  const [, first] = await Promise.all([showModels(), showSamples(), score()]);
  await openSample(first);
}

showPicks();
begin().catch(tell);
