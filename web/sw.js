// Keeps the page and its engines, so that it opens without a network after its first visit. Models are kept by models.js, which checks their sums.

const KEPT = "headwater-page-VERSION";
const FILES = ["./", "FILES"];

// With these a page may share memory between threads. Servers of files seldom send them, so they are added to what is kept.
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

addEventListener("install", (event) => event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(FILES)).then(() => skipWaiting())));

addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith("headwater-page-") && name !== KEPT) await caches.delete(name);
  await clients.claim();
})()));

async function answer(request) {
  const known = await (await caches.open(KEPT)).match(request, { ignoreSearch: true });
  if (!known) return fetch(request);
  const { status, statusText } = known;
  return new Response(known.body, { status, statusText, headers: { ...Object.fromEntries(known.headers), ...ISOLATED } });
}

addEventListener("fetch", (event) => {
  const isOwn = new URL(event.request.url).origin === location.origin;
  if (event.request.method === "GET" && isOwn) event.respondWith(answer(event.request));
});
