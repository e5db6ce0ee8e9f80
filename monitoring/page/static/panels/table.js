// Rows and columns. On a phone each row is a card, its columns' names beside the values.
import { h, replace } from "../dom.js";
import { colourOf, isHidden, textOf } from "../fields.js";
import { calculated, lengthOf, nameOf, sortedBy, transformed } from "../transformations.js";

const MOST = 200;

/** Draw the panel into `content`; returns whether there was anything. */
export function table(content, panel, frames) {
  let [frame] = oneTable(frames);
  const [order] = panel.options?.sortBy ?? [];
  if (frame && order) frame = sortedBy(frame, order.displayName, order.desc);
  const columns = (frame?.fields ?? []).filter(({ config }) => !isHidden(config));
  const rows = Math.min(frame ? lengthOf({ fields: columns }) : 0, MOST);
  if (!rows) return false;
  const head = h("tr", {}, ...columns.map((field) => h("th", { scope: "col", class: field.type === "number" ? "number" : null }, nameOf(field))));
  const body = Array.from({ length: rows }, (_, i) => h("tr", {}, ...columns.map((field) => cell(field, i))));
  replace(content, h("div", { class: "table-wrap" }, h(
    "table", {}, panel.options?.showHeader === false ? null : h("thead", {}, head), h("tbody", {}, ...body),
  )));
  return true;
}

/** Return one frame: series become rows, several tables are merged. */
function oneTable(frames) {
  const filled = frames.filter((frame) => lengthOf(frame) > 0);
  if (filled.some(({ fields }) => fields.some(({ type }) => type === "string"))) {
    return filled.length > 1 ? transformed(filled, [{ id: "merge" }]) : filled;
  }
  const series = filled.flatMap(({ fields }) => fields.filter(({ type }) => type === "number"));
  if (filled.length < 2 && series.length !== 1) return filled;
  const config = series[0]?.config ?? {};
  return [{ fields: [
    { name: "Series", type: "string", labels: {}, values: series.map(nameOf), config: {} },
    { name: "Value", type: "number", labels: {}, values: series.map(({ values }) => calculated(values)), config },
  ] }];
}

function cell(field, i) {
  const value = field.values[i];
  const text = textOf(value, field.config);
  const how = field.config.custom?.cellOptions?.type ?? field.config.custom?.displayMode ?? "auto";
  const isColoured = how.startsWith("color") || (field.config.mappings ?? []).length > 0;
  const colour = isColoured ? colourOf(value, field.config) : null;
  const kinds = [field.type === "number" ? "number" : null, colour && how === "color-background" ? "filled" : null];
  const attributes = { class: kinds.filter(Boolean).join(" ") || null, "data-label": nameOf(field), style: { "--colour": colour } };
  if (how === "gauge" || how === "lcd-gauge") return h("td", attributes, gauge(field, value), text);
  return h("td", attributes, h("span", { class: colour ? "mark" : null }, text));
}

function gauge(field, value) {
  const numbers = field.values.filter((each) => typeof each === "number");
  const most = field.config.max ?? Math.max(...numbers, 0);
  const share = Math.max(0, Math.min(1, value / (most || 1)));
  return h("span", { class: "cell-gauge" }, h("span", { class: "bar-fill", style: { "--share": `${(share * 100).toFixed(1)}%`, "--colour": colourOf(value, field.config) } }));
}
