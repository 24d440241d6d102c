// What is heard now: tracks as they are answered, how fast events are done, and how the workers are.

export const title = "Now";

const SHOWN = 20;
const SPANS = 120; // of five seconds: ten minutes
const LOOK_EVERY_MS = 2000;
const GATHER_MS = 250; // tracks that come within it are asked for together
const FIELDS = "genre,confidence,tags,title,artist_id,reason";

export function show(root, { signal, page }) {
  const { el, card } = page;
  const parts = {
    about: el("span", { class: "muted" }),
    tracks: el("div", { class: "figure" }),
    listens: el("div", { class: "figure" }),
    lag: el("div", { class: "figure" }),
    list: el("div"),
    workers: el("div"),
    dead: el("div"),
  };
  root.append(
    el("div", { class: "row" }, el("h1", {}, title), parts.about),
    el("div", { class: "figures" }, card("Tracks", parts.tracks), card("Listens", parts.listens), card("Waiting", parts.lag)),
    el(
      "div",
      { class: "columns" },
      card("Tracks as they are answered", parts.list),
      el("div", { class: "side" }, card("Workers", parts.workers), card("Dead letters", parts.dead)),
    ),
  );
  const tracks = new Tracks(parts.list, { signal, page });
  const look = async () => {
    if (!document.hidden) {
      try {
        const now = await page.get("/v1/now", { signal });
        showNow(parts, now, page);
        tracks.show(now.newest.map((one) => one.track_id));
      } catch (error) {
        if (signal.aborted) return;
        page.state(parts.workers, "error", error.message);
      }
    }
    tracks.tick();
  };
  look();
  const timer = setInterval(look, LOOK_EVERY_MS);
  const off = [
    page.events.on("track", ({ id }) => tracks.show([id], { isNew: true })),
    page.events.on("track_removed", ({ id }) => tracks.remove(id)),
    page.events.on("release", () => tracks.clear()),
  ];
  return () => {
    clearInterval(timer);
    for (const end of off) end();
  };
}

/** The list of tracks, the one that was answered last on top. */
class Tracks {
  #root;
  #page;
  #signal;
  #body = null;
  #rows = new Map(); // id -> {row, at, ago}
  #wanted = new Set();
  #timer = null;

  constructor(root, { signal, page }) {
    this.#root = root;
    this.#page = page;
    this.#signal = signal;
    this.clear();
  }

  /** Show tracks that are not there yet; new ones are read again where they are. */
  show(ids, { isNew = false } = {}) {
    for (const id of ids) if (isNew || !this.#rows.has(id)) this.#wanted.add(id);
    if (this.#wanted.size) this.#timer ??= setTimeout(() => this.#fetch(), GATHER_MS);
  }

  async #fetch() {
    const ids = [...this.#wanted].slice(-SHOWN);
    this.#wanted.clear();
    this.#timer = null;
    try {
      const { tracks } = await this.#page.post(`/v1/tracks/batch?fields=${FIELDS}`, { ids }, { signal: this.#signal });
      for (const track of tracks) this.#put(track);
    } catch (error) {
      // The banner says that the server is away; the next look at /v1/now asks again.
      if (!(error instanceof this.#page.Problem) && !this.#signal.aborted) throw error;
    }
  }

  #put(track) {
    if (this.#rows.get(track.track_id)?.at >= track.tagged_at) return;
    this.#rows.get(track.track_id)?.row.remove();
    this.#body ??= this.#table();
    const ago = this.#page.el("span", {}, this.#page.fmt.ago(track.tagged_at));
    const row = trackRow(track, ago, this.#page);
    const older = [...this.#body.children].find((other) => this.#rows.get(other.dataset.id).at <= track.tagged_at);
    this.#body.insertBefore(row, older ?? null);
    this.#rows.set(track.track_id, { row, at: track.tagged_at, ago });
    while (this.#body.children.length > SHOWN) this.remove(this.#body.lastChild.dataset.id);
  }

  #table() {
    const { el } = this.#page;
    const body = el("tbody");
    const head = el("tr", {}, Object.entries(COLUMNS).map(([name, kind]) => el("th", { scope: "col", class: kind }, name)));
    this.#root.replaceChildren(el("table", { class: "tracks" }, el("thead", {}, head), body));
    return body;
  }

  remove(id) {
    this.#rows.get(id)?.row.remove();
    this.#rows.delete(id);
    if (this.#body && !this.#body.children.length) this.clear();
  }

  clear() {
    this.#rows.clear();
    this.#body = null;
    this.#page.state(this.#root, "empty", "Waiting for the next track. The last ten minutes brought none.");
  }

  tick() {
    for (const { ago, at } of this.#rows.values()) ago.textContent = this.#page.fmt.ago(at);
  }
}

const COLUMNS = { Track: "of-track", Genre: "", Confidence: "wide", Tags: "wide", "To cache": "wide numeric" };

function trackRow(track, ago, { el, fmt, colour, link, meter }) {
  const { track_id: id, status, genre, confidence, reason } = track;
  const toCache = fmt.duration(track.tagged_at - track.event_time);
  const verdict =
    status === "failed" ? el("span", { class: "status bad" }, `failed: ${reason}`)
    : genre ? el("span", { class: "genre", style: { "--genre": colour(genre) } }, genre, status === "corrected" && el("span", { class: "muted" }, "(editor)"))
    : el("span", { class: "status muted" }, "abstained");
  return el(
    "tr",
    { "data-id": id, class: Date.now() - track.tagged_at < 5000 && "new" },
    el(
      "td",
      { class: "of-track" },
      el("a", { href: link("track", id) }, track.title ?? id),
      el("div", { class: "muted small" }, track.artist_id && `${track.artist_id} · `, ago),
    ),
    el(
      "td",
      {},
      verdict,
      el("div", { class: "narrow muted small" }, [confidence !== undefined && fmt.percent(confidence), toCache].filter(Boolean).join(" · ")),
    ),
    el("td", { class: "wide" }, confidence === undefined ? "–" : meter(confidence, fmt.percent(confidence))),
    el("td", { class: "wide" }, (track.tags ?? []).slice(0, 3).map(([tag]) => el("span", { class: "tag" }, tag))),
    el("td", { class: "wide numeric" }, toCache),
  );
}

function showNow(parts, now, page) {
  const { el, state, fmt, link } = page;
  parts.about.replaceChildren(
    ...(now.release ? ["Release ", el("code", {}, now.release)] : ["No release is live"]),
    now.problem ? el("span", { class: "warn" }, ` · ${now.problem}`) : "",
  );
  const lately = now.spans.slice(-12);
  const seconds = lately.reduce((sum, span) => sum + span.ms, 0) / 1000;
  const perSecond = (what) => (seconds ? lately.reduce((sum, span) => sum + span[what], 0) / seconds : null);
  const rates = (what) => now.spans.map((span) => (span[what] * 1000) / span.ms);
  figure(parts.tracks, rate(perSecond("tracks"), fmt), rates("tracks"), "Tracks done", page);
  figure(parts.listens, rate(perSecond("listens"), fmt), rates("listens"), "Listens done", page);
  const lag = now.workers.reduce((sum, one) => sum + (one.silent || one.release !== now.release ? 0 : one.lag), 0);
  figure(parts.lag, [fmt.number(lag), lag === 1 ? "event" : "events"], now.spans.map((span) => span.lag), "Events that wait", page);

  if (now.workers.length) parts.workers.replaceChildren(el("ul", { class: "workers" }, now.workers.map((one) => worker(one, page))));
  else state(parts.workers, "empty", "No worker has spoken in the last ten minutes. Start one: tastewave worker tracks");

  const reasons = Object.entries(now.dead_letters);
  if (!reasons.length) state(parts.dead, "empty", "None since these workers started.");
  else {
    parts.dead.replaceChildren(
      el("dl", { class: "reasons" }, reasons.map(([reason, count]) => [el("dt", {}, el("code", {}, reason)), el("dd", {}, fmt.number(count))])),
      el("p", { class: "muted small" }, "Since these workers started. ", el("a", { href: link("dead-letters") }, "Look at them")),
    );
  }
}

/** [number, unit] of a rate. */
function rate(perSecond, fmt) {
  if (perSecond === null) return ["–", ""];
  if (perSecond >= 2) return [fmt.compact(perSecond), "a second"];
  return [fmt.number(perSecond * 60), "a minute"];
}

function figure(root, [number, unit], values, what, { el, sparkline }) {
  const padded = [...Array(Math.max(0, SPANS - values.length)).fill(null), ...values];
  root.replaceChildren(
    el("p", { class: "value" }, el("strong", {}, number), ` ${unit}`),
    sparkline(padded, { label: `${what} over the last ten minutes; now ${number} ${unit}` }),
    el("p", { class: "axis muted small", "aria-hidden": "true" }, el("span", {}, "10 min ago"), el("span", {}, "now")),
  );
}

function worker(one, { el, fmt }) {
  const problems = Object.entries(one.problems);
  const [kind, word] = one.silent ? ["bad", "silent"] : problems.length ? ["warn", "not ready"] : ["good", "ready"];
  const facts = [
    `${fmt.number(one.lag)} waiting`,
    `${fmt.number(one.in_hand)} in hand`,
    one.processes && `${fmt.number(one.processes)} ${one.processes === 1 ? "process" : "processes"}`,
    one.restarts && fmt.plural(one.restarts, "restart"),
  ];
  return el(
    "li",
    {},
    el(
      "div",
      { class: "head" },
      el("span", {}, el("strong", {}, one.role), " ", el("code", { class: "muted" }, one.release)),
      el("span", { class: `status ${kind}` }, one.silent ? `silent for ${fmt.duration(Date.now() - one.at)}` : word),
    ),
    el("div", { class: "muted small" }, facts.filter(Boolean).join(" · "), " · ", el("span", { class: "nowrap" }, `up ${fmt.duration(one.at - one.started_at)}`)),
    problems.map(([server, problem]) => el("div", { class: "small problem" }, el("strong", {}, server), ` ${problem}`)),
  );
}
