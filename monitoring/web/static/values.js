// The exporters' current values by metric, for a machine without Prometheus.
import { get } from "./api.js";
import { h, renew, replace } from "./dom.js";
import { format } from "./units.js";

const UNIX = 1e9; // a greater number of seconds is a Unix time

/** Return the notice above the table if Prometheus does not answer. */
export function notice(problem) {
  return h(
    "div", { class: "notice", role: "status" },
    h("p", {}, h("strong", {}, problem), " The dashboards need its history; below are the exporters' current values."),
    h(
      "p", {}, "To get it on Debian or Ubuntu: ", h("code", {}, "sudo apt install prometheus"), "; then ", h("code", {}, "srp4ctr stack up"),
      " (and the demo) starts it with the rest of the stack. To use another one, set ", h("code", {}, "monitoring.prometheus_url"), " in settings.toml.",
    ),
  );
}

export class ValuesTable {
  constructor() {
    this.wanted = "";
    this.pages = [];
    this.search = h("input", {
      type: "search", placeholder: "Filter by name or help", "aria-label": "Filter the metrics",
      oninput: (event) => {
        this.wanted = event.target.value.trim().toLowerCase();
        this.show();
      },
    });
    this.body = h("div", {});
    this.element = h("div", { class: "values" }, h("div", { class: "filter" }, this.search), this.body);
  }

  async refresh() {
    try {
      this.pages = await get("/api/values");
    } catch (error) {
      replace(this.body, h("p", { class: "said" }, error.message));
      return;
    }
    this.show();
  }

  show() {
    renew(this.body, ...this.pages.map((page) => this.section(page)));
  }

  section({ job, url, problem, metrics }) {
    const shown = metrics.filter(({ values }) => values.length).filter((metric) => this.matches(metric));
    const silent = metrics.filter(({ values }) => !values.length).filter((metric) => this.matches(metric));
    const rows = shown.flatMap((metric) => metric.values.map((value, i) => row(metric, value, i)));
    const said = problem || (rows.length ? "" : "No metric matches the filter.");
    return h(
      "section", { class: "exporter", "data-job": job },
      h("h2", {}, job, h("a", { href: url, "data-kept": `address of ${job}`, rel: "noreferrer" }, url.replace(/^https?:\/\//, ""))),
      said ? h("p", { class: "said" }, said) : null,
      rows.length ? h("div", { class: "table-wrap" }, h("table", {}, head(), h("tbody", {}, ...rows))) : null,
      silent.length ? h("details", { class: "silent", "data-kept": `silent of ${job}` }, h("summary", { "data-kept": `summary of ${job}` }, `${silent.length} metrics without values yet`), h("dl", {}, ...silent.flatMap(({ name, help }) => [h("dt", {}, h("code", {}, name)), h("dd", {}, help)]))) : null,
    );
  }

  matches({ name, help }) {
    return `${name} ${help}`.toLowerCase().includes(this.wanted);
  }

  redraw() {}

  leave() {}
}

function head() {
  return h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Metric"), h("th", { scope: "col" }, "Labels"), h("th", { scope: "col", class: "number" }, "Now")));
}

function row(metric, { labels, what, value }, i) {
  const said = Object.entries(labels).map(([name, each]) => h("span", { class: "label" }, h("span", { class: "muted" }, `${name} `), each));
  return h(
    "tr", { class: i ? "same" : null },
    i ? null : h("td", { class: "metric", rowspan: metric.values.length }, h("code", {}, metric.name), h("span", { class: "help" }, metric.help)),
    h("td", { "data-label": "Labels" }, ...said, what ? h("span", { class: "label" }, what) : null),
    h("td", { class: "number", "data-label": "Now" }, written(metric.name, what, value)),
  );
}

function written(name, what, value) {
  if (what === "count") return format(value, "short");
  if (/_(seconds|seconds_total)$/.test(name)) return value > UNIX ? format(value * 1000, "dateTimeAsIso") : format(value, "s");
  return format(value, "none", null);
}
