// An empty panel → the reason in one sentence, as precisely as it is known.
import { get } from "./api.js";
import { metricsIn } from "./queries.js";

const STARTED_BY = {
  monitor: "start it: `srp4ctr monitor run`",
  stream: "start it: `srp4ctr stream run`",
  triton: "start it: `srp4ctr stack up`",
  caller: "it runs while a client ranks",
};
const FRESH_MS = 10_000;
let pages = null;
let readAt = 0;

/** Return the exporters' pages, at most ten seconds old. */
async function exporters() {
  if (!pages || Date.now() - readAt > FRESH_MS) {
    readAt = Date.now();
    pages = get("/api/values").catch(() => []);
  }
  return pages;
}

/** Return the dashboard's own text for an empty panel; "" if it has none. */
export function ownReason(panel) {
  const said = panel.fieldConfig?.defaults?.noValue ?? "";
  return said.includes(" ") ? said : ""; // a sign such as "–" is no reason
}

/** Return the sentence to show in place of `panel`'s content. */
export async function whyEmpty(panel, window) {
  if (ownReason(panel)) return ownReason(panel);
  const found = await exporters();
  const recorded = metricsIn(panel).find((name) => name.includes(":"));
  for (const name of metricsIn(panel)) {
    const metric = declared(found, name);
    if (metric && !metric.values.length) return `No data yet: \`${metric.name}\` has no value so far. ${metric.help}`;
  }
  const silent = metricsIn(panel).find((name) => !name.includes(":") && !declared(found, name));
  const away = found.filter(({ problem }) => problem);
  if (silent && away.length) return `No data yet: ${away.map(({ job }) => `the ${job} does not answer (${STARTED_BY[job] ?? "is it running?"})`).join(", ")}.`;
  if (silent) return `No data yet: no exporter has \`${silent}\`.`;
  if (recorded) return `No data yet: the rule \`${recorded}\` had no input in the last ${window.name}.`;
  return `No data yet: nothing in the last ${window.name}.`;
}

function declared(found, name) {
  const plain = name.replace(/_(bucket|sum|count)$/, "");
  return found.flatMap(({ metrics }) => metrics).find((metric) => metric.name === name || metric.name === plain);
}
