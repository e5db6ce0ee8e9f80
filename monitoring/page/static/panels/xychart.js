// One figure against another: points, or lines through them, one colour a series.
import { faded } from "../colours.js";
import { h, replace } from "../dom.js";
import { lineColourOf, textOf } from "../fields.js";
import { draw, layoutOf, plain, rangeOf, thresholdShapes, valueAxis } from "../plots.js";
import { asRegExp, nameOf } from "../transformations.js";

/** Draw the panel into `content`; returns whether there was anything. */
export async function xychart(content, panel, frames) {
  const series = seriesOf(panel, frames).filter(({ x }) => x.values.length);
  if (!series.length) return false;
  let plot = content.querySelector(":scope > .plot");
  let legend = content.querySelector(":scope > .legend");
  if (!plot) {
    plot = h("div", { class: "plot" });
    legend = h("ul", { class: "legend", "aria-label": "Legend" });
    replace(content, plot, legend);
  }
  const colours = series.map(({ y }, i) => lineColourOf(y, i));
  replace(legend, ...series.map(({ name }, i) => h("li", {}, h("span", { class: "swatch", style: { "--colour": colours[i] } }), h("span", {}, name))));
  const [{ x, y }] = series;
  const xs = rangeOf(series.flatMap((each) => each.x.values), limits(x));
  const ys = rangeOf(series.flatMap((each) => each.y.values), limits(y));
  const layout = { ...layoutOf(plot, { margin: { b: 34 } }), hovermode: "closest" };
  layout.xaxis = { ...valueAxis(...xs, x.config?.unit || "none", x.config?.decimals ?? null), title: { text: plain(x.config?.custom?.axisLabel || nameOf(x)), standoff: 6 } };
  layout.yaxis = { ...valueAxis(...ys, y.config?.unit || "none", y.config?.decimals ?? null), title: { text: plain(y.config?.custom?.axisLabel || nameOf(y)), standoff: 8 } };
  layout.shapes = thresholdShapes(y.config ?? {});
  await draw(plot, series.map((each, i) => trace(each, colours[i])), layout);
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${panel.title}: ${nameOf(y)} against ${nameOf(x)} of ${series.map(({ name }) => name).join(", ")}`);
  return true;
}

function limits({ config = {} }) {
  const { custom = {} } = config;
  return { min: config.min ?? null, max: config.max ?? null, softMin: custom.axisSoftMin ?? null, softMax: custom.axisSoftMax ?? null };
}

function trace({ name, x, y }, colour) {
  const show = y.config?.custom?.show ?? "points";
  const order = x.values.map((_, i) => i).filter((i) => x.values[i] !== null && y.values[i] !== null).sort((a, b) => x.values[a] - x.values[b]);
  return {
    type: "scatter", mode: { lines: "lines", "points+lines": "lines+markers" }[show] ?? "markers", name: plain(name),
    x: order.map((i) => x.values[i]), y: order.map((i) => y.values[i]), line: { color: colour, width: 1.75 },
    marker: { color: faded(colour, 0.85), size: y.config?.custom?.pointSize?.fixed ?? 7 },
    text: order.map((i) => `${plain(name)}<br>${plain(nameOf(x))} ${textOf(x.values[i], x.config)}<br>${plain(nameOf(y))} ${textOf(y.values[i], y.config)}`),
    hovertemplate: "%{text}<extra></extra>",
  };
}

/** Return what each series is made of: as the panel maps it, or x first and the rest y. */
function seriesOf(panel, frames) {
  const mapped = panel.options?.series ?? [];
  return frames.flatMap((frame, number) => {
    const fields = frame.fields.filter(({ type, config }) => type === "number" && !config?.custom?.hideFrom?.viz);
    const wanted = mapped.filter(({ frame: which }) => !which || matchesFrame(which.matcher, frame, number));
    const found = wanted.flatMap(({ x: wishX, y: wishY, name }) => {
      const x = find(wishX?.matcher, frame.fields) ?? fields[0];
      const y = find(wishY?.matcher, fields);
      return pairs(x, y ? [y] : fields.filter((field) => field !== x), frame, name?.fixed);
    });
    if (mapped.length) return found;
    return pairs(fields[0], fields.slice(1), frame);
  });
}

function pairs(x, ys, frame, fixed) {
  return x ? ys.map((y) => ({ x, y, name: fixed || Object.values(y.labels ?? {}).join(" ") || frame.name || nameOf(y) })) : [];
}

function matchesFrame({ id, options } = {}, frame, number) {
  if (id === "byIndex") return options === number;
  if (id === "byName") return frame.name === options || frame.refId === options;
  return true;
}

function find({ id, options } = {}, fields) {
  if (id === "byName") return fields.find((field) => nameOf(field) === options || field.name === options);
  if (id === "byRegexp") return fields.find((field) => asRegExp(options).test(nameOf(field)));
  if (id === "byType") return fields.find((field) => field.type === options);
  return undefined;
}
