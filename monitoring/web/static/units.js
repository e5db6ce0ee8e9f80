// A number and Grafana's name of its unit → text.
const SI = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const SECONDS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
const IN_SECONDS = { s: 1, ms: 1e-3 };
// Counts have a suffix (17.5k), quantities an SI prefix (1.2 GFLOP).
const COUNTED = { short: "", reqps: " req/s", cps: "/s" };
const MEASURED = { flops: "FLOP/s", flop: "FLOP", watt: "W" };
const MONEY = "currency:"; // Grafana's unit of money without a sign
let currency = "";

/** Write prices in the setting `monitoring.currency`, as the page's server names it. */
export function setCurrency(name) {
  currency = name;
}

/** Return whether `unit` is of a rate: its axis starts at 0, so that noise looks like noise. */
export function isRate(unit) {
  return unit !== "short" && (unit in COUNTED || unit === "flops");
}

/** Return `value` as text in `unit`; with `decimals` null its size decides. */
export function format(value, unit = "none", decimals = null) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return written(value || 0, unit, decimals).replace(/^-/, "−"); // || 0: there is a −0
}

function written(value, unit, decimals) {
  if (unit === "none") return thousands(value, decimals);
  if (unit === "percentunit") return `${digits(value * 100, decimals, 1)}%`;
  if (unit === "dateTimeAsIso") return date(value);
  if (unit === MONEY) return `${money(value, decimals)} ${currency}`.trimEnd();
  if (unit in IN_SECONDS) return scaled(value * IN_SECONDS[unit], SECONDS, " ", decimals);
  if (unit in MEASURED) return scaled(value, SI.map(([n, prefix]) => [n, prefix + MEASURED[unit]]), " ", decimals, ` ${MEASURED[unit]}`);
  if (unit in COUNTED) return scaled(value, SI, "", decimals) + COUNTED[unit];
  return `${thousands(value, decimals)} ${unit}`;
}

/** Return `value` with the greatest unit of `steps` that it reaches. */
function scaled(value, steps, space, decimals, rest = "") {
  const size = Math.abs(value);
  if (size >= 1e15) return value.toExponential(1) + rest;
  if (size === 0) return `0${rest || (steps === SECONDS ? " s" : "")}`;
  // 59.996 s would be written as 60.00 s: the rounded value decides the unit.
  const step = steps.find(([n]) => size >= n * 0.9995);
  if (!step) {
    const [least, name] = steps.at(-1);
    return steps === SECONDS ? `${digits(value / least, decimals)}${space}${name}` : thousands(value, decimals) + rest;
  }
  return `${digits(value / step[0], decimals)}${space}${step[1]}`;
}

function money(value, decimals) {
  if (decimals !== null) return digits(value, decimals, 2, true);
  return Math.abs(value) >= 1 || value === 0 ? digits(value, 2, 2, true) : digits(value, null);
}

function thousands(value, decimals) {
  return Number.isInteger(value) && decimals === null ? value.toLocaleString("en") : digits(value, decimals, null, true);
}

/** Return `value` with `decimals`, else with three significant digits. */
function digits(value, decimals, most = null, grouped = false) {
  const size = Math.abs(value);
  let places = decimals;
  if (places === null) {
    places = size === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(size)));
    if (most !== null && size >= 1) places = Math.min(places, most);
    places = Math.min(places, 12);
  }
  const text = value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places, useGrouping: grouped });
  return decimals === null && text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function date(ms) {
  const at = new Date(ms);
  const two = (n) => String(n).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Return how long ago that was, in one unit. */
export function ago(seconds) {
  const size = Math.abs(seconds);
  if (size < 1) return "now";
  const [n, name] = SECONDS.find(([each]) => size >= each);
  const text = `${Math.floor(size / n)} ${name}`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

/** Return about `count` round numbers from `low` to `high`, for an axis in `unit`. */
export function ticks(low, high, count, unit = "none") {
  if (!(high > low)) return [low];
  const step = roundStep((high - low) / count, unit);
  const found = [];
  const first = Math.ceil(low / step - 1e-9);
  for (let i = 0; i <= 2 * count && (first + i) * step <= high + step * 1e-9; i += 1) found.push((first + i) * step || 0);
  return found;
}

const CLOCK = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

/** Return the least round step that is no shorter than `rough`. */
function roundStep(rough, unit) {
  const seconds = rough * (IN_SECONDS[unit] ?? 0);
  if (seconds > 1) {
    const found = CLOCK.find((each) => each >= seconds) ?? Math.ceil(seconds / 86400) * 86400;
    return found / IN_SECONDS[unit];
  }
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find((n) => n * power >= rough * 0.999) ?? 10);
}
