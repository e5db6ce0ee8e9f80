// A panel's targets → Prometheus's series and tables, as frames of named fields.
// A frame is {refId, fields}; a field {name, type, labels, values, legend, config}; time is in ms.
import { get } from "./api.js";

const SECONDS = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, w: 604800, y: 31536000 };
const FRESH_S = 5; // the page refreshes as often

/** Return `text` with each $variable replaced: by its regex, or that of its chosen values. */
export function interpolate(text, variables) {
  return text.replace(/\$(\w+)/g, (all, name) => (name in variables ? regexOf(variables[name]) : all));
}

function regexOf(chosen) {
  if (!Array.isArray(chosen)) return chosen;
  const escaped = chosen.map((value) => value.replace(/[\\^$*+?.()|[\]{}]/g, "\\\\$&"));
  return escaped.length === 1 ? escaped[0] : `(${escaped.join("|")})`;
}

/** Return the frames of all of `panel`'s targets that are not hidden. */
export async function framesOf(panel, variables, window, signal) {
  const targets = (panel.targets ?? []).filter((target) => !target.hide && target.expr);
  const isOneOfMany = targets.filter(({ format }) => format === "table").length > 1;
  return (await Promise.all(targets.map((target) => framesOfTarget(target, { variables, window, signal, isOneOfMany, isFigure: panel.type === "stat" })))).flat();
}

async function framesOfTarget(target, { variables, window, signal, isOneOfMany, isFigure }) {
  const query = interpolate(target.expr, variables);
  const isTable = target.format === "table";
  const isInstant = target.instant && !target.range;
  // The last step may be minutes ago, but a figure is of now.
  const isOfNow = isInstant || (isFigure && window.step > FRESH_S);
  const [past, now] = await Promise.all([isInstant ? [] : range(query, window, signal), isOfNow ? instant(query, window, signal) : []]);
  const series = isInstant ? now : continued(past, now);
  if (isTable) return series.length ? [tableOf(target, series, isOneOfMany)] : [];
  const format = interpolate(target.legendFormat ?? "", variables);
  return series.map((each) => seriesFrame(target, each, legendOf(format, each, series, query)));
}

async function instant(query, window, signal) {
  const { data } = await get("/api/prometheus/query", { query, time: window.now }, signal);
  if (data.resultType === "scalar" || data.resultType === "string") {
    return [{ labels: {}, times: [data.result[0] * 1000], values: [Number(data.result[1])] }];
  }
  return data.result.map(({ metric, value }) => ({ labels: metric, times: [value[0] * 1000], values: [Number(value[1])] }));
}

async function range(query, window, signal) {
  const { start, end, step } = window;
  const { data } = await get("/api/prometheus/query_range", { query: widened(query, step), start, end, step }, signal);
  return data.result.map(({ metric, values }) => onGrid(metric, values, window));
}

/** Return `query` with ranges of a step at least: shorter ones would leave out what is between two points. */
export function widened(query, step) {
  // What is in quotes is matched first, so that it stays as it is.
  return query.replace(/"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\[((?:\d+(?:ms|[smhdwy]))+)(?=[\]:])/g, (all, length) => (length && secondsOf(length) < step ? `[${step}s` : all));
}

function secondsOf(length) {
  return [...length.matchAll(/(\d+)(ms|[smhdwy])/g)].reduce((sum, [, number, unit]) => sum + number * SECONDS[unit], 0);
}

/** Return the series of `past`, each with its value in `now` as its last one. */
export function continued(past, now) {
  const left = new Map(now.map((each) => [keyOf(each), each]));
  const longer = past.map((each) => {
    const last = left.get(keyOf(each));
    left.delete(keyOf(each));
    return last ? { ...each, times: [...each.times, ...last.times], values: [...each.values, ...last.values] } : each;
  });
  return [...longer, ...left.values()];
}

function keyOf({ labels }) {
  return JSON.stringify(Object.entries(labels).sort());
}

/** Return a series with null where Prometheus has no point, so that lines break there. */
function onGrid(labels, pairs, { start, end, step }) {
  const found = new Map(pairs.map(([at, value]) => [Math.round((at - start) / step), Number(value)]));
  const times = [];
  const values = [];
  for (let place = 0; start + place * step <= end; place += 1) {
    times.push((start + place * step) * 1000);
    const value = found.get(place);
    values.push(value === undefined || Number.isNaN(value) ? null : value);
  }
  return { labels, times, values };
}

function seriesFrame(target, { labels, times, values }, legend) {
  const fields = [
    { name: "Time", type: "time", labels: {}, values: times },
    { name: "Value", type: "number", labels, values, legend },
  ];
  return { refId: target.refId, fields };
}

function tableOf(target, series, isOneOfMany) {
  const valueName = isOneOfMany ? `Value #${target.refId}` : "Value"; // as Grafana has it
  const names = [...new Set(series.flatMap(({ labels }) => Object.keys(labels)))].filter((name) => name !== "__name__").sort();
  const rows = series.flatMap(({ labels, times, values }) => values.map((value, i) => ({ labels, time: times[i], value })));
  const columns = names.map((name) => ({ name, type: "string", labels: {}, values: rows.map(({ labels }) => labels[name] ?? "") }));
  return {
    refId: target.refId,
    fields: [
      { name: "Time", type: "time", labels: {}, values: rows.map(({ time }) => time) },
      ...columns,
      { name: valueName, type: "number", labels: {}, values: rows.map(({ value }) => value) },
    ],
  };
}

/** Return a series' name: `format` with {{label}} filled in, else the labels that differ. */
export function legendOf(format, { labels }, all, query) {
  if (format && format !== "__auto") {
    return format.replace(/\{\{\s*([\w.]+)\s*\}\}/g, (_, name) => labels[name] ?? "").trim();
  }
  const names = Object.keys(labels).filter((name) => name !== "__name__");
  const differing = names.filter((name) => new Set(all.map((each) => each.labels[name])).size > 1);
  const chosen = differing.length ? differing : names;
  if (!chosen.length) return labels.__name__ ?? query;
  return chosen.map((name) => labels[name]).join(" ");
}

/** Return the metrics that a query names. */
export function metricsIn(panel) {
  const text = (panel.targets ?? []).map(({ expr }) => expr ?? "").join(" ");
  return [...new Set(text.match(/\b(?:[a-z_]+:)?(?:srp4ctr|nv)_[a-z0-9_]+(?::[a-z0-9_]+)*/g) ?? [])];
}
