// What is heard now: tracks as they are answered, and how the workers are.

export const title = "Now";

const SHOWN = 50;

export function show(root, { signal, page }) {
  const { el, state, card, events, get, post, link, fmt, colour } = page;
  root.append(el("h1", {}, title));
  const list = el("div");
  root.append(card("Tracks, as they are answered", list));
  state(list, "empty", "Waiting for the next track.");
  return events.on("track", async ({ id }) => {
    const { tracks } = await post("/v1/tracks/batch?fields=genre,confidence,tags,title,artist_id", { ids: [id] }, { signal });
    for (const track of tracks) list.prepend(el("p", {}, el("a", { href: link("track", id) }, track.title ?? id)));
  });
}
