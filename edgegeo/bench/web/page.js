"use strict";
// Draws the front of the chosen job over the rows that the filters leave, and keeps tables and bars in step with it.
(() => {
  const data = JSON.parse(document.getElementById("rows").textContent);
  const byId = (id) => document.getElementById(id);
  const svgNode = (name, facts = {}, text = "") => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(facts)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
  };
  const htmlNode = (name, facts = {}, text = "") => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(facts)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
  };
  const colour = (row) => `var(--${row.kind})`;
  const choice = { job: byId("job"), cost: byId("cost") };
  const filters = [...document.querySelectorAll("#filters input")];
  const sections = [...document.querySelectorAll("section.job")];
  const plot = byId("plot"), tip = byId("tip");
  let dots = [];

  const allowed = (row) => {
    const wanted = {};
    for (const box of filters) {
      wanted[box.name] ??= new Set();
      if (box.checked) wanted[box.name].add(box.value);
    }
    return Object.entries(wanted).every(([facet, values]) =>
      row.facets[facet] === undefined || values.has(row.facets[facet]));
  };

  const frontOf = (rows, cost) => {
    const out = [];
    let best = -Infinity;
    const sorted = [...rows].sort((a, b) => a.cost[cost] - b.cost[cost] || b.accuracy.value - a.accuracy.value);
    for (const row of sorted) if (row.accuracy.value > best) { best = row.accuracy.value; out.push(row); }
    return out;
  };

  const ticks = (low, high, most = 8) => {
    const span = high - low || 1;
    const power = 10 ** Math.floor(Math.log10(span / most));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => span / s <= most);
    const out = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) out.push(+(i * step).toPrecision(12));
    return out;
  };
  const logTicks = (low, high) => {
    const out = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
      for (const f of [1, 2, 5]) { const v = f * 10 ** p; if (v >= low && v <= high) out.push(+v.toPrecision(3)); }
    return out.length > 2 ? out : ticks(low, high, 5);
  };

  const draw = () => {
    const { value: job } = choice.job, { value: cost } = choice.cost;
    const here = data.rows.filter((row) => row.job === job), mine = here.filter(allowed);
    for (const group of byId("filters").children) {
      const facet = group.querySelector("input").name;
      group.hidden = new Set(here.map((row) => row.facets[facet])).size < 2;
    }
    const shown = mine.filter((row) => row.accuracy && row.cost[cost] != null);
    plot.querySelector("svg")?.remove();
    tip.hidden = true;
    dots = [];
    byId("nothing").hidden = shown.length > 0;
    const best = frontOf(shown, cost);
    if (shown.length) plot.prepend(chart(shown, best, cost, job));
    for (const section of sections) {
      section.hidden = section.dataset.job !== job;
      const left = new Set(mine.map((row) => String(row.id))), chosen = new Set(best.map((row) => String(row.id)));
      for (const line of section.querySelectorAll("tbody tr")) {
        line.hidden = line.dataset.row !== undefined && !left.has(line.dataset.row);
        line.classList.toggle("best", chosen.has(line.dataset.row));
      }
    }
    stages(mine);
    byId("count").textContent = `${mine.length} of ${here.length} settings`;
  };

  const chart = (rows, best, cost, job) => {
    const width = Math.max(280, Math.min(1320, plot.clientWidth)), height = 400;
    const [left, right, top, bottom] = [58, 18, 16, 50];
    const costs = rows.map((row) => row.cost[cost]);
    const low = Math.min(...costs) / 1.3, high = Math.max(...costs) * 1.3;
    const yLow = Math.min(...rows.map((r) => 100 * r.accuracy.low)), yHigh = Math.max(...rows.map((r) => 100 * r.accuracy.high));
    const pad = Math.max(1, 0.12 * (yHigh - yLow));
    const [y0, y1] = [Math.max(0, yLow - pad), Math.min(100 + pad / 4, yHigh + pad)];
    const x = (v) => left + Math.log(v / low) / Math.log(high / low) * (width - left - right);
    const y = (v) => height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom);
    const svg = svgNode("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
      "aria-label": `${data.metrics[job]} against ${data.costs[cost]}; arrow keys go from setting to setting` });
    for (const v of ticks(y0, y1)) {
      svg.append(svgNode("line", { class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) }),
        svgNode("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, v));
    }
    for (const v of logTicks(low, high)) {
      svg.append(svgNode("line", { class: "grid", x1: x(v), x2: x(v), y1: top, y2: height - bottom }),
        svgNode("text", { x: x(v), y: height - bottom + 18, "text-anchor": "middle" }, v));
    }
    svg.append(svgNode("text", { x: width - right, y: height - 8, "text-anchor": "end" }, `${data.costs[cost]} (log)`),
      svgNode("text", { transform: `translate(14 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
        `${data.metrics[job]}, %`));
    let path = "";
    for (const row of best) {
      const [px, py] = [x(row.cost[cost]).toFixed(1), y(100 * row.accuracy.value).toFixed(1)];
      path += path ? `H${px}V${py}` : `M${px} ${height - bottom}V${py}`;
    }
    svg.append(svgNode("path", { class: "front", d: `${path}H${width - right}` }));
    const chosen = new Set(best);
    for (const row of rows) {
      const px = x(row.cost[cost]);
      svg.append(svgNode("line", { class: "whisker", style: `stroke:${colour(row)}`, x1: px, x2: px,
        y1: y(100 * row.accuracy.low), y2: y(100 * row.accuracy.high) }));
    }
    // Costly rows first, so that the cheap ones lie on top; the keys go the other way.
    const sorted = [...rows].sort((a, b) => b.cost[cost] - a.cost[cost]);
    for (const row of sorted) svg.append(dot(row, x(row.cost[cost]), y(100 * row.accuracy.value), chosen.has(row)));
    dots.reverse();
    dots[0].node.setAttribute("tabindex", "0");
    return svg;
  };

  const dot = (row, px, py, onFront) => {
    const node = svgNode("g", { class: "dot", tabindex: "-1", role: "img", transform: `translate(${px} ${py})`,
      "aria-label": `${row.name}${onFront ? ", on the front" : ""}: ${row.facts.map((f) => f.join(" ")).join(", ")}` });
    if (onFront) node.append(svgNode("circle", { class: "ring", r: 12.5 }));
    node.append(svgNode("circle", { class: "halo", r: 15 }), svgNode("circle", { r: 10, style: `fill:${colour(row)}` }),
      svgNode("text", { y: 4, "text-anchor": "middle" }, row.mark));
    node.addEventListener("pointerenter", () => tell(row, node));
    node.addEventListener("pointerleave", hush);
    node.addEventListener("focus", () => tell(row, node));
    node.addEventListener("blur", hush);
    node.addEventListener("keydown", (event) => walk(event, node));
    dots.push({ node, row });
    return node;
  };

  const walk = (event, node) => {
    const at = dots.findIndex((one) => one.node === node);
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? dots.length - 1 : step ? at + step : null;
    if (event.key === "Escape") return hush();
    if (to === null || !dots[to]) return;
    event.preventDefault();
    node.setAttribute("tabindex", "-1");
    dots[to].node.setAttribute("tabindex", "0");
    dots[to].node.focus();
  };

  const tell = (row, node) => {
    light(row.id, true);
    const list = htmlNode("dl");
    for (const [name, text] of row.facts) list.append(htmlNode("dt", {}, name), htmlNode("dd", {}, text));
    tip.replaceChildren(htmlNode("strong", {}, row.name), list);
    tip.hidden = false;
    const box = node.getBoundingClientRect(), frame = plot.getBoundingClientRect();
    const roomRight = box.right + tip.offsetWidth + 12 < frame.right;
    const to = roomRight ? box.right - frame.left + 10 : box.left - frame.left - tip.offsetWidth - 10;
    tip.style.left = `${Math.max(0, Math.min(to, frame.width - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, Math.min(box.top - frame.top - 20, frame.height - tip.offsetHeight))}px`;
  };
  const hush = () => {
    tip.hidden = true;
    document.querySelectorAll(".lit").forEach((node) => node.classList.remove("lit"));
  };
  const light = (id, on) => {
    document.querySelectorAll(".lit").forEach((node) => node.classList.remove("lit"));
    document.querySelector(`tr[data-row="${id}"]`)?.classList.toggle("lit", on);
    dots.find((one) => one.row.id === id)?.node.classList.toggle("lit", on);
  };

  const stages = (rows) => {
    const told = rows.filter((row) => row.stages);
    const whole = (row) => Object.values(row.stages).reduce((a, b) => a + b, 0) / row.items;
    const longest = Math.max(...told.map(whole));
    byId("where").hidden = !told.length;
    byId("stages").replaceChildren(...told.map((row) => {
      const bar = htmlNode("div", { class: "bar", role: "img", "aria-label":
        Object.entries(row.stages).map(([s, ms]) => `${s} ${(ms / row.items).toFixed(2)} ms`).join(", ") });
      for (const [stage, ms] of Object.entries(row.stages))
        bar.append(htmlNode("span", { title: `${stage}: ${(ms / row.items).toFixed(2)} ms an item`,
          style: `width:${100 * ms / row.items / longest}%;background:var(--s-${stage})` }));
      const line = htmlNode("div");
      line.append(htmlNode("span", {}, row.name), bar, htmlNode("b", {}, `${whole(row).toFixed(2)} ms`));
      return line;
    }));
    const seen = data.stages.filter((stage) => told.some((row) => stage in row.stages));
    byId("stage-key").replaceChildren(...seen.map((stage) => {
      const item = htmlNode("li");
      item.append(htmlNode("i", { style: `background:var(--s-${stage})` }), stage);
      return item;
    }));
  };

  const sortable = (table) => {
    table.querySelectorAll("th").forEach((head, column) => {
      const button = htmlNode("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (line) => {
          const cell = line.cells[column];
          const number = cell ? parseFloat(cell.dataset.value ?? cell.textContent) : NaN;
          return cell && Number.isNaN(number) ? cell.textContent : number;
        };
        const order = (a, b) => typeof a === typeof b
          ? (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b) : typeof a === "string" ? 1 : -1;
        const lines = [...table.tBodies[0].rows].sort((a, b) => (up ? 1 : -1) * order(key(a), key(b)));
        table.tBodies[0].append(...lines);
      });
    });
    for (const line of table.querySelectorAll("tbody tr[data-row]")) {
      line.addEventListener("pointerenter", () => light(Number(line.dataset.row), true));
      line.addEventListener("pointerleave", hush);
    }
  };

  const remember = () => {
    const off = filters.filter((box) => !box.checked).map((box) => `${box.name}:${box.value}`);
    const state = new URLSearchParams({ job: choice.job.value, cost: choice.cost.value });
    if (off.length) state.set("off", off.join("|"));
    history.replaceState(null, "", `#${state}`);
  };
  const recall = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [name, list] of Object.entries(choice))
      if ([...list.options].some((one) => one.value === state.get(name) && !one.disabled)) list.value = state.get(name);
    const off = new Set((state.get("off") ?? "").split("|"));
    for (const box of filters) box.checked = !off.has(`${box.name}:${box.value}`);
  };

  document.body.classList.add("alive");
  byId("controls").hidden = false;
  byId("front").hidden = false;
  document.querySelectorAll("section.job table").forEach(sortable);
  recall();
  byId("controls").addEventListener("change", () => { draw(); remember(); });
  byId("all").addEventListener("click", () => { for (const box of filters) box.checked = true; draw(); remember(); });
  let drawn = plot.clientWidth;
  addEventListener("resize", () => { if (plot.clientWidth !== drawn) { drawn = plot.clientWidth; draw(); } });
  draw();
})();
