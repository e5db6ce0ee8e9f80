// Names of colours in dashboards → the page's palette, in the current theme.
// Grafana's own shades do not reach 4.5:1 on a light panel as text; these do.
const FAMILIES = ["green", "yellow", "orange", "red", "blue", "purple"];
const probe = document.createElement("i");
let known = new Map();

/** Drop the colours read from the style sheet: the theme has changed. */
export function clearColours() {
  known = new Map();
}

/** Return what `--name` is now, as rgb(…): charts cannot read custom properties. */
export function ink(name) {
  if (!known.has(name)) {
    if (!probe.isConnected) document.head.append(probe);
    probe.style.color = `var(--${name})`;
    known.set(name, getComputedStyle(probe).color);
  }
  return known.get(name);
}

/** Return `colour` with an opacity from 0 to 1. */
export function faded(colour, opacity) {
  const parts = colour.match(/[\d.]+/g) ?? ["128", "128", "128"];
  return `rgba(${parts.slice(0, 3).join(", ")}, ${opacity})`;
}

export const PALETTE_SIZE = 8;

/** Return the `place`-th colour of lines. */
export function lineColour(place) {
  return ink(`line-${(place % PALETTE_SIZE) + 1}`);
}

/** Return the colours of lines that none of `used` is. */
export function unusedColours(used) {
  return Array.from({ length: PALETTE_SIZE }, (_, place) => lineColour(place)).filter((colour) => !used.includes(colour));
}

/** Return the colour that a dashboard calls `name`: "green", "dark-red", "#ff0000", "text". */
export function named(name) {
  const family = FAMILIES.find((each) => name === each || name.endsWith(`-${each}`));
  if (family) return ink(family);
  if (name === "text" || name === "transparent" || !name) return ink("text");
  if (/^(#[0-9a-f]{3,8}|rgba?\([\d., %]+\))$/i.test(name)) {
    if (!known.has(name)) {
      if (!probe.isConnected) document.head.append(probe);
      probe.style.color = name;
      known.set(name, getComputedStyle(probe).color);
    }
    return known.get(name);
  }
  return ink("text");
}

/** Return a series' colour: a version of the model has the same one on every panel. */
export function seriesColour(labels, place) {
  const name = labels?.model_version;
  const version = /^v(\d+)$/.exec(name ?? "");
  if (version) return lineColour((Number(version[1]) - 1) % (PALETTE_SIZE - 1));
  return lineColour(name ? PALETTE_SIZE - 1 : place); // a name that is no version number gets the last colour
}
