// Series over time: lines, bars or points, bands between bounds, one legend below.
import { unusedColours } from "../colours.js";
import { h, replace } from "../dom.js";
import { colourOf, lineColourOf, seriesIn, textOf } from "../fields.js";
import { axis, draw, layoutOf, parts, plain, rangeOf, thresholdShapes, valueAxis } from "../plots.js";
import { local } from "../times.js";
import { lastOf, nameOf } from "../transformations.js";
import { isRate } from "../units.js";

const FAR_OFF = 4; // times what most bounds span
const MOST_STRETCH = 2.5; // times the values: a threshold further off would flatten the lines
const MOST = 40; // more lines are hard to distinguish; the legend has the number of the rest

/** Draw the panel into `content`; returns whether it has data. */
export async function timeseries(content, panel, frames, context) {
  const all = seriesIn(frames).filter(({ values }) => values.some((value) => value !== null));
  if (!all.length) return false;
  const series = all.slice(0, MOST);
  const { plot, legend } = parts(content);
  const colours = distinctColours(series);
  replace(legend, ...legendOf(series, colours), more(all));
  const traces = series.map((field, i) => traceOf(field, colours[i]));
  await draw(plot, traces, layout(plot, series, context.window));
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${panel.title}: ${series.slice(0, 6).map((field) => `${nameOf(field)} ${last(field)}`).join("; ")}`);
  return true;
}

/** Return the colour of each series; of two with one colour and dash the later gets an unused one, while there are any. */
export function distinctColours(series) {
  const wanted = series.map(lineColourOf);
  const unused = unusedColours(wanted);
  const owners = new Map(); // a colour and a dash → the version that has them
  const moved = new Map(); // a version and its usual colour → the one that all its lines have here
  return series.map((field, i) => {
    const owner = field.labels?.model_version ?? keyOf(field);
    const usual = `${owner} ${wanted[i]}`;
    const isFixed = field.config?.color?.mode === "fixed";
    const colour = isFixed ? wanted[i] : (moved.get(usual) ?? wanted[i]);
    const look = `${colour} ${dashOf(field)}`;
    if (isFixed || isBound(field) || !owners.has(look) || !unused.length) {
      if (!isBound(field)) owners.set(look, owner);
      return colour;
    }
    const other = unused.shift();
    if (owners.get(look) !== owner) moved.set(usual, other);
    owners.set(`${other} ${dashOf(field)}`, owner);
    return other;
  });
}

/** Return an entry per figure, with the ends of its interval. */
function legendOf(series, colours) {
  const ends = new Map(series.filter(isBound).map((field) => [`${keyOf(field)} ${field.labels.bound}`, field]));
  const figures = new Set(series.filter((field) => !isBound(field)).map(keyOf));
  return series.flatMap((field, i) => {
    if (isBound(field)) return figures.has(keyOf(field)) ? [] : [legendEntry(field, colours[i])];
    return [legendEntry(field, colours[i], ends.get(`${keyOf(field)} low`), ends.get(`${keyOf(field)} high`))];
  });
}

function keyOf({ labels }) {
  return JSON.stringify(Object.entries(labels).filter(([name]) => name !== "bound" && name !== "__name__").sort());
}

function legendEntry(field, colour, low = null, high = null) {
  const value = lastOf(field.values);
  const swatch = h("span", { class: dashOf(field) !== "solid" ? "swatch dashed" : "swatch", style: { "--colour": colour } });
  return h("li", {}, swatch, h("span", {}, nameOf(field)), h("b", { style: { color: colourOfLast(value, field) } }, textOf(value, field.config)), low && high ? h("span", {}, `(${last(low)} to ${last(high)})`) : null);
}

function last(field) {
  return textOf(lastOf(field.values), field.config);
}

function colourOfLast(value, field) {
  return field.config.custom?.thresholdsStyle ? colourOf(value, { ...field.config, color: null }) : null;
}

function more(all) {
  return all.length > MOST ? h("li", { class: "muted" }, `and ${all.length - MOST} more`) : null;
}

function traceOf(field, colour) {
  const name = plain(nameOf(field));
  const alone = isolated(field.values);
  return {
    // An isolated point has no line: it needs a marker.
    type: "scatter", mode: alone.includes(true) ? "lines+markers" : "lines", name, x: field.times.map((ms) => local(ms / 1000)), y: field.values,
    line: { color: colour, width: isBound(field) ? 1 : (field.config.custom?.lineWidth ?? 1.75), dash: dashOf(field) },
    marker: { color: colour, size: alone.map((isAlone) => (isAlone ? 5 : 0)) },
    text: field.values.map((value) => textOf(value, field.config)),
    hovertemplate: `${name}  <b>%{text}</b><extra></extra>`,
  };
}

function dashOf(field) {
  if (field.config.custom?.lineStyle?.fill === "dash") return "dash";
  return isBound(field) ? "dot" : "solid";
}

/** Return whether the series is a bound of an interval: it is drawn dotted. */
function isBound({ labels }) {
  return labels?.bound === "low" || labels?.bound === "high";
}

/** Return whether each value has no neighbour. */
export function isolated(values) {
  return values.map((value, i) => value !== null && (values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null);
}

function layout(plot, series, window) {
  const made = layoutOf(plot);
  made.xaxis = axis({
    type: "date", range: [local(window.start), local(window.end)], showgrid: false, nticks: Math.max(2, Math.floor(plot.clientWidth / 75)),
    tickformat: window.length <= 300 ? "%H:%M:%S" : "%H:%M", hoverformat: "%H:%M:%S",
  });
  const count = Math.max(2, Math.min(5, Math.floor(plot.clientHeight / 32)));
  made.yaxis = axisOf(series, count);
  made.shapes = thresholdShapes(series[0].config);
  return made;
}

function axisOf(series, count) {
  const { config } = series[0];
  const of = (some) => some.flatMap(({ values: each }) => each.filter((value) => value !== null));
  const values = [...of(series.filter((each) => !isBound(each))), ...mostOf(of(series.filter(isBound)))];
  const nearest = config.custom?.thresholdsStyle ? marks(config, values) : [];
  const softMin = isRate(config.unit) ? 0 : null;
  const [low, high] = rangeOf([...values, ...nearest], { min: config.min ?? null, max: config.max ?? null, softMin });
  return valueAxis(low, high, config.unit || "none", config.decimals ?? null, { count });
}

/** Return `bounds` without the few that would flatten the lines: an interval of two clicks. */
export function mostOf(bounds) {
  const sorted = bounds.toSorted((one, other) => one - other);
  const few = Math.ceil(sorted.length / 20);
  const most = sorted.slice(few, sorted.length - few);
  return sorted.at(-1) - sorted[0] > FAR_OFF * (most.at(-1) - most[0]) ? most : sorted;
}

/** Return the nearest threshold on either side, if the axis can include it. */
function marks({ thresholds }, values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const all = (thresholds?.steps ?? []).map(({ value }) => value).filter((value) => typeof value === "number");
  const above = all.find((value) => value >= high && value <= MOST_STRETCH * high);
  const below = all.findLast((value) => value <= low && value * MOST_STRETCH >= low);
  return [above, below].filter((value) => value !== undefined);
}
