// A user: what they listened to of late, where that puts them, and what they would be offered.

import { askForId, fill, foundColumns, oneAtATime, showProblem, trackOf } from "../pieces.js";
import { smallMap } from "../small_map.js";

export const title = "User";

const TICK_MS = 15_000;
const LISTENS = 30;
const OFFERS = 20;
const MOST_OFFERS = 100; // of which the genres to choose from are taken

export async function show(root, { id, signal, page }) {
  const { el, state, events, link } = page;
  if (!id) {
    root.append(el("h1", {}, title), askForId("user", { label: "Id of the user", link }));
    return null;
  }
  const view = new View(root, { id, signal, page });
  state(root, "loading", "Loading the user …");
  const read = oneAtATime(() => view.read());
  await read();
  const mine = (event) => event.id === id && read();
  const ends = [events.on("user", mine), events.on("user_removed", mine), events.on("release", read)];
  const timer = setInterval(() => view.tellPlace(), TICK_MS);
  return () => {
    clearInterval(timer);
    for (const end of ends) end();
    view.close();
  };
}

class View {
  #root;
  #id;
  #path;
  #signal;
  #page;
  #user = null;
  #place;
  #map;
  #listens;
  #offers;
  #choice;

  constructor(root, { id, signal, page }) {
    const { el } = page;
    this.#root = root;
    this.#id = id;
    this.#path = `/v1/users/${encodeURIComponent(id)}`;
    this.#signal = signal;
    this.#page = page;
    const mapBody = el("div");
    const place = () => page.get(`/v1/map/users/${encodeURIComponent(id)}`, { signal });
    this.#map = { body: mapBody, ...smallMap(mapBody, { place, kind: "user", href: `#/map?user=${encodeURIComponent(id)}`, signal, page }) };
    [this.#place, this.#listens, this.#offers] = [el("div"), el("div", { class: "listens" }), el("div")];
    this.#choice = el("select", { "aria-label": "Genre of what is offered", onchange: () => this.#readOffers() }, el("option", { value: "" }, "All genres"));
  }

  /** Read all of it again. */
  async read() {
    try {
      const isShown = this.#user !== null;
      this.#user = await this.#page.get(`${this.#path}?fields=`, { signal: this.#signal });
      if (!isShown) this.#draw();
      this.tellPlace();
      await Promise.all([this.#map.read(), this.#readListens(), this.#readOffers()]);
    } catch (error) {
      if (this.#signal.aborted) return;
      this.#user = null;
      const unknown = "The live release knows no such user. They appear here with their first listen.";
      showProblem(this.#root, error, { name: this.#id, unknown, retry: () => this.read() });
    }
  }

  #draw() {
    const { el, card } = this.#page;
    this.#root.replaceChildren(
      el("h1", {}, this.#id),
      el("section", { class: "card where" }, el("div", {}, el("h2", {}, "Place in taste space"), this.#place), this.#map.body),
      el(
        "div",
        { class: "columns" },
        card("Recent listens", this.#listens),
        el("section", { class: "card" }, el("div", { class: "offers-head" }, el("h2", {}, "Would be offered"), this.#choice), this.#offers),
      ),
    );
  }

  /** Where the user stands since when; told anew as time goes by. */
  tellPlace() {
    if (!this.#user) return;
    const { el, fmt } = this.#page;
    const { source, refreshed_at: refreshedAt, event_time: eventTime, listens, release } = this.#user;
    const fact = (name, value, more) => el("div", {}, el("dt", {}, name), el("dd", {}, value), more && el("dd", { class: "muted small" }, more));
    this.#place.replaceChildren(
      el(
        "dl",
        { class: "place" },
        fact("Source", ...SOURCES[source]),
        fact("Embedding", fmt.ago(refreshedAt), fmt.time(refreshedAt)),
        fact("Listens that count", fmt.number(listens)),
        fact("Newest event", eventTime ? fmt.ago(eventTime) : "none", eventTime ? fmt.time(eventTime) : null),
        fact("Release", el("span", { class: "id" }, release)),
      ),
    );
  }

  close() {
    this.#map.close();
  }

  #readListens() {
    const { get, table } = this.#page;
    return fill(this.#listens, async () => (await get(`${this.#path}/listens?limit=${LISTENS}`, { signal: this.#signal })).listens, {
      empty: "No listen of theirs stands: there was none, or it was taken back.",
      drawn: (rows) => table(listenColumns(this.#page), rows, { label: "Recent listens" }),
      signal: this.#signal,
    });
  }

  #readOffers() {
    const { get, table } = this.#page;
    const genre = this.#choice.value;
    const ask = async () => {
      const wanted = genre ? `limit=${OFFERS}&genre=${encodeURIComponent(genre)}` : `limit=${MOST_OFFERS}`;
      const { tracks } = await get(`${this.#path}/tracks?${wanted}`, { signal: this.#signal });
      if (!genre) this.#tellGenres(tracks);
      return tracks.slice(0, OFFERS);
    };
    return fill(this.#offers, ask, {
      empty: genre ? `No track of ${genre} is new to them.` : "No track is new to them.",
      drawn: (rows) => table(foundColumns(this.#page), rows, { label: "Tracks that would be offered" }),
      signal: this.#signal,
    });
  }

  /** The genres to choose from: those of the nearest tracks. */
  #tellGenres(tracks) {
    const { el } = this.#page;
    const genres = [...new Set(tracks.map((one) => one.genre).filter(Boolean))].sort();
    this.#choice.replaceChildren(el("option", { value: "" }, "All genres"), ...genres.map((name) => el("option", { value: name }, name)));
  }
}

const SOURCES = {
  history: ["their listens"],
  global: ["everybody", "No listen places them yet, so they stand where all without a history do."],
};
const KINDS = { play: "played", skip: "skipped", like: "liked", dislike: "disliked", playlist_add: "into a playlist" };
const COUNTS_AS = {
  play: ["heard", "good"],
  partial: ["in part", "muted"],
  brief: ["turned away", "bad"],
  skip: ["turned away", "bad"],
  like: ["liked", "good"],
  dislike: ["disliked", "bad"],
  playlist_add: ["added", "good"],
};

function listenColumns({ el, fmt, link }) {
  const length = ({ played_ms: played, duration_ms: whole }) => (whole ? `${fmt.position(played)} of ${fmt.position(whole)}` : "");
  const counts = (signal) => {
    const [text, tone] = COUNTS_AS[signal];
    return el("span", { class: `status ${tone}` }, text);
  };
  return [
    { name: "When", of: ({ at }) => el("time", { class: "when", title: fmt.time(at), datetime: new Date(at).toISOString() }, fmt.ago(at)) },
    {
      name: "Track",
      of: (one) =>
        el(
          "div",
          {},
          trackOf(one, link),
          one.genre && el("div", { class: "small muted" }, one.genre),
          el("div", { class: "small muted narrow" }, `${KINDS[one.kind]} ${length(one)}`),
        ),
    },
    { name: "What", of: (one) => el("div", { class: "wide" }, KINDS[one.kind], el("div", { class: "small muted" }, length(one))) },
    { name: "Counts as", of: (one) => one.counts_as && counts(one.counts_as) },
  ];
}
