// Elements without HTML strings: labels and titles are always text.
const SVG = "http://www.w3.org/2000/svg";

/** Return an element: h("p", {class: "note", title: "…", onclick: f}, "text", child). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return an SVG element. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") setStyle(element, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function setStyle(element, style) {
  for (const [name, value] of Object.entries(style)) {
    if (value !== null && value !== undefined) element.style.setProperty(name, value);
  }
}

/** Replace the children of `element`. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** Replace the children of `element`; each with a `data-kept` stays scrolled, open and focused as the one before it. */
export function renew(element, ...children) {
  const before = new Map(keptIn(element).map((each) => [
    each.dataset.kept, { top: each.scrollTop, isOpen: each.open, isFocused: each === document.activeElement },
  ]));
  replace(element, ...children);
  for (const each of keptIn(element)) {
    const was = before.get(each.dataset.kept);
    if (was) resume(each, was);
  }
}

function keptIn(element) {
  return [...element.querySelectorAll("[data-kept]")];
}

function resume(element, { top, isOpen, isFocused }) {
  if (element instanceof HTMLDetailsElement) element.open = isOpen; // first: what is closed cannot be scrolled or focused
  element.scrollTop = top;
  if (isFocused) element.focus({ preventScroll: true });
}

/** Return `name` with places where a line may break: between the words of CamelCase. */
export function breakable(name) {
  return name.replace(/([a-z0-9])([A-Z])/g, "$1\u200b$2");
}

/** Return a sentence's parts: text between backticks is code. */
export function sentence(text) {
  return text.split(/(`[^`]+`)/).filter(Boolean).map((part) => (/^`.+`$/.test(part) ? h("code", {}, part.slice(1, -1)) : part));
}
