"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows;
  const count = rows.number.length;
  const root = document.documentElement;
  root.classList.add("js");
  const byId = (id) => document.getElementById(id);
  const thin = "\u202f", dash = "\u2013", minus = "\u2212";
  const METRICS = [["flops", "FLOPs"], ["macs", "MACs"], ["params", "Parameters"]];
  const LATENCY = "latency_ratio";

  // Texts, as reports/wording.py writes them. ---------------------------------------------------

  const percent = (share) => share === null ? dash : (100 * share).toFixed(data.decimals) + thin + "%";
  const signed = (value, decimals) => {
    const text = Math.abs(value).toFixed(decimals);
    return (Number(text) === 0 ? "±" : value < 0 ? minus : "+") + text;
  };
  const change = (value, reference) => {
    if (value === reference) return "±0" + thin + "%";
    const size = Math.abs(100 * (value / reference - 1));
    const decimals = size < 0.01 ? 3 : size < 1 ? 2 : size < 100 ? 1 : 0;
    const shown = signed(100 * (value / reference - 1), decimals);
    return (shown.startsWith("±") ? "≈0" : shown) + thin + "%";
  };
  const quantity = (value) => {
    const [factor, unit] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]]
      .find(([f]) => value >= f || f === 1);
    const whole = String(Math.trunc(value / factor)).length;
    return (value / factor).toFixed(unit ? Math.max(4 - whole, 0) : 0) + (unit ? thin + unit : "");
  };
  const ratio = (value) => value === null ? dash : value.toFixed(3) + "×";
  const duration = (seconds) => {
    if (!seconds) return dash;
    const whole = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
    if (whole < 60) return seconds < 10 ? seconds.toFixed(1) + " s" : whole + " s";
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole % 3600 / 60))} min`;
  };
  const text = (number) => data.texts[number];
  const stateOf = (i) => data.states[rows.state[i]];
  const typeOf = (i) => data.types[rows.type[i]];
  const baselineOf = (i) => data.baselines[text(rows.backbone[i])];
  const gain = (i) => {
    const baseline = baselineOf(i);
    return baseline && rows.accuracy[i] !== null ? rows.accuracy[i] - baseline.accuracy : null;
  };
  const isResult = (i) => rows.accuracy[i] !== null && ["complete", "reused"].includes(stateOf(i));

  // Elements: texts go in as text alone, never as markup. -----------------------------------------

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const namespace = "http://www.w3.org/2000/svg";
  const drawn = (name, attributes = {}, ...children) => {
    const made = document.createElementNS(namespace, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const icon = (type) => {
    const mark = data.markers[type];
    const size = { class: "icon", viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" };
    const path = drawn("path", { class: mark.colour, d: "M0 0" + mark.strong, transform: "scale(.77)" });
    return drawn("svg", size, path);
  };

  // The front chart. ------------------------------------------------------------------------------

  const chart = byId("front-chart");
  const shown = { metric: data.leading, scale: "linear", hidden: new Set() };
  const results = [];
  for (let i = 0; i < count; i++) if (isResult(i)) results.push(i);
  let view = null, places = [];

  const sizeFor = (width) => width < 560 ? "narrow" : width < 920 ? "medium" : "wide";
  const project = (axis) => {
    const map = axis.log ? Math.log : (value) => value;
    const low = map(axis.low), span = map(axis.high) - low;
    return (value) => axis.start
      + (map(Math.min(Math.max(value, axis.low), axis.high)) - low) / span * (axis.end - axis.start);
  };

  const drawGrid = (into) => {
    const [left, top, right, bottom] = view.plot;
    if (view.band) {
      const [high, low] = view.band;
      into.append(drawn("rect", { class: "band", x: left, y: high, width: right - left, height: low - high }));
    }
    for (const [y, label] of view.y_ticks) {
      into.append(drawn("path", { class: "grid", d: `M${left} ${y}H${right}` }));
      into.append(drawn("text", { class: "tick", x: left - 8, y: y + 4, "text-anchor": "end" }, label));
    }
    for (const [x, label, relative] of view.x_ticks) {
      into.append(drawn("path", { class: "grid", d: `M${x} ${top}V${bottom}` }));
      into.append(drawn("text", { class: "tick", x, y: bottom + 17, "text-anchor": "middle" }, label));
      into.append(drawn("text", { class: "tick sub", x, y: bottom + 32, "text-anchor": "middle" }, relative));
    }
    into.append(drawn("path", { class: "axis", d: `M${left} ${bottom}H${right}` }));
    const middle = { class: "axis-title", x: (left + right) / 2, y: view.height - 10, "text-anchor": "middle" };
    into.append(drawn("text", middle, view.title));
    if (view.band_label) {
      const [label, x, y, anchor] = view.band_label;
      into.append(drawn("text", { class: "band-label", x, y, "text-anchor": anchor }, label));
    }
    for (const [y, label, x, labelY, anchor] of view.lines) {
      into.append(drawn("path", { class: "baseline", d: `M${left} ${y}H${right}` }));
      into.append(drawn("text", { class: "baseline-label", x, y: labelY, "text-anchor": anchor }, label));
    }
  };

  const drawPoints = (into) => {
    const outlines = new Map();
    const strong = [];
    for (const { i, x, y } of places) {
      const mark = data.markers[typeOf(i)];
      if (rows.front[i]) {
        strong.push(drawn("path", { class: "strong " + mark.colour, d: `M${x} ${y}` + mark.strong }));
      } else {
        outlines.set(mark, (outlines.get(mark) ?? "") + `M${x.toFixed(1)} ${y.toFixed(1)}` + mark.faint);
      }
    }
    for (const [mark, d] of outlines) into.append(drawn("path", { class: "faint " + mark.colour, d }));
    into.append(drawn("path", { class: "front-line", d: view.line }));
    into.append(...strong.reverse());
    const visible = new Set(places.map(({ i }) => rows.number[i]));
    for (const [number, label, x, y, anchor] of view.labels) {
      if (visible.has(number)) {
        into.append(drawn("text", { class: "label", x, y, "text-anchor": anchor }, label));
      }
    }
  };

  const pointWords = (i) => {
    const difference = gain(i);
    const beside = difference === null ? ""
      : `, ${signed(100 * difference, data.decimals)} points to no attention`;
    const costs = METRICS.map(([key, name]) => `${quantity(rows[key][i])} ${name}`).join(", ");
    const latency = data.timed && rows[LATENCY][i] !== null ? `, latency ${ratio(rows[LATENCY][i])}` : "";
    return `${rows.label[i]}, trial ${rows.number[i]}: accuracy ${percent(rows.accuracy[i])}${beside}, ${costs}${latency}`;
  };

  const placeButtons = (frame) => {
    frame.querySelectorAll(".hit").forEach((button) => button.remove());
    const members = new Set(view.members);
    let chosen = places.filter(({ i }) => rows.front[i] || rows.baseline[i]);
    if (chosen.length > 60) chosen = chosen.filter(({ i }) => members.has(rows.number[i]));
    chosen.sort((a, b) => a.x - b.x || b.y - a.y);
    for (const place of chosen.slice(0, 60)) {
      const button = element("button", { type: "button", class: "hit", "aria-label": pointWords(place.i) });
      button.style.left = 100 * place.x / view.width + "%";
      button.style.top = 100 * place.y / view.height + "%";
      button.addEventListener("focus", () => showTip(place));
      button.addEventListener("blur", hideTip);
      button.addEventListener("click", () => openTrial(place.i));
      frame.append(button);
    }
  };

  const drawChart = () => {
    const frame = byId("chart-frame");
    view = data.views[`${shown.metric}-${shown.scale}-${sizeFor(frame.clientWidth)}`];
    const x = project(view.x), y = project(view.y);
    places = results
      .filter((i) => !shown.hidden.has(typeOf(i)) && rows[shown.metric][i] !== null)
      .map((i) => ({ i, x: x(rows[shown.metric][i]), y: y(rows.accuracy[i]) }));
    chart.setAttribute("viewBox", `0 0 ${view.width} ${view.height}`);
    byId("chart-title").textContent = "Accuracy against " + view.title;
    const body = drawn("g", { id: "chart-body" });
    drawGrid(body);
    drawPoints(body);
    body.append(drawn("circle", { id: "ring", class: "ring", r: 10, visibility: "hidden" }));
    byId("chart-body").replaceWith(body);
    placeButtons(frame);
    hideTip();
  };

  const tip = element("div", { class: "tip", hidden: "", "aria-hidden": "true" });

  const tipRows = (i) => {
    const baseline = baselineOf(i), difference = gain(i);
    const lines = [
      ["Accuracy", percent(rows.accuracy[i]), difference === null ? "" : signed(100 * difference, data.decimals) + " points"],
      ["Test", percent(rows.test[i]), ""],
    ];
    for (const [key, name] of METRICS) {
      lines.push([name, quantity(rows[key][i]), baseline ? change(rows[key][i], baseline[key]) : ""]);
    }
    if (data.timed && rows[LATENCY][i] !== null) {
      const quartiles = [rows[LATENCY + "_first"][i], rows[LATENCY + "_third"][i]];
      const spread = quartiles.includes(null) ? "" : quartiles.map(ratio).join(" to ");
      lines.push(["Latency", ratio(rows[LATENCY][i]), [spread, rows.flags[i]].filter(Boolean).join(", ")]);
    }
    return lines.map(([name, value, beside]) => element("tr", {},
      element("th", { scope: "row" }, name), element("td", {}, value), element("td", {}, beside)));
  };

  const showTip = ({ i, x, y }) => {
    const frame = byId("chart-frame");
    const ring = byId("ring");
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.setAttribute("visibility", "visible");
    const place = `trial ${rows.number[i]}, seed ${rows.seed[i]}` + (rows.front[i] ? ", on the front" : "");
    tip.replaceChildren(
      element("strong", {}, rows.label[i]),
      element("span", { class: "quiet" }, place),
      element("table", {}, element("tbody", {}, ...tipRows(i))),
    );
    tip.hidden = false;
    const scale = frame.clientWidth / view.width;
    const left = x * scale, top = y * scale;
    const beside = left + 18 + tip.offsetWidth <= frame.clientWidth ? left + 18 : left - 18 - tip.offsetWidth;
    const highest = frame.clientHeight - tip.offsetHeight;
    tip.style.left = Math.max(0, beside) + "px";
    tip.style.top = Math.max(0, Math.min(top - tip.offsetHeight / 2, highest)) + "px";
  };

  const hideTip = () => {
    tip.hidden = true;
    byId("ring")?.setAttribute("visibility", "hidden");
  };

  const nearest = (event) => {
    const box = chart.getBoundingClientRect();
    const scale = view.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let found = null, best = 15 * 15 * Math.max(1, scale * scale);
    for (const place of places) {
      const distance = (place.x - x) ** 2 + (place.y - y) ** 2 - (rows.front[place.i] ? 20 : 0);
      if (distance < best) { best = distance; found = place; }
    }
    return found;
  };

  const press = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));

  const startChart = () => {
    const frame = byId("chart-frame");
    frame.append(tip);
    frame.addEventListener("pointermove", (event) => {
      const place = nearest(event);
      if (place) showTip(place); else hideTip();
      frame.style.cursor = place ? "pointer" : "";
    });
    frame.addEventListener("pointerleave", hideTip);
    chart.addEventListener("click", (event) => {
      const place = nearest(event);
      if (place && event.pointerType !== "touch") openTrial(place.i);
      else if (place) showTip(place);
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
    for (const key of ["metric", "scale"]) {
      const buttons = [...document.querySelectorAll(`[data-${key}]`)];
      buttons.forEach((button) => button.addEventListener("click", () => {
        shown[key] = button.dataset[key];
        press(buttons, button);
        drawChart();
      }));
    }
    document.querySelectorAll(".type-switch").forEach((box) => box.addEventListener("change", () => {
      if (box.checked) shown.hidden.delete(box.dataset.type); else shown.hidden.add(box.dataset.type);
      drawChart();
    }));
    let size = "";
    new ResizeObserver(() => {
      const now = sizeFor(frame.clientWidth);
      if (now !== size) { size = now; drawChart(); }
    }).observe(frame);
    size = sizeFor(frame.clientWidth);
    drawChart();
  };

  // All trials. -------------------------------------------------------------------------------------

  const WINDOW = 200;
  const table = { order: [], limit: WINDOW, key: "accuracy", falling: true, states: null, opened: new Set() };
  const FALLING_FIRST = new Set(["accuracy", "gain", "test"]);
  const VALUES = {
    state: stateOf,
    label: (i) => rows.label[i],
    gain,
    seconds: (i) => rows.seconds[i] || null,
  };
  const valueOf = (key) => VALUES[key] ?? ((i) => rows[key][i]);

  const compare = (key, falling) => {
    const value = valueOf(key);
    const words = new Intl.Collator("en", { numeric: true });
    return (a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      const order = typeof x === "string" ? words.compare(x, y) : x - y;
      return (falling ? -order : order) || a - b;
    };
  };

  const haystack = (i) => [
    rows.label[i], "#" + rows.number[i], stateOf(i), rows.digest[i], rows.architecture[i],
    rows.error[i] < 0 ? "" : text(rows.error[i]),
  ].join(" ").toLowerCase();
  let haystacks = null;

  const matches = () => {
    const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    if (wanted.length && !haystacks) haystacks = Array.from({ length: count }, (_, i) => haystack(i));
    const fits = (i, word) => haystacks[i].includes(word) || String(rows.number[i]) === word;
    const found = [];
    for (let i = 0; i < count; i++) {
      if (table.states && !table.states.has(rows.state[i])) continue;
      if (wanted.every((word) => fits(i, word))) found.push(i);
    }
    return found;
  };

  const cell = (content, kind) => element("td", kind ? { class: kind } : {}, content);

  const labelCell = (i) => {
    const opened = table.opened.has(i);
    const opener = element("button", { type: "button", class: "opener", "aria-expanded": String(opened) },
      icon(typeOf(i)), element("span", rows.front[i] ? { class: "on-front" } : {}, rows.label[i]));
    if (rows.front[i]) opener.append(element("span", { class: "tag" }, "front"));
    if (rows.baseline[i]) opener.append(element("span", { class: "tag" }, "baseline"));
    return element("td", {}, opener);
  };

  const latencyCell = (i) => {
    const made = cell(ratio(rows[LATENCY][i]), "num");
    const [first, third] = [rows[LATENCY + "_first"][i], rows[LATENCY + "_third"][i]];
    if (first !== null && third !== null) {
      const speed = Math.round(rows.throughput[i]).toLocaleString("en");
      made.title = `quartiles ${ratio(first)} to ${ratio(third)}, ${rows.latency_ms[i].toFixed(3)} ms, ${speed} images/s`;
    }
    if (rows.flags[i]) made.append(" ", element("span", { class: "tag" }, rows.flags[i]));
    return made;
  };

  const rowOf = (i) => {
    const difference = gain(i), state = stateOf(i);
    const row = element("tr", { class: table.opened.has(i) ? "row open" : "row", "data-row": i },
      cell(String(rows.number[i]), "num"),
      labelCell(i),
      cell(element("span", { class: "state state-" + state }, state)),
      cell(percent(rows.accuracy[i]), "num"),
      cell(difference === null ? dash : signed(100 * difference, data.decimals), "num"),
      cell(percent(rows.test[i]), "num test"));
    for (const [key] of METRICS) row.append(cell(quantity(rows[key][i]), "num"));
    if (data.timed) row.append(latencyCell(i));
    row.append(cell(String(rows.seed[i]), "num"), cell(String(rows.epochs[i]), "num"),
      cell(duration(rows.seconds[i]), "num"));
    return row;
  };

  const curveOf = (i) => {
    const values = data.curves[rows.number[i]];
    if (!values || values.length < 2) return null;
    const width = 320, height = 130, left = 46, bottom = 108, top = 10;
    const low = Math.min(...values), high = Math.max(...values), flat = high === low;
    const x = (n) => left + (width - left - 8) * n / (values.length - 1);
    const y = (value) => flat ? (top + bottom) / 2 : bottom - (bottom - top) * (value - low) / (high - low);
    const path = values.map((value, n) => `${n ? "L" : "M"}${x(n).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const words = `Validation accuracy over ${values.length} epochs, from ${percent(values[0])} to ${percent(values.at(-1))}`;
    return drawn("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img" },
      drawn("title", {}, words),
      drawn("path", { class: "axis", d: `M${left} ${top}V${bottom}H${width - 8}` }),
      drawn("text", { x: left - 6, y: y(high) + 4, "text-anchor": "end" }, percent(high)),
      drawn("text", { x: left - 6, y: y(low), "text-anchor": "end" }, flat ? "" : percent(low)),
      drawn("text", { x: left, y: bottom + 16 }, "1"),
      drawn("text", { x: width - 8, y: bottom + 16, "text-anchor": "end" }, `${values.length} epochs`),
      drawn("path", { d: path }));
  };

  const block = (title, ...content) => [element("h4", {}, title), ...content];

  const detailOf = (i) => {
    const curve = curveOf(i);
    const first = element("div", {}, ...block("Validation accuracy by epoch", curve ?? element("p", {},
      rows.epochs[i] > 1 ? "Not in this file, which keeps the curves of the front and a sample." : "There is no curve.")));
    const elsewhere = "Not in this file, which keeps it for the front alone.";
    const placements = (rows.placements[i] || []).map(([what, ...sites]) =>
      element("li", {}, element("code", {}, text(what)), " at " + sites.map(text).join(", ")));
    const parameters = (rows.parameters[i] || []).map(text).join(", ");
    const second = element("div", {},
      ...block("Architecture", element("p", {}, text(rows.backbone[i])),
        placements.length ? element("ul", {}, ...placements)
          : element("p", {}, rows.placements[i] ? "no attention" : elsewhere)),
      ...block("Proposed settings", element("p", {},
        parameters || (rows.parameters[i] ? "none: it was not proposed" : elsewhere))),
      ...block("Identity", element("p", {}, element("code", {}, rows.digest[i])),
        element("p", {}, element("code", {}, rows.architecture[i]))));
    if (rows.origin[i] >= 0) second.append(...block("Reused from", element("p", {}, text(rows.origin[i]))));
    if (rows.error[i] >= 0) second.append(...block("Error", element("p", { class: "error" }, text(rows.error[i]))));
    if (rows.traceback[i] >= 0) second.append(element("pre", {}, text(rows.traceback[i])));
    second.append(...block("In the terminal", element("p", {},
      element("code", {}, `search show ${data.study} ${rows.number[i]}`))));
    const row = element("tr", { class: "detail" });
    row.append(element("td", { colspan: data.timed ? "13" : "12" }, element("div", { class: "detail-grid" }, first, second)));
    return row;
  };

  const drawRows = (from) => {
    const body = byId("trial-body");
    const made = document.createDocumentFragment();
    for (const i of table.order.slice(from, table.limit)) {
      made.append(rowOf(i));
      if (table.opened.has(i)) made.append(detailOf(i));
    }
    if (from === 0) body.replaceChildren(made); else body.append(made);
    const left = table.order.length - Math.min(table.limit, table.order.length);
    const more = byId("more");
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(WINDOW, left).toLocaleString("en")} more of ${left.toLocaleString("en")}`;
    byId("shown").textContent = table.order.length === count
      ? "" : `${table.order.length.toLocaleString("en")} of ${count.toLocaleString("en")} trials`;
  };

  const drawTable = () => {
    table.limit = WINDOW;
    table.order = matches().sort(compare(table.key, table.falling));
    drawRows(0);
  };

  const toggle = (row) => {
    const i = Number(row.dataset.row);
    const opened = !table.opened.has(i);
    if (opened) table.opened.add(i); else table.opened.delete(i);
    row.classList.toggle("open", opened);
    row.querySelector(".opener").setAttribute("aria-expanded", String(opened));
    if (opened) row.after(detailOf(i)); else row.nextElementSibling.remove();
  };

  const openTrial = (i) => {
    byId("filter").value = "";
    pressStates(null);
    table.opened.add(i);
    drawTable();
    const at = table.order.indexOf(i);
    if (at >= table.limit) {
      table.limit = WINDOW * Math.ceil((at + 1) / WINDOW);
      drawRows(0);
    }
    const row = byId("trial-body").querySelector(`[data-row="${i}"]`);
    row.scrollIntoView({ block: "center" });
    row.querySelector(".opener").focus({ preventScroll: true });
  };

  const pressStates = (chosen) => {
    table.states = chosen;
    byId("pills").querySelectorAll("button").forEach((button) => {
      const own = Number(button.dataset.state);
      button.setAttribute("aria-pressed", String(chosen !== null && chosen.has(own)));
    });
  };

  const startPills = () => {
    const counts = new Map();
    for (const state of rows.state) counts.set(state, (counts.get(state) ?? 0) + 1);
    if (counts.size < 2) return;
    for (const state of [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a))) {
      const words = `${data.states[state]} ${counts.get(state).toLocaleString("en")}`;
      const button = element("button", { type: "button", "aria-pressed": "false", "data-state": state }, words);
      button.addEventListener("click", () => {
        const chosen = new Set(table.states ?? []);
        if (chosen.has(state)) chosen.delete(state); else chosen.add(state);
        pressStates(chosen.size ? chosen : null);
        drawTable();
      });
      byId("pills").append(button);
    }
  };

  const markSorted = (heads) => heads.forEach((head) => {
    if (head.dataset.key === table.key) {
      head.setAttribute("aria-sort", table.falling ? "descending" : "ascending");
    } else {
      head.removeAttribute("aria-sort");
    }
  });

  const startTable = () => {
    const heads = [...document.querySelectorAll("#trial-table thead th")];
    for (const head of heads) {
      const key = head.dataset.key;
      const button = element("button", { type: "button" }, head.textContent);
      button.addEventListener("click", () => {
        table.falling = table.key === key ? !table.falling : FALLING_FIRST.has(key);
        table.key = key;
        markSorted(heads);
        drawTable();
      });
      head.replaceChildren(button);
    }
    markSorted(heads);
    byId("filter").addEventListener("input", drawTable);
    byId("more").addEventListener("click", () => {
      const from = table.limit;
      table.limit += WINDOW;
      drawRows(from);
    });
    byId("trial-body").addEventListener("click", (event) => {
      const row = event.target.closest("tr.row");
      if (row && !String(getSelection())) toggle(row);
    });
    const frame = byId("trial-table").parentElement;
    new ResizeObserver(() => frame.style.setProperty("--frame", frame.clientWidth + "px")).observe(frame);
    startPills();
    drawTable();
  };

  if (chart) startChart();
  if (byId("trial-table")) startTable();
})();
