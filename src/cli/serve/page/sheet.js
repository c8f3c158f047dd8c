// The sheet of a comparison: a row for each sampler, a column for each number of steps, and below them the solution of the ODE that all of them
// approximate. One slider moves every cell through the noise levels.

const sheet = (() => {
  let cells = [];
  let samplers = [];
  let columns = [];
  /** Of each column: the ODE's solution from where its samplers begin, once it is known. */
  let solutions = new Map();
  /** The noise level that is shown; null is the end. */
  let level = null;
  /** The noise levels of all cells, from the first to the last. */
  let levels = [];
  /** The number of steps by whose errors rows are sorted; null keeps their order. */
  let sorted = null;

  /** The step that a cell is in at the level that is shown: the last that began at it or above. Null at the end. */
  const frameAt = ({ frames }) => (level === null ? null : frames.filter((own) => own.sigma >= level * (1 - 1e-9)).at(-1) ?? frames[0] ?? null);
  /** How far a cell is from the solution there; undefined where nobody knows. */
  const errorOf = (cell) => (level === null ? cell.error : frameAt(cell)?.error) ?? undefined;

  function place(open) {
    const picture = make("img", { alt: "", hidden: true });
    const note = make("small", { textContent: open ? "waits" : "" });
    const button = make("button", { type: "button", className: "cell", disabled: true }, make("span", {}, picture), note);
    return { picture, note, button, place: make("td", {}, button) };
  }

  /** Begins anew; `open` is called with a cell that is clicked on. */
  function begin(rows, counts, open) {
    for (const { url } of cells) if (url) URL.revokeObjectURL(url);
    [samplers, columns, solutions, level, levels, sorted] = [rows, counts, new Map(), null, [], null];
    cells = rows.flatMap((sampler) => counts.map((count) => {
      const cell = { sampler, count, frames: [], path: null, error: undefined, told: null, blob: null, url: null, isOver: false, wrong: null, ...place(true) };
      cell.button.addEventListener("click", () => open(cell));
      return cell;
    }));
    table();
    measure();
    return cells;
  }

  const stepsOf = (count) => `${count} step${count === 1 ? "" : "s"}`;

  function table() {
    const heads = columns.map((count) => {
      const button = make("button", { type: "button", className: "sort", disabled: true, title: "Sort by error" }, stepsOf(count));
      button.addEventListener("click", () => { sorted = sorted === count ? null : count; drawAll(); });
      const head = make("th", { scope: "col" }, button);
      head.dataset.count = count;
      return head;
    });
    $("sheet").replaceChildren(make("caption", { className: "unseen", textContent: "Pictures by sampler and number of steps" }),
      make("thead", {}, make("tr", {}, make("td"), ...heads)), make("tbody", { id: "c-rows" }), make("tfoot", { id: "c-solution" }));
    $("c-rows").append(...samplers.map(row));
    $("sheet").style.setProperty("--columns", columns.length);
    $("sheet").hidden = false;
    $("c-empty").hidden = true;
  }

  const rowOf = new Map();
  function row(sampler) {
    const element = make("tr", {}, make("th", { scope: "row", textContent: sampler }), ...cells.filter((cell) => cell.sampler === sampler).map((cell) => cell.place));
    element.dataset.sampler = sampler;
    rowOf.set(sampler, element);
    return element;
  }

  /** A solution is known: `levels` of it are pictures, the last of its end. */
  function solve(count, { reference, evaluations, levels: known }) {
    if (reference === null || known.length === 0 || solutions.has(count)) return;
    const solution = { frames: known.filter((own) => own.sigma > 0), end: known.at(-1).preview, evaluations, ...place(false) };
    solution.button.replaceWith(...solution.button.childNodes);
    solutions.set(count, solution);
    $("c-solution").replaceChildren(make("tr", {}, make("th", { scope: "row", textContent: "the ODE, solved" }),
      ...columns.map((own) => solutions.get(own)?.place ?? make("td"))));
    drawSolution(solution);
  }

  function drawSolution(solution) {
    const source = level === null ? solution.end : (frameAt(solution) ?? { preview: solution.end }).preview;
    Object.assign(solution.picture, { src: source, hidden: false, alt: `The solution of the ODE, ${level === null ? "at its end" : `at σ ${decimal(level)}`}` });
    solution.note.textContent = `${solution.evaluations} eval.`;
  }

  /** What is said of a cell's distance from the solution. Only of a sampler that follows the ODE it is an error. */
  function distance(cell) {
    const error = errorOf(cell);
    if (error === undefined) return "";
    if (cell.path === "ode") return `error ${decimal(error)}`;
    return `${decimal(error)} away, ${cell.path === "sde" ? "draws noise" : "another path"}`;
  }

  function draw(cell) {
    const frame = frameAt(cell);
    const source = level === null ? cell.url ?? cell.frames.at(-1)?.preview : frame?.preview;
    cell.picture.hidden = !source;
    if (source) cell.picture.src = source;
    const last = cell.frames.at(-1);
    if (cell.wrong) {
      cell.note.textContent = cell.wrong;
    } else if (last) {
      const own = frame ?? last;
      const cost = `${own.evaluations} eval. · ${own.seconds.toFixed(1)} s${cell.isOver ? "" : " …"}`;
      const words = [distance(cell)].filter(Boolean);
      if (words.length > 0 && isNearest(cell)) words.push("nearest");
      cell.note.replaceChildren(cost, ...(words.length > 0 ? [make("b", { textContent: words.join(", ") })] : []));
    }
    cell.place.classList.toggle("nearest", isNearest(cell));
    cell.button.disabled = !cell.url;
    cell.button.setAttribute("aria-label", `${cell.sampler}, ${stepsOf(cell.count)}: ${[...cell.note.childNodes].map((node) => node.textContent).join(", ")}`);
  }

  /** Whether a cell's error is the smallest of its column's. At the first level all are the same. */
  function isNearest(cell) {
    const others = cells.filter((own) => own.count === cell.count && own.path === "ode" && errorOf(own) !== undefined);
    return others.includes(cell) && others.every((own) => errorOf(own) >= errorOf(cell)) && others.some((own) => errorOf(own) > errorOf(cell));
  }

  function drawAll() {
    cells.forEach(draw);
    solutions.forEach(drawSolution);
    for (const head of $("sheet").tHead?.rows[0].querySelectorAll("th") ?? []) {
      const count = Number(head.dataset.count);
      head.firstChild.disabled = !cells.some((cell) => cell.count === count && errorOf(cell) !== undefined);
      if (sorted === count) head.setAttribute("aria-sort", "ascending");
      else head.removeAttribute("aria-sort");
    }
    const key = (sampler) => errorOf(cells.find((cell) => cell.sampler === sampler && cell.count === sorted)) ?? Infinity;
    // What draws noise or takes another path has no error, and comes after what has.
    const rank = (sampler) => (cells.find((cell) => cell.sampler === sampler && cell.count === sorted).path === "ode" ? 0 : 1);
    const order = sorted === null ? samplers : [...samplers].sort((a, b) => rank(a) - rank(b) || key(a) - key(b));
    const rows = order.map((sampler) => rowOf.get(sampler));
    // Moved only where the order changes: a row that moves loses the keyboard's focus.
    if (rows.some((own, at) => $("c-rows").children[at] !== own)) $("c-rows").append(...rows);
  }

  function measure() {
    levels = [...new Set(cells.flatMap((cell) => cell.frames.map((frame) => frame.sigma)))].sort((a, b) => b - a);
    $("c-level").max = levels.length;
    $("c-level").value = level === null ? levels.length : levels.findIndex((own) => own <= level);
    $("c-levels").hidden = levels.length === 0;
    tellLevel();
  }
  function tellLevel() {
    const text = level === null ? "the end" : `σ ${decimal(level)}`;
    $("c-sigma").textContent = text;
    $("c-level").setAttribute("aria-valuetext", text);
  }
  $("c-level").addEventListener("input", () => {
    level = levels[Number($("c-level").value)] ?? null;
    tellLevel();
    drawAll();
  });

  return { begin, draw, drawAll, measure, solve, isEmpty: () => cells.length === 0, isSolved: (count) => solutions.has(count), levels: () => levels };
})();
