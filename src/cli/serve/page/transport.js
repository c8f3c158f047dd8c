// Everything that the page asks of whoever makes the pictures goes through `transport`. This one speaks to `headwater serve`; another that has the
// same methods can take its place, such as one around an engine in the browser itself:
//
//   models()            promise of a list, as of /api/models
//   samplers()          promise of { samplers, schedules }, as of /api/samplers
//   info()              promise of { version, devices, limits }
//   submit(job)         promise of a job that waits, { id, count, … }; rejected with a Refusal
//   watch(id, tell)     calls tell(event, data) for everything that happens to the job, from its beginning; resolved after the last. "lost" is told
//                       while whoever makes the picture is not reached; rejected when that goes on
//   cancel(id)          asks that the job end at its next step
//   image(told)         promise of a Blob: the file of an image, as the event `image` tells it
//   open(files)         promise of the model that a Map of paths and files is, once it can be used; null where models cannot be opened from here
//   measures            whether a job may have a `reference`, and its steps are told with their distances to the solution of the ODE

const transport = (() => {
  // Tells the jobs of this browser from those of others that the server cannot tell apart.
  const client = kept.get("client") ?? `page-${[...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16)).join("")}`;
  kept.set("client", client);
  const LAST = ["done", "failed", "cancelled"];

  async function ask(path, options = {}) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: { "X-Headwater-Client": client, ...options.headers } });
    } catch {
      throw new Refusal("The server does not answer: is it still running?");
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    const { message = `The server answers ${response.status}`, param: field = null } = told.error ?? {};
    throw new Refusal(message, { field, status: response.status, retryAfter: Number(response.headers.get("retry-after")) || 1 });
  }

  const json = async (path, options) => parsed(await (await ask(path, options)).text());

  /** Reads server-sent events until the stream ends or breaks; fetch, unlike EventSource, says who asks. */
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      let part;
      try { part = await reader.read(); } catch { return; }
      if (part.done) return;
      text += part.value;
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const event = {};
        for (const line of text.slice(0, end).split("\n")) {
          const colon = line.indexOf(":");
          if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
        }
        if (event.data !== undefined) yield event;
      }
    }
  }

  async function watch(id, tell) {
    let last = null;
    for (let failures = 0; failures < 8; failures++) {
      if (failures > 0) await pause(Math.min(failures * 0.5, 2));
      let response;
      try {
        response = await ask(`/api/jobs/${id}/events`, last === null ? {} : { headers: { "Last-Event-ID": last } });
      } catch (error) {
        if (error.status === 404 && last !== null) throw new Refusal("The server was started again, and knows nothing of this job any more.", { status: 404 });
        if (error.status) throw error;
        tell("lost", {});
        continue;
      }
      if (response.status === 204) return;
      for await (const event of events(response)) {
        failures = 0;
        last = event.id ?? last;
        tell(event.event, parsed(event.data));
        if (LAST.includes(event.event)) return;
      }
    }
    throw new Refusal("The connection to the server was lost.");
  }

  return {
    models: async () => (await json("/api/models")).models,
    samplers: () => json("/api/samplers"),
    info: () => json("/api/info"),
    submit: (job) => json("/api/jobs", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(job) }),
    watch,
    cancel: async (id) => { await ask(`/api/jobs/${id}`, { method: "DELETE" }); },
    image: async (told) => (await ask(told.url)).blob(),
    open: null,
    measures: true,
  };
})();
