// Rows and columns. On a phone each row is a card, with its columns' names next to the values.
import { h, renew } from "../dom.js";
import { colourOf, isHidden, textOf } from "../fields.js";
import { lengthOf, nameOf, sortedBy } from "../transformations.js";

const MOST = 200;

/** Draw the panel into `content`; returns whether it has data. */
export function table(content, panel, frames) {
  let [frame] = frames; // merged: there is one
  const [order] = panel.options?.sortBy ?? [];
  if (frame && order) frame = sortedBy(frame, order.displayName, order.desc);
  const columns = (frame?.fields ?? []).filter(({ config }) => !isHidden(config));
  const rows = Math.min(frame ? lengthOf({ fields: columns }) : 0, MOST);
  if (!rows) return false;
  const head = h("tr", {}, ...columns.map((field) => h("th", { scope: "col", class: field.type === "number" ? "number" : null }, nameOf(field))));
  const body = Array.from({ length: rows }, (_, i) => h("tr", {}, ...columns.map((field) => cell(field, i))));
  renew(content, h("div", { class: "table-wrap", "data-kept": "table" }, h(
    "table", {}, h("thead", {}, head), h("tbody", {}, ...body),
  )));
  return true;
}

function cell(field, i) {
  const value = field.values[i];
  const isColoured = field.config.custom?.cellOptions?.type === "color-text" || (field.config.mappings ?? []).length > 0;
  const colour = isColoured ? colourOf(value, field.config) : null;
  const attributes = { class: field.type === "number" ? "number" : null, "data-label": nameOf(field), style: { "--colour": colour } };
  return h("td", attributes, h("span", { class: colour ? "mark" : null }, textOf(value, field.config)));
}
