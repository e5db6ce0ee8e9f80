// Elements without HTML strings: labels and titles are always text.

/** Return an element: h("p", {class: "note", title: "…", onclick: f}, "text", child). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
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

/** Replace the children of `element`; each with a `data-kept` stays scrolled, open, filled and focused. */
export function renew(element, ...children) {
  const before = new Map(keptIn(element).map((each) => [
    each.dataset.kept, { top: each.scrollTop, isOpen: each.open, value: each.value, isFocused: each === document.activeElement },
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

function resume(element, { top, isOpen, value, isFocused }) {
  if (element instanceof HTMLDetailsElement) element.open = isOpen; // first: what is closed cannot be scrolled or focused
  if (element instanceof HTMLInputElement) element.value = value;
  element.scrollTop = top;
  if (isFocused) element.focus({ preventScroll: true });
}

/** Return a sentence's parts: text between backticks is code. */
export function sentence(text) {
  return text.split(/(`[^`]+`)/).filter(Boolean).map((part) => (/^`.+`$/.test(part) ? h("code", {}, part.slice(1, -1)) : part));
}
