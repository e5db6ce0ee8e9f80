// Plotly, loaded with the first chart, and the layout that all charts share.
import { faded, ink } from "./colours.js";
import { h, replace } from "./dom.js";
import { format, ticks } from "./units.js";

let address = "";
let loading = null;

export function setLibraryAddress(path) {
  address = path;
}

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      loading = null;
      reject(new Error("The chart library could not be loaded from the page's server."));
    });
    document.head.append(script);
  });
  return loading;
}

const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };

/** Draw `traces` into `place`, or change what is drawn there. */
export async function draw(place, traces, layout) {
  const library = await plotly();
  if (!place.isConnected) return; // the view was closed meanwhile
  await library.react(place, traces, layout, CONFIG);
}

/** Remove the chart in `place`. */
export function drop(place) {
  window.Plotly?.purge(place);
}

/** Return the plot and the legend in `content`, made once. */
export function parts(content) {
  let plot = content.querySelector(":scope > .plot");
  let legend = content.querySelector(":scope > .legend");
  if (!plot) {
    plot = h("div", { class: "plot" });
    legend = h("ul", { class: "legend", "aria-label": "Legend" });
    replace(content, plot, legend);
  }
  return { plot, legend };
}

/** Return the layout of a chart without its axes' ranges. */
export function layoutOf(place, { margin = {} } = {}) {
  return {
    width: place.clientWidth,
    height: place.clientHeight,
    margin: { l: 8, r: 12, t: 6, b: 24, ...margin },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 11, color: ink("muted") },
    showlegend: false,
    dragmode: false, // a finger on a chart scrolls the page
    hovermode: "x unified",
    hoverlabel: { bgcolor: ink("panel"), bordercolor: ink("rule"), font: { size: 12, color: ink("text") }, align: "left" },
  };
}

/** Return a plotly axis with one grid line per tick and nothing else. */
export function axis(more = {}) {
  return {
    ticks: "", gridcolor: ink("grid"), zeroline: false, linecolor: ink("grid"), fixedrange: true, automargin: true,
    tickfont: { color: ink("muted"), size: 11 }, ...more,
  };
}

/** Return the axis of values from `low` to `high`, ticks in `unit` at round numbers. */
export function valueAxis(low, high, unit, decimals, { count = 4 } = {}) {
  const values = ticks(low, high, count, unit);
  const step = values.length > 1 ? values[1] - values[0] : 1;
  // Ticks must differ as text: they get as many decimals as the step has.
  const texts = values.map((value) => format(value, unit, decimals));
  const isTooCoarse = new Set(texts).size < texts.length;
  return axis({
    range: [low, high],
    tickmode: "array",
    tickvals: values,
    ticktext: isTooCoarse ? values.map((value) => format(value, unit, decimalsOf(step, unit))) : texts,
  });
}

function decimalsOf(step, unit) {
  const shown = unit === "percentunit" ? step * 100 : step;
  return Math.max(0, Math.min(8, Math.ceil(-Math.log10(shown) - 1e-9)));
}

/** Return a range with a margin around all `values`, and with 0 if that is near. */
export function rangeOf(values, { min = null, max = null, softMin = null } = {}) {
  const there = values.filter((value) => Number.isFinite(value));
  let low = min ?? Math.min(...there, softMin ?? Infinity);
  let high = max ?? Math.max(...there);
  if (!Number.isFinite(low) || !Number.isFinite(high)) [low, high] = [min ?? 0, max ?? 1];
  if (min === null && low > 0 && low < 0.6 * high) low = 0;
  // A line that varies by less than a thousandth is level: 19.698 and 19.700 ms are the same.
  const span = high - low > Math.abs(high) * 1e-3 ? high - low : 0;
  const margin = span * 0.08 || Math.abs(high) * 0.1 || 0.5;
  if (min === null && low !== 0) low -= margin;
  high += max === null ? margin : margin / 4; // a line at the limit is to be seen
  return [low, high];
}

/** Return dashed lines where the panel has thresholds on its axis. */
export function thresholdShapes(config) {
  const steps = (config.thresholds?.steps ?? []).filter(({ value }) => value !== null && value !== undefined);
  if (!config.custom?.thresholdsStyle) return [];
  return steps.map(({ value }) => ({
    type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, layer: "below",
    line: { color: faded(ink("muted"), 0.7), width: 1, dash: "dash" },
  }));
}

/** Return `text` without tags, which plotly's labels would interpret. */
export function plain(text) {
  return String(text).replace(/[<>&]/g, (c) => ({ "<": "&lt;", ">": "&gt;", "&": "&amp;" })[c]);
}
