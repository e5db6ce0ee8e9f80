// Frames and a dashboard's transformations → frames. Those that are not known change nothing.
const KNOWN = {
  organize, merge, joinByField, filterFieldsByName, sortBy, renameByRegex, labelsToFields,
  partitionByValues, reduce, limit, convertFieldType, calculateField, concatenate,
};
KNOWN.seriesToColumns = joinByField; // its name until Grafana 9

/** Return `frames` after all of `steps`, in their order. */
export function transformed(frames, steps = []) {
  return steps
    .filter((step) => !step.disabled && step.id in KNOWN)
    .reduce((found, { id, options }) => KNOWN[id](found, options ?? {}), frames);
}

/** Return what a person calls the field. */
export function nameOf(field) {
  return field.config?.displayName ?? field.legend ?? field.name;
}

function organize(frames, { excludeByName = {}, includeByName = {}, indexByName = {}, renameByName = {} }) {
  const onlyIncluded = Object.values(includeByName).some(Boolean);
  const place = (field, i) => indexByName[nameOf(field)] ?? indexByName[field.name] ?? 1000 + i;
  return frames.map((frame) => ({
    ...frame,
    fields: frame.fields
      .map((field, i) => ({ field, at: place(field, i) }))
      .filter(({ field }) => !excludeByName[nameOf(field)] && !excludeByName[field.name])
      .filter(({ field }) => !onlyIncluded || includeByName[nameOf(field)] || includeByName[field.name])
      .sort((a, b) => a.at - b.at)
      .map(({ field }) => {
        const name = renameByName[nameOf(field)] || renameByName[field.name];
        return name ? { ...field, name, legend: undefined } : field;
      }),
  }));
}

/** Join rows whose shared columns are equal; columns that only some frames have are added. */
function merge(frames) {
  const tables = valuesApart(frames);
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
  return [fromRows([...columns.values()], [...rows.values()])];
}

/** Put frames side by side, rows matched by the values of one field. */
function joinByField(frames, { byField, mode = "outer" }) {
  const tables = valuesApart(frames.filter((frame) => frame.fields.some((field) => isCalled(field, byField ?? "Time"))));
  if (tables.length < 2) return tables;
  const keyField = tables[0].fields.find((field) => isCalled(field, byField ?? "Time"));
  const rows = new Map();
  const columns = [keyField];
  tables.forEach(({ fields }, number) => {
    const key = fields.find((field) => isCalled(field, byField ?? "Time"));
    for (const field of fields) {
      if (field === key) continue;
      const name = nameOf(field);
      const taken = columns.some((each) => nameOf(each) === name);
      columns.push(taken ? { ...field, name: `${name} ${number + 1}`, legend: undefined } : field);
      const own = nameOf(columns.at(-1));
      key.values.forEach((value, i) => rows.set(value, { ...rows.get(value), [own]: field.values[i] }));
    }
  });
  let found = [...rows.entries()].map(([value, row]) => ({ ...row, [nameOf(keyField)]: value }));
  if (mode === "inner") found = found.filter((row) => columns.every((field) => row[nameOf(field)] !== undefined));
  if (keyField.type !== "string") found.sort((a, b) => a[nameOf(keyField)] - b[nameOf(keyField)]);
  return [fromRows(columns, found)];
}

function filterFieldsByName(frames, { include = {}, exclude = {} }) {
  const matches = ({ names, pattern }, field) =>
    (names ?? []).some((name) => isCalled(field, name)) || (pattern ? asRegExp(pattern).test(nameOf(field)) : false);
  const asked = include.names || include.pattern;
  return frames
    .map((frame) => ({ ...frame, fields: frame.fields.filter((field) => (!asked || matches(include, field)) && !matches(exclude, field)) }))
    .filter(({ fields }) => fields.length);
}

function sortBy(frames, { sort = [] }) {
  const [{ field: name, desc } = {}] = sort;
  return frames.map((frame) => sortedBy(frame, name, desc));
}

/** Return `frame` in the order of the values of field `name`. */
export function sortedBy(frame, name, isDescending) {
  const field = frame.fields.find((each) => isCalled(each, name));
  if (!field) return frame;
  const order = field.values.map((_, i) => i).sort((a, b) => compared(field.values[a], field.values[b]) * (isDescending ? -1 : 1));
  return { ...frame, fields: frame.fields.map((each) => ({ ...each, values: order.map((i) => each.values[i]) })) };
}

function renameByRegex(frames, { regex = "", renamePattern = "" }) {
  const wanted = asRegExp(regex);
  return eachField(frames, (field) => {
    const name = nameOf(field);
    return field.type === "time" || !wanted.test(name) ? field : { ...field, name: name.replace(wanted, renamePattern), legend: undefined };
  });
}

/** Turn each series' labels into columns of one row a point. */
function labelsToFields(frames, { keepLabels, mode }) {
  if (mode === "rows") return frames;
  return frames.map((frame) => {
    const value = frame.fields.find(({ type }) => type === "number");
    if (!value) return frame;
    const names = Object.keys(value.labels).filter((name) => name !== "__name__" && (!keepLabels?.length || keepLabels.includes(name)));
    const columns = names.map((name) => ({ name, type: "string", labels: {}, values: value.values.map(() => value.labels[name]) }));
    const time = frame.fields.filter(({ type }) => type === "time");
    return { ...frame, fields: [...time, ...columns, { ...value, labels: {}, legend: undefined }] };
  });
}

/** Split each frame into one a distinct value of some fields, which become labels. */
function partitionByValues(frames, { fields: names = [], keepFields = false }) {
  return frames.flatMap((frame) => {
    const by = frame.fields.filter((field) => names.some((name) => isCalled(field, name)));
    if (!by.length) return [frame];
    const groups = new Map();
    for (let i = 0; i < lengthOf(frame); i += 1) {
      const key = JSON.stringify(by.map(({ values }) => values[i]));
      groups.set(key, [...(groups.get(key) ?? []), i]);
    }
    const rest = keepFields ? frame.fields : frame.fields.filter((field) => !by.includes(field));
    return [...groups.values()].map((rows) => {
      const labels = Object.fromEntries(by.map((field) => [nameOf(field), field.values[rows[0]]]));
      const fields = rest.map((field) => ({ ...field, labels: { ...field.labels, ...labels }, values: rows.map((i) => field.values[i]) }));
      return { ...frame, name: Object.values(labels).join(" "), fields };
    });
  });
}

/** Turn series into one row each, with a column a calculation. */
function reduce(frames, { reducers = ["lastNotNull"], mode }) {
  const numbers = frames.flatMap(({ fields }) => fields.filter(({ type }) => type === "number"));
  if (mode === "reduceFields") {
    return frames.map((frame) => ({ ...frame, fields: frame.fields.filter(({ type }) => type === "number").map((field) => ({ ...field, values: [calculated(field.values, reducers[0])] })) }));
  }
  const columns = reducers.map((how) => ({ name: TITLES[how] ?? how, type: "number", labels: {}, values: numbers.map(({ values }) => calculated(values, how)) }));
  return [{ fields: [{ name: "Field", type: "string", labels: {}, values: numbers.map(nameOf) }, ...columns] }];
}

const TITLES = { lastNotNull: "Last *", last: "Last", max: "Max", min: "Min", mean: "Mean", sum: "Total", count: "Count" };

/** Return one figure of many values: Grafana's name says which. */
export function calculated(values, how = "lastNotNull") {
  const there = values.filter((value) => value !== null && value !== undefined && !Number.isNaN(value));
  if (how === "count") return there.length;
  if (how === "last") return values.at(-1) ?? null;
  if (!there.length) return null;
  const total = () => there.reduce((sum, value) => sum + value, 0);
  const figures = {
    lastNotNull: () => there.at(-1), first: () => values[0] ?? null, firstNotNull: () => there[0],
    max: () => Math.max(...there), min: () => Math.min(...there), mean: () => total() / there.length, sum: total,
    range: () => Math.max(...there) - Math.min(...there), delta: () => there.at(-1) - there[0], diff: () => there.at(-1) - there[0],
  };
  return (figures[how] ?? figures.lastNotNull)();
}

function limit(frames, { limitField = 10 }) {
  return eachField(frames, (field) => ({ ...field, values: field.values.slice(0, Number(limitField)) }));
}

function convertFieldType(frames, { conversions = [] }) {
  return eachField(frames, (field) => {
    const found = conversions.find(({ targetField }) => isCalled(field, targetField));
    if (!found) return field;
    const type = found.destinationType;
    const change = { number: Number, string: String, time: (value) => (typeof value === "number" ? value : Date.parse(value)) }[type];
    return change ? { ...field, type, values: field.values.map(change) } : field;
  });
}

function calculateField(frames, { mode, binary = {}, reduce: how = {}, alias, replaceFields }) {
  return frames.map((frame) => {
    const numbers = frame.fields.filter(({ type }) => type === "number");
    const rows = Array.from({ length: lengthOf(frame) }, (_, i) => i);
    let values;
    if (mode === "binary") {
      const side = (given) => {
        const name = given?.matcher?.options ?? given?.fixed ?? given;
        const field = numbers.find((each) => isCalled(each, name));
        return field ? (i) => field.values[i] : () => Number(name);
      };
      const [left, right] = [side(binary.left), side(binary.right)];
      const does = { "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => (b ? a / b : null) }[binary.operator ?? "+"];
      values = rows.map((i) => does(left(i), right(i)));
    } else {
      const taken = numbers.filter((field) => !how.include?.length || how.include.some((name) => isCalled(field, name)));
      values = rows.map((i) => calculated(taken.map((field) => field.values[i]), how.reducer ?? "sum"));
    }
    const made = { name: alias || "Total", type: "number", labels: {}, values };
    return { ...frame, fields: replaceFields ? [...frame.fields.filter(({ type }) => type === "time"), made] : [...frame.fields, made] };
  });
}

function concatenate(frames) {
  return frames.length > 1 ? [{ fields: frames.flatMap(({ fields }) => fields) }] : frames;
}

/** Return frames whose values are told apart by their query: "Value #B". */
function valuesApart(frames) {
  const queries = new Set(frames.map(({ refId }) => refId));
  if (queries.size < 2) return frames;
  return frames.map((frame) => ({
    ...frame,
    fields: frame.fields.map((field) => (field.name === "Value" && !field.legend ? { ...field, name: `Value #${frame.refId}` } : field)),
  }));
}

function isCalled(field, name) {
  return nameOf(field) === name || field.name === name;
}

function eachField(frames, change) {
  return frames.map((frame) => ({ ...frame, fields: frame.fields.map(change) }));
}

function fromRows(columns, rows) {
  return { fields: columns.map((field) => ({ ...field, values: rows.map((row) => row[nameOf(field)] ?? null) })) };
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
