// Series over time: lines, bars or points, bands between bounds, one legend below.
import { faded } from "../colours.js";
import { h, replace } from "../dom.js";
import { colourOf, lineColourOf, seriesIn, textOf } from "../fields.js";
import { axis, draw, layoutOf, plain, rangeOf, thresholdShapes, valueAxis } from "../plots.js";
import { local } from "../times.js";
import { calculated, nameOf } from "../transformations.js";
import { isRate } from "../units.js";

const MOST_STRETCH = 2.5; // times what is drawn: a threshold further off would flatten it
const MOST = 40; // lines that one can still tell apart; the rest is said below

/** Draw the panel into `content`; returns whether there was anything. */
export async function timeseries(content, panel, frames, context) {
  const all = seriesIn(frames).filter(({ values }) => values.some((value) => value !== null));
  if (!all.length) return false;
  const series = all.slice(0, MOST);
  const { plot, legend } = parts(content);
  const colours = series.map(lineColourOf);
  legend.hidden = panel.options?.legend?.showLegend === false;
  if (!legend.hidden) replace(legend, ...legendOf(series, colours), more(all));
  const traces = series.flatMap((field, i) => tracesOf(field, colours[i], series));
  await draw(plot, traces, layout(plot, panel, series, context.window));
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${panel.title}: ${series.slice(0, 6).map((field) => `${nameOf(field)} ${last(field)}`).join("; ")}`);
  return true;
}

function parts(content) {
  let plot = content.querySelector(":scope > .plot");
  let legend = content.querySelector(":scope > .legend");
  if (!plot) {
    plot = h("div", { class: "plot" });
    legend = h("ul", { class: "legend", "aria-label": "Legend" });
    replace(content, plot, legend);
  }
  return { plot, legend };
}

/** Return an entry a figure; the ends of its interval stand beside it, not below. */
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
  const value = calculated(field.values);
  const swatch = h("span", { class: dashOf(field) !== "solid" ? "swatch dashed" : "swatch", style: { "--colour": colour } });
  return h("li", {}, swatch, h("span", {}, nameOf(field)), h("b", { style: { color: colourOfLast(value, field) } }, textOf(value, field.config)), low && high ? h("span", {}, `(${last(low)} to ${last(high)})`) : null);
}

function last(field) {
  return textOf(calculated(field.values), field.config);
}

function colourOfLast(value, field) {
  const isMarked = (field.config.custom?.thresholdsStyle?.mode ?? "off") !== "off";
  return isMarked ? colourOf(value, { ...field.config, color: null }) : null;
}

function more(all) {
  return all.length > MOST ? h("li", { class: "muted" }, `and ${all.length - MOST} more`) : null;
}

function tracesOf(field, colour, series) {
  const custom = field.config.custom ?? {};
  const name = plain(nameOf(field));
  const trace = {
    type: "scatter", mode: "lines", name, x: field.times.map((ms) => local(ms / 1000)), y: field.values,
    line: { color: colour, width: isBound(field) ? 1 : (custom.lineWidth ?? 1.75), dash: dashOf(field), shape: shapeOf(custom) },
    text: field.values.map((value) => textOf(value, field.config)),
    hovertemplate: `${name}  <b>%{text}</b><extra></extra>`,
    connectgaps: custom.spanNulls === true,
  };
  if (custom.axisPlacement === "right") trace.yaxis = "y2";
  if (custom.drawStyle === "bars") Object.assign(trace, { type: "bar", marker: { color: faded(colour, 0.75) } });
  // One point alone has no line: it must be seen all the same.
  if (custom.drawStyle === "points" || custom.showPoints === "always" || isSparse(field.values)) {
    trace.mode = custom.drawStyle === "points" ? "markers" : "lines+markers";
    trace.marker = { color: colour, size: custom.pointSize ?? 5 };
  }
  if (custom.stacking?.mode === "normal" || custom.stacking?.mode === "percent") {
    trace.stackgroup = custom.stacking.group || "A";
    trace.fillcolor = faded(colour, Math.max((custom.fillOpacity ?? 0) / 100, 0.15));
    trace.y = field.values.map((value) => value ?? 0);
    if (custom.stacking.mode === "percent") trace.groupnorm = "percent";
  } else if (custom.fillBelowTo) {
    return band(trace, field, colour, series);
  } else if (custom.fillOpacity > 0 && trace.type === "scatter") {
    Object.assign(trace, { fill: "tozeroy", fillcolor: faded(colour, custom.fillOpacity / 100) });
  }
  return [trace];
}

/** Return the upper bound with the area down to the series that `fillBelowTo` names. */
function band(trace, field, colour, series) {
  const { fillBelowTo, fillOpacity = 12 } = field.config.custom;
  const lower = series.find((each) => nameOf(each) === fillBelowTo);
  if (!lower) return [trace];
  const floor = {
    type: "scatter", mode: "lines", x: trace.x, y: lower.values, line: { width: 0, color: colour }, hoverinfo: "skip", showlegend: false,
  };
  return [floor, { ...trace, fill: "tonexty", fillcolor: faded(colour, Math.max(fillOpacity, 8) / 100) }];
}

function dashOf(field) {
  const wished = { dash: "dash", dot: "dot" }[field.config.custom?.lineStyle?.fill];
  return wished ?? (isBound(field) ? "dot" : "solid");
}

/** Return whether the series is an end of an interval: it must not look like a figure. */
function isBound({ labels }) {
  return labels?.bound === "low" || labels?.bound === "high";
}

function shapeOf({ lineInterpolation }) {
  return { stepAfter: "hv", stepBefore: "vh", smooth: "spline" }[lineInterpolation] ?? "linear";
}

function isSparse(values) {
  return values.every((value, i) => value === null || ((values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null));
}

function layout(plot, panel, series, window) {
  const left = series.filter(({ config }) => config.custom?.axisPlacement !== "right");
  const right = series.filter(({ config }) => config.custom?.axisPlacement === "right");
  const made = layoutOf(plot);
  made.xaxis = axis({
    type: "date", range: [local(window.start), local(window.end)], showgrid: false, nticks: Math.max(2, Math.floor(plot.clientWidth / 75)),
    tickformat: window.length <= 300 ? "%H:%M:%S" : "%H:%M", hoverformat: "%H:%M:%S",
  });
  const count = Math.max(2, Math.min(5, Math.floor(plot.clientHeight / 32)));
  made.yaxis = axisOf(left.length ? left : right, count);
  if (right.length && left.length) made.yaxis2 = { ...axisOf(right, count), overlaying: "y", side: "right", showgrid: false };
  made.shapes = thresholdShapes((left[0] ?? right[0]).config);
  if (series.some(({ config }) => config.custom?.drawStyle === "bars")) Object.assign(made, { barmode: "stack", bargap: 0.15 });
  return made;
}

function axisOf(series, count) {
  const { config } = series[0];
  const custom = config.custom ?? {};
  const stacked = custom.stacking?.mode === "normal";
  const shares = custom.stacking?.mode === "percent";
  const values = stacked ? [0, ...sums(series)] : series.flatMap(({ values: each }) => each.filter((value) => value !== null));
  const wished = custom.thresholdsStyle?.mode && custom.thresholdsStyle.mode !== "off" ? marks(config, values) : [];
  const [low, high] = shares ? [0, 100] : rangeOf([...values, ...wished], {
    min: config.min ?? null, max: config.max ?? null, softMin: custom.axisSoftMin ?? (isRate(config.unit) ? 0 : null), softMax: custom.axisSoftMax ?? null,
  });
  const isLog = custom.scaleDistribution?.type === "log";
  const made = valueAxis(low, high, shares ? "percent" : config.unit || "none", config.decimals ?? null, { isLog, count });
  if (custom.axisLabel) made.title = { text: plain(custom.axisLabel), standoff: 6 };
  return made;
}

/** Return the nearest threshold on either side, if the axis need not be stretched much for it. */
function marks({ thresholds }, values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const all = (thresholds?.steps ?? []).map(({ value }) => value).filter((value) => typeof value === "number");
  const above = all.find((value) => value >= high && value <= MOST_STRETCH * high);
  const below = all.findLast((value) => value <= low && value * MOST_STRETCH >= low);
  return [above, below].filter((value) => value !== undefined);
}

function sums(series) {
  return series[0].values.map((_, i) => series.reduce((sum, { values }) => sum + (values[i] ?? 0), 0));
}
