// Making a picture; files that are dropped; tabs; the history; and how the page begins.

let isBusy = false;
/** The job that is waited for, once it is submitted, and whether it is to be cancelled. */
const current = { id: null, isCancelled: false };

function busy(now) {
  isBusy = now;
  Object.assign(current, { id: null, isCancelled: false });
  // Not `disabled`, which takes the keyboard's focus away.
  $("generate").setAttribute("aria-disabled", now);
  if (!now && document.activeElement === $("cancel")) $("generate").focus();
  $("cancel").hidden = !now;
  $("progress").hidden = !now;
  if (!now) document.title = "Headwater";
}

function progress(share) {
  if (share === null) $("progress").removeAttribute("value");
  else $("progress").value = share;
  document.title = share === null ? "… Headwater" : `${Math.round(share * 100)}% Headwater`;
}

/** A job that this tab waits for: after a reload it is watched again. */
const pending = {
  set(told) { try { sessionStorage.setItem("headwater-pending", JSON.stringify(told)); } catch { /* Then a reload ends it. */ } },
  get() { try { return JSON.parse(sessionStorage.getItem("headwater-pending")); } catch { return null; } },
  forget() { try { sessionStorage.removeItem("headwater-pending"); } catch { /* There is nothing. */ } },
};

/** What is kept of a job: all but its pictures, which may be large. */
const withoutPictures = (job) => Object.fromEntries(Object.entries(job).filter(([name]) => !PICTURES.includes(name) && name !== "previews"));

async function generate() {
  if (isBusy) return;
  wrong("");
  busy(true);
  progress(null);
  try {
    say("Asking …");
    const job = await jobOf(mask);
    const told = await submitted({ ...job, previews: "both" });
    if (!told) { say("Cancelled"); return; }
    const kept = { ...withoutPictures(job), ...(job.mask ? { mask: true } : {}) };
    replace(newRun(kept, told.id, told.count ?? 1));
    pending.set({ job: kept, id: told.id, count: run.count });
    await follow(run);
  } catch (error) {
    refused(error);
  } finally {
    pending.forget();
    busy(false);
  }
}

/** The job, once there is room for it in the queue; null where it was cancelled before. */
async function submitted(job) {
  while (!current.isCancelled) {
    try {
      return await transport.submit(job);
    } catch (error) {
      if (error.status !== 429) throw error;
      say(`The server is busy with others: trying again in ${error.retryAfter} s`);
      await Promise.race([pause(error.retryAfter), new Promise((resolve) => $("cancel").addEventListener("click", resolve, { once: true }))]);
    }
  }
  return null;
}

function refused(error) {
  say("");
  wrong(error instanceof Refusal ? error.message : `The page failed at this: ${error.message}`, error.field ?? null);
  if (!(error instanceof Refusal)) console.error(error);
}

/** Shows what happens to a run until it is over. */
async function follow(one) {
  current.id = one.id;
  if (current.isCancelled) transport.cancel(one.id).catch(refused);
  Object.assign(view, { image: 0, step: null, side: "result" });
  render();
  const arriving = [];
  await transport.watch(one.id, (event, data) => {
    if (event === "queued") { say(data.position === 0 ? "Next in line" : `Waiting: ${data.position} before`); return; }
    if (event === "lost") { say("The server does not answer: trying again …"); return; }
    if (event === "started") say("Started");
    if (event === "step") {
      const { steps } = one.images[data.image];
      steps.push(data);
      const taken = one.images.reduce((sum, own) => sum + own.steps.length, 0);
      progress(data.steps ? taken / (data.steps * one.count) : null);
      say(`Step ${data.step + 1}${data.steps ? ` of ${data.steps}` : ""}${one.count > 1 ? `, image ${data.image + 1}` : ""}`, false);
    }
    if (event === "image") arriving.push(arrive(one, data));
    if (["done", "failed", "cancelled"].includes(event)) one.phase = event;
    if (event === "failed") throw new Refusal(data.error);
    if (run === one) render();
  });
  await Promise.all(arriving);
  say({ done: "Done", cancelled: "Cancelled" }[one.phase] ?? "");
  render();
}

async function arrive(one, told) {
  const blob = await transport.image(told);
  Object.assign(one.images[told.index], { told, blob, url: URL.createObjectURL(blob) });
  const entry = { job: one.job, told, blob, steps: one.images[told.index].steps, pictureName: one.pictureName, time: Date.now() };
  // A browser that keeps nothing still makes pictures.
  await store.add(entry).catch(() => {});
  if (run === one) render();
}

/** Shows another run from now on. */
function replace(other) {
  for (const { url } of run?.images ?? []) if (url) URL.revokeObjectURL(url);
  run = other;
}

/** Shows a picture that is there already. */
function show({ job, told, blob, steps = [], pictureName }) {
  replace({ ...newRun(job, `shown-${Date.now()}`, 1), phase: "done", pictureName });
  Object.assign(run.images[0], { steps, told, blob, url: URL.createObjectURL(blob) });
  Object.assign(view, { image: 0, step: null, side: "result" });
  render();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); generate(); });
$("cancel").addEventListener("click", () => {
  if (!isBusy) return;
  say("Cancelling …");
  current.isCancelled = true;
  if (current.id !== null) transport.cancel(current.id).catch(refused);
});
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("create").hidden) { event.preventDefault(); generate(); }
  if (event.key === "Escape" && isBusy && !$("create").hidden) $("cancel").click();
});
$("form").addEventListener("change", (event) => {
  if (event.target.name === "model") isChosen = true;
  adapt();
  if (!isBusy) say("");
  if (event.target.name === "command" && takesPicture()) view.side = "input";
  render();
});
$("form").addEventListener("input", (event) => {
  if (["left", "right", "top", "bottom"].includes(event.target.name)) render();
  event.target.removeAttribute("aria-invalid");
});
$("lora").addEventListener("change", () => {
  if ($("lora").value === "") return;
  $("prompt").value = `${$("prompt").value.trimEnd()} <lora:${$("lora").value}:1>`.trimStart();
  $("lora").value = "";
  $("prompt").focus();
});
const drawSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];
$("dice").addEventListener("click", () => { $("seed").value = drawSeed(); });
$("start-over").addEventListener("click", () => { $("form").reset(); isChosen = false; wrong(""); adapt(); render(); });
$("keep-seed").addEventListener("click", () => { $("seed").value = image().told.seed; say(`Seed ${image().told.seed} is kept`); });
$("copy").addEventListener("click", () => {
  const { told } = image();
  const { count, ...job } = run.job;
  copy(commandLine(told ? { ...job, model: told.settings.model ?? job.model, seed: told.seed } : { ...job, count }, run.pictureName), say);
});
$("reuse").addEventListener("click", async () => {
  const { blob, told } = image();
  if (command() === "generate") { $("form").querySelector("[value=img2img]").checked = true; adapt(); }
  await give(blob, `seed-${told.seed}.png`);
});

/** Takes a picture to edit; false where it is none. */
async function give(file, name) {
  try {
    const picture = await pictureOf(file, name);
    if (given) URL.revokeObjectURL(given.url);
    given = picture;
  } catch (error) { refused(error); return false; }
  Object.assign($("given"), { src: given.url, alt: given.name, hidden: false });
  $("well-text").textContent = `${given.name}, ${given.width} × ${given.height}. Choose another`;
  mask.fit(given.width, given.height);
  view.side = "input";
  wrong("");
  render();
  return true;
}

/** A file that was dropped: one that says how it was made has its settings restored, any other is to be edited. */
async function take(file) {
  if (isBusy) return;
  select("create");
  const settings = takesPicture() ? null : await settingsIn(file);
  if (settings) return bringBack(file, settings);
  const wasGiven = await give(file);
  if (!wasGiven || takesPicture()) return;
  $("form").querySelector("[value=img2img]").checked = true;
  adapt();
  render();
}

async function bringBack(file, settings) {
  wrong("");
  let size;
  try { size = await pictureOf(file); } catch (error) { refused(error); return; }
  const { width, height } = size;
  URL.revokeObjectURL(size.url);
  const served = restore(settings);
  const { model, ...job } = { command: settings.command ?? "generate", ...fieldsOf() };
  show({ job: { ...job, ...(served && model ? { model } : {}) }, told: { settings, seed: settings.seed ?? "unknown", width, height }, blob: file });
  say(`The settings of ${file.name || "the picture"} are restored${served ? "" : `; this server does not have its model, ${settings.model}`}`);
}

$("picture").addEventListener("change", (event) => { if (event.target.files[0]) give(event.target.files[0]); event.target.value = ""; });
$("restore").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file || isBusy) return;
  const settings = await settingsIn(file);
  if (settings) await bringBack(file, settings);
  else wrong(`“${file.name}” does not say how it was made.`);
});
let depth = 0;
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth++; $("dropping").hidden = false; } });
addEventListener("dragleave", (event) => { if (hasFiles(event) && --depth <= 0) { depth = 0; $("dropping").hidden = true; } });
addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  depth = 0;
  $("dropping").hidden = true;
  dropped(event.dataTransfer).then((files) => {
    const [file] = files.values();
    if (transport.open && isModel(files)) openModel(files);
    else if (file) take(file);
  }, refused);
});

/** Models that are opened from here, where the transport can. */
async function openModel(files) {
  if (isBusy || files.size === 0) return;
  select("create");
  busy(true);
  wrong("");
  say("Reading the model");
  try {
    const { id } = await transport.open(files);
    await listModels();
    chooseModel(id);
    adapt();
    say(`${id} is open`);
  } catch (error) { refused(error); } finally { busy(false); }
}
for (const id of ["model-file", "model-folder"]) {
  $(id).addEventListener("change", (event) => {
    const files = chosen(event.target.files);
    event.target.value = "";
    openModel(files);
  });
}
addEventListener("paste", (event) => { if (event.clipboardData.files[0]) { event.preventDefault(); take(event.clipboardData.files[0]); } });

// Tabs: arrow keys move between them (WAI-ARIA's pattern).
const TABS = ["create", "compare", "history"];
function select(name) {
  for (const one of TABS) {
    const on = one === name;
    $(one).hidden = !on;
    $(`tab-${one}`).setAttribute("aria-selected", on);
    $(`tab-${one}`).tabIndex = on ? 0 : -1;
  }
  if (name === "history") shelve();
  if (name === "compare") comparison.enter();
}
for (const name of TABS) {
  $(`tab-${name}`).addEventListener("click", () => select(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const far = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!far) return;
    const next = TABS[(TABS.indexOf(name) + far + TABS.length) % TABS.length];
    select(next);
    $(`tab-${next}`).focus();
  });
}

let shelved = [];
async function shelve() {
  const entries = await store.all().catch(() => []);
  shelved.forEach((url) => URL.revokeObjectURL(url));
  shelved = entries.map((entry) => URL.createObjectURL(entry.blob));
  $("h-empty").hidden = entries.length > 0;
  $("h-clear").hidden = entries.length === 0;
  $("h-count").textContent = entries.length === 0 ? "" : `${entries.length} picture${entries.length === 1 ? "" : "s"}`;
  $("shelf").replaceChildren(...entries.map((entry, at) => {
    const name = entry.job.prompt || entry.job.command;
    const picture = make("img", { src: shelved[at], alt: "", loading: "lazy" });
    picture.addEventListener("load", () => picture.classList.toggle("pixels", picture.naturalWidth <= 256));
    const open = make("button", { type: "button", className: "open", title: new Date(entry.time).toLocaleString() }, picture, make("span", { textContent: name }));
    open.addEventListener("click", () => { select("create"); restore({ ...entry.told.settings, ...entry.job, seed: entry.told.seed, count: "" }); show(entry); $("stage").focus(); });
    const forget = make("button", { type: "button", className: "forget", ariaLabel: `Remove ${name}`, textContent: "×" });
    forget.addEventListener("click", async () => { await store.remove(entry.id); await shelve(); });
    return make("li", {}, open, forget);
  }));
}
$("h-clear").addEventListener("click", async () => {
  if (!confirm("Remove all pictures of the history?")) return;
  await store.clear();
  await shelve();
});

const THEMES = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").lastElementChild.textContent = name[0].toUpperCase() + name.slice(1);
  $("theme").setAttribute("aria-label", `Colours: ${name}`);
}
const themeKept = () => THEMES.find((name) => name === kept.get("theme")) ?? "system";
$("theme").addEventListener("click", () => {
  const name = THEMES[(THEMES.indexOf(themeKept()) + 1) % THEMES.length];
  kept.set("theme", name);
  theme(name);
  mask.draw();
});

/** After the first frame, which shows the document as it is: nothing that asks for styles or answers keeps it waiting. */
const painted = () => new Promise((resolve) => {
  requestAnimationFrame(() => setTimeout(resolve));
  // A tab in the background paints nothing.
  setTimeout(resolve, 300);
});

/** Goes on watching what was made when the page was loaded again. */
async function resume() {
  const before = pending.get();
  if (!before) return;
  restore(before.job);
  run = newRun(before.job, before.id, before.count);
  busy(true);
  progress(null);
  try {
    await follow(run);
  } catch (error) {
    // A server that was started again knows nothing of it.
    if (error.status === 404) { run = null; say("The picture that was being made is gone"); render(); } else refused(error);
  } finally {
    pending.forget();
    busy(false);
  }
}

const option = (value) => make("option", { value, textContent: value });

async function listModels(models = null) {
  known.models = models ?? await transport.models();
  for (const list of ["model", "c-model"]) $(list).replaceChildren(...known.models.map((one) => option(one.id)));
}

async function begin() {
  theme(themeKept());
  await painted();
  adapt();
  try {
    const [models, { samplers, schedules }, info] = await Promise.all([transport.models(), transport.samplers(), transport.info()]);
    Object.assign(known, { samplers, schedules, limits: info.limits });
    await listModels(models);
    $("own-model").hidden = !transport.open;
    for (const one of samplers) $("sampler").append(Object.assign(option(one.name), { title: one.summary }));
    $("schedule").append(...schedules.map(option));
    $("lora").append(...(info.loras ?? []).map(option));
    $("place").textContent = info.devices.map((one) => one.name).join(", ");
    $("count").max = info.limits.count;
    $("steps").max = info.limits.steps;
    adapt();
    await resume();
  } catch (error) { refused(error); }
}

begin();
