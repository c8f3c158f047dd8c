// A model's files as blobs: fetched, checked as they come in, and kept by the browser, or given by the page. The engine reads one tensor after the other
// of them, so a model is in memory once, on its device. Where a browser keeps no files, its blobs hold what was fetched.

/** Kept files are named by their sums, and are there once those are right: what was broken off is an empty file. */
const FOLDER = "headwater-models";

/** Lists of models' files, as they were last seen. */
const LISTS = "headwater-lists";

/** The folder where files are kept; none where the browser refuses one, as in some private windows, or has no room for so many bytes. */
async function place(bytes) {
  try {
    const { quota, usage } = await navigator.storage.estimate();
    if (quota - usage < bytes) return null;
    return await (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create: true });
  } catch { return null; }
}

async function lists() {
  try { return await caches.open(LISTS); } catch { return null; }
}

/** The list of a model's files: the server's, or without a network the last that was seen. */
async function listed(url, signal) {
  const kept = await lists();
  let answer;
  try {
    answer = await fetch(url, { signal, cache: "no-cache" });
  } catch (error) {
    const known = signal.aborted ? null : await kept?.match(url).catch(() => null);
    if (!known) throw new Error(`${url}: cannot be fetched (${error.message})`);
    return known.json();
  }
  if (!answer.ok) throw new Error(`${url}: the server answers ${answer.status}`);
  const copy = answer.clone();
  let list;
  try { list = await answer.json(); } catch { list = null; }
  const isEntry = ({ path, bytes, sha256 }) => typeof path === "string" && Number.isSafeInteger(bytes) && /^[0-9a-f]{64}$/.test(sha256);
  if (!Array.isArray(list) || !list.every(isEntry)) throw new Error(`${url}: is no list of files with path, bytes and sha256`);
  await kept?.put(url, copy).catch(() => {});
  return list;
}

/** Where a file is written while it comes in: in the folder, or piece by piece in a blob. */
async function sink(folder, name) {
  if (folder) {
    try {
      const file = await folder.getFileHandle(name, { create: true });
      const stream = await file.createWritable();
      return { write: (piece) => stream.write(piece), drop: () => stream.abort(), close: async () => { await stream.close(); return file.getFile(); } };
    } catch { /* A browser that can only read there. */ }
  }
  const pieces = [];
  return { write: async (piece) => { pieces.push(new Blob([piece])); }, drop: async () => {}, close: async () => new Blob(pieces) };
}

/** One file: what is kept of it, or fetched now. Whatever does not have the sum that the list tells is not used. */
async function fetched(url, entry, folder, { signal, tell, Sum }) {
  const known = await folder?.getFileHandle(entry.sha256).then((file) => file.getFile()).catch(() => null);
  if (known?.size === entry.bytes) return known;
  const response = await fetch(url, { signal });
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  const to = await sink(folder, entry.sha256);
  const sum = new Sum();
  try {
    let bytes = 0;
    const reader = response.body.getReader();
    for (let read; !(read = await reader.read()).done;) {
      sum.add(read.value);
      tell(bytes += read.value.length);
      try {
        await to.write(read.value);
      } catch (error) {
        // The disk is full: once more, without keeping it.
        if (!folder) throw error;
        await reader.cancel().catch(() => {});
        return await fetched(url, entry, null, { signal, tell, Sum });
      }
    }
    if (bytes !== entry.bytes) throw new Error(`${url}: has ${bytes} bytes and should have ${entry.bytes}`);
    if (sum.hex() !== entry.sha256) throw new Error(`${url}: is not the file that its list tells of (its SHA-256 is another)`);
    return await to.close();
  } catch (error) {
    await to.drop().catch(() => {});
    throw error;
  } finally {
    sum.free();
  }
}

/**
 * The files of the model at an address, as pairs of path and blob. `most` is how many bytes the device holds, if that is known: what is larger is
 * refused before anything of it is fetched. `tell` is told how many bytes are there, of how many.
 */
export async function remote(url, { signal, most, tell, Sum }) {
  const list = await listed(new URL("files.json", url).href, signal);
  const of = list.reduce((sum, { bytes }) => sum + bytes, 0);
  check(of, most);
  const folder = await place(of);
  const files = [];
  let before = 0;
  for (const entry of list) {
    const told = (bytes) => tell({ bytes: before + bytes, of });
    files.push([entry.path, await fetched(new URL(entry.path, url).href, entry, folder, { signal, tell: told, Sum })]);
    told(entry.bytes);
    before += entry.bytes;
  }
  return files;
}

/** Refuses a model that is larger than its device. */
export function check(bytes, most) {
  const shown = (count) => `${(count / 1e9).toFixed(1)} GB`;
  if (bytes > most) throw new Error(`the model has ${shown(bytes)}, and a page's processor holds ${shown(most)}: it needs WebGPU`);
}
