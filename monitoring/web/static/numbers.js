// Numbers and ages of the playground → text.
const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const TIMES = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** Return `value` with three significant digits, or with `decimals`. */
export function number(value, decimals = null) {
  if (value === null || value === undefined) return "–";
  const digits = decimals === null ? { maximumSignificantDigits: 3 } : { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return value.toLocaleString("en", digits).replace(/^-/, "−");
}

/** Return a share as 61.2%. */
export function percent(share) {
  return share === null ? "–" : `${number(share * 100, 1)}%`;
}

/** Return a number of floating-point operations, as 12 MFLOP. */
export function flops(count) {
  const [size, prefix] = PREFIXES.find(([each]) => count >= each) ?? PREFIXES.at(-1);
  return `${number(count / size)} ${prefix}FLOP`;
}

/** Return milliseconds, as 3.1 ms or 1.2 s. */
export function duration(ms) {
  return ms >= 1000 ? `${number(ms / 1000, 1)} s` : `${number(ms, ms < 10 ? 1 : 0)} ms`;
}

/** Return how long ago that was, in one unit. */
export function ago(seconds) {
  const [size, name] = TIMES.find(([each]) => seconds >= each) ?? [];
  return size ? `${Math.floor(seconds / size)} ${name} ago` : "now";
}
