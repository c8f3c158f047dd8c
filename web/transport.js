// The page's transport around an engine in this browser: see the server's for what each method promises.

const transport = (() => {
  const EDITS = ["img2img", "inpaint", "outpaint", "colorize", "upscale", "restore", "stroke"];
  /** The models that there are, and what each is used for where none is named. At first they are those beside this page. */
  const MODELS = [
    {
      id: "icons-64-consistency", summary: "64x64 icons and emoji from text in one to four steps",
      uses: ["generate", "inpaint", "outpaint", "colorize", "upscale", "restore"],
    },
    { id: "icons-64", summary: "the same in twenty steps, by any sampler", uses: ["img2img", "stroke"] },
  ];
  const LAST = ["done", "failed", "cancelled"];
  const jobs = new Map();
  let last = 0;

  // The page opens without a network after its first visit, where a browser keeps anything.
  navigator.serviceWorker?.register("./sw.js").catch(() => {});

  const engine = (async () => {
    const { Headwater } = await import("./index.js");
    return Headwater.open();
  })();
  // Whoever asks first is told why.
  engine.catch(() => {});

  // One from elsewhere, by an address after the page's: ?model=https://host/folder/, where files.json lists its files.
  const elsewhere = new URLSearchParams(location.search).get("model");
  const isAddress = elsewhere && URL.canParse(elsewhere, location.href);
  if (isAddress) {
    const url = new URL(elsewhere, location.href);
    const id = url.pathname.split("/").filter(Boolean).at(-1) ?? url.host;
    MODELS.unshift({ id, url, summary: `from ${url.host}`, uses: ["generate", ...EDITS] });
  }

  /** What a picture by a model takes, said before it is asked for. */
  async function described(id, about) {
    const prompt = about.takes_prompt ? "a picture" : "";
    const { bytes } = await (await engine).check({ model: id, prompt });
    const steps = about.steps ? `, ${about.steps} steps` : "";
    return { ...about, summary: `${about.width} × ${about.height}${steps}; needs ${(bytes / 1e9).toFixed(2)} GB of memory` };
  }

  /** Models are fetched when they are first used: 35 MB in all. */
  const loaded = new Map();
  async function load(id) {
    if (!loaded.has(id)) {
      const onProgress = ({ bytes, of }) => say(`Fetching ${id}: ${(bytes / 1e6).toFixed(0)} of ${(of / 1e6).toFixed(0)} MB`, false);
      const { files, url = new URL(`models/${id}/`, location.href) } = MODELS.find((one) => one.id === id) ?? {};
      loaded.set(id, (await engine).load(id, files ?? url, { onProgress }));
    }
    try {
      return await loaded.get(id);
    } catch (error) {
      loaded.delete(id);
      throw error;
    }
  }

  /** A picture of a job as the engine takes it. */
  async function pixels(url) {
    const bitmap = await createImageBitmap(await (await fetch(url)).blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  }

  async function file(image, type, quality) {
    const canvas = new OffscreenCanvas(image.width, image.height);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas.convertToBlob({ type, quality });
  }

  /** A chunk's checksum (PNG 1.2, annex D). */
  const crc = (bytes) => {
    let sum = -1;
    for (const byte of bytes) {
      sum ^= byte;
      for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
    }
    return ~sum >>> 0;
  };

  /** A PNG file with its settings in it, as the program writes them: dropped on the page, it brings them back. */
  async function withSettings(png, settings) {
    const chunk = new TextEncoder().encode(`iTXtheadwater\0\0\0\0\0${JSON.stringify(settings)}`);
    const number = (value) => { const bytes = new DataView(new ArrayBuffer(4)); bytes.setUint32(0, value); return bytes; };
    // Behind the signature and the header, which have 33 bytes together.
    return new Blob([png.slice(0, 33), number(chunk.length - 4), chunk, number(crc(chunk)), png.slice(33)], { type: "image/png" });
  }

  const preview = async (image) => (image ? dataUrl(await file(image, "image/jpeg", 0.88)) : undefined);

  /** The seed of an image after the first: they count on, in 64 bits. */
  const seedOf = (seed, index) => {
    const own = BigInt.asUintN(64, BigInt(seed) + BigInt(index));
    return own <= Number.MAX_SAFE_INTEGER ? Number(own) : String(own);
  };

  function tell(job, event, data) {
    job.events.push([event, data]);
    for (const wake of job.watchers.splice(0)) wake();
  }

  /** One after the other, as on a device of a server. */
  let queue = Promise.resolve();
  async function work(job) {
    try {
      const usual = MODELS.find(({ uses = [] }) => uses.includes(job.asked.command ?? "generate")) ?? MODELS[0];
      const { model = usual.id, count, image, mask, ...fields } = job.asked;
      const own = await load(model);
      job.stop.signal.throwIfAborted();
      tell(job, "started", { id: job.id });
      const pictures = { image: image && await pixels(image), mask: mask && await pixels(mask) };
      for (let index = 0; index < job.count; index++) {
        const seed = seedOf(job.seed, index);
        const told = [];
        const onStep = (step) => told.push((async () => {
          const { sigma, evaluations, seconds } = step;
          const [shown, noisy] = await Promise.all([preview(step.denoised), preview(step.noisy)]);
          tell(job, "step", { image: index, step: step.index, steps: step.steps || null, sigma, evaluations, seconds, preview: shown, noisy });
        })());
        const made = await (await engine).generate({ ...fields, model, seed }, { ...pictures, signal: job.stop.signal, onStep });
        await Promise.all(told);
        if (!made.image) throw new Error("this model makes latents, and no pictures");
        const { width, height } = made.image;
        const settings = { steps: own.steps, ...fields, model, seed, width, height };
        delete settings.previews;
        job.images[index] = await withSettings(await file(made.image, "image/png"), settings);
        tell(job, "image", { index, seed, width, height, settings, job: job.id });
      }
      tell(job, "done", {});
    } catch (error) {
      if (error.reload) loaded.clear();
      if (job.stop.signal.aborted) tell(job, "cancelled", {});
      else tell(job, "failed", { error: error.message });
    }
  }

  return {
    async models() {
      if (elsewhere && !isAddress) throw new Refusal(`“${elsewhere}”, behind ?model= in the page’s address, is no address of a model.`);
      return MODELS.map(({ id, summary, uses = [], takes_prompt = true, classes = null, makes_pixels = true }, index) => ({
        id, summary, default: index === 0, default_of: uses, takes_prompt, classes, makes_pixels, defaults: {},
      }));
    },
    async open(files) {
      const [first] = files.keys();
      const id = first.includes("/") ? first.split("/")[0] : first.replace(/\.safetensors$/, "");
      const inside = new Map([...files].map(([path, file]) => [path.split("/").slice(path.includes("/") ? 1 : 0).join("/"), file]));
      let about;
      try {
        about = { ...await described(id, await (await engine).load(id, inside)), files: inside };
      } catch (error) {
        throw new Refusal(`It cannot be opened: ${error.message}`, { field: "model" });
      }
      const at = MODELS.findIndex((one) => one.id === id);
      MODELS.splice(at < 0 ? MODELS.length : at, at < 0 ? 0 : 1, about);
      loaded.set(id, Promise.resolve(about));
      return about;
    },
    samplers: async () => (await engine).samplers(),
    async info() {
      const { name, kind } = (await engine).info;
      return { version: "", devices: [{ name, kind }], limits: { pixels: 4_000_000, steps: 1000, count: 16, queue: 64, batch: 1 } };
    },
    async submit(asked) {
      const count = asked.count ?? 1;
      if (!(count >= 1 && count <= 16)) throw new Refusal("Count must be 1 to 16", { field: "count" });
      if (asked.steps > 1000) throw new Refusal("Steps must be 1000 at most", { field: "steps" });
      if (EDITS.includes(asked.command) && !asked.image) throw new Refusal("Choose a picture first.", { field: "picture" });
      const seed = asked.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
      if (!/^\d{1,20}$/.test(String(seed))) throw new Refusal("Seed must be a whole number", { field: "seed" });
      const job = { id: `own-${++last}`, asked, count, seed, events: [], watchers: [], images: [], stop: new AbortController() };
      jobs.set(job.id, job);
      tell(job, "queued", { position: 0 });
      queue = queue.then(() => work(job));
      return { id: job.id, count };
    },
    async watch(id, told) {
      const job = jobs.get(id);
      if (!job) return;
      for (let at = 0; ; at++) {
        while (at >= job.events.length) await new Promise((resolve) => job.watchers.push(resolve));
        told(...job.events[at]);
        if (LAST.includes(job.events[at][0])) break;
      }
    },
    async cancel(id) { jobs.get(id)?.stop.abort(new DOMException("cancelled", "AbortError")); },
    image: async ({ job, index }) => jobs.get(job).images[index],
    measures: false,
  };
})();
