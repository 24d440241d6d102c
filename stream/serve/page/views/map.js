// The taste map: where tracks and a listener stand, seen from above.

import { MapCanvas } from "../map_canvas.js";
import { readMap } from "../map_data.js";
import { gestures } from "../map_gestures.js";
import { followTracks, followUser } from "../map_live.js";
import { drawGenres, genreCard, genreLabel, listenerCard, searchCard } from "../map_panels.js";

export const title = "Taste map";

const HOVER_MS = 40;

export async function show(root, { query, signal, page }) {
  const { el } = page;
  const map = new MapCanvas({ colour: page.colour });
  const view = { map, page, signal, selected: null, hovered: null, user: null, fresh: [] };
  Object.assign(view, {
    reload: () => reload(view),
    ofThisMap: (told) => ofThisMap(view, told),
    choose: (track) => choose(view, track),
    drawMarks: () => drawMarks(view),
    caption: el("p", { class: "muted" }),
    frame: el("div", { class: "map-frame" }),
    tip: el("div", { class: "map-tip", hidden: true }),
    empty: el("div", { class: "map-empty", hidden: true }),
    track: el("div", { "aria-live": "polite" }),
    genres: el("ul", { class: "map-genres" }),
  });
  Object.assign(map.element, { tabIndex: 0, role: "application" });
  map.element.setAttribute("aria-label", "Taste map. Arrows move, plus and minus zoom, 0 shows all, Enter opens the track in the middle.");
  view.frame.append(map.element, buttons(view), view.tip, view.empty);
  root.append(
    el("div", {}, el("h1", {}, title), view.caption),
    el(
      "div",
      { class: "map-layout" },
      view.frame,
      el("aside", { class: "map-side" }, searchCard(view), trackCard(view), genreCard(view), listenerCard(view, query.get("user"))),
    ),
  );
  gestures(map, {
    hover: (point) => hover(view, point),
    pick: (point) => point !== null && select(view, point),
    enter: () => view.selected && (location.hash = page.link("track", view.selected.track_id)),
  });
  map.onview = () => placeTip(view);
  await reload(view);
  if (query.get("track")) await showTrack(view, query.get("track"));
  const ends = [followTracks(view), query.get("user") && (await followUser(view, query.get("user"))), () => map.close()];
  return () => ends.forEach((end) => end?.());
}

/** Read the map, and show it instead of the one before. */
async function reload(view) {
  const { map, page } = view;
  const data = await readMap(page, { signal: view.signal });
  if (data.head.version === map.data?.head.version) return;
  const was = map.data;
  map.data = data;
  const { head } = data;
  view.hovered = null;
  view.caption.textContent = data.count
    ? `PCA of the ${head.dimensions}-d taste space: the two axes show ${page.fmt.percent(head.variance)} of the variance. ` +
      (head.points < head.tracks
        ? `${page.fmt.number(head.points)} of ${page.fmt.number(head.tracks)} tracks are drawn, a sample that stays.`
        : `${page.fmt.plural(head.tracks, "track")}.`)
    : "Each track stands where its listeners' taste puts it.";
  view.empty.hidden = data.count > 0;
  page.state(view.empty, "empty", "No track has a place in taste space yet. Tracks appear here as they are tagged.");
  drawGenres(view);
  map.refit();
  if (was && view.selected) await showTrack(view, view.selected.track_id, { fly: false });
  drawMarks(view);
}

/** Ask for the map anew where a place of another map has come. */
async function ofThisMap(view, told) {
  if (told.version !== view.map.data.head.version) await reload(view);
}

function drawMarks(view) {
  const { map, selected, hovered, user } = view;
  const { xs, ys } = map.data;
  map.marks = [
    ...view.fresh,
    ...(hovered === null ? [] : [{ kind: "hover", x: xs[hovered], y: ys[hovered] }]),
    ...(selected ? [{ kind: "track", x: selected.x, y: selected.y, label: selected.title || selected.track_id }] : []),
    ...(user?.trail.length ? [{ kind: "user", label: user.id, trail: user.trail }] : []),
  ];
  map.draw();
}

function buttons({ map, page: { el } }) {
  const button = (label, text, onclick) => el("button", { type: "button", "aria-label": label, title: label, onclick }, text);
  return el(
    "div",
    { class: "map-buttons" },
    button("Zoom in", "+", () => map.zoomBy(1.6)),
    button("Zoom out", "−", () => map.zoomBy(1 / 1.6)),
    button("Show all", "⤢", () => map.fit({ fly: true })),
  );
}

// One track

async function hover(view, point) {
  const { map } = view;
  if (view.hovered === point) return;
  view.hovered = point;
  map.element.classList.toggle("over", point !== null);
  drawMarks(view);
  placeTip(view);
  if (point === null || map.data.tracks.has(point)) return;
  await new Promise((go) => setTimeout(go, HOVER_MS));
  if (view.hovered !== point) return;
  if (await trackOf(view, point)) placeTip(view);
}

/** What is known of a point; null where the map has become another one, which is shown then. */
async function trackOf(view, point) {
  const { map, page, signal } = view;
  const { data } = map;
  if (!data.tracks.has(point)) {
    try {
      data.tracks.set(point, await page.get(`/v1/map/points/${point}?version=${data.head.version}`, { signal }));
    } catch (error) {
      if (error.status === 404) await reload(view);
      else if (!(error instanceof page.Problem) && error.name !== "AbortError") throw error;
      return null;
    }
  }
  return data.tracks.get(point);
}

function placeTip({ map, tip, hovered, page: { el } }) {
  tip.hidden = hovered === null;
  if (hovered === null) return;
  const { data } = map;
  const track = data.tracks.get(hovered);
  const [left, top] = map.at(data.xs[hovered], data.ys[hovered]);
  tip.replaceChildren(
    el("strong", {}, track ? track.title || track.track_id : "…"),
    el("span", { class: "muted small" }, data.genre(hovered) ?? "no genre"),
  );
  const right = left > map.width / 2;
  tip.style.setProperty("left", right ? "auto" : `${left + 14}px`);
  tip.style.setProperty("right", right ? `${map.width - left + 14}px` : "auto");
  tip.style.setProperty("top", `${Math.max(4, Math.min(map.height - 52, top - 20))}px`);
}

async function select(view, point) {
  const track = await trackOf(view, point);
  if (track) choose(view, track);
}

function choose(view, track) {
  const { page } = view;
  const { el, fmt } = page;
  view.selected = track;
  drawMarks(view);
  view.track.replaceChildren(
    el("a", { class: "map-title", href: page.link("track", track.track_id) }, track.title || track.track_id),
    el("p", { class: "id muted" }, track.track_id),
    el("p", { class: "row" }, genreLabel(page, track.genre ?? null), el("span", { class: "muted small" }, `at ${fmt.score(track.x)}, ${fmt.score(track.y)}`)),
  );
}

function trackCard({ page: { card, el }, track }) {
  track.append(el("p", { class: "muted" }, "Choose a point, or search."));
  return card("Track", track);
}

/** Show a track by its id. */
async function showTrack(view, trackId, { fly = true } = {}) {
  const { page, map, signal } = view;
  const told = await page.post("/v1/map/tracks/batch", { ids: [trackId] }, { signal });
  await ofThisMap(view, told);
  const [track] = told.tracks;
  if (!track) {
    view.track.replaceChildren(page.el("p", { class: "muted" }, `${trackId} has no place in taste space.`));
    return;
  }
  map.data.put(track);
  choose(view, track);
  if (fly) map.flyTo(track);
}
