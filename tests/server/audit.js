// What a page gets wrong for people who see little, hear it, or use no mouse: a list of complaints, one line each.
(() => {
  const complaints = [];
  const shown = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !node.closest(".unseen, .hidden, .skip");
  const brief = (node) => `${node.tagName.toLowerCase()}${node.id ? `#${node.id}` : `.${node.className}`}`;

  // A colour in any notation as [r, g, b, a], by way of a pixel.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3])).concat(1);
  const ground = (node) => {
    const own = rgba(getComputedStyle(node).backgroundColor);
    if (own[3] === 1) return own;
    // On the map there is a canvas behind; the sea is most of it.
    const below = node.id === "map" ? rgba(getComputedStyle(node).getPropertyValue("--map-sea")) : null;
    return over(own, below ?? (node.parentElement ? ground(node.parentElement) : [255, 255, 255, 1]));
  };
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const contrast = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const check = (node, style, what) => {
    const below = ground(node);
    const ink = rgba(style.color);
    ink[3] *= Number(style.opacity);
    const found = contrast(over(ink, below), below);
    const large = Number.parseFloat(style.fontSize) >= 24 || (Number.parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (found < (large ? 3 : 4.5)) complaints.push(`contrast ${found.toFixed(2)} of ${what} in ${brief(node)}`);
  };
  for (const node of document.body.querySelectorAll("*")) {
    if (!shown(node) || node.closest("svg, noscript") || node.matches(":disabled")) continue;
    const text = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim());
    if (text) check(node, getComputedStyle(node), `"${node.textContent.trim().slice(0, 30)}"`);
    if (node.placeholder && !node.value) check(node, getComputedStyle(node, "::placeholder"), "the placeholder");
    // The edge of a control, against what is around it.
    if (node.matches("input, textarea, select, .button")) {
      const edge = contrast(over(rgba(getComputedStyle(node).borderTopColor), ground(node)), ground(node.parentElement));
      if (edge < 3) complaints.push(`contrast ${edge.toFixed(2)} of the edge of ${brief(node)}`);
    }
  }
  const map = getComputedStyle(document.getElementById("map") ?? document.body);
  for (const [ink, below] of [["label", "land"], ["label", "sea"], ["answer", "sea"], ["prior", "sea"]]) {
    const [a, b] = [ink, below].map((name) => rgba(map.getPropertyValue(`--map-${name}`)));
    if (a[3] && contrast(a, b) < (ink === "label" ? 4.5 : 3)) complaints.push(`contrast ${contrast(a, b).toFixed(2)} of ${ink} on ${below}`);
  }

  for (const node of document.querySelectorAll("button, a, input, textarea, select, summary, [tabindex='0']")) {
    if (!shown(node) || node.closest("[inert]")) continue;
    const boxes = [node, ...(node.labels ?? [])].map((one) => one.getBoundingClientRect());
    const [width, height] = ["width", "height"].map((side) => Math.max(...boxes.map((box) => box[side])));
    const reach = Number.parseFloat(getComputedStyle(node, "::before").width) || 0;
    if (Math.max(width, reach) < 24 || (Math.max(height, reach) < 24 && !node.matches("a, summary"))) {
      complaints.push(`${brief(node)} is only ${width.toFixed(0)} x ${height.toFixed(0)} px`);
    }
    if (node.tabIndex > 0) complaints.push(`${brief(node)} jumps the order of the page`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) complaints.push(`the id ${id} comes twice`);
  for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const node of document.querySelectorAll(`[${name}]`)) {
      for (const id of node.getAttribute(name).split(" ")) if (!ids.includes(id)) complaints.push(`${brief(node)} names ${id}, which is not there`);
    }
  }
  const levels = [...document.querySelectorAll("h1, h2, h3")].filter(shown).map((node) => Number(node.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) complaints.push("there is not one h1");
  if (levels.some((level, i) => level > (levels[i - 1] ?? 0) + 1)) complaints.push(`headings skip a level: ${levels}`);
  if (!document.documentElement.lang) complaints.push("the page has no language");
  return complaints;
})()
