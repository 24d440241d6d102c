// Review: the tracks that need an editor most, one after the other, by the keyboard.

import { nameField } from "../editor.js";

export const title = "Review";

const PAGE = 20;
const KEYS = "1234567890abcdefghilmnopqrstvwxyz"; // without j, k and u, which move
const BECAUSE = {
  tags: "The release abstained: the strongest tag names another kind of music.",
  confidence: "The release abstained: its best guess is too unlikely.",
  training_tracks: "The release abstained: the track is unlike those that it learned from.",
};

export function show(root, { signal, page }) {
  const { el, state, get, post, events, fmt, colour, link, Problem } = page;
  let told = null;
  let items = []; // {track, choice, said: null | "saving" | "saved" | "failed", problem}
  let at = 0;
  let next = null;
  let loading = false;
  let heard = null; // URL of the audio that is played
  const corrected = []; // items, the last one at the end

  const name = nameField();
  const queue = el("ol", { class: "queue card", "aria-label": "Queue" });
  const detail = el("section", { class: "card track", "aria-label": "Track" });
  const list = el("div", { class: "desk" }, detail, queue);
  root.append(el("div", { class: "row heading" }, el("h1", {}, title), el("button", { type: "button", onclick: load }, "Reload")), list);
  state(list, "loading", "Loading …");

  async function load() {
    try {
      told = await get(`/v1/review?limit=${PAGE}`, { signal });
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Problem)) throw error;
      state(list, "error", error.detail, { retry: load });
      return;
    }
    items = told.tracks.map((track) => ({ track, choice: null, said: null }));
    next = told.next;
    at = 0;
    if (!items.length) return state(list, "empty", "Nothing to review: the release was sure of every track.");
    list.replaceChildren(detail, queue);
    drawQueue();
    drawTrack();
  }

  async function loadMore() {
    if (!next || loading) return;
    loading = true;
    try {
      const more = await get(`/v1/review?limit=${PAGE}&after=${encodeURIComponent(next)}`, { signal });
      const known = new Set(items.map(({ track }) => track.track_id));
      const come = more.tracks.filter((track) => !known.has(track.track_id)).map((track) => ({ track, choice: null, said: null }));
      items.push(...come);
      next = more.next;
      drawQueue();
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof Problem)) throw error; // there is a button to try again
    } finally {
      loading = false;
    }
  }

  function choicesOf({ track }) {
    const guesses = track.genres.map(([genre]) => genre);
    return [...guesses, ...told.known_genres.filter((genre) => !guesses.includes(genre))].slice(0, KEYS.length);
  }

  function drawQueue() {
    queue.replaceChildren(
      ...items.map((item, place) => {
        const { track, said } = item;
        const guess = item.choice && said ? item.choice : track.genres[0]?.[0];
        return el(
          "li",
          {},
          el(
            "button",
            { type: "button", "aria-current": place === at ? "true" : null, onclick: () => move(place) },
            el("span", { class: "name" }, track.title ?? track.track_id),
            el("span", { class: "genre small", style: { "--genre": colour(guess) } }, guess ?? "no guess"),
            said
              ? el("span", { class: `status small ${said === "failed" ? "bad" : "good"}` }, said)
              : el("span", { class: "small muted number" }, track.confidence === undefined ? "" : fmt.percent(track.confidence)),
          ),
        );
      }),
      next ? el("li", {}, el("button", { type: "button", class: "more", onclick: loadMore }, "More tracks")) : "",
    );
    queue.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  function drawTrack() {
    const item = items[at];
    const { track } = item;
    silence();
    const why = el(
      "p",
      { class: "muted" },
      track.status === "abstained" ? "The release abstained." : `The release says ${track.genre}, and is not sure.`,
    );
    const player = el("div", { class: "player" });
    const other = el("input", { id: "other", list: "genres", maxlength: "256", "aria-label": "Another genre", placeholder: "Another genre" });
    other.addEventListener("input", () => choose(other.value.trim() || null));
    detail.replaceChildren(
      el(
        "div",
        { class: "row pager" },
        el("button", { type: "button", disabled: at === 0, onclick: () => move(at - 1) }, "Previous ", el("kbd", { "aria-hidden": "true" }, "k")),
        el("span", { class: "muted" }, `${fmt.number(at + 1)} of ${fmt.number(items.length)}${next ? "+" : ""}`),
        el("button", { type: "button", disabled: at === items.length - 1 && !next, onclick: () => move(at + 1) }, "Next ", el("kbd", { "aria-hidden": "true" }, "j")),
      ),
      el(
        "div",
        { class: "row who" },
        el("h2", {}, track.title ?? track.track_id),
        el("span", { class: "muted" }, [track.artist_id, track.duration_ms && fmt.position(track.duration_ms)].filter(Boolean).join(" · ")),
        el("a", { class: "id", href: link("track", track.track_id) }, track.track_id),
      ),
      why,
      player,
      el("div", { class: "tags", role: "group", "aria-label": "Tags" }, track.tags.map(([tag, share]) => el("span", { class: "tag" }, tag, " ", fmt.percent(share)))),
      el(
        "div",
        { class: "choices", role: "group", "aria-label": "Genre" },
        choicesOf(item).map((genre, place) => {
          const share = track.genres.find(([name]) => name === genre)?.[1];
          return el(
            "button",
            { type: "button", class: "choice", "data-genre": genre, "aria-pressed": "false", disabled: !told.may_correct, onclick: () => choose(genre) },
            el("kbd", { "aria-hidden": "true" }, KEYS[place]),
            el("span", { class: "genre", style: { "--genre": colour(genre) } }, genre),
            share !== undefined && page.meter(share, fmt.percent(share)),
          );
        }),
      ),
      told.may_correct
        ? el(
            "form",
            {
              class: "row confirm",
              onsubmit: (event) => {
                event.preventDefault();
                confirm();
              },
            },
            other,
            el("datalist", { id: "genres" }, told.known_genres.map((genre) => el("option", { value: genre }))),
            name.field,
            el("button", { type: "submit", class: "primary" }, "Save"),
            el("span", { class: "outcome", role: "status" }),
          )
        : el("p", { class: "muted" }, "Nothing can be corrected here: TASTEWAVE_SERVE_CORRECTIONS is off. ", el("code", {}, "tastewave correct"), " does it."),
      told.may_correct &&
        el(
          "p",
          { class: "keys small muted" },
          [["1 … z", "choose"], ["Enter", "save"], ["u", "back to the last saved"]].map(([key, what]) =>
            el("span", {}, el("kbd", {}, key), " ", what),
          ),
        ) || "",
    );
    drawChoice();
    explain(item, why, player);
  }

  /** Why the release abstained, and whether the track can be heard. */
  async function explain({ track }, why, player) {
    let more;
    try {
      more = await get(`/v1/tracks/${encodeURIComponent(track.track_id)}/explanation`, { signal });
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof Problem)) throw error;
      return;
    }
    if (more.abstained_because) why.textContent = BECAUSE[more.abstained_because];
    if (!more.has_audio) return;
    const listen = el("button", { type: "button", onclick: play }, "Listen");
    player.replaceChildren(listen);

    async function play() {
      listen.disabled = true;
      try {
        const bytes = await get(`/v1/tracks/${encodeURIComponent(track.track_id)}/audio`, { signal, as: "buffer" });
        if (items[at]?.track !== track) return;
        heard = URL.createObjectURL(new Blob([bytes]));
        player.replaceChildren(el("audio", { src: heard, controls: true, autoplay: true }));
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!(error instanceof Problem)) throw error;
        player.replaceChildren(el("p", { class: "bad" }, error.detail));
      }
    }
  }

  function silence() {
    if (heard) URL.revokeObjectURL(heard);
    heard = null;
  }

  function drawChoice() {
    const { choice, said, problem } = items[at];
    for (const button of detail.querySelectorAll(".choice")) button.ariaPressed = String(button.dataset.genre === choice);
    const outcome = detail.querySelector(".outcome");
    if (!outcome) return;
    detail.querySelector(".primary").disabled = !choice || said === "saving";
    outcome.className = `outcome ${said === "failed" ? "bad" : "good"}`;
    outcome.textContent = { saving: "Saving …", saved: `Saved as ${choice}. Another choice replaces it.`, failed: problem }[said] ?? "";
  }

  function choose(genre) {
    if (!told.may_correct) return;
    const item = items[at];
    if (item.said !== "saving") Object.assign(item, { choice: genre, said: null });
    const other = detail.querySelector("#other");
    if (document.activeElement !== other) other.value = choicesOf(item).includes(genre) ? "" : genre ?? "";
    drawChoice();
    drawQueue();
  }

  function move(place) {
    at = Math.max(0, Math.min(items.length - 1, place));
    drawQueue();
    drawTrack();
    if (at >= items.length - 5) loadMore();
  }

  /** Save what was chosen, and go on. It shows at once, and is taken back where the server refuses it. */
  async function confirm() {
    const item = items[at];
    if (!item.choice || item.said === "saving") return;
    const by = name.value();
    if (!by) return;
    item.said = "saving";
    corrected.push(item);
    move(at + 1);
    const genre = item.choice;
    try {
      await post("/v1/corrections", { track_id: item.track.track_id, genre, by });
      item.said = "saved";
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      Object.assign(item, { said: "failed", problem: error.detail });
    }
    if (signal.aborted) return;
    drawQueue();
    drawChoice();
  }

  function onKey(event) {
    if (!items.length || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const place = event.key.length === 1 ? KEYS.indexOf(event.key.toLowerCase()) : -1;
    if (event.key === "j") move(at + 1);
    else if (event.key === "k") move(at - 1);
    else if (event.key === "u" && corrected.length) move(items.indexOf(corrected.pop()));
    else if (event.key === "Enter" && !event.target.closest("button, a")) confirm();
    else if (place >= 0 && told.may_correct && choicesOf(items[at])[place]) choose(choicesOf(items[at])[place]);
    else return;
    event.preventDefault();
  }

  /** What became of a track elsewhere. */
  function onTrack({ id, status, genre }) {
    const item = items.find(({ track }) => track.track_id === id);
    if (!item || status !== "corrected" || item.said === "saving") return;
    Object.assign(item, { choice: genre, said: "saved" });
    drawQueue();
    if (item === items[at]) drawChoice();
  }

  function onRemoved({ id }) {
    const place = items.findIndex(({ track }) => track.track_id === id);
    if (place < 0) return;
    items.splice(place, 1);
    if (!items.length) return load();
    if (place < at) at -= 1;
    move(at);
  }

  document.addEventListener("keydown", onKey, { signal });
  const offs = [events.on("track", onTrack), events.on("track_removed", onRemoved), events.on("release", load), events.on("missed", load)];
  load();
  return () => {
    silence();
    offs.forEach((off) => off());
  };
}
