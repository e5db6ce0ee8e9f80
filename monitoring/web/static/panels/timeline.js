// The states of each series over time: one row per series, one stretch per state.
import { ink, lineColour } from "../colours.js";
import { breakable, h, renew } from "../dom.js";
import { colourOf, seriesIn, textOf } from "../fields.js";
import { clock } from "../times.js";
import { nameOf } from "../transformations.js";

/** Draw the panel into `content`; returns whether it has data. */
export function timeline(content, panel, frames, { window }) {
  const series = seriesIn(frames).filter(({ values }) => values.some((value) => value !== null));
  if (!series.length) return false;
  const words = [...new Set(series.flatMap(({ values, config }) => values.filter((value) => value !== null).map((value) => textOf(value, config))))];
  const rows = series.map((field) => h("li", {}, h("span", { class: "bar-name" }, breakable(nameOf(field))), h(
    "span", { class: "states", role: "img", "aria-label": nowOf(field) },
    ...stretches(field, window).map((stretch) => h("span", {
      class: "state", title: `${stretch.text}: ${clock(stretch.from, 1)} to ${clock(stretch.to, 1)}`,
      style: { "--from": `${at(stretch.from, window)}%`, "--long": `${at(stretch.to, window) - at(stretch.from, window)}%`, "--colour": stretch.colour ?? lineColour(words.indexOf(stretch.text)) ?? ink("muted") },
    }, h("span", {}, panel.options?.showValue === "never" ? "" : stretch.text))),
  )));
  const axis = [0, 0.5, 1].map((share) => h("span", {}, clock(window.start + share * window.length, window.length)));
  renew(content, h("ul", { class: "timeline", "data-kept": "timeline" }, ...rows, h("li", { class: "time-axis", "aria-hidden": "true" }, ...axis)));
  return true;
}

/** Return the state at the window's end in words: an alert that has ended has none. */
function nowOf({ values, config }) {
  const value = values.at(-1);
  return value === null ? "nothing now" : `now ${textOf(value, config)}`;
}

function at(seconds, { start, length }) {
  return Math.max(0, Math.min(100, ((seconds - start) / length) * 100));
}

/** Return the stretches of equal states; an unknown value ends one. */
export function stretches({ values, times, config }, { step }) {
  const found = [];
  values.forEach((value, i) => {
    if (value === null) return;
    const text = textOf(value, config);
    const last = found.at(-1);
    const [from, to] = [times[i] / 1000 - step, times[i] / 1000];
    if (last && last.text === text && last.to >= from - step / 2) last.to = to;
    else found.push({ text, from, to, colour: colourOf(value, config) });
  });
  return found;
}
