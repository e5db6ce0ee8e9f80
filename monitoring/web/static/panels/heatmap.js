// A histogram over time: the number of observations in each bucket.
import { faded, ink } from "../colours.js";
import { h, replace } from "../dom.js";
import { seriesIn } from "../fields.js";
import { axis, draw, layoutOf, plain } from "../plots.js";
import { local } from "../times.js";
import { format } from "../units.js";

/** Draw the panel into `content`; returns whether it has data. */
export async function heatmap(content, panel, frames, context) {
  const unit = panel.options?.yAxis?.unit ?? panel.fieldConfig?.defaults?.unit ?? "s";
  const rows = apart(bucketsOf(frames));
  const kept = worthShowing(rows);
  if (!kept.length) return false;
  let plot = content.querySelector(":scope > .plot");
  if (!plot) {
    plot = h("div", { class: "plot whole" });
    replace(content, plot);
  }
  const names = kept.map(({ bound }) => (bound === Infinity ? `> ${format(rows.at(-2)?.bound ?? 0, unit)}` : `≤ ${format(bound, unit)}`));
  const accent = ink("line-1");
  const trace = {
    type: "heatmap", x: kept[0].times.map((ms) => local(ms / 1000)), y: kept.map((_, i) => i), z: kept.map(({ counts }) => counts.map((count) => count || null)),
    colorscale: [[0, faded(accent, 0.1)], [0.3, faded(accent, 0.45)], [1, accent]], showscale: false, xgap: 0, ygap: 1,
    text: kept.map(({ counts }, i) => counts.map((count) => `${plain(names[i])}: ${format(count, "short")}`)), hovertemplate: "%{x|%H:%M:%S}<br>%{text}<extra></extra>",
  };
  const layout = { ...layoutOf(plot), hovermode: "closest" };
  const { window } = context;
  layout.xaxis = axis({ type: "date", range: [local(window.start), local(window.end)], showgrid: false, tickformat: window.length <= 300 ? "%H:%M:%S" : "%H:%M", nticks: Math.max(2, Math.floor(plot.clientWidth / 75)) });
  const every = Math.ceil(kept.length / Math.max(3, Math.floor(plot.clientHeight / 24)));
  layout.yaxis = axis({ showgrid: false, tickvals: kept.map((_, i) => i).filter((i) => i % every === 0), ticktext: names.filter((_, i) => i % every === 0), range: [-0.5, kept.length - 0.5] });
  await draw(plot, [trace], layout);
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${panel.title}: counts by bucket over time`);
  return true;
}

/** Return the cumulative counts by bound, ascending; series of one bound are added. */
function bucketsOf(frames) {
  const found = new Map();
  for (const field of seriesIn(frames)) {
    const text = field.labels.le ?? field.legend ?? "";
    const bound = text === "+Inf" ? Infinity : Number(text);
    if (Number.isNaN(bound)) continue;
    const before = found.get(bound);
    const values = field.values.map((value, i) => (value ?? 0) + (before?.values[i] ?? 0));
    found.set(bound, { bound, times: field.times, values });
  }
  return [...found.values()].sort((a, b) => a.bound - b.bound);
}

/** Return the count of each bucket from the cumulative ones. */
export function apart(buckets) {
  return buckets.map(({ bound, times, values }, i) => ({
    bound, times, counts: values.map((value, k) => Math.max(0, value - (buckets[i - 1]?.values[k] ?? 0))),
  }));
}

/** Return the buckets from the first to the last with observations. */
function worthShowing(rows) {
  const filled = rows.map(({ counts }) => counts.some((count) => count > 0));
  return filled.includes(true) ? rows.slice(filled.indexOf(true), filled.lastIndexOf(true) + 1) : [];
}
