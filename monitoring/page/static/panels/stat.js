// One figure, or a few, as large as they are important; a faint line of how it came there.
import { h, replace, s } from "../dom.js";
import { colourOf, lineColourOf, seriesIn, textOf } from "../fields.js";
import { calculated, lengthOf, nameOf } from "../transformations.js";

/** Draw the panel into `content`; returns whether there was anything. */
export function stat(content, panel, frames) {
  const { reduceOptions = {}, textMode = "auto", colorMode = "value", graphMode = "area" } = panel.options ?? {};
  const figures = figuresOf(frames, reduceOptions);
  if (!figures.length) return false;
  const isNamed = textMode === "value_and_name" || textMode === "name" || (textMode === "auto" && figures.length > 1);
  replace(content, h("div", { class: `stats count-${Math.min(figures.length, 4)}` }, ...figures.map((figure) => {
    const colour = colorMode === "none" ? null : colourOf(figure.value, figure.config);
    const text = textMode === "name" ? figure.name : textOf(figure.value, figure.config);
    return h(
      "div", { class: colorMode === "background" ? "stat filled" : "stat", style: { "--colour": colour } },
      isNamed && textMode !== "name" ? h("span", { class: "stat-name" }, figure.name) : null,
      h("span", { class: `stat-value ${text.length > 12 ? "long" : ""}` }, text),
      graphMode === "area" && figure.values.length > 2 ? spark(figure, colour) : null,
    );
  })));
  return true;
}

/** Return name, value and past of each figure. */
export function figuresOf(frames, { calcs = ["lastNotNull"], values: isEach = false, fields: which = "" }) {
  if (isTable(frames)) return rowsAsFigures(frames, isEach, calcs);
  if (which) {
    const text = frames.flatMap(({ fields }) => fields).filter((field) => field.type !== "time" && (which === "/.*/" || nameOf(field) === which.replace(/^\/\^?|\$?\/$/g, "")));
    const words = text.filter(({ type }) => type === "string");
    if (words.length) return words.map((field) => ({ name: nameOf(field), value: field.values.at(-1), values: [], config: field.config, field }));
  }
  return seriesIn(frames)
    .map((field, i) => ({
      name: nameOf(field), value: calculated(field.values, calcs[0]), values: field.values, config: field.config, field, place: i,
    }))
    .filter(({ value }) => value !== null && value !== undefined);
}

function isTable(frames) {
  return frames.some((frame) => lengthOf(frame) > 0 && frame.fields.some(({ type }) => type === "string"));
}

function rowsAsFigures(frames) {
  return frames.flatMap((frame) => {
    const words = frame.fields.filter(({ type }) => type === "string");
    const numbers = frame.fields.filter(({ type }) => type === "number");
    return numbers.flatMap((field) => field.values.map((value, i) => ({
      name: words.map(({ values }) => values[i]).filter(Boolean).join(" ") || nameOf(field), value, values: [], config: field.config, field, place: i,
    })));
  });
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
