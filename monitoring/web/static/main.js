// The page's refresh every few seconds, its theme, its filter, and the playground.
import { page } from "./api.js";
import { h, renew, replace } from "./dom.js";
import { Playground } from "./playground.js";

const EVERY_MS = 5000;
const main = document.querySelector("main");
const bar = document.querySelector("header.bar");
const playground = location.pathname === "/playground" ? new Playground() : null;
let isLive = true;
let timer = 0;

const liveButton = h("button", { type: "button", class: "live", onclick: () => setLive(!isLive) });
const updated = h("span", { class: "updated", "aria-live": "off" });
replace(bar.querySelector(".refresh"), updated, liveButton);

function setLive(wanted) {
  isLive = wanted;
  liveButton.setAttribute("aria-pressed", String(isLive));
  liveButton.title = isLive ? `Refreshes every ${EVERY_MS / 1000} s; click to pause` : "Paused; click to resume";
  replace(liveButton, isLive ? "Live" : "Paused");
  clearTimeout(timer);
  if (isLive) refresh();
}

/** Refresh the page now and every few seconds, unless the tab is hidden. */
async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  const address = location.href;
  try {
    if (playground) await playground.refresh();
    else await load(address);
    replace(updated, `Updated ${new Date().toLocaleTimeString("en", { hourCycle: "h23" })}`);
  } catch (error) {
    replace(updated, error.message);
  }
  main.dataset.ready = "true";
  clearTimeout(timer); // two refreshes may have been in progress
  if (isLive) timer = setTimeout(refresh, EVERY_MS);
}

/** Show the server's current document of `address`, unless another one was chosen meanwhile. */
async function load(address) {
  const text = await page(address);
  const isRead = main.dataset.address === address && main.querySelector(".area:hover, .about:hover");
  if (address !== location.href || isRead) return; // what the pointer reads stays
  const next = new DOMParser().parseFromString(text, "text/html");
  renew(main, ...next.querySelector("main").childNodes);
  main.dataset.address = address;
  const navs = next.querySelectorAll("header.bar nav"); // their links have the range
  bar.querySelectorAll("nav").forEach((nav, i) => renew(nav, ...navs[i].childNodes));
  filter();
}

/** Hide the metrics that do not match the filter. */
function filter() {
  const wanted = main.querySelector("input.filter")?.value.trim().toLowerCase() ?? "";
  main.querySelectorAll("[data-text]").forEach((each) => {
    each.hidden = !each.dataset.text.includes(wanted);
  });
}

/** Follow a link to another range or other versions without leaving the document. */
function choose(event) {
  const link = event.target.closest(".choices a, .ranges a");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  refresh();
}

function showTheme() {
  const to = window.srp4ctrTheme.isDark() ? "light" : "dark";
  const button = h("button", { type: "button", class: "theme", "data-kept": "theme", "aria-label": `Switch to the ${to} theme`, onclick: () => window.srp4ctrTheme.choose(to) }, to === "light" ? "Light" : "Dark");
  renew(bar.querySelector(".theme-place"), button);
}

main.addEventListener("click", choose);
main.addEventListener("input", filter);
addEventListener("popstate", refresh);
addEventListener("themechange", showTheme);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && isLive) refresh();
});

main.dataset.address = location.href;
showTheme();
if (playground) replace(main, playground.element);
setLive(true);
