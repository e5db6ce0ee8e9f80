// Frames and a dashboard's transformations → frames. Unknown ones are skipped.
// A test holds that these are exactly those of monitoring/dashboards.
export const KNOWN = { organize, merge };

/** Return `frames` after all of `steps`, in their order. */
export function transformed(frames, steps = []) {
  return steps
    .filter((step) => step.id in KNOWN)
    .reduce((found, { id, options }) => KNOWN[id](found, options ?? {}), frames);
}

/** Return the field's displayed name. */
export function nameOf(field) {
  return field.legend ?? field.name;
}

function organize(frames, { excludeByName = {}, indexByName = {}, renameByName = {} }) {
  const place = (field, i) => indexByName[nameOf(field)] ?? indexByName[field.name] ?? 1000 + i;
  return frames.map((frame) => ({
    ...frame,
    fields: frame.fields
      .map((field, i) => ({ field, at: place(field, i) }))
      .filter(({ field }) => !excludeByName[nameOf(field)] && !excludeByName[field.name])
      .sort((a, b) => a.at - b.at)
      .map(({ field }) => {
        const name = renameByName[nameOf(field)] || renameByName[field.name];
        return name ? { ...field, name, legend: undefined } : field;
      }),
  }));
}

/** Join rows whose shared columns are equal; columns that only some frames have are added. */
function merge(tables) {
  if (tables.length < 2) return tables;
  const columns = new Map(tables.flatMap(({ fields }) => fields.map((field) => [nameOf(field), field])));
  const shared = [...columns.keys()].filter((name) => tables.every(({ fields }) => fields.some((field) => nameOf(field) === name)));
  const rows = new Map();
  for (const { fields } of tables) {
    for (let i = 0; i < lengthOf({ fields }); i += 1) {
      const row = Object.fromEntries(fields.map((field) => [nameOf(field), field.values[i]]));
      const key = JSON.stringify(shared.map((name) => row[name]));
      rows.set(key, { ...rows.get(key), ...row });
    }
  }
  const values = (field) => [...rows.values()].map((row) => row[nameOf(field)] ?? null);
  return [{ fields: [...columns.values()].map((field) => ({ ...field, values: values(field) })) }];
}

/** Return `frame` in the order of the values of field `name`. */
export function sortedBy(frame, name, isDescending) {
  const field = frame.fields.find((each) => nameOf(each) === name);
  if (!field) return frame;
  const order = field.values.map((_, i) => i).sort((a, b) => compared(field.values[a], field.values[b]) * (isDescending ? -1 : 1));
  return { ...frame, fields: frame.fields.map((each) => ({ ...each, values: order.map((i) => each.values[i]) })) };
}

/** Return the last of `values` that is known. */
export function lastOf(values) {
  return values.findLast((value) => value !== null && value !== undefined && !Number.isNaN(value)) ?? null;
}

export function lengthOf({ fields }) {
  return Math.max(0, ...fields.map(({ values }) => values.length));
}

function compared(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
}

/** Return Grafana's regular expression: "/…/i", or the bare pattern. */
export function asRegExp(text) {
  const found = /^\/(.*)\/([gimsuy]*)$/.exec(text);
  try {
    return found ? new RegExp(found[1], found[2].replace("g", "")) : new RegExp(text);
  } catch {
    return /(?!)/; // no pattern: matches nothing
  }
}
