// Fields and a panel's fieldConfig → name, text and colour of each value.
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
      // A time does not have the unit of the panel's values.
      if (field.type === "time") Object.assign(config, { unit: "dateTimeAsIso", mappings: [], thresholds: null });
      for (const { matcher, properties } of overrides) {
        if (matches(matcher, field)) properties.forEach((property) => set(config, property));
      }
      return { ...field, config };
    }),
  }));
}

function matches({ id, options }, field) {
  if (id === "byName") return nameOf(field) === options || field.name === options;
  return id === "byRegexp" && asRegExp(options).test(nameOf(field));
}

function set(config, { id, value }) {
  if (id.startsWith("custom.")) config.custom[id.slice(7)] = value;
  else config[id] = value;
}

/** Return the value as text: the mapped text, else the number in its unit. */
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
function stepOf(value, { thresholds: { steps } }) {
  return steps.reduce((found, step, i) => (i === 0 || value >= step.value ? step : found), steps[0]);
}

function mappingOf(value, { mappings = [] }) {
  return mappings.map(({ options }) => options[String(value)]).find(Boolean) ?? null;
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
      .map((field) => ({ ...field, times: time?.values ?? [] }));
  });
}

export function isHidden(config) {
  return Boolean(config?.custom?.hideFrom?.viz);
}
