// Headwater in a browser: an engine on a thread of its own, and models that are fetched, checked and kept.

const CACHE = "headwater-models";

const hex = (bytes) => [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The place where models are kept; none where the browser refuses one, as in some private windows. */
async function storage() {
  try { return await caches.open(CACHE); } catch { return null; }
}

/** One file of a model: what is kept of it, or fetched now. Whatever does not have the sum that the list tells is not used. */
async function fetched(url, { bytes, sha256 }, { signal, kept }) {
  const key = `${url}?sha256=${sha256}`;
  const known = await kept?.match(key).catch(() => null);
  const response = known ?? await fetch(url, { signal });
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  const contents = await response.arrayBuffer();
  if (bytes !== undefined && contents.byteLength !== bytes) throw new Error(`${url}: has ${contents.byteLength} bytes and should have ${bytes}`);
  if (sha256 !== undefined && hex(await crypto.subtle.digest("SHA-256", contents)) !== sha256) {
    await kept?.delete(key).catch(() => {});
    throw new Error(`${url}: is not the file that its list tells of (its SHA-256 is another)`);
  }
  // A full disk costs the next visit its time, and this one nothing.
  if (!known) await kept?.put(key, new Response(contents)).catch(() => {});
  return new Uint8Array(contents);
}

/** The list of a model's files: the server's, or without a network the last that was seen. */
async function listed(url, { signal, kept }) {
  let answer;
  try {
    answer = await fetch(url, { signal, cache: "no-cache" });
  } catch (error) {
    const known = signal?.aborted ? null : await kept?.match(url).catch(() => null);
    if (!known) throw new Error(`${url}: cannot be fetched (${error.message})`);
    return known.json();
  }
  if (!answer.ok) throw new Error(`${url}: the server answers ${answer.status}`);
  await kept?.put(url, answer.clone()).catch(() => {});
  return answer.json();
}

export class Headwater {
  #worker = null;
  #waiting = new Map();
  #last = 0;
  #url;
  #open;

  /**
   * Starts the engine. `device` is `auto`, `gpu` (WebGPU) or `cpu`; `auto` takes the processor where there is no WebGPU. With `leastLimits` an adapter
   * is asked for no more than every WebGPU has.
   */
  static async open({ device = "auto", leastLimits = false, worker = new URL("./worker.js", import.meta.url) } = {}) {
    const headwater = new Headwater();
    headwater.#url = worker;
    headwater.#open = { device, leastLimits };
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
      waiting.reject(new Error(data.error));
      if (data.isOver) this.#end("the engine ended in the middle; models must be loaded again");
    };
    this.#worker.onerror = (event) => this.#end(`the engine did not start: ${event.message ?? "its script is missing"}`);
  }

  #end(why) {
    this.#worker?.terminate();
    this.#worker = null;
    for (const { reject } of this.#waiting.values()) reject(new Error(why));
    this.#waiting.clear();
  }

  #call(call, message, { tell, transfer = [] } = {}) {
    const isNew = !this.#worker;
    if (isNew) this.#start();
    if (isNew && call !== "open") this.#call("open", this.#open).catch(() => {});
    const id = ++this.#last;
    return Object.assign(new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, tell });
      this.#worker.postMessage({ ...message, call, id }, transfer);
    }), { id });
  }

  /**
   * Loads a model under a name: from the address of a folder with a `files.json` that lists it, or from a Map of paths and Uint8Arrays in diffusers'
   * layout. `onProgress` is told `{ bytes, of }`. Files are kept in the browser's cache, where it gives one.
   */
  async load(model, from, { signal, onProgress } = {}) {
    let isFirst = true;
    const hand = (path, bytes, transfer) => {
      const handed = this.#call("file", { model, path, bytes, isFirst }, { transfer });
      isFirst = false;
      return handed;
    };
    if (from instanceof Map) {
      for (const [path, bytes] of from) await hand(path, bytes);
      return this.#call("load", { model });
    }
    const folder = new URL(from, location.href);
    if (!folder.pathname.endsWith("/")) folder.pathname += "/";
    const kept = await storage();
    const list = await listed(new URL("files.json", folder).href, { signal, kept });
    const of = list.reduce((sum, { bytes }) => sum + bytes, 0);
    let bytes = 0;
    for (const entry of list) {
      const contents = await fetched(new URL(entry.path, folder).href, entry, { signal, kept });
      await hand(entry.path, contents, [contents.buffer]);
      onProgress?.({ bytes: bytes += entry.bytes, of });
    }
    return this.#call("load", { model });
  }

  /** Checks a job, and tells what it will need: `{ bytes, steps, warnings }`. `image` and `mask` are ImageData. */
  check(job, { image, mask } = {}) {
    return this.#call("check", { job, image, mask });
  }

  /**
   * Makes a picture: `{ image, sample, steps, evaluations, seconds }`. `onStep` is told every step with its pictures. Aborting the signal ends the run at
   * its next step, and rejects with an AbortError.
   */
  async generate(job, { image, mask, signal, onStep } = {}) {
    signal?.throwIfAborted();
    const asked = this.#call("generate", { job, image, mask }, { tell: onStep });
    const cancel = () => this.#worker?.postMessage({ call: "cancel", run: asked.id });
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const made = await asked;
      if (made.cancelled) throw signal?.reason ?? new DOMException("cancelled", "AbortError");
      return made;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** The samplers and schedules that a job may name. */
  samplers() {
    return this.#call("samplers", {});
  }

  /** Compares every kernel with its reference: `onCase` is told each. */
  selftest({ device = "gpu", leastLimits = false, onCase } = {}) {
    return this.#call("selftest", { device, leastLimits }, { tell: onCase });
  }

  /** Ends the engine, whatever it does. */
  close() {
    this.#end("the engine was closed");
  }
}
