// The playground: a user's history, a ranking, and the effect of a click on both.
import { get, post } from "./api.js";
import { h, replace, sentence } from "./dom.js";
import { Ranking } from "./ranking.js";
import { ago, number } from "./numbers.js";

const COUNTS = [10, 20, 50, 100];
const SHOWN_BEHAVIORS = 30;

export class Playground {
  constructor() {
    this.user = null;
    this.draw = 0;
    this.isAsking = false;
    this.due = null; // the request that was chosen while another one ran
    this.rankedUser = null; // whose ranking is shown
    this.isReady = false;
    this.said = h("p", { class: "notice quiet", role: "status", hidden: true });
    this.people = h("datalist", { id: "people" });
    this.chips = h("div", { class: "chips" });
    this.name = h("input", { id: "user", name: "user", list: "people", autocomplete: "off", maxlength: 256, placeholder: "A user's id" });
    this.history = h("ol", { class: "history", tabindex: "0", "aria-label": "Recent behaviours, newest first" });
    this.historyTitle = h("h2", {}, "Recent behaviours");
    this.attributes = h("p", { class: "muted", hidden: true });
    this.count = h("select", { id: "count", onchange: () => this.rank() }, ...COUNTS.map((n) => h("option", { value: n, selected: n === 20 }, `${n} candidates`)));
    this.own = h("textarea", { id: "own", rows: 2, placeholder: "Item ids, separated by spaces or commas; empty: items that are new to the user" });
    this.ranking = new Ranking((item) => this.click(item));
    this.element = h("div", { class: "playground" }, this.heading(), this.said, h("div", { class: "columns" }, this.left(), this.right()));
  }

  heading() {
    return h("div", { class: "toolbar" }, h(
      "div", { class: "heading" }, h("h1", {}, "Playground"),
      h("p", {}, "Rank items for a user as any client would, click one, and see the history and the next ranking change. Each click is published: it counts in features, labels and live quality."),
    ));
  }

  left() {
    const form = h("form", { class: "pick", onsubmit: (event) => this.submitted(event) }, h("label", { for: "user" }, "User"), this.name, this.people, h("button", { type: "submit", class: "primary" }, "Show"));
    return h("div", { class: "side" }, h("section", { class: "card" }, form, this.chips), h("section", { class: "card grow" }, this.historyTitle, this.attributes, this.history));
  }

  right() {
    const again = () => {
      this.draw += 1;
      this.rank();
    };
    const controls = h(
      "div", { class: "controls" }, h("label", { for: "count", class: "unseen" }, "How many candidates"), this.count,
      h("button", { type: "button", onclick: () => this.rank() }, "Rank again"), h("button", { type: "button", onclick: again }, "Other candidates"),
      h("button", { type: "button", onclick: () => this.recommend() }, "Recommend"),
    );
    const own = h(
      "details", { class: "own" }, h("summary", {}, "My own candidates"), h("label", { for: "own", class: "unseen" }, "Ids of your own candidates"), this.own, h("button", { type: "button", onclick: () => this.rank() }, "Rank these"),
    );
    return h("section", { class: "card ranking" }, h("div", { class: "ranking-head" }, h("h2", {}, "Ranking"), controls, own), this.ranking.element);
  }

  /** Called every few seconds: updates the ages, loads the users until there are any, and ranks again after an outage. */
  async refresh() {
    if (!this.isReady) await this.loadUsers();
    else if (this.ranking.isMissing && !this.isAsking) await this.rank();
    this.history.querySelectorAll("time").forEach((time) => replace(time, ago(Date.now() / 1000 - Number(time.dataset.at) / 1000)));
  }

  /** Load the users to choose from; at first pick the address's user, or the newest. */
  async loadUsers() {
    try {
      this.offer = await get("/api/playground/offer", {});
    } catch (error) {
      this.say(error.message);
      return;
    }
    const { users, advice } = this.offer;
    this.say(advice);
    this.isReady = !advice;
    replace(this.people, ...users.map((value) => h("option", { value })));
    replace(this.chips, ...users.slice(0, 8).map((id) => h("button", { type: "button", onclick: () => this.pick(id) }, id)));
    const first = new URLSearchParams(location.search).get("user") ?? users[0];
    if (first && (this.user === null || this.isReady)) await this.pick(this.user ?? first);
  }

  submitted(event) {
    event.preventDefault();
    const id = this.name.value.trim();
    if (id) this.pick(id);
  }

  async pick(id) {
    this.user = id;
    this.shown = null;
    this.draw = 0;
    this.name.value = id;
    history.replaceState(null, "", `${location.pathname}?user=${encodeURIComponent(id)}`);
    this.chips.querySelectorAll("button").forEach((chip) => chip.setAttribute("aria-pressed", String(chip.textContent === id)));
    await Promise.all([this.read(id), this.rank()]);
  }

  /** Show the user's history, unless a click has shown a newer one meanwhile. */
  async read(id) {
    try {
      const user = await get("/api/playground/user", { id });
      if (this.shown === null) this.showUser(user);
    } catch (error) {
      if (this.shown === null && id === this.user) this.noHistory(error.message);
    }
  }

  async rank() {
    if (this.user === null || this.offer?.can_rank === false) return;
    await this.during(async (user) => {
      const item_ids = this.own.value.split(/[\s,]+/).filter(Boolean);
      this.showRanking(user, await post("/api/playground/rank", { user_id: user, item_ids, count: Number(this.count.value), draw: this.draw }));
    });
  }

  /** Show what is recommended among all items, with the source of each. */
  async recommend() {
    if (this.user === null || this.offer?.can_rank === false) return;
    await this.during(async (user) => {
      this.showRanking(user, await post("/api/playground/recommend", { user_id: user, count: Number(this.count.value) }));
    });
  }

  async click(item) {
    if (this.isAsking) return; // the ranking that the item is of may be replaced
    await this.during(async (user) => {
      this.ranking.wait(item);
      const effect = await post("/api/playground/click", { request_id: this.ranking.request, item_id: item.item_id });
      this.showUser(effect.user, this.shown);
      this.showRanking(user, effect.ranking, { effect, item });
    });
  }

  /** Show a ranking of `user`, unless another user was chosen meanwhile. */
  showRanking(user, ranking, click = null) {
    if (user !== this.user) return;
    this.rankedUser = user;
    this.ranking.show(ranking, click);
  }

  /** Run one request at a time; the last one that is chosen meanwhile runs after it. */
  async during(request) {
    if (this.isAsking) {
      this.due = request;
      return;
    }
    this.isAsking = true;
    this.ranking.busy(true);
    const user = this.user;
    try {
      await request(user);
    } catch (error) {
      if (user === this.user) this.fail(error);
    } finally {
      this.isAsking = false;
      this.ranking.busy(false);
    }
    const due = this.due;
    this.due = null;
    if (due) await this.during(due);
  }

  /** Show the error in the ranking's place; no other user's ranking stays below it. */
  fail(error) {
    if (this.rankedUser !== this.user) this.ranking.clear();
    this.ranking.fail(error);
  }

  /** Show the user's behaviours, and mark those that are not in `before`. */
  showUser(user, before = null) {
    if (user.user_id !== this.user) return;
    const known = new Set((before ?? user.behaviors).map(keyOf));
    this.shown = user.behaviors;
    replace(this.historyTitle, `${user.behaviors.length} recent behaviours`);
    const attributes = Object.entries(user.attributes).map(([name, value]) => `${name} ${value}`);
    this.attributes.hidden = !attributes.length;
    replace(this.attributes, attributes.join(" · "));
    const rows = user.behaviors.slice(0, SHOWN_BEHAVIORS).map((behavior) => row(behavior, !known.has(keyOf(behavior))));
    replace(this.history, ...(rows.length ? rows : [h("li", { class: "said" }, user.advice)]));
    if (before) this.history.scrollTop = 0;
  }

  noHistory(reason) {
    replace(this.history, h("li", { class: "said" }, ...sentence(reason)));
  }

  say(reason) {
    this.said.hidden = !reason;
    replace(this.said, ...sentence(reason));
  }

}

function keyOf({ at_ms, action, item }) {
  return `${at_ms} ${action} ${item.title}`;
}

function row({ item, action, at_ms, value }, isNew) {
  const attributes = Object.values(item.attributes).join(" · ");
  return h(
    "li", { class: isNew ? "new" : null },
    h("div", { class: "what" }, h("b", {}, item.title), attributes ? h("span", { class: "muted" }, attributes) : null),
    h("div", { class: "when" }, h("span", { class: "action" }, value === null ? action : `${action} ${number(value)}`), h("time", { "data-at": at_ms, datetime: new Date(at_ms).toISOString() }, ago(Date.now() / 1000 - at_ms / 1000))),
  );
}
