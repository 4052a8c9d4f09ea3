"use strict";
// The graph on a canvas: tens of thousands of operators stay usable, since only what is in sight is drawn.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("canvas"), pen = canvas.getContext("2d");
  const hover = document.getElementById("hover"), picked = document.getElementById("picked");
  const search = document.getElementById("search"), matches = document.getElementById("matches");
  const colour = document.getElementById("colour"), legend = document.getElementById("legend");
  const CELL = 400;

  const views = {};
  for (const name of ["before", "after"]) {
    const source = data[name], [width, height] = source.size;
    const nodes = source.nodes.map(([label, node, x, y, facts], i) => ({ i, label, node, x, y, facts }));
    const cells = new Map();
    for (const n of nodes) {
      const key = Math.floor(n.x / CELL) + ":" + Math.floor(n.y / CELL);
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(n);
      n.text = [n.label, n.node, ...Object.values(n.facts)].join(" ").toLowerCase();
    }
    views[name] = { nodes, edges: source.edges, cells, width, height, scale: 0, x: 0, y: 0, found: [], at: -1 };
  }
  let view = views.after, pointed = null, chosen = null, frame = 0;

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  function top(key) { return Math.max(1e-12, ...view.nodes.map((n) => n.facts[key] || 0)); }

  function fill(n, most) {
    if (n.label === "input" || n.label === "output") return style("faint");
    const by = colour.value;
    if (by === "unit") return n.facts.unit ? style(n.facts.unit) : style("gpu");
    const value = n.facts[by];
    if (value === undefined) return style("line");
    // Errors span orders of magnitude: 1e-6 to the greatest; times and sizes are linear in their root.
    const part = by === "error" ? Math.max(0, 1 + Math.log10(Math.max(value, 1e-6) / most) / 6) : Math.sqrt(value / most);
    return `hsl(${Math.round(210 - 210 * part)} 65% 50%)`;
  }

  function size() {
    const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, box.width * ratio);
    canvas.height = Math.max(1, box.height * ratio);
    return [box.width, box.height, ratio];
  }

  function inSight(w, h) {
    const x0 = -view.x / view.scale - view.width, x1 = (w - view.x) / view.scale + view.width;
    const y0 = -view.y / view.scale - view.height, y1 = (h - view.y) / view.scale + view.height;
    return [x0, y0, x1, y1];
  }

  function draw() {
    frame = 0;
    const [w, h, ratio] = size();
    if (!view.scale) fit(w, h);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    pen.translate(view.x, view.y);
    pen.scale(view.scale, view.scale);
    const [x0, y0, x1, y1] = inSight(w, h), half = view.height / 2;
    pen.lineWidth = Math.max(1, 0.7 / view.scale);
    const active = chosen || pointed;
    pen.strokeStyle = style("edge");
    pen.beginPath();
    const near = [];
    for (const [a, b] of view.edges) {
      const p = view.nodes[a], q = view.nodes[b];
      if (Math.max(p.x, q.x) < x0 || Math.min(p.x, q.x) > x1 || q.y < y0 || p.y > y1) continue;
      if (active && (p === active || q === active)) { near.push([p, q]); continue; }
      line(p, q, half);
    }
    pen.stroke();
    pen.strokeStyle = style("mark");
    pen.beginPath();
    for (const [p, q] of near) line(p, q, half);
    pen.stroke();
    const most = colour.value === "unit" ? 1 : top(colour.value), found = new Set(view.found);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = "15px system-ui, sans-serif";
    for (const n of view.nodes) {
      if (n.x < x0 || n.x > x1 || n.y < y0 || n.y > y1) continue;
      pen.globalAlpha = view.found.length && !found.has(n) ? 0.3 : 1;
      pen.fillStyle = fill(n, most);
      const left = n.x - view.width / 2, upper = n.y - half;
      if (view.scale < 0.25) pen.fillRect(left, upper, view.width, view.height);
      else { pen.beginPath(); pen.roundRect(left, upper, view.width, view.height, 6); pen.fill(); }
      if (n === active || n === view.found[view.at]) {
        pen.strokeStyle = style("mark");
        pen.lineWidth = Math.max(2, 2 / view.scale);
        pen.strokeRect(left - 2, upper - 2, view.width + 4, view.height + 4);
      }
      if (view.scale > 0.35) { pen.fillStyle = "#fff"; pen.fillText(clip(n.label), n.x, n.y); }
    }
    pen.globalAlpha = 1;
    window.planish.drawn += 1;
  }

  function line(p, q, half) {
    const y0 = p.y + half, y1 = q.y - half, bend = Math.min(60, (y1 - y0) / 2);
    pen.moveTo(p.x, y0);
    if (y1 - y0 > 2 * view.height && Math.abs(p.x - q.x) < view.width) {
      // Past the nodes between, not behind them.
      const side = Math.max(p.x, q.x) + view.width * 0.62 + Math.min(60, (y1 - y0) / 30);
      pen.bezierCurveTo(p.x, y0 + bend / 2, side, y0, side, y0 + bend);
      pen.lineTo(side, y1 - bend);
      pen.bezierCurveTo(side, y1, q.x, y1 - bend / 2, q.x, y1);
      return;
    }
    pen.bezierCurveTo(p.x, y0 + bend, q.x, y1 - bend, q.x, y1);
  }

  const clip = (text) => (text.length > 16 ? text.slice(0, 15) + "…" : text);
  const redraw = () => { if (!frame) frame = requestAnimationFrame(draw); };

  function bounds() {
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const n of view.nodes) {
      x0 = Math.min(x0, n.x); x1 = Math.max(x1, n.x); y0 = Math.min(y0, n.y); y1 = Math.max(y1, n.y);
    }
    return [x0 - view.width, y0 - view.height, x1 + view.width, y1 + view.height];
  }

  function fit(w, h) {
    const [x0, y0, x1, y1] = bounds();
    // A long graph is shown from its start at a size that can be read, not whole as a thread.
    view.scale = Math.min(1.2, Math.max(Math.min(w / (x1 - x0), h / (y1 - y0)), Math.min(0.6, w / (x1 - x0))));
    view.x = w / 2 - (view.scale * (x0 + x1)) / 2;
    view.y = (y1 - y0) * view.scale > h ? -y0 * view.scale : h / 2 - (view.scale * (y0 + y1)) / 2;
  }

  function zoom(factor, cx, cy) {
    const scale = Math.min(4, Math.max(0.005, view.scale * factor)), real = scale / view.scale;
    view.x = cx - (cx - view.x) * real;
    view.y = cy - (cy - view.y) * real;
    view.scale = scale;
    redraw();
  }

  function nodeAt(px, py) {
    const x = (px - view.x) / view.scale, y = (py - view.y) / view.scale;
    for (let i = -1; i <= 1; i++) for (let j = -1; j <= 1; j++) {
      const cell = view.cells.get(Math.floor(x / CELL) + i + ":" + (Math.floor(y / CELL) + j));
      for (const n of cell || [])
        if (Math.abs(n.x - x) <= view.width / 2 && Math.abs(n.y - y) <= view.height / 2) return n;
    }
    return null;
  }

  function describe(element, n) {
    element.replaceChildren();
    const title = document.createElement("strong"), list = document.createElement("dl");
    title.textContent = n.label + (n.node ? "  " + n.node : "");
    element.append(title, list);
    const units = { ms: (v) => (1000 * v).toPrecision(3) + " µs", bytes: (v) => (v / 1e6).toPrecision(3) + " MB",
      error: (v) => v.toExponential(1) + " relative L2", unit: (v) => data.units[v] || v };
    const names = { ms: "time here", bytes: "weights" };
    for (const [key, value] of Object.entries(n.facts)) {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = names[key] || key;
      dd.textContent = units[key] ? units[key](value) : value;
      list.append(dt, dd);
    }
  }

  function point(px, py) {
    pointed = nodeAt(px, py);
    hover.hidden = !pointed;
    if (pointed) {
      describe(hover, pointed);
      const box = canvas.getBoundingClientRect();
      hover.style.left = Math.min(px + 14, Math.max(0, box.width - hover.offsetWidth - 8)) + "px";
      hover.style.top = Math.min(py + 14, Math.max(0, box.height - hover.offsetHeight - 8)) + "px";
    }
    redraw();
  }

  function pick(n) {
    chosen = n;
    picked.hidden = !n;
    if (n) describe(picked, n);
    redraw();
  }

  function centre(n) {
    const box = canvas.getBoundingClientRect();
    view.scale = Math.max(view.scale, 0.8);
    view.x = box.width / 2 - n.x * view.scale;
    view.y = box.height / 2 - n.y * view.scale;
    redraw();
  }

  function find(text, step) {
    const words = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length ? view.nodes.filter((n) => words.every((w) => n.text.includes(w))) : [];
    const same = step && found.length === view.found.length;
    view.found = found;
    view.at = found.length ? (same ? (view.at + step + found.length) % found.length : 0) : -1;
    matches.textContent = words.length ? (found.length ? `${view.at + 1} of ${found.length}` : "none") : "";
    if (view.at >= 0) { centre(found[view.at]); pick(found[view.at]); } else pick(null);
  }

  function show(name) {
    view = views[name];
    for (const tab of document.querySelectorAll("[data-view]"))
      tab.setAttribute("aria-selected", String(tab.dataset.view === name));
    pointed = null;
    hover.hidden = true;
    pick(null);
    if (search.value) find(search.value, 0);
    explain();
    redraw();
  }

  function explain() {
    const by = colour.value, only = view === views.before && by !== "unit";
    const used = Object.keys(data.report.placement.ops).map((u) => data.units[u] + " " + data.report.placement.ops[u]);
    legend.textContent = view === views.before ? `${view.nodes.length} nodes` + (only ? "; only the package has " + by : "")
      : by === "unit" ? used.join(", ") : { ms: "estimated time: blue little, red much", bytes: "weights: blue few, red many",
          error: "relative error: blue 1e-6 of the greatest, red the greatest; grey not measured" }[by];
  }

  let drag = null;
  canvas.addEventListener("pointerdown", (e) => {
    drag = { x: e.offsetX, y: e.offsetY, moved: false };
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!drag) return point(e.offsetX, e.offsetY);
    if (Math.abs(e.offsetX - drag.x) + Math.abs(e.offsetY - drag.y) > 3) drag.moved = true;
    if (drag.moved) {
      view.x += e.offsetX - drag.x;
      view.y += e.offsetY - drag.y;
      Object.assign(drag, { x: e.offsetX, y: e.offsetY });
      redraw();
    }
  });
  canvas.addEventListener("pointerup", (e) => {
    if (drag && !drag.moved) pick(nodeAt(e.offsetX, e.offsetY));
    drag = null;
  });
  canvas.addEventListener("pointerleave", () => { pointed = null; hover.hidden = true; redraw(); });
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY / 400), e.offsetX, e.offsetY); },
    { passive: false });
  const middle = () => { const b = canvas.getBoundingClientRect(); return [b.width / 2, b.height / 2]; };
  canvas.addEventListener("keydown", (e) => {
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[e.key];
    if (steps) { e.preventDefault(); view.x += steps[0]; view.y += steps[1]; redraw(); }
    else if (e.key === "+") zoom(1.25, ...middle());
    else if (e.key === "-") zoom(0.8, ...middle());
  });
  document.getElementById("in").addEventListener("click", () => zoom(1.25, ...middle()));
  document.getElementById("out").addEventListener("click", () => zoom(0.8, ...middle()));
  document.getElementById("fit").addEventListener("click", () => { const [w, h] = size(); fit(w, h); redraw(); });
  search.addEventListener("input", () => find(search.value, 0));
  search.addEventListener("keydown", (e) => { if (e.key === "Enter") find(search.value, e.shiftKey ? -1 : 1); });
  colour.addEventListener("change", () => { explain(); redraw(); });
  for (const tab of document.querySelectorAll("[data-view]")) tab.addEventListener("click", () => show(tab.dataset.view));
  for (const link of document.querySelectorAll("[data-node]"))
    link.addEventListener("click", () => {
      show("after");
      const n = views.after.nodes.find((x) => x.node === link.dataset.node && x.label !== "input");
      if (n) { centre(n); pick(n); }
    });
  window.addEventListener("resize", redraw);
  window.planish = { drawn: 0, views, get view() { return view; }, nodeAt, show, find };
  explain();
  draw();
})();
