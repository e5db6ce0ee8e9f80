// One field against another: points, or lines through them, one colour per series.
import { faded } from "../colours.js";
import { h, replace } from "../dom.js";
import { lineColourOf, textOf } from "../fields.js";
import { draw, layoutOf, parts, plain, rangeOf, valueAxis } from "../plots.js";
import { nameOf } from "../transformations.js";

/** Draw the panel into `content`; returns whether it has data. */
export async function xychart(content, panel, frames) {
  const series = seriesOf(panel, frames).filter(({ x }) => x.values.length);
  if (!series.length) return false;
  const { plot, legend } = parts(content);
  const colours = series.map(({ y }, i) => lineColourOf(y, i));
  replace(legend, ...series.map(({ name }, i) => h("li", {}, h("span", { class: "swatch", style: { "--colour": colours[i] } }), h("span", {}, name))));
  const [{ x, y }] = series;
  const xs = rangeOf(series.flatMap((each) => each.x.values), limits(x));
  const ys = rangeOf(series.flatMap((each) => each.y.values), limits(y));
  const named = series.every((each) => nameOf(each.y) === nameOf(y)) ? nameOf(y) : ""; // else the legend names them
  const layout = { ...layoutOf(plot, { margin: { b: 34 } }), hovermode: "closest" };
  layout.xaxis = { ...valueAxis(...xs, x.config?.unit || "none", x.config?.decimals ?? null), title: { text: plain(nameOf(x)), standoff: 6 } };
  layout.yaxis = { ...valueAxis(...ys, y.config?.unit || "none", y.config?.decimals ?? null), title: { text: plain(named), standoff: 8 } };
  await draw(plot, series.map((each, i) => trace(each, colours[i])), layout);
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${panel.title}: ${nameOf(y)} against ${nameOf(x)} of ${series.map(({ name }) => name).join(", ")}`);
  return true;
}

function limits({ config = {} }) {
  return { min: config.min ?? null, max: config.max ?? null };
}

function trace({ name, x, y }, colour) {
  const order = x.values.map((_, i) => i).filter((i) => x.values[i] !== null && y.values[i] !== null).sort((a, b) => x.values[a] - x.values[b]);
  return {
    type: "scatter", mode: "lines+markers", name: plain(name),
    x: order.map((i) => x.values[i]), y: order.map((i) => y.values[i]), line: { color: colour, width: 1.75 },
    marker: { color: faded(colour, 0.85), size: y.config?.custom?.pointSize?.fixed ?? 7 },
    text: order.map((i) => `${plain(name)}<br>${plain(nameOf(x))} ${textOf(x.values[i], x.config)}<br>${plain(nameOf(y))} ${textOf(y.values[i], y.config)}`),
    hovertemplate: "%{text}<extra></extra>",
  };
}

/** Return the columns of the one table that each series names. */
function seriesOf(panel, [frame = { fields: [] }]) {
  const named = ({ matcher }) => frame.fields.find((field) => nameOf(field) === matcher.options);
  return panel.options.series.map(({ name, x, y }) => ({ name: name.fixed, x: named(x), y: named(y) })).filter(({ x, y }) => x && y);
}
