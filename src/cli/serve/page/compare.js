// The tab of comparisons, `headwater compare` live: what is asked for, and the jobs that make the sheet.

const comparison = (() => {
  /** Those of the command's default that tell most apart. */
  const FIRST = ["euler", "heun", "dpmpp_2m", "euler_ancestral"];
  /** A browser opens six connections to a server, and each job that is watched takes one. */
  const AT_ONCE = 4;
  let cells = [];
  let asked = null;
  let isStopped = false;
  let isRunning = false;
  /** Ids of the jobs that run. */
  const live = new Set();

  const chosen = () => [...$("c-samplers").querySelectorAll(":checked")].map((box) => box.value);
  const own = () => known.models.find((one) => one.id === $("c-model").value);

  function enter() {
    if (!transport.measures) {
      $("c-errors").checked = false;
      $("c-errors").closest("label").hidden = true;
    }
    if ($("c-prompt").value === "") $("c-prompt").value = $("prompt").value;
    if (!isRunning && sheet.isEmpty() && $("c-model").dataset.begun === undefined && known.models.length > 0) {
      $("c-model").dataset.begun = "";
      const usual = known.models.find((one) => one.default_of.includes("img2img")) ?? known.models[0];
      $("c-model").value = isChosen ? model().id : usual.id;
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
    $("c-guidance").placeholder = own()?.defaults.guidance ?? "the model’s";
    $("c-prompt").disabled = own() ? !own().takes_prompt : false;
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
    if (!$("c-prompt").disabled) {
      shared.prompt = $("c-prompt").value.trim();
      if (shared.prompt === "") throw new Refusal("Say what the pictures show.", { field: "c-prompt" });
    }
    if ($("c-guidance").validity.badInput) throw new Refusal("Guidance must be a number.", { field: "c-guidance" });
    if ($("c-guidance").value !== "") shared.guidance = Number($("c-guidance").value);
    return { samplers, steps: [...new Set(steps)], shared, seed, errors: $("c-errors").checked };
  }

  function commandLineOf({ samplers, steps, shared: { prompt, model, ...others }, seed, errors }) {
    const job = { command: "compare", prompt, model, samplers: samplers.join(","), steps: steps.join(","), ...others, ...(seed === "" ? {} : { seed }), no_reference: !errors };
    return commandLine(job, "").replace(/^headwater compare ''/, "headwater compare");
  }

  /** Runs a job, and waits for its end; null where it was stopped. A full queue is waited for: others wait, too. */
  async function follow(job, tell) {
    let told = null;
    while (told === null && !isStopped) {
      try {
        told = await transport.submit(job);
      } catch (error) {
        if (error.status !== 429) throw error;
        await pause(error.retryAfter);
      }
    }
    if (told === null) return null;
    live.add(told.id);
    // It was stopped while it was submitted.
    if (isStopped) transport.cancel(told.id).catch(() => {});
    let end = null;
    try {
      await transport.watch(told.id, (event, data) => {
        if (event === "failed") throw new Refusal(data.error);
        if (event === "done" || event === "cancelled") end = event;
        tell(event, data);
      });
    } finally { live.delete(told.id); }
    return end === "done" ? told : null;
  }

  async function produce(cell) {
    cell.job = { command: "generate", ...asked.shared, sampler: cell.sampler, steps: cell.count, seed: asked.seed };
    let file = null;
    const done = await follow({ ...cell.job, previews: true }, (event, data) => {
      if (event === "step") { cell.frames[data.step] = data; sheet.measure(); sheet.draw(cell); }
      if (event === "image") { cell.told = data; file = transport.image(data); }
    });
    if (!done) { cell.wrong = "stopped"; return; }
    cell.isOver = true;
    cell.blob = await file;
    cell.url = URL.createObjectURL(cell.blob);
  }

  /** Makes a cell again, the same picture, beside the solution of the ODE: a few steps more beside the solver's hundreds, and pictures came before. */
  async function measure(cell) {
    if (!cell.isOver || cell.wrong) return;
    const job = { ...cell.job, reference: true, previews: !sheet.isSolved(cell.count) };
    await follow(job, (event, data) => {
      if (event === "solving") $("c-detail").textContent = `Solving the ODE: σ ${decimal(data.sigma)}, ${data.evaluations} evaluations`;
      if (event === "reference") {
        $("c-detail").textContent = "";
        cell.path = data.path;
        sheet.solve(cell.count, data);
      }
      if (event === "step" && cell.frames[data.step]) cell.frames[data.step].error = data.error;
      if (event === "image") cell.error = data.error;
    });
  }

  /** Does something with all cells, some at a time, column by column: those that evaluate the model equally often are made together. */
  async function each(what, doing) {
    const waiting = asked.steps.flatMap((count) => cells.filter((cell) => cell.count === count));
    const total = waiting.length;
    let done = 0;
    const work = async () => {
      for (let cell; !isStopped && (cell = waiting.shift());) {
        try {
          await doing(cell);
        } catch (error) {
          cell.wrong = error instanceof Refusal ? error.message : `The page failed at this: ${error.message}`;
          cell.place.classList.add("wrong");
          if (!(error instanceof Refusal)) console.error(error);
        }
        sheet.drawAll();
        done++;
        $("c-status").textContent = `${what} ${done} of ${total} · seed ${asked.seed}`;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return waiting;
  }

  function busy(now) {
    isRunning = now;
    // Not `disabled`, which takes the keyboard's focus away.
    $("c-run").setAttribute("aria-disabled", now);
    if (!now && document.activeElement === $("c-stop")) $("c-run").focus();
    $("c-stop").hidden = !now;
  }

  async function start() {
    if (isRunning) return;
    $("c-problem").textContent = "";
    try { asked = read(); } catch (error) { problem(error); return; }
    asked.seed = asked.seed === "" ? drawSeed() : Number.isSafeInteger(Number(asked.seed)) ? Number(asked.seed) : asked.seed;
    isStopped = false;
    busy(true);
    cells = sheet.begin(asked.samplers, asked.steps, (cell) => {
      select("create");
      restore({ ...cell.told.settings, ...cell.job, seed: cell.told.seed });
      show({ job: cell.job, told: cell.told, blob: cell.blob, steps: cell.frames });
      $("stage").focus();
    });
    for (const cell of await each("Picture", produce)) cell.wrong = "stopped";
    if (asked.errors && !isStopped) await each("Errors of picture", measure);
    sheet.drawAll();
    $("c-detail").textContent = "";
    busy(false);
    $("c-status").textContent = `${isStopped ? "Stopped" : "Done"} · seed ${asked.seed}`;
  }

  function problem(error) {
    $("c-problem").textContent = error.message;
    const field = $(error.field);
    if (field?.matches("details")) field.open = true;
    (field?.querySelector("summary") ?? field)?.focus();
  }

  $("compare-form").addEventListener("submit", (event) => { event.preventDefault(); start(); });
  $("c-stop").addEventListener("click", () => {
    isStopped = true;
    for (const id of live) transport.cancel(id).catch(() => {});
  });
  $("c-copy").addEventListener("click", () => {
    $("c-problem").textContent = "";
    try { copy(commandLineOf(asked && !isRunning ? { ...read(), seed: $("c-seed").value.trim() || asked.seed } : read()), (text) => { $("c-status").textContent = text; }); }
    catch (error) { problem(error); }
  });
  $("c-samplers").addEventListener("change", list);
  $("c-model").addEventListener("change", adaptModel);
  return { enter };
})();
