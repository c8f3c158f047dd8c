// The sheet of `headwater compare`, live: a row for each sampler, a column for each number of steps, all from the same noise.

const comparison = (() => {
  /** Those of the command's default that tell most apart. */
  const FIRST = ["euler", "heun", "dpmpp_2m", "euler_ancestral"];
  /** A browser opens six connections to a server, and each job that is watched takes one. */
  const AT_ONCE = 4;
  let cells = [];
  let asked = null;
  let isStopped = false;
  let isRunning = false;
  /** The noise level that is shown; null is the end. */
  let level = null;

  const chosen = () => [...$("c-samplers").querySelectorAll(":checked")].map((box) => box.value);

  function enter() {
    if ($("c-prompt").value === "") $("c-prompt").value = $("prompt").value;
    if (!isRunning && cells.length === 0 && $("c-model").dataset.begun === undefined && known.models.length > 0) {
      $("c-model").dataset.begun = "";
      const own = known.models.find((one) => one.default_of.includes("img2img")) ?? known.models[0];
      $("c-model").value = isChosen ? model().id : own.id;
      $("c-samplers").replaceChildren(...known.samplers.map((one) => {
        const box = make("input", { type: "checkbox", value: one.name, checked: FIRST.includes(one.name) });
        return make("label", { title: one.summary }, box, one.name);
      }));
      adaptModel();
    }
    list();
  }

  function list() { $("c-chosen").textContent = chosen().join(", ") || "none"; }
  function adaptModel() {
    const one = known.models.find((own) => own.id === $("c-model").value);
    $("c-guidance").placeholder = one?.defaults.guidance ?? "the model’s";
    $("c-prompt").disabled = one ? !one.takes_prompt : false;
  }

  /** What is asked for, from the form. */
  function read() {
    const steps = $("c-steps").value.split(/[\s,]+/).filter(Boolean).map(Number);
    if (steps.length === 0 || steps.some((count) => !Number.isInteger(count) || count < 1)) {
      throw new Refusal("Steps must be whole numbers, with commas between them.", { field: "c-steps" });
    }
    const samplers = chosen();
    if (samplers.length === 0) throw new Refusal("Choose at least one sampler.", { field: "c-more" });
    const seed = $("c-seed").value.trim();
    if (seed !== "" && !/^\d+$/.test(seed)) throw new Refusal("The seed must be a whole number.", { field: "c-seed" });
    const shared = { model: $("c-model").value };
    if (!$("c-prompt").disabled && $("c-prompt").value.trim()) shared.prompt = $("c-prompt").value.trim();
    if ($("c-guidance").value !== "") shared.guidance = Number($("c-guidance").value);
    return { samplers, steps: [...new Set(steps)], shared, seed };
  }

  function commandLineOf({ samplers, steps, shared: { prompt, model, ...others }, seed }) {
    const job = { command: "compare", prompt, model, samplers: samplers.join(","), steps: steps.join(","), ...others, ...(seed === "" ? {} : { seed }) };
    return commandLine(job, "").replace(/^headwater compare ''/, "headwater compare");
  }

  function table() {
    const head = make("tr", {}, make("td"), ...asked.steps.map((count) => make("th", { scope: "col", textContent: `${count} step${count === 1 ? "" : "s"}` })));
    const rows = asked.samplers.map((sampler) => make("tr", {}, make("th", { scope: "row", textContent: sampler }),
      ...cells.filter((cell) => cell.sampler === sampler).map((cell) => cell.place)));
    $("sheet").replaceChildren(make("caption", { className: "skip", textContent: "Pictures by sampler and number of steps" }), make("thead", {}, head), make("tbody", {}, ...rows));
    $("sheet").style.setProperty("--columns", asked.steps.length);
    $("sheet").hidden = false;
    $("c-empty").hidden = true;
  }

  function cellOf(sampler, count) {
    const picture = make("img", { alt: "", hidden: true });
    const note = make("small", { textContent: "waits" });
    const button = make("button", { type: "button", className: "cell", disabled: true }, make("span", {}, picture), note);
    const cell = { sampler, count, picture, note, button, place: make("td", {}, button), frames: [], told: null, blob: null, url: null, id: null };
    button.addEventListener("click", () => {
      select("create");
      restore({ ...cell.told.settings, ...cell.job, seed: cell.told.seed });
      show({ job: cell.job, told: cell.told, blob: cell.blob, steps: cell.frames });
      $("stage").focus();
    });
    return cell;
  }

  /** What a cell shows at the noise level that the slider points at: the last step that began at it or above. */
  function draw(cell) {
    const frame = level === null ? null : cell.frames.filter((own) => own.sigma >= level * (1 - 1e-9)).at(-1) ?? cell.frames[0];
    const source = level === null ? cell.url ?? cell.frames.at(-1)?.preview : frame?.preview;
    cell.picture.hidden = !source;
    if (source) cell.picture.src = source;
    const last = cell.frames.at(-1);
    if (last && !cell.wrong) {
      const own = frame ?? last;
      cell.note.textContent = `${own.evaluations} eval. · ${own.seconds.toFixed(1)} s${cell.isOver ? "" : " …"}`;
    }
    cell.button.setAttribute("aria-label", `${cell.sampler}, ${cell.count} steps: ${cell.note.textContent}`);
  }

  /** The noise levels of all cells, from the first to the last. */
  let levels = [];
  function measure() {
    levels = [...new Set(cells.flatMap((cell) => cell.frames.map((frame) => frame.sigma)))].sort((a, b) => b - a);
    const wasEnd = level === null;
    $("c-level").max = levels.length;
    $("c-level").value = wasEnd ? levels.length : levels.findIndex((own) => own <= level);
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
    cells.forEach(draw);
  });

  async function produce(cell) {
    cell.job = { command: "generate", ...asked.shared, sampler: cell.sampler, steps: cell.count, seed: asked.seed };
    let told = null;
    while (told === null && !isStopped) {
      try {
        told = await transport.submit({ ...cell.job, previews: true });
      } catch (error) {
        // The queue is full: others wait, too.
        if (error.status !== 429) throw error;
        await pause(error.retryAfter);
      }
    }
    if (told === null) { cell.note.textContent = "stopped"; return; }
    cell.id = told.id;
    let file = null;
    await transport.watch(told.id, (event, data) => {
      if (event === "step") { cell.frames.push(data); measure(); draw(cell); }
      if (event === "image") { cell.told = data; file = transport.image(data); }
      if (event === "failed") throw new Refusal(data.error);
      if (event === "cancelled") cell.wrong = cell.note.textContent = "stopped";
    });
    cell.isOver = true;
    if (file) {
      cell.blob = await file;
      cell.url = URL.createObjectURL(cell.blob);
      cell.button.disabled = false;
    }
    draw(cell);
  }

  async function start() {
    if (isRunning) return;
    $("c-problem").textContent = "";
    try { asked = read(); } catch (error) { $("c-problem").textContent = error.message; $(error.field).focus?.(); return; }
    asked.seed = asked.seed === "" ? drawSeed() : Number.isSafeInteger(Number(asked.seed)) ? Number(asked.seed) : asked.seed;
    cells.forEach((cell) => { if (cell.url) URL.revokeObjectURL(cell.url); });
    cells = asked.samplers.flatMap((sampler) => asked.steps.map((count) => cellOf(sampler, count)));
    level = null;
    isStopped = false;
    isRunning = true;
    $("c-run").disabled = true;
    $("c-stop").hidden = false;
    table();
    measure();
    // Column by column: those that evaluate the model equally often are made together.
    const waiting = asked.steps.flatMap((count) => cells.filter((cell) => cell.count === count));
    const total = cells.length;
    const work = async () => {
      for (let cell; !isStopped && (cell = waiting.shift());) {
        try {
          await produce(cell);
        } catch (error) {
          cell.wrong = cell.note.textContent = error.message;
          cell.place.classList.add("wrong");
          draw(cell);
        }
        $("c-status").textContent = `${cells.filter((own) => own.isOver || own.wrong).length} of ${total} · seed ${asked.seed}`;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    waiting.forEach((cell) => { cell.note.textContent = "stopped"; });
    isRunning = false;
    $("c-run").disabled = false;
    $("c-stop").hidden = true;
    $("c-status").textContent = `${isStopped ? "Stopped" : "Done"} · seed ${asked.seed}`;
  }

  $("compare-form").addEventListener("submit", (event) => { event.preventDefault(); start(); });
  $("c-stop").addEventListener("click", () => {
    isStopped = true;
    for (const cell of cells) if (cell.id && !cell.isOver && !cell.wrong) transport.cancel(cell.id).catch(() => {});
  });
  $("c-copy").addEventListener("click", () => {
    try { copy(commandLineOf(asked && !isRunning ? { ...read(), seed: $("c-seed").value.trim() || asked.seed } : read()), (text) => { $("c-status").textContent = text; }); }
    catch (error) { $("c-problem").textContent = error.message; }
  });
  $("c-samplers").addEventListener("change", list);
  $("c-model").addEventListener("change", adaptModel);
  return { enter };
})();
