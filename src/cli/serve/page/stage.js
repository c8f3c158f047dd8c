// The stage: a job's picture at any of its steps, the filmstrip below it, and what is said of it.

/** What was or is being made: { job, id, count, phase, images: [{ steps, told, blob, url }], pictureName }. */
let run = null;

/** How it is looked at: which image, which step (null: the newest, and at last the result), which of a step's pictures, or the picture to edit. */
const view = { image: 0, step: null, of: "preview", side: "result" };

const newRun = (job, id, count) => ({
  job, id, count, phase: "queued", pictureName: given?.name,
  images: Array.from({ length: count }, () => ({ steps: [], told: null, blob: null, url: null })),
});

const takesPicture = () => command() !== "generate";
const isInput = () => takesPicture() && given && (view.side === "input" || !run);
const image = () => run?.images[Math.min(view.image, run.count - 1)];

/** The positions of the filmstrip: each step, and the result. */
const frames = (one) => [...one.steps, ...(one.url ? [null] : [])];

function press(group, name, value) {
  for (const button of $(group).children) button.setAttribute("aria-pressed", String(button.dataset[name] === String(value)));
}

const decimal = (number) => Number(number.toPrecision(3)).toString();

/** Gives the frame the picture's shape, and shows small pictures as pixels, but for previews of latents: theirs are no pixels of the picture. */
function shape(width, height, isLatent = false) {
  $("frame").style.setProperty("--ratio", width / height);
  $("frame").classList.toggle("small", Math.max(width, height) <= 256 && !isLatent);
}

function renderInput() {
  const margins = command() === "outpaint" ? ["left", "top", "right", "bottom"].map((side) => Math.max(0, Number($(side).value) || 0)) : [0, 0, 0, 0];
  const [left, top, right, bottom] = margins;
  const [width, height] = [given.width + left + right, given.height + top + bottom];
  shape(width, height);
  const percent = (part, whole) => `${(100 * part) / whole}%`;
  Object.assign($("shown").style, {
    left: percent(left, width), top: percent(top, height), width: percent(given.width, width), height: percent(given.height, height),
  });
  $("shown").src = given.url;
  $("shown").alt = `The picture to edit, ${given.name}, ${given.width} by ${given.height} pixels`;
}

function renderResult() {
  const one = image();
  const all = frames(one);
  const at = view.step === null ? all.length - 1 : Math.min(view.step, all.length - 1);
  const step = all[at];
  Object.assign($("shown").style, { left: "", top: "", width: "", height: "" });
  const source = step === null ? one.url : step?.[view.of] ?? step?.preview;
  if (source) {
    $("shown").src = source;
    $("shown").alt = step === null ? run.job.prompt || "The finished picture" : `${run.job.prompt || "The picture"}, after step ${step.step + 1}`;
  }
  $("frame").hidden = !source;
  $("scrub").max = Math.max(all.length - 1, 0);
  $("scrub").value = Math.max(at, 0);
  $("scrub").setAttribute("aria-valuetext", step === null ? "result" : step ? `step ${step.step + 1}, noise level ${decimal(step.sigma)}` : "none");
  $("facts").textContent = factsOf(one, step);
}

function factsOf(one, step) {
  if (step) {
    const facts = [`Step ${step.step + 1}${step.steps ? ` of ${step.steps}` : ""}`, `σ ${decimal(step.sigma)}`, `${step.seconds.toFixed(2)} s`];
    return facts.join(" · ");
  }
  if (!one.told) return "";
  const { settings, seed, width, height } = one.told;
  const last = one.steps.at(-1);
  const facts = [settings.sampler, `${settings.steps} step${settings.steps === 1 ? "" : "s"}`, `seed ${seed}`, `${width} × ${height}`, last && `${last.seconds.toFixed(2)} s`];
  return facts.filter(Boolean).join(" · ");
}

/** Adds what is new to the filmstrip. */
function renderStrip() {
  const strip = $("strip");
  const one = image();
  const all = one ? frames(one) : [];
  const own = `${run?.id}/${view.image}/${view.of}`;
  if (strip.dataset.own !== own) { strip.replaceChildren(); strip.dataset.own = own; }
  for (let at = strip.children.length; at < all.length; at++) {
    const picture = make("img", { alt: "", loading: "lazy" });
    const source = all[at] === null ? one.url : all[at][view.of] ?? all[at].preview;
    if (source) picture.src = source;
    const button = make("button", { type: "button", tabIndex: -1 }, picture);
    button.addEventListener("click", () => { view.step = at === frames(image()).length - 1 ? null : at; view.side = "result"; render(); });
    strip.append(make("li", {}, button));
  }
  const on = view.step ?? all.length - 1;
  [...strip.children].forEach((item, at) => item.firstChild.classList.toggle("on", at === on));
  const active = strip.children[on];
  if (active && (active.offsetLeft < strip.scrollLeft || active.offsetLeft + active.offsetWidth > strip.scrollLeft + strip.clientWidth)) {
    strip.scrollLeft = active.offsetLeft - strip.clientWidth / 2;
  }
}

function renderPictures() {
  const several = (run?.count ?? 0) > 1;
  $("pictures").hidden = !several || isInput();
  if (!several) return;
  if ($("pictures").children.length !== run.count) {
    $("pictures").replaceChildren(...run.images.map((_, at) => {
      const button = make("button", { type: "button", textContent: at + 1, ariaLabel: `Image ${at + 1}` });
      button.dataset.at = at;
      button.addEventListener("click", () => { Object.assign(view, { image: at, step: null }); render(); });
      return button;
    }));
  }
  press("pictures", "at", view.image);
}

/** Draws all of it anew, from `run` and `view`. */
function render() {
  const input = isInput();
  const one = image();
  const something = one && (one.steps.some((step) => step.preview) || one.url);
  $("sides").hidden = !(takesPicture() && given && run);
  press("sides", "side", input ? "input" : "result");
  $("frame").hidden = !input && !something;
  $("empty").hidden = input || Boolean(something);
  $("frame").classList.toggle("outpaint", Boolean(input) && command() === "outpaint");
  const masks = Boolean(input) && command() === "inpaint";
  $("brushes").hidden = $("mask").hidden = !masks;
  if (!masks) $("cursor").hidden = true;
  $("views").hidden = input || !one?.steps.some((step) => step.noisy);
  press("views", "view", view.of);
  $("film").hidden = input || !one || frames(one).length < 1;
  $("caption").hidden = input || !something;
  $("save").hidden = $("reuse").hidden = $("keep-seed").hidden = !one?.url;
  renderPictures();
  if (input) return renderInput();
  if (!one) return;
  if (one.url) {
    const name = String(run.job.prompt || run.job.command).toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60).replace(/^-|-$/g, "") || "picture";
    Object.assign($("save"), { href: one.url, download: `${name}-${one.told.seed}.png` });
  }
  renderResult();
  renderStrip();
}

// What a picture's own size is decides how the frame looks.
$("shown").addEventListener("load", () => {
  if (isInput()) return;
  const model = known.models.find((one) => one.id === run.job.model);
  // A preview of latents is an eighth as wide as the picture, unless it was decoded.
  const isLatent = $("shown").src.startsWith("data:") && model?.makes_pixels === false && 4 * $("shown").naturalWidth <= model.defaults.width;
  shape($("shown").naturalWidth, $("shown").naturalHeight, isLatent);
});

$("scrub").addEventListener("input", () => {
  const at = Number($("scrub").value);
  view.step = at === frames(image()).length - 1 ? null : at;
  render();
});
for (const button of $("sides").children) button.addEventListener("click", () => { view.side = button.dataset.side; render(); });
for (const button of $("views").children) button.addEventListener("click", () => { view.of = button.dataset.view; render(); });
