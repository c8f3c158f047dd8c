// The history: finished pictures with their steps, in this browser's own database (IndexedDB).

/** The most pictures that are kept; the oldest go first. */
const MOST_KEPT = 100;

const store = (() => {
  const wait = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  let opened = null;
  async function shelf(mode) {
    opened ??= (() => {
      const request = indexedDB.open("headwater", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("pictures", { keyPath: "id", autoIncrement: true });
      return wait(request);
    })();
    return (await opened).transaction("pictures", mode).objectStore("pictures");
  }
  return {
    /** Newest first. */
    async all() { return (await wait((await shelf("readonly")).getAll())).reverse(); },
    async add(entry) {
      const id = await wait((await shelf("readwrite")).add(entry));
      const ids = await wait((await shelf("readonly")).getAllKeys());
      for (const old of ids.slice(0, Math.max(0, ids.length - MOST_KEPT))) await this.remove(old);
      return id;
    },
    async remove(id) { await wait((await shelf("readwrite")).delete(id)); },
    async clear() { await wait((await shelf("readwrite")).clear()); },
  };
})();
