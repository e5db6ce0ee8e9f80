// A panel of text.
import { h, renew } from "../dom.js";
import { rendered } from "../markdown.js";

/** Write the panel into `content`; it is never empty. */
export function text(content, panel) {
  renew(content, h("div", { class: "prose", "data-kept": "text" }, ...rendered(panel.options?.content ?? panel.content ?? "")));
  return true;
}
