// The lowest contrast of any text on the page with its background, and that text.
() => {
  const parts = (colour) => {
    const [r, g, b, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    return colour.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, alpha] : [r, g, b, alpha];
  };
  const over = ([r, g, b, alpha], below) => [r, g, b].map((v, i) => v * alpha + below[i] * (1 - alpha));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const colour = parts(getComputedStyle(element).backgroundColor);
    return over(colour, colour[3] === 1 ? [0, 0, 0] : ground(element.parentElement));
  };
  const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  let worst = [99, ""];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const isSeen = texts.currentNode.textContent.trim() && element.checkVisibility();
    if (!isSeen || element.closest("svg, .unseen, .tip, noscript")) continue;
    const below = ground(element);
    const found = [luminance(over(parts(getComputedStyle(element).color), below)), luminance(below)];
    const ratio = (Math.max(...found) + 0.05) / (Math.min(...found) + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${element.className} ${element.textContent}`];
  }
  return worst;
}
