// Figures as horizontal bars, scaled to the largest or to the panel's maximum.
import { breakable, h, renew } from "../dom.js";
import { colourOf, lineColourOf, textOf } from "../fields.js";
import { figuresOf } from "./stat.js";

/** Draw the panel into `content`; returns whether it has data. */
export function bargauge(content, panel, frames) {
  const figures = figuresOf(frames);
  if (!figures.length) return false;
  const greatest = Math.max(...figures.map(({ value, config }) => config.max ?? (typeof value === "number" ? value : 0)), 0);
  const bars = figures.map((figure, i) => {
    const least = figure.config.min ?? 0;
    const share = Math.max(0, Math.min(1, (figure.value - least) / (greatest - least || 1)));
    const colour = colourOf(figure.value, figure.config) ?? lineColourOf(figure.field, figure.place ?? i);
    return h(
      "li", {},
      h("span", { class: "bar-name" }, breakable(figure.name)),
      h("span", { class: "bar-track" }, h("span", { class: "bar-fill", style: { "--share": `${(share * 100).toFixed(2)}%`, "--colour": colour } })),
      h("span", { class: "bar-value" }, textOf(figure.value, figure.config)),
    );
  });
  renew(content, h("ul", { class: "bars", "data-kept": "bars" }, ...bars));
  return true;
}
