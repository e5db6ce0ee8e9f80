// One dashboard: its sections of panels, its variables and its time range.
import { get, start } from "./api.js";
import { h, renew, replace } from "./dom.js";
import { Panel } from "./panel.js";
import { interpolate } from "./queries.js";
import { RANGES, windowOf } from "./times.js";
import { ValuesTable, notice } from "./values.js";
import { Variables } from "./variables.js";

const NAMED = /^now-(\w+)$/;

export class Dashboard {
  constructor(name, board, live, refreshPage) {
    const parameters = new URLSearchParams(location.search);
    this.name = name;
    this.refreshPage = refreshPage;
    this.range = RANGES.some(([each]) => each === parameters.get("range")) ? parameters.get("range") : rangeOf(board);
    this.variables = new Variables(board, parameters, () => this.changed());
    this.sections = sectionsOf(board).map((section) => new Section(section));
    this.fallback = null;
    this.body = h("div", { class: "sections" }, ...this.sections.map(({ element }) => element));
    this.picker = h("div", { class: "ranges", role: "group", "aria-label": "Range of time" });
    const heading = h("div", { class: "heading" }, h("h1", {}, shortTitle(board.title)), board.description ? h("p", {}, board.description) : null);
    this.element = h("div", { class: "dashboard" }, h("div", { class: "toolbar" }, heading, h("div", { class: "pickers" }, this.variables.element, this.picker, live)), this.body);
    this.showRanges();
    this.seen = new IntersectionObserver((entries) => this.scrolled(entries), { rootMargin: "200px" });
    this.panels().forEach((panel) => this.seen.observe(panel.element));
    this.isFirst = true;
  }

  static async open(name, live, refreshPage) {
    return new Dashboard(name, await get(`/api/dashboards/${encodeURIComponent(name)}`), live, refreshPage);
  }

  panels() {
    return this.sections.flatMap(({ panels }) => panels);
  }

  /** Refresh the panels in sight; the first time all of them. */
  async refresh() {
    const { problem } = await start();
    if (problem) {
      await this.fallBack(problem);
      return;
    }
    if (this.fallback) {
      this.fallback = null;
      replace(this.body, ...this.sections.map(({ element }) => element));
    }
    this.window = windowOf(this.range);
    await this.variables.refresh(this.window);
    const due = this.sections.filter(({ isOpen }) => isOpen).flatMap(({ panels }) => panels);
    const wanted = this.isFirst ? due : due.filter(({ isVisible }) => isVisible);
    this.isFirst = false;
    await Promise.all(wanted.map((panel) => this.load(panel)));
    const values = this.variables.values();
    this.sections.forEach((section) => section.name(interpolate(section.title, values)));
  }

  async load(panel) {
    panel.window = this.window;
    await panel.refresh(this.variables.values(), this.window);
  }

  /** Show the exporters' current values in place of the panels. */
  async fallBack(problem) {
    if (!this.fallback) {
      this.fallback = new ValuesTable();
      replace(this.body, notice(problem), this.fallback.element);
    }
    await this.fallback.refresh();
  }

  scrolled(entries) {
    for (const { target, isIntersecting } of entries) {
      const panel = this.panels().find(({ element }) => element === target);
      panel.isVisible = isIntersecting;
      if (isIntersecting && this.window && panel.window !== this.window) this.load(panel);
    }
  }

  changed() {
    const parameters = new URLSearchParams([["range", this.range], ...this.variables.parameters()]);
    history.replaceState(null, "", `${location.pathname}?${parameters}`);
    this.showRanges();
    this.isFirst = true;
    this.refreshPage(); // which reports an error: a paused page has no next refresh
  }

  showRanges() {
    renew(this.picker, ...RANGES.map(([name]) => h("button", {
      type: "button", "data-kept": name, "aria-pressed": String(name === this.range), "aria-label": `Last ${name}`,
      onclick: () => {
        this.range = name;
        this.changed();
      },
    }, name)));
  }

  redraw() {
    this.panels().forEach((panel) => panel.redraw());
  }

  leave() {
    this.seen.disconnect();
    this.panels().forEach((panel) => panel.leave());
  }
}

/** A row's panels under its title, which collapses them. */
class Section {
  constructor({ title, panels, isOpen }) {
    this.title = title;
    this.isOpen = isOpen;
    this.panels = panels.map((spec) => new Panel(spec));
    this.grid = h("div", { class: "grid", hidden: !isOpen }, ...this.panels.map(({ element }) => element));
    this.heading = h("span", {}, title);
    this.collapse = title ? h("button", { type: "button", class: "collapse", "aria-expanded": String(isOpen), onclick: () => this.toggle() }, this.heading) : null;
    this.element = h("section", {}, this.collapse ? h("h2", {}, this.collapse) : null, this.grid);
  }

  name(title) {
    if (this.heading.textContent !== title) replace(this.heading, title);
  }

  toggle() {
    this.isOpen = !this.isOpen;
    this.collapse.setAttribute("aria-expanded", String(this.isOpen));
    this.grid.hidden = !this.isOpen;
  }
}

/** Return the dashboard's rows with their panels, each from its own top. */
export function sectionsOf(board) {
  const sections = [{ title: "", panels: [], isOpen: true }];
  for (const panel of [...(board.panels ?? [])].sort(inOrder)) {
    if (panel.type === "row") sections.push({ title: panel.title ?? "", panels: [...(panel.panels ?? [])], isOpen: !panel.collapsed });
    else sections.at(-1).panels.push(panel);
  }
  return sections.filter(({ panels }) => panels.length).map((section) => ({ ...section, panels: fromTop(section.panels.sort(inOrder)) }));
}

function inOrder(a, b) {
  return (a.gridPos?.y ?? 0) - (b.gridPos?.y ?? 0) || (a.gridPos?.x ?? 0) - (b.gridPos?.x ?? 0);
}

function fromTop(panels) {
  const top = Math.min(...panels.map(({ gridPos }) => gridPos?.y ?? 0));
  return panels.map((panel) => ({ ...panel, gridPos: { ...panel.gridPos, y: (panel.gridPos?.y ?? 0) - top } }));
}

/** Return the title without the project's name, which the bar shows already. */
export function shortTitle(title) {
  const short = title.replace(/^srp4ctr\s*[:/·–—-]?\s*/i, "") || title;
  return short[0].toUpperCase() + short.slice(1);
}

function rangeOf(board) {
  const range = NAMED.exec(board.time?.from ?? "")?.[1];
  const seconds = { "30m": 1800, "12h": 43200, "3h": 10800, "7d": 604800 }[range];
  if (seconds) return RANGES.findLast(([, length]) => length <= seconds)[0];
  return RANGES.some(([name]) => name === range) ? range : "1h";
}
