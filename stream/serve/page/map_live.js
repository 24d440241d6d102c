// What comes while the taste map is looked at: tracks, and the next places of a listener.

import { drawGenres, unlessEnded } from "./map_panels.js";

const RELOAD_MS = 60_000; // as often as the server draws the map anew
const SOON_MS = 2500; // and where a tenth of the tracks is new
const MUCH = 0.1;
const FLUSH_MS = 250;
const ASKED_AT_ONCE = 500;
const TRAIL = 30; // places of a listener that are remembered

/** Put tracks into the map as they come; returns what ends it. */
export function followTracks(view) {
  const { page, map, signal } = view;
  const coming = new Set();
  let timer = null;
  let soon = null;
  let isOld = false;
  const renew = () => view.reload().then(() => (isOld = false), unlessEnded(view, () => {}));
  const renewSoon = () => {
    soon ??= setTimeout(() => ((soon = null), renew()), SOON_MS);
  };
  const flush = async () => {
    timer = null;
    const ids = [...coming].slice(0, ASKED_AT_ONCE);
    isOld ||= coming.size > ids.length;
    coming.clear();
    if (!map.data.count) await view.reload(); // the first ones make a map
    const told = await page.post("/v1/map/tracks/batch", { ids }, { signal });
    if (told.version !== map.data.head.version) return view.reload();
    const began = performance.now();
    for (const track of told.tracks) {
      if (map.data.put(track) === null) isOld = true;
      else view.fresh.push({ kind: "new", x: track.x, y: track.y, began });
    }
    view.fresh = view.fresh.filter((mark) => began - mark.began < 2000);
    if (map.data.added.size > MUCH * map.data.head.points) renewSoon();
    drawGenres(view);
    view.drawMarks();
  };
  const offs = [
    page.events.on("track", ({ id, status }) => {
      isOld = true;
      if (status === "failed") return;
      coming.add(id);
      timer ??= setTimeout(() => flush().catch(unlessEnded(view, () => {})), FLUSH_MS);
    }),
    page.events.on("track_removed", () => (isOld = true)),
    ...["release", "missed"].map((kind) => page.events.on(kind, renew)),
  ];
  const renewing = setInterval(() => {
    if (isOld && !document.hidden) renew();
  }, RELOAD_MS);
  return () => {
    offs.forEach((off) => off());
    clearTimeout(timer);
    clearTimeout(soon);
    clearInterval(renewing);
  };
}

/** Show where a user stands, and each place that they move to; returns what ends it. */
export async function followUser(view, id) {
  const { page, signal } = view;
  const { fmt } = page;
  view.user = { id, trail: [] };
  const move = async () => {
    const place = await page.get(`/v1/map/users/${encodeURIComponent(id)}`, { signal });
    await view.ofThisMap(place);
    const { trail } = view.user;
    const last = trail.at(-1);
    const isNew = !last || last.x !== place.x || last.y !== place.y;
    if (isNew) trail.push({ x: place.x, y: place.y, began: performance.now() });
    if (trail.length > TRAIL) trail.shift();
    view.listener.replaceChildren(
      page.el("a", { href: page.link("user", id) }, id),
      ` at ${fmt.score(place.x)}, ${fmt.score(place.y)}, since ${fmt.clock(place.refreshed_at)}`,
      place.source === "global" ? ": the place of all who have no history yet" : "",
    );
    view.drawMarks();
  };
  const failed = unlessEnded(view, (error) => (view.listener.textContent = error.detail));
  await move().catch(failed);
  const offs = [
    page.events.on("user", (told) => told.id === id && move().catch(failed)),
    page.events.on("user_removed", (told) => {
      if (told.id !== id) return;
      view.user.trail = [];
      view.listener.textContent = "This listener was forgotten.";
      view.drawMarks();
    }),
  ];
  return () => offs.forEach((off) => off());
}
