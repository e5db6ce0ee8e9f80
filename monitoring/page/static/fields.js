// Fields and a panel's fieldConfig → how each is called, written and coloured.
import { named, seriesColour } from "./colours.js";
import { asRegExp, nameOf } from "./transformations.js";
import { format } from "./units.js";

/** Return `frames` with `config` on each field: the defaults, and the overrides that match. */
export function configured(frames, fieldConfig = {}) {
  const { defaults = {}, overrides = [] } = fieldConfig;
  return frames.map((frame) => ({
    ...frame,
    fields: frame.fields.map((field) => {
      const config = { ...defaults, custom: { ...defaults.custom } };
      // A time is one, whatever the panel's values are.
      if (field.type === "time") Object.assign(config, { unit: "dateTimeAsIso", mappings: [], thresholds: null });
      for (const { matcher, properties } of overrides) {
        if (matches(matcher, field, frame)) properties.forEach((property) => set(config, property));
      }
      if (config.displayName) config.displayName = filledIn(config.displayName, field, frame);
      return { ...field, config };
    }),
  }));
}

function matches({ id, options }, field, frame) {
  if (id === "byName") return nameOf(field) === options || field.name === options;
  if (id === "byRegexp") return asRegExp(options).test(nameOf(field));
  if (id === "byFrameRefID") return frame.refId === options;
  if (id === "byType") return field.type === options;
  if (id === "byNames") return (options?.names ?? []).includes(nameOf(field));
  return false;
}

function set(config, { id, value }) {
  if (id.startsWith("custom.")) config.custom[id.slice(7)] = value;
  else config[id] = value;
}

function filledIn(text, field, frame) {
  return text.replace(/\$\{__(field|series|frame)\.(?:labels\.)?(\w+)\}/g, (_, kind, name) => {
    if (name === "name") return kind === "field" ? (field.legend ?? field.name) : (frame.name ?? field.legend ?? field.name);
    return field.labels?.[name] ?? "";
  });
}

/** Return the value as a person reads it: the mapped word, else the number in its unit. */
export function textOf(value, config = {}) {
  const mapped = mappingOf(value, config);
  if (mapped?.text !== undefined && mapped.text !== "") return mapped.text;
  if ((value === null || value === undefined) && config.noValue) return config.noValue;
  return format(value, config.unit || "none", config.decimals ?? null);
}

/** Return the value's colour: the mapping's, else the threshold's; null if it has none. */
export function colourOf(value, config = {}) {
  const mapped = mappingOf(value, config);
  if (mapped?.color) return named(mapped.color);
  if (config.color?.mode === "fixed" && config.color.fixedColor) return named(config.color.fixedColor);
  const steps = config.thresholds?.steps ?? [];
  if (steps.length < 2 || typeof value !== "number") return null;
  return named(stepOf(value, config).color);
}

/** Return the last threshold step that `value` reaches. */
function stepOf(value, config) {
  const { steps, mode } = config.thresholds;
  const { min = 0, max = 100 } = config;
  const at = mode === "percentage" ? ((value - min) / (max - min || 1)) * 100 : value;
  return steps.reduce((found, step, i) => (i === 0 || at >= step.value ? step : found), steps[0]);
}

function mappingOf(value, { mappings = [] }) {
  for (const { type, options } of mappings) {
    if (type === "value" && options[String(value)]) return options[String(value)];
    if (type === "range" && typeof value === "number" && value >= (options.from ?? -Infinity) && value <= (options.to ?? Infinity)) return options.result;
    if (type === "regex" && typeof value === "string" && asRegExp(options.pattern).test(value)) return options.result;
    if (type === "special" && isSpecial(value, options.match)) return options.result;
  }
  return null;
}

function isSpecial(value, match) {
  const isNull = value === null || value === undefined;
  const isNaN = typeof value === "number" && Number.isNaN(value);
  return { null: isNull, nan: isNaN, "null+nan": isNull || isNaN, true: value === true, false: value === false, empty: value === "" }[match] ?? false;
}

/** Return the colour of a line: its own, else the version's, else the next of the palette. */
export function lineColourOf(field, place) {
  const { color } = field.config ?? {};
  if (color?.mode === "fixed" && color.fixedColor) return named(color.fixedColor);
  return seriesColour(field.labels, place);
}

/** Return the numeric fields of all frames that are not hidden, each with its times. */
export function seriesIn(frames) {
  return frames.flatMap((frame) => {
    const time = frame.fields.find(({ type }) => type === "time");
    return frame.fields
      .filter(({ type, config }) => type === "number" && !isHidden(config))
      .map((field) => ({ ...field, times: time?.values ?? [], refId: frame.refId, frameName: frame.name }));
  });
}

function isHidden(config) {
  const { hideFrom, hidden } = config?.custom ?? {};
  return Boolean(hidden || hideFrom?.viz);
}

export { isHidden };
