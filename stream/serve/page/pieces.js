// What the views of one track and of one user share.

import { colour } from "./colours.js";
import { el, meter, state } from "./elements.js";
import { score } from "./format.js";

/** A form that asks for the id of what a view shows. */
export function askForId(view, { label, link }) {
  const input = el("input", { id: "wanted", autocomplete: "off", spellcheck: "false", required: true });
  const go = (event) => {
    event.preventDefault();
    location.hash = link(view, input.value);
  };
  return el("form", { class: "card find", onsubmit: go }, el("label", { for: "wanted" }, label), input, el("button", { class: "primary" }, "Show"));
}

/** Fill an element with what `ask` brings, drawn; it says so where that is nothing, and offers to try again. */
export async function fill(body, ask, { empty, drawn, signal }) {
  if (!body.hasChildNodes()) state(body, "loading", "Loading …");
  try {
    const rows = await ask();
    if (rows.length) body.replaceChildren(drawn(rows));
    else state(body, "empty", empty);
  } catch (error) {
    if (!signal.aborted) state(body, "error", error.message, { retry: () => fill(body, ask, { empty, drawn, signal }) });
  }
}

/** A function that calls `read`; calls while it runs become one more call after it. */
export function oneAtATime(read) {
  let running = null;
  let again = false;
  const run = async () => {
    do {
      again = false;
      await read();
    } while (again);
  };
  return () => {
    again = true;
    running ??= run().finally(() => (running = null));
    return running;
  };
}

/** Show that something is not known, or could not be read. */
export function showProblem(root, error, { name, unknown, retry }) {
  const isUnknown = error.status === 404;
  root.replaceChildren(el("h1", {}, name), el("div"));
  state(root.lastChild, isUnknown ? "empty" : "error", isUnknown ? unknown : error.message, isUnknown ? {} : { retry });
}

/** A genre with its colour. */
export const genreOf = (name) => (name ? el("span", { class: "genre", style: { "--genre": colour(name) } }, name) : null);

/** A column of scores, which go from -1 to 1; below 0 the bar is empty. */
export const SCORE = { name: "Score", numeric: true, of: (one) => meter(Math.max(0, one.score), score(one.score)) };

/** Columns of tracks that were found near something. */
export const foundColumns = ({ link }) => [
  { name: "Track", of: (one) => trackOf(one, link) },
  { name: "Genre", of: (one) => genreOf(one.genre) ?? el("span", { class: "muted" }, "none") },
  SCORE,
];

/** A link to a track by its title, or by its id where it has none. */
export const trackOf = ({ track_id: id, title }, link) => el("a", { href: link("track", id), class: title ? null : "id" }, title || id);

