// The engine's own thread. A message { call, id, … } is answered by { id, result } or { id, error }; a run tells { id, step } in between. Between two
// steps messages are read, so a run ends at the step after it was cancelled.

import init, { Engine, Files, Picture, samplers, selftest } from "./headwater_web.js";

let engine = null;
/** What `open` asked for: the same is opened again when a device was lost. */
let wanted = null;
const cancelled = new Set();
/** Files of models that are not read yet, by the models' names. */
const arriving = new Map();

/** Lets messages in that have arrived meanwhile; a timer would sleep for milliseconds. */
const channel = new MessageChannel();
const breath = () => new Promise((resolve) => { channel.port1.onmessage = resolve; channel.port2.postMessage(null); });

const ready = init({ module_or_path: new URL("./headwater_web_bg.wasm", import.meta.url) });

/** A canvas' picture as the engine takes it. */
const given = (image) => (image ? new Picture(image.width, image.height, new Uint8Array(image.data.buffer, image.data.byteOffset, image.data.byteLength)) : undefined);

/** The engine's picture as a canvas takes it. */
function taken(picture) {
  if (!picture) return null;
  const image = new ImageData(new Uint8ClampedArray(picture.rgba()), picture.width, picture.height);
  picture.free();
  return image;
}

async function opened() {
  if (!engine) {
    if (!wanted) throw new Error("no device was opened");
    engine = await Engine.open(wanted.device, wanted.leastLimits);
  }
  return engine;
}

const calls = {
  async open({ device = "auto", leastLimits = false }) {
    engine?.free();
    engine = null;
    wanted = { device, leastLimits };
    return JSON.parse((await opened()).info());
  },

  /** One file of a model that is coming; `isFirst` forgets what an earlier attempt has left. */
  async file({ model, path, bytes, isFirst }) {
    if (isFirst) { arriving.get(model)?.free(); arriving.set(model, new Files()); }
    arriving.get(model).add(path, bytes);
  },

  async load({ model }) {
    const files = arriving.get(model) ?? new Files();
    arriving.delete(model);
    return JSON.parse((await opened()).load(model, files));
  },

  async check({ job, image, mask }) {
    return JSON.parse((await opened()).check(JSON.stringify(job), given(image), given(mask)));
  },

  async generate({ id, job, image, mask }) {
    const started = performance.now();
    const run = await (await opened()).start(JSON.stringify(job), given(image), given(mask));
    try {
      await breath();
      for (let step; !cancelled.has(id) && (step = await run.next()); await breath()) {
        const { index, steps, sigma, seconds, evaluations } = step;
        postMessage({ id, step: { index, steps, sigma, seconds, evaluations, denoised: taken(step.denoised()), noisy: taken(step.noisy()) } });
        step.free();
      }
      if (cancelled.delete(id)) return { cancelled: true };
      const made = await run.finish();
      const result = { cancelled: false, image: taken(made.image()), sample: made.sample(), steps: made.steps, evaluations: made.evaluations };
      made.free();
      return { ...result, seconds: (performance.now() - started) / 1000 };
    } finally {
      run.free();
    }
  },

  async samplers() {
    return JSON.parse(samplers());
  },

  async selftest({ id, device = "gpu", leastLimits = false }) {
    await selftest(device, leastLimits, (text) => postMessage({ id, step: JSON.parse(text) }));
  },
};

/** Calls that work with the device come one after the other: its plans belong to one run at a time. */
let last = Promise.resolve();

onmessage = ({ data }) => {
  if (data.call === "cancel") { cancelled.add(data.run); return; }
  const { id, call } = data;
  last = last.then(async () => {
    try {
      await ready;
      postMessage({ id, result: await calls[call](data) });
    } catch (error) {
      // A module that has ended in the middle can do nothing more: whoever started this thread starts another.
      const isOver = error instanceof WebAssembly.RuntimeError || error instanceof WebAssembly.CompileError || error instanceof WebAssembly.LinkError;
      if (/ was lost: /.test(error?.message)) engine = null;
      postMessage({ id, error: String(error?.message ?? error), isOver });
    } finally {
      cancelled.delete(id);
    }
  });
};
