// The page: the open view, its refresh every few seconds, and the bar.
import { start } from "./api.js";
import { clearColours } from "./colours.js";
import { Dashboard, shortTitle } from "./dashboard.js";
import { h, renew, replace } from "./dom.js";
import { Playground } from "./playground.js";
import { setLibraryAddress } from "./plots.js";
import { clock } from "./times.js";
import { setCurrency } from "./units.js";
import { ValuesTable } from "./values.js";

const EVERY_MS = 5000;
const main = document.querySelector("main");
const bar = document.querySelector("header.bar");
let places = [];
let view = null;
let isLive = true;
let timer = 0;
let turn = 0;

const liveButton = h("button", { type: "button", class: "live", onclick: () => setLive(!isLive) });
const updated = h("span", { class: "updated", "aria-live": "off" });
const live = h("div", { class: "refresh" }, updated, liveButton);

function setLive(wanted) {
  isLive = wanted;
  liveButton.setAttribute("aria-pressed", String(isLive));
  liveButton.title = isLive ? `Refreshes every ${EVERY_MS / 1000} s; click to pause` : "Paused; click to resume";
  replace(liveButton, isLive ? "Live" : "Paused");
  clearTimeout(timer);
  if (isLive) refresh();
}

/** Refresh the open view now and every few seconds, unless the tab is hidden. */
async function refresh() {
  clearTimeout(timer);
  const mine = view;
  if (!mine || document.hidden) return;
  try {
    await mine.refresh();
    replace(updated, `Updated ${clock(Date.now() / 1000, 1)}`);
  } catch (error) {
    replace(updated, error.message);
  }
  main.dataset.ready = "true";
  clearTimeout(timer); // two refreshes may have been in progress
  if (mine === view && isLive) timer = setTimeout(refresh, EVERY_MS);
}

function placesOf({ dashboards, playground }) {
  return [
    ...dashboards.map(({ name, title }) => ({ path: `/d/${name}`, title: shortTitle(title), open: () => Dashboard.open(name, live, refresh) })),
    ...(playground ? [{ path: "/playground", title: "Playground", open: async () => new Playground() }] : []),
    { path: "/values", title: "Current values", open: async () => valuesView() },
  ];
}

function valuesView() {
  const table = new ValuesTable();
  const heading = h("div", { class: "toolbar" }, h("div", { class: "heading" }, h("h1", {}, "Current values"), h("p", {}, "The metrics that each exporter serves now, as Prometheus scrapes them.")), live);
  const element = h("div", {}, heading, table.element);
  return { element, refresh: () => table.refresh(), redraw: () => {}, leave: () => {} };
}

/** Open the view that the address names; the first where it names none. */
async function open() {
  turn += 1;
  const mine = turn;
  const place = places.find(({ path }) => path === location.pathname) ?? places[0];
  main.dataset.ready = "false";
  let next;
  try {
    next = await place.open();
  } catch (error) {
    next = { element: h("p", { class: "notice" }, error.message), refresh: async () => {}, redraw: () => {}, leave: () => {} };
  }
  if (mine !== turn) return; // another view was opened meanwhile
  view?.leave();
  view = next;
  document.title = `${place.title} · srp4ctr`;
  replace(main, view.element);
  showBar(place);
  await refresh();
}

function showBar(current) {
  const links = places.map(({ path, title }) => h("a", { href: path, "data-kept": path, "aria-current": path === current.path ? "page" : null, onclick: follow }, title));
  const menu = h("details", { class: "menu" }, h("summary", {}, current.title), h("nav", { "aria-label": "Pages" }, ...links.map((link) => {
    const copy = link.cloneNode(true);
    copy.addEventListener("click", follow);
    delete copy.dataset.kept; // the menu closes with a choice
    return copy;
  })));
  renew(bar, h("a", { class: "brand", "data-kept": "brand", href: "/", onclick: follow }, "srp4ctr"), h("nav", { class: "tabs", "aria-label": "Pages" }, ...links), menu, h("div", { class: "theme-place" }, themeButton()));
}

function follow(event) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  // The range is kept on the next page; other choices belong to their page.
  const range = new URLSearchParams(location.search).get("range");
  const path = event.currentTarget.getAttribute("href");
  history.pushState(null, "", range && path.startsWith("/d/") ? `${path}?range=${range}` : path);
  scrollTo(0, 0);
  open();
}

function themeButton() {
  const isDark = window.srp4ctrTheme.isDark();
  const to = isDark ? "light" : "dark";
  return h("button", { type: "button", class: "theme", "data-kept": "theme", "aria-label": `Switch to the ${to} theme`, onclick: () => window.srp4ctrTheme.choose(to) }, isDark ? "Light" : "Dark");
}

addEventListener("themechange", () => {
  clearColours();
  const theme = bar.querySelector(".theme-place");
  if (theme) renew(theme, themeButton());
  view?.redraw();
});
addEventListener("popstate", open);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && isLive) refresh();
});

setLive(true);
try {
  const settings = await start();
  setLibraryAddress(settings.plotly);
  setCurrency(settings.currency);
  places = placesOf(settings);
  await open();
} catch (error) {
  replace(main, h("p", { class: "notice" }, error.message));
}
