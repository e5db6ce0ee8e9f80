// Ranges of time, and the step that a query of such a range takes.
export const RANGES = [["5m", 300], ["15m", 900], ["1h", 3600], ["6h", 21600], ["24h", 86400]];
const POINTS = 240;
const LEAST_STEP_S = 2; // the scrape interval of the embedded stack

/**
 * Return the range's start, end and step in Unix seconds, and now.
 * The end is the last whole step: else a line would have other points after each refresh.
 */
export function windowOf(name, nowMs = Date.now()) {
  const length = (RANGES.find(([each]) => each === name) ?? RANGES[1])[1];
  const step = Math.max(LEAST_STEP_S, Math.ceil(length / POINTS));
  const end = Math.floor(nowMs / 1000 / step) * step;
  return { name, length, step, start: end - length, end, now: nowMs / 1000 };
}

/** Return Unix seconds as local time in plotly's format. */
export function local(seconds) {
  const at = new Date(seconds * 1000);
  const two = (n, size = 2) => String(n).padStart(size, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
}

/** Return the time of day of Unix seconds; with seconds where the range is short. */
export function clock(seconds, length = 0) {
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (length <= 300) options.second = "2-digit";
  return new Date(seconds * 1000).toLocaleTimeString("en", options);
}
