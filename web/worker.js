// The engine's own thread. A message { call, id, … } is answered by { id, result } or { id, error }, and what happens in between is told by { id, step }.
// Between two steps messages are read, so a run ends at the step after it was cancelled.

import { check, remote } from "./models.js";

/** The module that the device needs, once it was opened. */
let wasm = null;
let engine = null;
/** What `open` asked for: the same is opened again when a device was lost. */
let wanted = null;
/** What ends the calls that are not answered yet. */
const stops = new Map();

/** Lets messages in that have arrived meanwhile; a timer would sleep for milliseconds. */
const channel = new MessageChannel();
const breath = () => new Promise((resolve) => { channel.port1.onmessage = resolve; channel.port2.postMessage(null); });

/** Modules that were started, by their names. */
const started = new Map();
function start(name, threads = 1) {
  if (!started.has(name)) {
    started.set(name, (async () => {
      const module = await import(`./${name}.js`);
      const { memory } = await module.default({ module_or_path: new URL(`./${name}_bg.wasm`, import.meta.url) });
      if (threads > 1) await module.initThreadPool(threads);
      return { ...module, memory };
    })());
  }
  return started.get(name);
}

/** What the processor needs: threads, where the page may share memory between them. Without them pictures are the same. */
async function processor(threads = navigator.hardwareConcurrency) {
  if (globalThis.crossOriginIsolated && threads > 1) {
    try {
      return await start("headwater_threads", threads);
    } catch (error) {
      // It is not there, or the browser gives less memory.
      console.warn(`headwater: ${error.message}; one thread is used`);
    }
  }
  return start("headwater_web");
}

/** Whether `auto` means WebGPU: not where the browser has no adapter, or only one that is a program on the processor itself. */
async function hasAdapter() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
}

/** A canvas' picture as the engine takes it. */
const given = (image) => (image ? new wasm.Picture(image.width, image.height, new Uint8Array(image.data.buffer, image.data.byteOffset, image.data.byteLength)) : undefined);

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
    const { device, leastLimits, threads } = wanted;
    if (device === "gpu" || (device === "auto" && await hasAdapter())) {
      wasm = await start("headwater_web");
      try {
        engine = await wasm.Engine.open("gpu", leastLimits);
      } catch (error) {
        if (device === "gpu") throw error;
        // The adapter can do less than every one should; the page is told by the device's name.
        console.warn(`headwater: ${error.message}; the processor is used`);
      }
    }
    if (!engine) {
      wasm = await processor(threads);
      engine = await wasm.Engine.open("cpu", leastLimits);
    }
  }
  return engine;
}

const calls = {
  async open({ device = "auto", leastLimits = false, threads }) {
    engine?.free();
    engine = null;
    wanted = { device, leastLimits, threads };
    return JSON.parse((await opened()).info());
  },

  /** From an address, or from files as pairs of path and blob. */
  async load({ id, model, url, files }, signal) {
    const engine = await opened();
    const most = JSON.parse(engine.info()).backend === "native" ? wasm.most_native_memory() : Infinity;
    if (!files) files = await remote(url, { signal, most, Sum: wasm.Sum, tell: (step) => postMessage({ id, step }) });
    check(files.reduce((sum, [, { size }]) => sum + size, 0), most);
    const all = new wasm.Files();
    for (const [path, blob] of files) all.add(path, blob);
    return JSON.parse(engine.load(model, all));
  },

  async check({ job, image, mask }) {
    const engine = await opened();
    return JSON.parse(engine.check(JSON.stringify(job), given(image), given(mask)));
  },

  async generate({ id, job, image, mask }, signal) {
    const started = performance.now();
    const engine = await opened();
    const run = await engine.start(JSON.stringify(job), given(image), given(mask));
    try {
      await breath();
      for (let step; !signal.aborted && (step = await run.next()); await breath()) {
        const { index, steps, sigma, seconds, evaluations } = step;
        postMessage({ id, step: { index, steps, sigma, seconds, evaluations, denoised: taken(step.denoised()), noisy: taken(step.noisy()) } });
        step.free();
      }
      signal.throwIfAborted();
      const made = await run.finish();
      const result = { image: taken(made.image()), sample: made.sample(), steps: made.steps, evaluations: made.evaluations };
      made.free();
      return { ...result, seconds: (performance.now() - started) / 1000 };
    } finally {
      run.free();
    }
  },

  /** WebAssembly's memory only grows: what it has is the most that was ever used. */
  async memory() {
    await opened();
    return wasm.memory.buffer.byteLength;
  },

  async samplers() {
    await opened();
    return JSON.parse(wasm.samplers());
  },

  async selftest({ id, device = "gpu", leastLimits = false, brief = false }) {
    await opened();
    await wasm.selftest(device, leastLimits, brief, (text) => postMessage({ id, step: JSON.parse(text) }));
  },
};

/** Calls that work with the device come one after the other: its plans belong to one run at a time. */
let last = Promise.resolve();

onmessage = ({ data }) => {
  if (data.call === "cancel") { stops.get(data.of)?.abort(); return; }
  const { id, call } = data;
  const stop = new AbortController();
  stops.set(id, stop);
  last = last.then(async () => {
    try {
      stop.signal.throwIfAborted();
      postMessage({ id, result: await calls[call](data, stop.signal) });
    } catch (error) {
      // A module that has ended in the middle can do nothing more: whoever started this thread starts another.
      const isOver = error instanceof WebAssembly.RuntimeError || error instanceof WebAssembly.CompileError || error instanceof WebAssembly.LinkError;
      const isLost = isOver || / was lost: /.test(error?.message);
      // The same device is opened again by the next call.
      if (isLost) engine = null;
      if (stop.signal.aborted && !isOver) postMessage({ id, result: { cancelled: true } });
      else postMessage({ id, error: String(error?.message ?? error), isOver, isLost });
    } finally {
      stops.delete(id);
    }
  });
};
