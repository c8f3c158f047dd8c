"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  // Okabe and Ito's colours, then hues far apart.
  const base = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#a89000"];
  const colorOf = (i) => (i < base.length ? base[i] : `hsl(${(i * 137.5) % 360} 60% 48%)`);
  const short = (v) => {
    if (v === null || v === undefined || !Number.isFinite(v)) return "";
    if (v !== 0 && (Math.abs(v) < 1e-4 || Math.abs(v) >= 1e5)) return v.toExponential(1);
    return v === 0 ? "0" : v.toPrecision(3).replace(/e\+\d+$/, "");
  };
  const jpeg = (text) => (text ? `data:image/jpeg;base64,${text}` : "");

  // One colour for each method, whatever its steps.
  const methods = [...new Set(data.cells.map((cell) => cell.method))];
  const cells = data.cells.map((cell, i) => ({ ...cell, place: i, color: colorOf(methods.indexOf(cell.method)), dashed: cell.path !== "ode" }));
  const finals = new Map();
  for (const row of document.querySelectorAll("#all tr[data-id]")) {
    const img = row.querySelector("img");
    if (img) finals.set(row.dataset.id, img.src);
  }
  // All noise levels that any cell stops at, from noise to picture; the last place of the slider is the finished picture.
  const levels = [...new Set(cells.flatMap((c) => c.sigma).filter((s) => s > 0).map((s) => Number(s.toPrecision(5))))].sort((a, b) => b - a);
  levels.push(0);

  const state = { at: levels.length - 1, view: "denoised", sort: "given", theme: "auto", hide: new Set(), pin: new Set() };

  function readHash() {
    const hash = new URLSearchParams(location.hash.slice(1));
    if (hash.has("sigma")) {
      const sigma = Number(hash.get("sigma"));
      const off = (level) => (sigma > 0 && level > 0 ? Math.abs(Math.log(level / sigma)) : level === sigma ? 0 : 1e9);
      if (Number.isFinite(sigma)) state.at = levels.reduce((best, level, i) => (off(level) < off(levels[best]) ? i : best), levels.length - 1);
    }
    const pick = (name, allowed) => { if (allowed.includes(hash.get(name))) state[name] = hash.get(name); };
    pick("view", ["denoised", "x", "difference"]);
    pick("sort", ["given", "error", "nfe", "seconds", "label"]);
    pick("theme", ["auto", "light", "dark"]);
    const known = new Set(cells.map((c) => c.id));
    for (const name of ["hide", "pin"]) state[name] = new Set((hash.get(name) || "").split(",").filter((id) => known.has(id)));
  }

  function writeHash() {
    const hash = new URLSearchParams();
    if (levels[state.at] > 0) hash.set("sigma", levels[state.at]);
    if (state.view !== "denoised") hash.set("view", state.view);
    if (state.sort !== "given") hash.set("sort", state.sort);
    if (state.theme !== "auto") hash.set("theme", state.theme);
    for (const name of ["hide", "pin"]) if (state[name].size) hash.set(name, [...state[name]].join(","));
    history.replaceState(null, "", hash.size ? `#${hash}` : location.pathname + location.search);
  }

  // The step that a cell is in at a noise level: the last whose own level is not below it; none before its first.
  const stepAt = (cell, sigma) => {
    let step = -1;
    for (let i = 0; i < cell.sigma.length; i++) if (cell.sigma[i] >= sigma * (1 - 1e-4)) step = i;
    return step;
  };

  // A step's picture, or that of the nearest step before it which has one.
  const pictureOf = (list, step) => {
    for (let i = step; i >= 0; i--) if (list[i]) return jpeg(list[i]);
    return "";
  };

  function makeCard(cell) {
    const li = document.createElement("li");
    li.tabIndex = 0;
    li.dataset.id = cell.id;
    li.style.setProperty("--color", cell.color);
    const h2 = document.createElement("h2");
    h2.textContent = cell.label;
    li.append(h2);
    cell.card = li;
    if (cell.refused) {
      const p = document.createElement("p");
      p.textContent = `cannot run: ${cell.refused}`;
      li.append(p);
    } else {
      cell.img = document.createElement("img");
      cell.step = document.createElement("p");
      cell.total = document.createElement("p");
      cell.total.className = "faint";
      const path = { ode: "", sde: ", draws noise", other: ", another path" }[cell.path];
      const measures = [`${cell.nfe} evaluations, ${short(cell.seconds)} s`];
      if (cell.error !== null) measures.push(`${cell.path === "ode" ? "error" : "off"} ${short(cell.error)}${path}`);
      if (cell.spread !== null) measures.push(`spread ${short(cell.spread)}`);
      if (cell.psnr !== null) measures.push(`PSNR ${short(cell.psnr)}, SSIM ${short(cell.ssim)}`);
      cell.total.textContent = measures.join("; ");
      li.append(cell.img, cell.step, cell.total);
      cell.img.addEventListener("pointerenter", () => show(cell, "difference"));
      cell.img.addEventListener("pointerleave", () => show(cell, state.view));
    }
    const buttons = document.createElement("div");
    buttons.className = "buttons";
    for (const [name, text] of [["pin", "pin"], ["hide", "hide"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.setAttribute("aria-label", `${text} ${cell.label}`);
      button.addEventListener("click", () => toggle(name, cell.id));
      buttons.append(button);
      cell[`${name}Button`] = button;
    }
    li.append(buttons);
    const light = (on) => {
      li.classList.toggle("lit", on);
      for (const line of document.querySelectorAll(`polyline[data-id="${CSS.escape(cell.id)}"]`)) line.classList.toggle("lit", on);
    };
    li.addEventListener("pointerenter", () => light(true));
    li.addEventListener("pointerleave", () => light(false));
    li.addEventListener("focusin", () => light(true));
    li.addEventListener("focusout", () => light(false));
    li.addEventListener("keydown", (event) => {
      if (event.target !== li || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "p") toggle("pin", cell.id);
      if (event.key === "h") toggle("hide", cell.id);
    });
    return li;
  }

  function toggle(name, id) {
    if (!state[name].delete(id)) state[name].add(id);
    arrange();
    writeHash();
  }

  function show(cell, view) {
    if (!cell.img) return;
    const sigma = levels[state.at];
    const last = cell.sigma.length - 1;
    const step = sigma > 0 ? stepAt(cell, sigma) : last;
    const finished = sigma === 0 && view !== "difference";
    let src = "";
    if (finished) src = finals.get(cell.id) || "";
    else src = pictureOf(cell[view], Math.max(step, 0));
    cell.img.hidden = !src;
    if (src && cell.img.getAttribute("src") !== src) cell.img.src = src;
    const name = finished ? "final picture" : `${view} at step ${step + 1}`;
    cell.img.alt = `${cell.label}: ${name}`;
    const i = Math.max(step, 0);
    cell.step.textContent = finished ? `done after ${last + 1} steps`
      : `step ${i + 1} of ${last + 1}, σ ${short(cell.sigma[i])}, ${cell.evaluations[i]} evaluations, off ${short(cell.error_x[i]) || "unknown"}`;
  }

  function showReferences() {
    const sigma = levels[state.at];
    for (const reference of data.references) {
      if (!reference.img) continue;
      let best = -1;
      reference.sigmas.forEach((own, i) => {
        if (sigma > 0 && (best < 0 || Math.abs(Math.log(own / sigma)) < Math.abs(Math.log(reference.sigmas[best] / sigma)))) best = i;
      });
      reference.img.src = jpeg(best < 0 ? reference.last : reference.denoised[best] || reference.last);
      reference.img.alt = best < 0 ? "reference: final picture" : `reference: denoised at sigma ${short(reference.sigmas[best])}`;
      reference.note.textContent = best < 0 ? "the ODE, solved by rk45" : `the ODE at σ ${short(reference.sigmas[best])}`;
    }
  }

  function render() {
    const sigma = levels[state.at];
    const text = sigma > 0 ? short(sigma) : "0: finished pictures";
    $("level").textContent = text;
    $("sigma").value = state.at;
    $("sigma").setAttribute("aria-valuetext", `sigma ${text}`);
    for (const input of document.querySelectorAll("input[name=view]")) input.checked = input.value === state.view;
    $("sort").value = state.sort;
    $("theme").textContent = `theme: ${state.theme}`;
    if (state.theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = state.theme;
    cells.forEach((cell) => show(cell, state.view));
    showReferences();
    cursors.forEach((move) => move(sigma));
  }

  function arrange() {
    const key = { given: (c) => c.place, error: (c) => c.error ?? Infinity, nfe: (c) => c.nfe || Infinity, seconds: (c) => c.seconds || Infinity, label: (c) => c.label }[state.sort];
    const order = [...cells].sort((a, b) => {
      const pinned = Number(state.pin.has(b.id)) - Number(state.pin.has(a.id));
      if (pinned) return pinned;
      const [x, y] = [key(a), key(b)];
      return x < y ? -1 : x > y ? 1 : a.place - b.place;
    });
    const focused = document.activeElement;
    for (const cell of order) {
      $("cards").append(cell.card);
      cell.card.hidden = state.hide.has(cell.id);
      cell.card.classList.toggle("pinned", state.pin.has(cell.id));
      cell.pinButton.setAttribute("aria-pressed", state.pin.has(cell.id));
    }
    if (focused && focused !== document.activeElement && !focused.closest("[hidden]")) focused.focus();
    $("unhide").hidden = state.hide.size === 0;
    $("unhide").textContent = `show hidden (${state.hide.size})`;
    document.querySelectorAll("polyline").forEach((line) => { line.style.display = state.hide.has(line.dataset.id) ? "none" : ""; });
  }

  // Plots: noise level from left (noise) to right (picture), logarithmic; distances logarithmic, time linear.
  const cursors = [];
  function plot(svg, name, logarithmic) {
    const [width, height, left, bottom, top, right] = [420, 250, 46, 34, 10, 10];
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const make = (tag, attributes, text) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      if (text !== undefined) element.textContent = text;
      svg.append(element);
      return element;
    };
    const lines = cells.map((cell) => ({
      cell,
      points: cell.sigma.map((s, i) => [s, cell[name][i]]).filter(([s, v]) => s > 0 && v !== null && v !== undefined && (!logarithmic || v > 0)),
    })).filter((line) => line.points.length);
    const all = lines.flatMap((line) => line.points);
    if (!all.length) { make("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing to show"); return; }
    const [high, low] = [levels[0], levels[levels.length - 2]];
    const values = all.map((p) => p[1]);
    let [from, to] = [logarithmic ? Math.min(...values) : 0, Math.max(...values)];
    if (from === to) to = from * 1.1 + 1e-9;
    const f = logarithmic ? Math.log : (v) => v;
    const span = Math.log(high / low) || 1;
    const x = (s) => left + ((width - left - right) * Math.log(high / s)) / span;
    const y = (v) => height - bottom - ((height - bottom - top) * (f(v) - f(from))) / (f(to) - f(from));
    make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom });
    make("line", { class: "axis", x1: left, x2: left, y1: top, y2: height - bottom });
    for (let i = 0; i <= 4; i++) {
      const sigma = high * Math.exp((-span * i) / 4);
      make("text", { x: x(sigma), y: height - bottom + 15, "text-anchor": i === 0 ? "start" : i === 4 ? "end" : "middle" }, short(sigma));
      const value = logarithmic ? from * (to / from) ** (i / 4) : from + ((to - from) * i) / 4;
      make("text", { x: left - 4, y: y(value) + 4, "text-anchor": "end" }, short(value));
    }
    make("text", { x: (left + width) / 2, y: height - 5, "text-anchor": "middle" }, "noise level σ");
    for (const { cell, points } of lines) {
      const line = make("polyline", { points: points.map(([s, v]) => `${x(s).toFixed(1)},${y(v).toFixed(1)}`).join(" "), stroke: cell.color, "data-id": cell.id });
      if (cell.dashed) line.setAttribute("stroke-dasharray", "5 3");
      make("title", {}, cell.label);
      line.append(svg.lastChild);
    }
    const cursor = make("line", { class: "cursor", y1: top, y2: height - bottom });
    cursors.push((sigma) => {
      const at = sigma > 0 ? x(sigma) : width - right;
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
    });
    svg.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && event.buttons === 0) return;
      const box = svg.getBoundingClientRect();
      const scale = Math.min(box.width / width, box.height / height);
      const inner = (event.clientX - box.left - (box.width - width * scale) / 2) / scale;
      const sigma = high * Math.exp((-span * (inner - left)) / (width - left - right));
      move(levels.reduce((best, level, i) => (level > 0 && Math.abs(Math.log(level / sigma)) < Math.abs(Math.log((levels[best] || 1e-9) / sigma)) ? i : best), 0));
    });
  }

  function move(at) {
    state.at = Math.max(0, Math.min(levels.length - 1, at));
    render();
    writeHash();
  }

  readHash();
  $("live").hidden = false;
  $("numbers").open = false;
  $("sigma").max = levels.length - 1;
  data.references.forEach((reference) => {
    const li = document.createElement("li");
    const h2 = document.createElement("h2");
    h2.textContent = reference.label ? `reference, ${reference.label}` : "reference";
    reference.img = document.createElement("img");
    const p = document.createElement("p");
    p.className = "faint";
    reference.note = p;
    li.append(h2, reference.img, p);
    li.className = "pinned";
    $("cards").append(li);
  });
  cells.forEach(makeCard);
  for (const svg of document.querySelectorAll("svg[data-plot]")) plot(svg, svg.dataset.plot, svg.dataset.plot !== "time");
  $("sigma").addEventListener("input", (event) => move(Number(event.target.value)));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("controls").addEventListener("change", (event) => {
    if (event.target.name === "view") state.view = event.target.value;
    if (event.target.id === "sort") { state.sort = event.target.value; arrange(); }
    render();
    writeHash();
  });
  $("unhide").addEventListener("click", () => { state.hide.clear(); arrange(); writeHash(); });
  $("theme").addEventListener("click", () => {
    state.theme = { auto: "light", light: "dark", dark: "auto" }[state.theme];
    render();
    writeHash();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    const views = { 1: "denoised", 2: "x", 3: "difference" };
    if (views[event.key]) { state.view = views[event.key]; render(); writeHash(); }
    if (event.key === "[") move(state.at - 1);
    if (event.key === "]") move(state.at + 1);
  });
  window.addEventListener("hashchange", () => { readHash(); arrange(); render(); });
  arrange();
  render();
})();
