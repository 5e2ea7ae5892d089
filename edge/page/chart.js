// Charts as SVG: candles with a fan, and panes of lines on the same time axis. No library.

const SVG = "http://www.w3.org/2000/svg";
const RIGHT = 58, TOP = 10, BOTTOM = 22;

function node(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

export const short = value => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return (value / 1e9).toFixed(2) + "B";
  if (size >= 1e6) return (value / 1e6).toFixed(2) + "M";
  return value.toFixed(size >= 10000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 4);
};

function ticks(low, high, count) {
  const span = high - low || 1, raw = span / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(size => size >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + 1e-9 * span; at += step) found.push(at);
  return found;
}

const extent = values => {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low > high) return [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - pad, high + pad];
};

const line = (values, x, y, from = 0) => {
  let path = "", pen = "M";
  values.forEach((value, at) => {
    if (value === null || !Number.isFinite(value)) { pen = "M"; return; }
    path += `${pen}${x(from + at).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  });
  return path;
};

function frame(place, height, slots, values) {
  const width = Math.max(place.clientWidth, 280);
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  const [low, high] = extent(values);
  const x = at => 4 + (at + 0.5) * (width - RIGHT - 4) / slots;
  const y = value => TOP + (high - value) / (high - low) * (height - TOP - BOTTOM);
  for (const tick of ticks(low, high, height > 200 ? 6 : 3)) {
    node("line", { class: "grid", x1: 0, x2: width - RIGHT, y1: y(tick), y2: y(tick) }, svg);
    node("text", { x: width - RIGHT + 6, y: y(tick) + 4 }, svg).textContent = short(tick);
  }
  return { svg, x, y, width, height };
}

function dates(frame, times, slots) {
  if (!times) return;
  const count = Math.max(2, Math.floor(frame.width / 150));
  for (let at = 0; at < count; at++) {
    const place = Math.min(times.length - 1, Math.round(at * slots / count + slots / count / 3));
    node("text", { x: frame.x(place), y: frame.height - 6, "text-anchor": "middle" }, frame.svg).textContent = times[place].slice(0, 10);
  }
}

// bars: {open, high, low, close} arrays; fan: {levels, point, quantiles} after bar `from`; came: closes held back.
export function candles(place, { bars, times, fan, came }) {
  const count = bars.close.length, ahead = Math.max(fan ? fan.point.length : 0, came ? came.length : 0), slots = count + ahead;
  const every = [...(bars.high ?? bars.close), ...(bars.low ?? bars.close), ...(fan ? fan.quantiles : []), ...(came ?? [])];
  const height = place.clientWidth < 560 ? 300 : 400;
  const made = frame(place, height, slots, every), { svg, x, y } = made;
  dates(made, times, count);
  if (fan) drawFan(svg, fan, bars.close.at(-1), x, y, count);
  if (bars.open && bars.high && bars.low) drawCandles(svg, bars, x, y, made.width / slots);
  else node("path", { class: "closes", d: line(bars.close, x, y) }, svg);
  if (ahead) node("line", { class: "now", x1: x(count - 0.5), x2: x(count - 0.5), y1: TOP, y2: height - BOTTOM }, svg);
  if (came && came.length) {
    node("path", { class: "came", d: line([bars.close.at(-1), ...came], x, y, count - 1) }, svg);
    if (came.length < 61) came.forEach((value, at) => node("circle", { class: "came-dot", cx: x(count + at), cy: y(value), r: 2.2 }, svg));
  }
  made.cross = node("line", { class: "cross", y1: TOP, y2: height - BOTTOM, visibility: "hidden" }, svg);
  place.replaceChildren(svg);
  return { ...made, slots };
}

function drawCandles(svg, bars, x, y, room) {
  const wide = Math.max(1, Math.min(9, room * 0.66));
  const parts = { up: "", down: "", "wick-up": "", "wick-down": "" };
  bars.close.forEach((close, at) => {
    const kind = close >= bars.open[at] ? "up" : "down", top = y(Math.max(close, bars.open[at])), foot = y(Math.min(close, bars.open[at]));
    parts["wick-" + kind] += `M${x(at).toFixed(1)} ${y(bars.high[at]).toFixed(1)}V${y(bars.low[at]).toFixed(1)}`;
    parts[kind] += `M${(x(at) - wide / 2).toFixed(1)} ${top.toFixed(1)}h${wide.toFixed(1)}v${Math.max(1, foot - top).toFixed(1)}h-${wide.toFixed(1)}z`;
  });
  for (const [name, d] of Object.entries(parts)) node("path", { class: name, d }, svg);
}

export const quantile = (fan, level) => {
  const at = fan.levels.findIndex(own => Math.abs(own - level) < 1e-9), size = fan.levels.length;
  return at < 0 ? null : fan.point.map((_, step) => fan.quantiles[step * size + at]);
};

function drawFan(svg, fan, last, x, y, count) {
  for (const [low, high, opacity] of [[0.05, 0.95, 0.16], [0.1, 0.9, 0.2], [0.25, 0.75, 0.3]]) {
    const under = quantile(fan, low), over = quantile(fan, high);
    if (!under || !over) continue;
    const there = [last, ...over].map((value, at) => `${x(count - 1 + at).toFixed(1)} ${y(value).toFixed(1)}`);
    const back = [last, ...under].map((value, at) => `${x(count - 1 + at).toFixed(1)} ${y(value).toFixed(1)}`).reverse();
    node("path", { class: "band", opacity, d: `M${there.join("L")}L${back.join("L")}Z` }, svg);
  }
  node("path", { class: "median", d: line([last, ...fan.point], x, y, count - 1) }, svg);
}

// outputs: [{name, values}] over the same bars, aligned to the newest one.
export function pane(place, { name, outputs, count, ahead }) {
  const slots = count + ahead;
  const aligned = outputs.map(one => [...Array(Math.max(0, count - one.values.length)).fill(null), ...one.values.slice(-count)]);
  const made = frame(place, 130, slots, aligned.flat().filter(value => value !== null)), { svg, x, y } = made;
  aligned.forEach((values, at) => node("path", { class: `series line${at % 3}`, d: line(values, x, y) }, svg));
  const label = node("text", { class: "pane-name", x: 6, y: 16 }, svg);
  label.textContent = name + "  " + outputs.map(one => `${outputs.length > 1 ? one.name + " " : ""}${short(one.values.at(-1))}`).join("   ");
  place.append(svg);
}
