// A dashboard's variables → pickers, and the values that its queries are filled with.
import { get } from "./api.js";
import { h, replace } from "./dom.js";
import { interpolate } from "./queries.js";
import { asRegExp } from "./transformations.js";

const ALL = "$__all";

/** Read and show the variables of one dashboard; `changed` is called when one is picked. */
export class Variables {
  constructor(board, parameters, changed) {
    this.changed = changed;
    this.element = h("div", { class: "variables" });
    this.all = (board.templating?.list ?? [])
      .filter(({ type }) => ["query", "custom", "constant", "interval", "textbox"].includes(type))
      .map((spec) => ({ spec, options: [], chosen: chosenAtFirst(spec, parameters) }));
  }

  /** Ask for the options anew, and show them if they have changed. */
  async refresh(window) {
    for (const variable of this.all) {
      const options = await optionsOf(variable.spec, this.values(), window);
      const isNew = JSON.stringify(options) !== JSON.stringify(variable.options);
      variable.options = options;
      if (!variable.chosen.length) variable.chosen = atFirst(variable.spec, options);
      if (isNew) this.show();
    }
  }

  /** Return what each variable stands for in a query. */
  values() {
    return Object.fromEntries(this.all.map(({ spec, options, chosen }) => {
      if (chosen.includes(ALL)) return [spec.name, spec.allValue ? spec.allValue : options.length ? options : [".*"]];
      if (spec.multi) return [spec.name, chosen.length ? chosen : [".*"]];
      return [spec.name, chosen[0] ?? ".*"];
    }));
  }

  /** Return what was picked, for the page's address. */
  parameters() {
    return this.all.filter(({ chosen }) => chosen.length).map(({ spec, chosen }) => [`var-${spec.name}`, chosen.map((value) => (value === ALL ? "All" : value)).join(",")]);
  }

  show() {
    const isOpen = this.element.querySelector("details[open]")?.dataset.name;
    const shown = this.all.filter(({ spec }) => ![2, "hideVariable"].includes(spec.hide) && spec.type !== "constant");
    replace(this.element, ...shown.map((variable) => (variable.spec.multi ? this.many(variable) : this.one(variable))));
    if (isOpen) this.element.querySelector(`details[data-name="${isOpen}"]`)?.setAttribute("open", "");
  }

  one(variable) {
    const { spec, options, chosen } = variable;
    const offered = spec.includeAll ? [ALL, ...options] : options;
    const pick = (event) => this.pick(variable, [event.target.value]);
    const select = h("select", { onchange: pick }, ...offered.map((value) => h("option", { value, selected: chosen.includes(value) }, value === ALL ? "All" : value)));
    return h("label", { class: "variable" }, h("span", {}, spec.label || spec.name), select);
  }

  many(variable) {
    const { spec, options, chosen } = variable;
    const offered = spec.includeAll ? [ALL, ...options] : options;
    const toggle = (value, isOn) => {
      const rest = value === ALL ? [] : chosen.filter((each) => each !== ALL && each !== value);
      const next = isOn ? [...rest, value] : rest;
      this.pick(variable, next.length ? next : atFirst(spec, options));
    };
    const boxes = offered.map((value) => h("label", {}, h("input", {
      type: "checkbox", checked: chosen.includes(value), onchange: (event) => toggle(value, event.target.checked),
    }), value === ALL ? "All" : value));
    const said = chosen.includes(ALL) ? "All" : chosen.join(", ") || "–";
    return h("details", { class: "variable", "data-name": spec.name }, h("summary", {}, h("span", {}, spec.label || spec.name), h("b", {}, said)), h("div", { class: "choices" }, ...boxes));
  }

  pick(variable, chosen) {
    variable.chosen = chosen;
    this.show();
    this.changed();
  }
}

function chosenAtFirst(spec, parameters) {
  const picked = parameters.get(`var-${spec.name}`);
  if (picked) return picked.split(",").map((value) => (value === "All" ? ALL : value));
  if (spec.type === "custom" || spec.type === "interval") return [];
  const current = [spec.current?.value ?? []].flat().filter((value) => value !== "");
  return spec.includeAll && current.some((value) => value === "All" || value === ALL) ? [ALL] : current;
}

function atFirst(spec, options) {
  if (spec.includeAll) return [ALL];
  return options.slice(0, 1);
}

async function optionsOf(spec, values, window) {
  const query = typeof spec.query === "string" ? spec.query : (spec.query?.query ?? "");
  if (spec.type !== "query") return query.split(",").map((value) => value.trim().split(" : ").at(-1)).filter(Boolean);
  const asked = /^\s*label_values\(\s*(?:([\s\S]+),)?\s*(\w+)\s*\)\s*$/.exec(query);
  if (!asked) return [];
  const [, metric, label] = asked;
  const selector = interpolate(metric?.trim() || `{__name__=~"srp4ctr_.+", ${label}!=""}`, values, window);
  const promql = `count by (${label}) (last_over_time(${selector}[${window.length}s]))`;
  const { data } = await get("/api/prometheus/query", { query: promql, time: window.end });
  const found = data.result.map(({ metric: labels }) => labels[label]).filter(Boolean);
  const kept = spec.regex ? found.flatMap((value) => asRegExp(spec.regex).exec(value)?.slice(-1) ?? []) : found;
  const sorted = [...new Set(kept)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return [2, 4, 6, 8].includes(spec.sort) ? sorted.reverse() : sorted;
}
