// One figure or a few in large type, each with a faint line of its past values.
import { h, replace, s } from "../dom.js";
import { colourOf, lineColourOf, seriesIn, textOf } from "../fields.js";
import { lastOf, nameOf } from "../transformations.js";

/** Draw the panel into `content`; returns whether it has data. */
export function stat(content, panel, frames) {
  const { textMode = "value", colorMode = "value" } = panel.options ?? {};
  const figures = figuresOf(frames);
  if (!figures.length) return false;
  const isNamed = textMode === "value_and_name";
  replace(content, h("div", { class: `stats count-${Math.min(figures.length, 4)}` }, ...figures.map((figure) => {
    const colour = colourOf(figure.value, figure.config);
    const text = textMode === "name" ? figure.name : textOf(figure.value, figure.config);
    return h(
      "div", { class: colorMode === "background" ? "stat filled" : "stat", style: { "--colour": colour } },
      isNamed ? h("span", { class: "stat-name" }, figure.name) : null,
      h("span", { class: `stat-value ${text.length > 12 ? "long" : ""}` }, text),
      figure.values.length > 2 ? spark(figure, colour) : null,
    );
  })));
  return true;
}

/** Return name, last value and all values of each figure. */
export function figuresOf(frames) {
  return seriesIn(frames)
    .map((field, i) => ({ name: nameOf(field), value: lastOf(field.values), values: field.values, config: field.config, field, place: i }))
    .filter(({ value }) => value !== null);
}

function spark({ values, field, place }, colour) {
  const there = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...there), Math.max(...there)];
  const span = high - low || 1;
  const at = (value, i) => `${((i / (values.length - 1)) * 100).toFixed(2)},${(28 - ((value - low) / span) * 24).toFixed(2)}`;
  const runs = [];
  let run = [];
  values.forEach((value, i) => {
    if (value === null) run = [];
    else {
      if (!run.length) runs.push(run);
      run.push(at(value, i));
    }
  });
  return s(
    "svg", { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" },
    ...runs.filter(({ length }) => length > 1).map((points) => s("polyline", {
      points: points.join(" "), fill: "none", stroke: colour ?? lineColourOf(field, place ?? 0), "vector-effect": "non-scaling-stroke",
    })),
  );
}
