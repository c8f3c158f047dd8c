// What every transport and the page have in common.

/** What was asked for cannot be done, in one sentence; `field` is the one that it is about. */
class Refusal extends Error {
  constructor(message, { field = null, status = 0, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { field, status, retryAfter });
  }
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** Seeds have 64 bits, more than a number in a script: longer ones become texts, which the server takes as well. */
const parsed = (text) => JSON.parse(text.replace(/"seed":\s*(\d{16,})/g, '"seed":"$1"'));

/** Settings that survive; a browser that keeps nothing for this page gets the defaults each time. */
const kept = {
  get(name) { try { return localStorage.getItem(`headwater-${name}`); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(`headwater-${name}`, value); } catch { /* It is a convenience alone. */ } },
};
