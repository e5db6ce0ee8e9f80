// A dashboard's variables → pickers, and the values that its queries are filled with.
// Every variable of the dashboards is label_values(selector, label), with several or all chosen.
import { get } from "./api.js";
import { h, renew } from "./dom.js";

const ALL = "$__all";

/** The pickers of one dashboard; `changed` is called when a value is picked. */
export class Variables {
  constructor(board, parameters, changed) {
    this.changed = changed;
    this.element = h("div", { class: "variables" });
    this.all = (board.templating?.list ?? []).map((spec) => ({ spec, options: [], chosen: chosenIn(parameters, spec) }));
  }

  /** Load the options, and show them if they have changed. */
  async refresh(window) {
    for (const variable of this.all) {
      const options = await optionsOf(variable.spec, window);
      const isNew = JSON.stringify(options) !== JSON.stringify(variable.options);
      variable.options = options;
      if (isNew) this.show();
    }
  }

  /** Return the value of each variable in a query. */
  values() {
    return Object.fromEntries(this.all.map(({ spec, chosen }) => [spec.name, chosen.includes(ALL) ? spec.allValue : chosen]));
  }

  /** Return the choices as parameters of the page's address. */
  parameters() {
    return this.all.map(({ spec, chosen }) => [`var-${spec.name}`, chosen.includes(ALL) ? "All" : chosen.join(",")]);
  }

  show() {
    renew(this.element, ...this.all.map((variable) => this.picker(variable)));
  }

  picker(variable) {
    const { spec, options, chosen } = variable;
    const toggle = (value, isOn) => {
      const rest = value === ALL ? [] : chosen.filter((each) => each !== ALL && each !== value);
      const next = isOn ? [...rest, value] : rest;
      this.pick(variable, next.length ? next : [ALL]);
    };
    const boxes = [ALL, ...options].map((value) => h("label", {}, h("input", {
      type: "checkbox", "data-kept": `${spec.name} ${value}`, checked: chosen.includes(value), onchange: (event) => toggle(value, event.target.checked),
    }), value === ALL ? "All" : value));
    const summary = chosen.includes(ALL) ? "All" : chosen.join(", ");
    return h("details", { class: "variable", "data-kept": spec.name }, h("summary", { "data-kept": `summary of ${spec.name}` }, h("span", {}, spec.label || spec.name), h("b", {}, summary)), h("div", { class: "choices", "data-kept": `choices of ${spec.name}` }, ...boxes));
  }

  pick(variable, chosen) {
    variable.chosen = chosen;
    this.show();
    this.changed();
  }
}

function chosenIn(parameters, spec) {
  const picked = parameters.get(`var-${spec.name}`);
  return picked && picked !== "All" ? picked.split(",") : [ALL];
}

/** Return the label's values within the window, the newest version first. */
async function optionsOf(spec, window) {
  const [, selector, label] = /^label_values\((.+),\s*(\w+)\)$/.exec(spec.query);
  const query = `count by (${label}) (last_over_time(${selector}[${window.length}s]))`;
  const { data } = await get("/api/prometheus/query", { query, time: window.now });
  const found = data.result.map(({ metric }) => metric[label]).filter(Boolean);
  return found.sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
}
