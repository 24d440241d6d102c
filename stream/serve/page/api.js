// What the page asks of the HTTP API: answers, the token that some of them need, and the stream of events.

import { askForToken } from "./token.js";

const BASE = new URL("..", import.meta.url);

/** A request that was not answered (RFC 9457): status is 0 where the server did not answer at all. */
export class Problem extends Error {
  constructor({ status, title, detail, type }) {
    super(detail || title);
    Object.assign(this, { status, title, detail: detail || title, type });
  }
}

/** GET; as: "json" or "buffer". */
export const get = (path, { signal, as = "json" } = {}) => ask(path, { signal }, as);

/** POST of an object as JSON, or of a Blob or buffer as it is, under the Content-Type that headers give it. */
export function post(path, body, { headers = {}, signal } = {}) {
  const raw = body instanceof Blob || body instanceof ArrayBuffer || ArrayBuffer.isView(body);
  return ask(
    path,
    { method: "POST", body: raw ? body : JSON.stringify(body), signal, headers: { "Content-Type": "application/json", ...headers } },
    "json",
  );
}

async function ask(path, options, as) {
  for (;;) {
    const used = token();
    const answer = await sent(path, options);
    if (answer.status === 401 && (await askForToken({ refused: used }))) continue;
    if (!answer.ok) throw await problem(answer);
    if (answer.status === 204) return null;
    return as === "buffer" ? answer.arrayBuffer() : answer.json();
  }
}

/** The answer itself, with the token. Throws a Problem of status 0, or AbortError. */
async function sent(path, options = {}) {
  const bearer = token() ? { Authorization: `Bearer ${token()}` } : {};
  try {
    return await fetch(new URL(path.replace(/^\//, ""), BASE), { ...options, headers: { ...options.headers, ...bearer } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ status: 0, title: "tastewave serve does not answer", detail: "tastewave serve does not answer; look whether it runs" });
  }
}

async function problem(answer) {
  const told = await answer.json().catch(() => ({}));
  return new Problem({ title: answer.statusText || `Status ${answer.status}`, ...told, status: answer.status });
}

export const token = () => sessionStorage.getItem("token");

const KINDS = { track: "tracks", track_removed: "tracks", user: "all", user_removed: "all" };
const SILENT_MS = 40_000; // the server gives a sign of life every 15 s
const WAIT_MS = [500, 10_000];

/**
 * One stream of /v1/events for the whole page; it connects again by itself, and goes on after the last event.
 *
 *     const off = events.on("track", ({ id, genre, status, at }) => ...)
 *
 * Kinds are those of the API: track, track_removed, user, user_removed, release, missed, problem; and "state", told when
 * `events.state` changes: "connecting", "open" or "away". Events of users are asked for while somebody listens to them.
 */
class Events {
  state = "connecting";
  problem = null;
  #listeners = new Map();
  #last = null;
  #stream = null;
  #of = null;

  on(kind, fn) {
    if (!this.#listeners.has(kind)) this.#listeners.set(kind, new Set());
    this.#listeners.get(kind).add(fn);
    this.#follow();
    return () => {
      this.#listeners.get(kind).delete(fn);
      this.#follow();
    };
  }

  #follow() {
    const wanted = [...this.#listeners].some(([kind, fns]) => fns.size && KINDS[kind] === "all") ? "all" : "tracks";
    if (this.#of === wanted) return;
    this.#of = wanted;
    this.#stream?.abort();
    this.#stream = new AbortController();
    this.#run(wanted, this.#stream.signal);
  }

  async #run(of, signal) {
    let wait = WAIT_MS[0];
    while (!signal.aborted) {
      try {
        const answer = await sent(`v1/events?of=${of}`, { signal, headers: this.#last ? { "Last-Event-ID": this.#last } : {} });
        if (answer.status === 401) {
          if (!(await askForToken({ refused: token() }))) of = "tracks"; // without those of users
          continue;
        }
        if (answer.status === 400) this.#last = null;
        if (!answer.ok) throw await problem(answer);
        this.#become("open");
        wait = WAIT_MS[0];
        await this.#read(answer.body, signal);
      } catch (error) {
        if (signal.aborted) return;
      }
      this.#become("away");
      await new Promise((go) => setTimeout(go, wait));
      wait = Math.min(2 * wait, WAIT_MS[1]);
    }
  }

  async #read(body, signal) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let silent;
    try {
      for (;;) {
        silent = setTimeout(() => reader.cancel(), SILENT_MS);
        const { value, done } = await reader.read();
        clearTimeout(silent);
        if (done || signal.aborted) return;
        const blocks = (text + value).split("\n\n");
        text = blocks.pop();
        for (const block of blocks) this.#take(block);
      }
    } finally {
      clearTimeout(silent);
      reader.cancel().catch(() => {});
    }
  }

  #take(block) {
    const fields = {};
    for (const line of block.split("\n")) {
      const colon = line.indexOf(": ");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
    }
    if (!fields.data) return;
    if (fields.id) this.#last = fields.id;
    const told = JSON.parse(fields.data);
    if (fields.event === "problem") this.problem = told.problem;
    this.#tell(fields.event, told);
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    if (state !== "open") this.problem = null;
    this.#tell("state", state);
  }

  #tell(kind, what) {
    for (const fn of [...(this.#listeners.get(kind) || [])]) fn(what);
  }
}

export const events = new Events();
