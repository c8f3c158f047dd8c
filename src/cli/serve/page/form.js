// The form: what it says as a job, as a command line, and the reverse.

const $ = (id) => document.getElementById(id);

/** An element with properties and children. */
function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Says where things stand. What changes many times a second is not read aloud: the progress bar has it. */
function say(text, aloud = true) {
  $("status").textContent = text;
  if (aloud) $("spoken").textContent = text;
}

/** What there is to choose from; filled when the page begins. */
const known = { models: [], samplers: [], schedules: [], limits: { pixels: 1 << 24, body: 32 << 20 } };

/** The picture that is edited: see `pictureOf`. */
let given = null;

/** Fields with a control of their own. Every other field of a job is a line of the further settings. */
const FIELDS = ["prompt", "model", "negative_prompt", "steps", "guidance", "sampler", "schedule", "seed", "width", "height", "count", "class_label",
  "strength", "mask_grow", "mask_blur", "left", "right", "top", "bottom", "scale", "sigma"];
const TEXTS = ["prompt", "model", "negative_prompt", "sampler", "schedule", "seed"];

/** What files say of themselves that is no setting: how they were made, and by what. */
const TOLD = ["version", "command", "evaluations", "predictions", "reused", "dtype", "device", "image", "mask", "loras", "embeddings", "vae", "variant", "config"];

const command = () => new FormData($("form")).get("command");
const model = () => known.models.find((one) => one.id === $("model").value) ?? known.models[0];

/** Whether a control says something for this command. */
const counts = (control) => !control.closest("[data-for], .field")?.hidden && !control.closest("[data-for]")?.hidden;

const isShown = (control) => control.getClientRects().length > 0;

function wrong(message, field = null) {
  $("problem").textContent = message.charAt(0).toUpperCase() + message.slice(1);
  for (const control of $("form").elements) control.removeAttribute("aria-invalid");
  const control = field === null ? null : $(field);
  if (!control?.matches("input, select, textarea")) return;
  control.setAttribute("aria-invalid", "true");
  if (control.closest("details")) control.closest("details").open = true;
  if (isShown(control)) control.focus({ preventScroll: true });
}

/** The fields of a job, without its pictures. */
function fieldsOf() {
  const fields = {};
  for (const name of FIELDS) {
    const text = $(name).value.trim();
    if (text === "" || !counts($(name)) || $(name).disabled) continue;
    fields[name] = TEXTS.includes(name) ? text : Number(text);
    // Whole numbers up to what a script can hold are sent as numbers.
    if (name === "seed" && Number.isSafeInteger(Number(text))) fields.seed = Number(text);
  }
  for (const line of $("extra").value.split("\n").filter((line) => line.trim())) {
    const [, name, value] = /^\s*(?:--)?([\w-]+)\s*(?:[=:]|\s)?\s*(.*?)\s*$/.exec(line) ?? [];
    if (!name) throw new Refusal(`“${line.trim()}” is no line of name=value.`, { field: "extra" });
    fields[name.replaceAll("-", "_")] = value === "" || value === "true" ? true : value === "false" ? false : value;
  }
  return fields;
}

/** The whole job, as it is submitted. */
async function jobOf(mask) {
  const job = { command: command(), ...fieldsOf() };
  for (const control of $("form").elements) {
    if (!control.validity?.badInput) continue;
    throw new Refusal(`${control.labels?.[0]?.textContent ?? "A field"} must be a number.`, { field: control.id });
  }
  if (WORDS.includes(job.command) && model()?.takes_prompt && !job.prompt) throw new Refusal("Say what the picture shows.", { field: "prompt" });
  if (job.command === "generate") return job;
  if (!given) throw new Refusal("Choose a picture first: drop it here, paste it, or pick a file.", { field: "picture" });
  job.image = await dataUrl(given.blob);
  if (job.command === "inpaint") {
    if (!mask.painted()) throw new Refusal("Paint over what is to be made anew, with the brush.", { field: "mask" });
    job.mask = await dataUrl(await mask.file());
  }
  return job;
}

/** A word of a command line, in quotes where a POSIX shell needs them. */
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`);

const PICTURES = ["image", "mask"];

/** The command that does the same. Pictures are named, not held. */
function commandLine(job, pictureName = "picture.png") {
  const words = ["headwater", job.command];
  if (job.command !== "generate") words.push(quoted(pictureName));
  const prompt = job.prompt ?? "";
  // A prompt that begins with a hyphen is no flag.
  if (prompt && !prompt.startsWith("-")) words.push(quoted(prompt));
  if (job.mask) words.push("--mask", "mask.png");
  for (const [name, value] of Object.entries(job)) {
    if (["command", "prompt", "previews", "detached", "format", "quality", ...PICTURES].includes(name) || value === false) continue;
    const flag = `--${name.replaceAll("_", "-")}`;
    if (value === true) words.push(flag);
    else words.push(String(value).startsWith("-") ? `${flag}=${quoted(value)}` : `${flag} ${quoted(value)}`);
  }
  if (prompt.startsWith("-")) words.push("--", quoted(prompt));
  return words.join(" ");
}

async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    done("Copied");
  } catch {
    // Without the permission, or over plain HTTP from another machine: a text to copy by hand.
    window.prompt("Copy this command:", text);
  }
}

/** Puts settings into the form; what it has no control for goes to the further settings. */
function restore(settings) {
  const radio = $("form").querySelector(`[name=command][value="${CSS.escape(settings.command ?? "generate")}"]`);
  if (radio) radio.checked = true;
  for (const name of FIELDS) if (name !== "model") $(name).value = "";
  const more = [];
  for (const [name, value] of Object.entries(settings)) {
    if (TOLD.includes(name) || value === null || (name === "steps" && (settings.sigmas || settings.timesteps))) continue;
    if (name === "rng" && value === "philox") continue;
    if (!FIELDS.includes(name)) { if (value !== false) more.push(`${name}=${value}`); continue; }
    const control = $(name);
    control.value = name === "sampler" ? samplerNamed(value) : value;
    if (name === "schedule" && control.value === "") control.value = String(value).toLowerCase();
  }
  // A prompt is told without the adapters that it names.
  for (const { file, weight } of settings.loras ?? []) {
    const name = String(file).split(/[\\/]/).at(-1).replace(/\.safetensors$/, "");
    if (![":", ">"].some((end) => $("prompt").value.includes(`<lora:${name}${end}`))) $("prompt").value = `${$("prompt").value} <lora:${name}:${weight}>`.trimStart();
  }
  const served = !settings.model || known.models.some((one) => one.id === settings.model);
  if (served && settings.model) chooseModel(settings.model);
  if (!served) chooseModel(null);
  $("extra").value = more.join("\n");
  if (more.length > 0) $("more").open = true;
  adapt();
  return served;
}

/** This program's name of a sampler that another tool calls by its own. */
function samplerNamed(name) {
  const same = (text) => String(text).toLowerCase() === String(name).toLowerCase();
  return known.samplers.find((one) => same(one.name) || Object.values(one.aliases).flat().some(same))?.name ?? "";
}

/** Whether a person chose the model; otherwise it follows the command. */
let isChosen = false;

function chooseModel(id) {
  isChosen = id !== null;
  const own = known.models.find((one) => one.default_of.includes(command()));
  $("model").value = id ?? own?.id ?? known.models[0]?.id ?? "";
}

/** What each task is called where it begins, and what it does. */
const TASKS = {
  generate: ["Generate", ""],
  img2img: ["Change", "A picture like the one that is given, as the prompt says."],
  inpaint: ["Inpaint", "What the brush covers is made anew; the rest stays as it is."],
  outpaint: ["Outpaint", "The picture goes on beyond its edges."],
  colorize: ["Colorize", "New colours; the brightness of every pixel stays."],
  upscale: ["Upscale", "More pixels, with new detail."],
  restore: ["Restore", "Noise is taken off a picture that has some."],
  stroke: ["Stroke", "A painting of a few strokes becomes a picture in its colours."],
};

/** Tasks that need a prompt where the model takes one; the others keep most of a picture. */
const WORDS = ["generate", "img2img", "inpaint", "outpaint"];

/** Of the tasks that have a noise level: what it is where nothing is said, and what it means. */
const NOISE = {
  restore: ["measured in the picture", "Of the picture’s noise: its standard deviation, where black is −1 and white 1. 0.2 is 25 levels of 255."],
  stroke: ["5.38", "That is put over the painting, where black is −1 and white 1: the more, the freer the picture."],
};

/** Shows what the command and the model take, and the model's own values where nothing is said. */
function adapt() {
  if (!isChosen) chooseModel(null);
  for (const part of $("form").querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(command());
  const { defaults = {}, takes_prompt = true, classes = null, summary = "" } = model() ?? {};
  $("model-help").textContent = summary;
  $("prompt").disabled = !takes_prompt;
  $("prompt").placeholder = WORDS.includes(command()) ? "a red heart" : "what it shows, if you like";
  $("prompt-help").hidden = takes_prompt;
  $("prompt-help").textContent = "This model takes no prompt.";
  $("negative").hidden = !takes_prompt;
  $("lora-field").hidden = !takes_prompt || $("lora").options.length < 2;
  $("class-field").hidden = classes === null;
  const own = { ...defaults };
  if (command() !== "generate") own.width = own.height = "picture’s";
  for (const name of ["steps", "guidance", "width", "height"]) $(name).placeholder = own[name] ?? "the model’s";
  const [verb, help] = TASKS[command()];
  $("generate").textContent = verb;
  $("task-help").textContent = help;
  $("task-help").hidden = help === "";
  [$("sigma").placeholder, $("sigma-help").textContent] = NOISE[command()] ?? ["", ""];
}
