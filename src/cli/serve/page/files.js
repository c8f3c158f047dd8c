// Pictures from files, and what PNG files say of how they were made.

/** The most bytes of a compressed text that are read. */
const LONGEST_TEXT = 4 << 20;

const latin1 = (bytes) => { let text = ""; for (const byte of bytes) text += String.fromCharCode(byte); return text; };
const utf8 = (bytes) => new TextDecoder().decode(bytes);

async function inflated(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  for (let size = 0; ;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    if ((size += value.length) > LONGEST_TEXT) throw new RangeError("the text is too long");
    parts.push(value);
  }
}

/** The text chunks of a PNG file, by keyword (PNG 1.2, 11.3.4); none of another file, or of what is damaged. */
async function textsOf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const texts = {};
  if (bytes.length < 8 || view.getUint32(0) !== 0x89504e47) return texts;
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const kind = latin1(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    at += 12 + length;
    if (data.length < length || !["tEXt", "zTXt", "iTXt"].includes(kind)) continue;
    const end = data.indexOf(0);
    if (end < 1) continue;
    const rest = data.subarray(end + 1);
    try {
      let text;
      if (kind === "tEXt") {
        text = latin1(rest);
      } else if (kind === "zTXt") {
        text = latin1(await inflated(rest.subarray(1)));
      } else {
        // Whether it is compressed, how, its language, and its keyword in that language come before it.
        const language = rest.indexOf(0, 2);
        const begin = rest.indexOf(0, language + 1) + 1;
        if (language < 0 || begin < 1) continue;
        text = utf8(rest[0] === 1 ? await inflated(rest.subarray(begin)) : rest.subarray(begin));
      }
      texts[latin1(data.subarray(0, end))] ??= text;
    } catch { /* A damaged text is none. */ }
  }
  return texts;
}

/** AUTOMATIC1111's `parameters`, in this program's words. */
function fromParameters(text) {
  const at = text.lastIndexOf("\nSteps: ") + 1;
  if (at === 0 && !text.startsWith("Steps: ")) return null;
  const [prompt, negative = ""] = text.slice(0, at).trimEnd().split(/(?:^|\n)Negative prompt: /);
  const told = {};
  for (const [, name, value] of text.slice(at).matchAll(/\s*([\w ]+): ("(?:\\.|[^"\\])*"|[^,\n]*)(?:,|\n|$)/g)) {
    try { told[name] = value.startsWith('"') ? JSON.parse(value) : value.trim(); } catch { told[name] = value; }
  }
  const [width, height] = (told.Size ?? "").split("x");
  const settings = {
    prompt, negative_prompt: negative, steps: told.Steps, sampler: told.Sampler, schedule: told["Schedule type"], guidance: told["CFG scale"],
    seed: told.Seed, width, height, model: told.Model, strength: told["Denoising strength"], eta: told.Eta, class_label: told.Class,
    clip_skip: told["Clip skip"] > 1 ? told["Clip skip"] - 1 : undefined, rng: { CPU: "torch-cpu", NV: "torch-cuda" }[told.RNG],
  };
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined && value !== ""));
}

/** The settings inside a PNG file; null where it has none. */
async function settingsIn(file) {
  if (file.size > known.limits.body) return null;
  const texts = await textsOf(file);
  try { if (texts.headwater) return parsed(texts.headwater); } catch { /* Another tool may use the word. */ }
  return texts.parameters ? fromParameters(texts.parameters) : null;
}

/** The files that were dropped, by their paths: a folder's are all that are in it. */
async function dropped({ items, files }) {
  const found = new Map();
  async function walk(entry, path) {
    if (entry.isFile) { found.set(path, await new Promise((resolve, reject) => entry.file(resolve, reject))); return; }
    const reader = entry.createReader();
    // A reader gives a hundred at a time.
    for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length > 0;) {
      for (const one of some) await walk(one, `${path}/${one.name}`);
    }
  }
  // Entries are gone as soon as something is waited for.
  const folder = [...items].map((item) => item.webkitGetAsEntry?.()).find((entry) => entry?.isDirectory);
  if (folder) await walk(folder, folder.name);
  else for (const file of files) found.set(file.name, file);
  return found;
}

/** The files that were chosen, by the same paths. */
const chosen = (files) => new Map([...files].map((file) => [file.webkitRelativePath || file.name, file]));

/** Whether files are a model: one of weights alone, or a folder with a description of one. */
const isModel = (files) => [...files.keys()].some((path) => path.endsWith(".safetensors") || path.endsWith("model_index.json"));

const dataUrl = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

const canvasOf = (width, height) => Object.assign(document.createElement("canvas"), { width, height });
const pngOf = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

/** A picture that an element shows. Its size is known before its pixels are decoded, which for a hostile one may take all memory. */
const shownBy = (url) => new Promise((resolve, reject) => {
  const element = new Image();
  element.onload = () => resolve(element);
  element.onerror = () => reject(new TypeError("no picture"));
  element.src = url;
});

/** A picture to edit: { name, blob, url, width, height }. What the server does not read but this browser does becomes a PNG. */
async function pictureOf(file, name = file.name || "picture.png") {
  const { pixels, body } = known.limits;
  // In base64 it is a third longer, and a mask goes with it.
  if (file.size > body * 0.7) throw new Refusal(`“${name}” has ${Math.ceil(file.size / 1e6)} MB, more than this server reads.`, { field: "picture" });
  let url = URL.createObjectURL(file);
  try {
    const element = await shownBy(url).catch(() => { throw new Refusal(`“${name}” is no picture that this browser can read.`, { field: "picture" }); });
    const { naturalWidth: width, naturalHeight: height } = element;
    if (width * height > pixels) throw new Refusal(`“${name}” has ${width} × ${height} pixels, more than the ${pixels} that this server takes.`, { field: "picture" });
    let blob = file;
    if (!["image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif"].includes(file.type)) {
      const canvas = canvasOf(width, height);
      canvas.getContext("2d").drawImage(element, 0, 0, width, height);
      blob = await pngOf(canvas);
      URL.revokeObjectURL(url);
      url = URL.createObjectURL(blob);
    }
    return { name, blob, url, width, height };
  } catch (error) {
    URL.revokeObjectURL(url);
    throw error;
  }
}
