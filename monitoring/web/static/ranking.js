// The ranking of one request: facts, cost and items; after a click, the changes.
import { h, replace, sentence } from "./dom.js";
import { duration, flops, number, percent } from "./numbers.js";

export class Ranking {
  constructor(clicked) {
    this.clicked = clicked;
    this.request = "";
    this.isMissing = false; // whether an outage is why no ranking is shown
    this.places = new Map();
    this.outcome = h("p", { class: "outcome", role: "status", "aria-live": "polite", hidden: true });
    this.advice = h("p", { class: "notice quiet", hidden: true });
    this.facts = h("dl", { class: "facts" });
    this.cost = h("div", { class: "cost" });
    this.list = h("ol", { class: "items" });
    this.element = h("div", { class: "answer" }, this.outcome, this.advice, this.facts, this.cost, this.list);
  }

  busy(isBusy) {
    this.element.setAttribute("aria-busy", String(isBusy));
    this.list.querySelectorAll("button").forEach((button) => {
      button.disabled = isBusy;
    });
  }

  /** Report that `item` was clicked and its effect is awaited. */
  wait(item) {
    this.report(`${item.title}: click published, waiting for a new ranking …`);
    this.outcome.dataset.state = "waiting";
  }

  fail(error) {
    this.isMissing = Boolean(error.mayPass) && !this.list.childElementCount;
    this.report(...sentence(error.message));
    this.outcome.dataset.state = "failed";
  }

  /** Remove what is shown. */
  clear() {
    this.request = "";
    this.places = new Map();
    this.advice.hidden = true;
    [this.facts, this.cost, this.list].forEach((each) => replace(each));
  }

  /** Show `ranking`; after a click, with the changes since the ranking before it. */
  show(ranking, click = null) {
    const before = click ? this.places : new Map();
    this.isMissing = false;
    this.request = ranking.request_id;
    this.advice.hidden = !ranking.advice;
    replace(this.advice, ...sentence(ranking.advice));
    this.report(...(click ? effectOf(click, ranking, before) : [""]));
    this.outcome.dataset.state = click?.effect.changed_after_ms == null ? "waiting" : "done";
    replace(this.facts, ...facts(ranking));
    this.showCost(ranking);
    const best = Math.max(...ranking.items.map(({ score }) => score ?? 0), 0) || 1;
    // A score of a bundle without calibration is no share of anything.
    this.isShare = ranking.calibrated;
    replace(this.list, ...ranking.items.map((ranked, place) => this.row(ranked, place, best, before.get(ranked.item.item_id))));
    this.places = new Map(ranking.items.map(({ item, score }, place) => [item.item_id, { place, score }]));
  }

  report(...parts) {
    this.outcome.hidden = !parts.some(Boolean);
    replace(this.outcome, ...parts);
  }

  row({ item, score, notes }, place, best, before) {
    const moved = before ? before.place - place : 0;
    const attributes = Object.values(item.attributes).join(" · ");
    const text = this.isShare ? percent(score) : number(score);
    const label = `${place + 1}. ${item.title}, score ${text}: click it`;
    return h("li", { class: moved ? `moved ${moved > 0 ? "up" : "down"}` : null, "data-item": item.item_id }, h(
      "button", { type: "button", "aria-label": label, onclick: () => this.clicked(item) },
      h("span", { class: "place" }, String(place + 1)),
      h("span", { class: "what" }, h("b", {}, item.title), h("span", { class: "muted" }, [attributes, notes].filter(Boolean).join(" · "))),
      h("span", { class: "moves" }, moves(moved)),
      h("span", { class: "score-track" }, h("span", { class: "bar-fill", style: { "--share": `${(((score ?? 0) / best) * 100).toFixed(2)}%` } })),
      h("span", { class: "score" }, text, before && this.isShare ? change(score - before.score) : null),
    ));
  }

  showCost({ cost, items }) {
    if (!cost) {
      replace(this.cost, h("p", { class: "muted" }, "The cost is unknown: the bundle's cost card is not available here."));
      return;
    }
    const times = cost.reencoded_flops / cost.flops;
    replace(
      this.cost,
      bar("Encoded once", `${cost.encoder_runs} encoder run, ${flops(cost.flops)}`, cost.flops / cost.reencoded_flops),
      bar("Re-encoded per candidate", `${cost.reencoded_encoder_runs} encoder runs, ${flops(cost.reencoded_flops)}`, 1),
      h("p", { class: "muted" }, `${number(times, times < 10 ? 1 : 0)}× fewer FLOPs for ${items.length} candidates: the history is encoded once and shared by all of them.`),
    );
  }
}

function effectOf({ effect, item }, ranking, before) {
  if (effect.changed_after_ms === null) return sentence(effect.advice);
  const moved = ranking.items.filter(({ item: each }, place) => (before.get(each.item_id)?.place ?? place) !== place).length;
  const figures = moved ? `${moved} of ${ranking.items.length} items moved` : "the scores changed, the order stayed";
  return [h("b", {}, duration(effect.changed_after_ms)), ` from the click on ${item.title} to a new ranking: ${figures}.`];
}

function facts({ model_version, status, latency_ms, feature_version, items }) {
  const fact = (name, value, more = {}) => h("div", {}, h("dt", {}, name), h("dd", more, value));
  return [
    fact("Model", model_version || "–"),
    fact("Status", status.replace("_", " "), { class: status === "ok" ? "good" : "attention" }),
    fact("Latency", duration(latency_ms)),
    fact("Candidates", String(items.length)),
    fact("User row", userOf(feature_version), { title: feature_version, class: "code" }),
  ];
}

/** Return the user's part of the version, which a click moves. */
function userOf(version) {
  return version.split(",").find((part) => part.startsWith("user="))?.slice(5) ?? "no row";
}

function bar(name, value, share) {
  return h("div", { class: "cost-row" }, h("span", { class: "bar-name" }, name), h("span", { class: "bar-track" }, h("span", { class: "bar-fill", style: { "--share": `${(share * 100).toFixed(2)}%` } })), h("span", { class: "bar-value" }, value));
}

function moves(by) {
  if (!by) return "";
  return h("span", {}, h("span", { "aria-hidden": "true" }, by > 0 ? "▲" : "▼"), h("span", { class: "unseen" }, by > 0 ? "up by " : "down by "), String(Math.abs(by)));
}

function change(by) {
  const points = Math.round(by * 1000) / 10;
  return h("small", { class: "muted" }, points ? `${points > 0 ? "+" : ""}${number(points, 1)}` : "±0");
}
