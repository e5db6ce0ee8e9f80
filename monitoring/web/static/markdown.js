// The Markdown of text panels → elements, never HTML: unknown syntax stays text.
import { h } from "./dom.js";

/** Return the elements of `text`: headings, lists, paragraphs, bold, code, links. */
export function rendered(text) {
  return text.trim().split(/\n\s*\n/).flatMap(block);
}

function block(text) {
  const lines = text.split("\n");
  const heading = /^(#{1,4})\s+(.*)$/.exec(lines[0]);
  if (heading) {
    const rest = lines.slice(1).join("\n").trim();
    return [h(`h${Math.min(heading[1].length + 3, 6)}`, {}, ...inline(heading[2])), ...(rest ? block(rest) : [])];
  }
  if (lines.every((line) => /^\s*([-*]|\d+\.)\s/.test(line))) {
    const kind = /^\s*\d/.test(lines[0]) ? "ol" : "ul";
    return [h(kind, {}, ...lines.map((line) => h("li", {}, ...inline(line.replace(/^\s*([-*]|\d+\.)\s+/, "")))))];
  }
  return [h("p", {}, ...inline(lines.join(" ")))];
}

function inline(text) {
  return text.split(/(\*\*[^*]+\*\*|\*[^*\s][^*]*\*|`[^`]+`|\[[^\]]+\]\([^)\s]+\))/).map((part) => {
    if (part.startsWith("**") && part.endsWith("**") && part.length > 4) return h("strong", {}, part.slice(2, -2));
    if (part.startsWith("*") && part.endsWith("*") && part.length > 2) return h("em", {}, part.slice(1, -1));
    if (part.startsWith("`") && part.endsWith("`") && part.length > 2) return h("code", {}, part.slice(1, -1));
    const link = /^\[([^\]]+)\]\(([^)\s]+)\)$/.exec(part);
    if (!link) return part;
    // Links to the web and to this page only: no javascript: addresses.
    return /^(https?:\/\/|\/[^/]|#)/.test(link[2]) ? h("a", { href: link[2], rel: "noreferrer" }, link[1]) : link[1];
  });
}
