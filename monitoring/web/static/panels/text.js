// A panel of text.
import { h, replace } from "../dom.js";
import { rendered } from "../markdown.js";

/** Write the panel into `content`; it is never empty. */
export function text(content, panel) {
  replace(content, h("div", { class: "prose" }, ...rendered(panel.options?.content ?? panel.content ?? "")));
  return true;
}
