// Headwater in a browser: an engine on a thread of its own.

/** A page's files by their paths within the model: `folder/unet/config.json`, as a chosen folder has them, is `unet/config.json`. */
const named = (files) => [...files].map((file) => [file.webkitRelativePath.split("/").slice(1).join("/") || file.name, file]);

const blob = (bytes) => (bytes instanceof Blob ? bytes : new Blob([bytes]));

export class Headwater {
  #worker = null;
  #waiting = new Map();
  #last = 0;
  #url;
  #open;

  /**
   * Starts the engine. `device` is `auto`, `gpu` (WebGPU) or `cpu`; `auto` takes the processor where there is no WebGPU. With `leastLimits` an adapter
   * is asked for no more than every WebGPU has. `threads` are the processor's, as many as there are cores where it is not said; a page has several where it
   * is isolated (https://web.dev/articles/coop-coep).
   */
  static async open({ device = "auto", leastLimits = false, threads, worker = new URL("./worker.js", import.meta.url) } = {}) {
    const headwater = new Headwater();
    headwater.#url = worker;
    headwater.#open = { device, leastLimits, threads };
    headwater.info = await headwater.#call("open", headwater.#open);
    return headwater;
  }

  #start() {
    this.#worker = new Worker(this.#url, { type: "module" });
    this.#worker.onmessage = ({ data }) => {
      const waiting = this.#waiting.get(data.id);
      if (!waiting) return;
      if (data.step) { waiting.tell?.(data.step); return; }
      this.#waiting.delete(data.id);
      if (data.error === undefined) { waiting.resolve(data.result); return; }
      waiting.reject(Object.assign(new Error(data.error), { reload: data.isLost }));
      if (data.isOver) this.#end("the engine ended in the middle; models must be loaded again");
    };
    this.#worker.onerror = (event) => this.#end(`the engine did not start: ${event.message ?? "its script is missing"}`);
  }

  #end(why) {
    this.#worker?.terminate();
    this.#worker = null;
    for (const { reject } of this.#waiting.values()) reject(Object.assign(new Error(why), { reload: true }));
    this.#waiting.clear();
  }

  #call(call, message, { tell } = {}) {
    const isNew = !this.#worker;
    if (isNew) this.#start();
    if (isNew && call !== "open") this.#call("open", this.#open).catch(() => {});
    const id = ++this.#last;
    return Object.assign(new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, tell });
      this.#worker.postMessage({ ...message, call, id });
    }), { id });
  }

  /** A call that can be cancelled: it rejects with the signal's reason. */
  async #cancellable(call, message, { signal, tell }) {
    signal?.throwIfAborted();
    const asked = this.#call(call, message, { tell });
    const cancel = () => this.#worker?.postMessage({ call: "cancel", of: asked.id });
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const result = await asked;
      if (result.cancelled) throw signal?.reason ?? new DOMException("cancelled", "AbortError");
      return result;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /**
   * Loads a model in diffusers' layout under a name: from the address of a folder with a `files.json` that lists it, from the files of a folder that was
   * chosen or dropped, or from a Map of paths and Blobs or Uint8Arrays. `onProgress` is told `{ bytes, of }` while it is fetched. What was fetched is kept
   * by the browser, where it keeps anything.
   */
  async load(model, from, { signal, onProgress } = {}) {
    if (typeof from === "string" || from instanceof URL) {
      const url = new URL(from, location.href);
      if (!url.pathname.endsWith("/")) url.pathname += "/";
      return this.#cancellable("load", { model, url: url.href }, { signal, tell: onProgress });
    }
    const files = (from instanceof Map ? [...from] : named(from)).map(([path, bytes]) => [path, blob(bytes)]);
    return this.#cancellable("load", { model, files }, { signal, tell: onProgress });
  }

  /** Checks a job, and tells what it will need: `{ bytes, steps, warnings }`. `image` and `mask` are ImageData. */
  check(job, { image, mask } = {}) {
    return this.#call("check", { job, image, mask });
  }

  /**
   * Makes a picture: `{ image, sample, steps, evaluations, seconds }`. `onStep` is told every step with its pictures. Aborting the signal ends the run at
   * its next step, and rejects with an AbortError. After an error whose `reload` is true, such as the loss of a device, models must be loaded again.
   */
  generate(job, { image, mask, signal, onStep } = {}) {
    return this.#cancellable("generate", { job, image, mask }, { signal, tell: onStep });
  }

  /** The most bytes that the engine has had in memory so far. What WebGPU holds is not among them. */
  memory() {
    return this.#call("memory", {});
  }

  /** The samplers and schedules that a job may name. */
  samplers() {
    return this.#call("samplers", {});
  }

  /** Compares every kernel with its reference: `onCase` is told each. `brief` tries those that take long to compile on few problems. */
  selftest({ device = "gpu", leastLimits = false, brief = false, onCase } = {}) {
    return this.#call("selftest", { device, leastLimits, brief }, { tell: onCase });
  }

  /** Ends the engine, whatever it does. */
  close() {
    this.#end("the engine was closed");
  }
}
