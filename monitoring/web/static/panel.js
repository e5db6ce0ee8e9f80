// One panel: its frame, its queries, and the drawing function of its type.
import { h, replace, sentence } from "./dom.js";
import { configured } from "./fields.js";
import { drop } from "./plots.js";
import { framesOf, interpolate } from "./queries.js";
import { ownReason, whyEmpty } from "./reasons.js";
import { transformed } from "./transformations.js";
import { bargauge } from "./panels/bargauge.js";
import { heatmap } from "./panels/heatmap.js";
import { stat } from "./panels/stat.js";
import { table } from "./panels/table.js";
import { text } from "./panels/text.js";
import { timeline } from "./panels/timeline.js";
import { timeseries } from "./panels/timeseries.js";
import { xychart } from "./panels/xychart.js";

export const DRAWINGS = { timeseries, stat, table, bargauge, heatmap, xychart, text, "state-timeline": timeline };

/** A panel on the page; `refresh` queries and draws, `redraw` only draws. */
export class Panel {
  constructor(spec) {
    this.spec = spec;
    this.frames = null;
    this.context = null;
    this.pending = null;
    this.isVisible = true;
    this.title = h("h3", {});
    this.content = h("div", { class: "content" });
    const { x = 0, y = 0, w = 24, h: height = 8 } = spec.gridPos ?? {};
    this.element = h(
      "article",
      {
        class: `panel kind-${spec.type}`, "data-state": "loading", "data-kind": spec.type, "data-title": spec.title,
        "data-may-be-empty": ownReason(spec) ? "" : null, // its dashboard says why
        style: { "--x": x + 1, "--w": w, "--y": y + 1, "--h": height },
      },
      spec.title || spec.description ? h("header", {}, this.title, about(spec)) : null,
      this.content,
    );
    this.resized = new ResizeObserver(() => this.redraw());
    this.resized.observe(this.content);
  }

  /** Query the panel's data as of `window`, and draw it. */
  async refresh(variables, window) {
    this.pending?.abort();
    const pending = new AbortController();
    this.pending = pending;
    const title = interpolate(this.spec.title ?? "", variables);
    if (this.title.textContent !== title) replace(this.title, title);
    try {
      const frames = this.spec.type === "text" ? [] : await framesOf(this.spec, variables, window, pending.signal);
      if (pending.signal.aborted) return;
      this.frames = configured(transformed(frames, this.spec.transformations), this.spec.fieldConfig);
      this.context = { window, variables };
      await this.redraw();
    } catch (error) {
      if (error.name !== "AbortError") this.say("error", error.message);
    }
  }

  /** Draw the last data in the current size and theme. */
  async redraw() {
    if (!this.frames || !this.element.isConnected) return;
    try {
      await this.draw();
    } catch (error) {
      this.say("error", error.message);
    }
  }

  async draw() {
    const draw = DRAWINGS[this.spec.type];
    if (!draw) {
      this.say("error", `Only Grafana draws panels of type ${this.spec.type}.`);
      return;
    }
    if (this.content.querySelector(":scope > .said")) replace(this.content);
    if (await draw(this.content, this.spec, this.frames, this.context)) this.element.dataset.state = "drawn";
    else this.say("empty", await whyEmpty(this.spec, this.context.window));
  }

  say(state, reason) {
    this.content.querySelectorAll(".plot").forEach(drop);
    this.element.dataset.state = state;
    replace(this.content, h("p", { class: "said" }, ...sentence(reason)));
  }

  leave() {
    this.pending?.abort();
    this.resized.disconnect();
    this.content.querySelectorAll(".plot").forEach(drop);
  }
}

function about({ title, description }) {
  if (!description) return null;
  const tip = h("span", { class: "tip", role: "tooltip" }, description);
  return h("button", { class: "about", type: "button", "aria-label": `About ${title ?? "this panel"}: ${description}` }, h("span", { "aria-hidden": "true" }, "i"), tip);
}
