// Keeps the page and its engine, so that it opens without a network after its first visit. Models are kept by models.js, which checks their sums.

const KEPT = "headwater-page-VERSION";
const FILES = ["./", "./index.html", "./index.js", "./worker.js", "./models.js", "./headwater_web.js", "./headwater_web_bg.wasm"];

addEventListener("install", (event) => event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(FILES)).then(() => skipWaiting())));

addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith("headwater-page-") && name !== KEPT) await caches.delete(name);
  await clients.claim();
})()));

addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  event.respondWith((async () => (await (await caches.open(KEPT)).match(event.request, { ignoreSearch: true })) ?? fetch(event.request))());
});
