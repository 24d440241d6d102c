// A track: what it was answered with and why, its tags over time, and what is near.

import { token } from "../api.js";
import { HeatMap, readTaggram } from "../heat_map.js";
import { askForId, fill, foundColumns, genreOf, oneAtATime, SCORE, showProblem } from "../pieces.js";
import { Player } from "../player.js";
import { smallMap } from "../small_map.js";

export const title = "Track";

const BECAUSE = {
  tags: "its strongest tag names another kind of music than the genre that was guessed",
  confidence: "its best genre is less probable than the release asks for",
  training_tracks: "it is far from the tracks that the release learned from, or near to those of another genre",
};
let showsAudience = false; // once it was asked for, with a token where one is needed

export async function show(root, { id, signal, page }) {
  const { el, get, state, events, link } = page;
  if (!id) {
    root.append(el("h1", {}, title), askForId("track", { label: "Id of the track", link }));
    return null;
  }
  const path = `/v1/tracks/${encodeURIComponent(id)}`;
  let leave = null;
  const read = oneAtATime(async () => {
    try {
      const [track, explanation] = await Promise.all([get(path, { signal }), get(`${path}/explanation`, { signal })]);
      leave?.();
      leave = draw(root, { track, explanation, path, signal, page });
    } catch (error) {
      if (signal.aborted) return;
      leave?.();
      leave = null;
      const unknown = "The live release knows no such track. It appears here when it is answered.";
      showProblem(root, error, { name: id, unknown, retry: read });
    }
  });
  state(root, "loading", "Loading the track …");
  await read();
  const mine = (event) => event.id === id && read();
  const ends = [events.on("track", mine), events.on("track_removed", mine), events.on("release", read)];
  return () => {
    for (const end of ends) end();
    leave?.();
  };
}

/** Draw the view; returns what ends it. */
function draw(root, context) {
  const { track, page } = context;
  const { el } = page;
  const ends = [];
  root.replaceChildren(
    heading(context),
    el("div", { class: "track-top" }, answerCard(context), genresCard(context)),
    ...(track.status === "failed" ? [] : [tagsCard(context, ends)]),
    track.embedding
      ? el("div", { class: "track-near" }, similarCard(context), el("div", { class: "track-side" }, placeCard(context, ends), audienceCard(context)))
      : page.card("What is near", el("p", { class: "muted" }, "It has no place in taste space, so no track and no user is near.")),
  );
  return () => ends.forEach((end) => end());
}

function heading({ track, page: { el } }) {
  return el(
    "div",
    { class: "track-head" },
    el("h1", {}, track.title ?? track.track_id),
    el("p", { class: "muted" }, track.artist_id && el("span", {}, "by ", el("span", { class: "id" }, track.artist_id), " · "), el("span", { class: "id" }, track.track_id)),
  );
}

const TONES = { tagged: "good", corrected: "good", abstained: "warn", failed: "bad" };

function answerCard({ track, explanation, page }) {
  const { el, card, fmt } = page;
  const fact = (name, ...values) => values.some((value) => value) && [el("dt", {}, name), el("dd", {}, ...values)];
  return card(
    "Answer",
    el("p", { class: `status ${TONES[track.status]}` }, track.status),
    el("p", { class: "verdict" }, ...verdict(track, explanation, page)),
    el(
      "dl",
      { class: "facts" },
      fact("Length", track.duration_ms && fmt.duration(track.duration_ms)),
      fact("Uploaded", fmt.time(track.event_time)),
      fact("Answered", fmt.time(track.tagged_at), el("span", { class: "muted" }, `, ${fmt.duration(track.tagged_at - track.event_time)} later`)),
      fact("Corrected", track.corrected_at && fmt.time(track.corrected_at)),
      fact("Release", el("span", { class: "id" }, track.release)),
    ),
  );
}

/** The answer in a sentence. */
function verdict(track, { abstained_because: because }, { el, fmt }) {
  const guess = track.genres?.[0];
  switch (track.status) {
    case "tagged":
      return [genreOf(track.genre), el("strong", {}, ` ${fmt.percent(track.confidence)}`)];
    case "corrected":
      return [genreOf(track.genre), el("span", { class: "muted" }, " says an editor", guess && `; the release's best guess was ${guess[0]}, ${fmt.percent(guess[1])}`)];
    case "failed":
      return ["It was not heard: ", el("code", {}, track.reason ?? "unknown")];
    default:
      return [`No genre is told${because ? `: ${BECAUSE[because]}` : ""}.`];
  }
}

/** Probabilities as bars, with the line below which the release abstains. */
function genresCard({ track, explanation, page }) {
  const { el, card, state, colour, fmt } = page;
  const ofTags = track.genres_from === "tags";
  const box = card(ofTags ? "Kinds of music that its tags name" : "Genres");
  if (!track.genres?.length) {
    const empty = el("div");
    state(empty, "empty", "Nothing was heard, so there are no probabilities.");
    box.append(empty);
    return box;
  }
  const least = ofTags ? {} : (explanation.thresholds ?? {});
  box.append(
    el(
      "ul",
      { class: "genre-bars" },
      track.genres.map(([genre, share]) =>
        el(
          "li",
          {},
          el("span", { class: "name" }, genre),
          el(
            "span",
            { class: "track", style: { "--share": share, "--least": least[genre] ?? 0, "--genre": colour(genre) } },
            el("span", { class: "fill" }),
            least[genre] !== undefined && el("span", { class: "least" }),
          ),
          el("span", { class: "share" }, fmt.percent(share)),
        ),
      ),
    ),
    el("p", { class: "muted small" }, ...lineText(track, least, { ofTags, told: explanation.thresholds, el, fmt })),
  );
  return box;
}

function lineText(track, least, { ofTags, told, el, fmt }) {
  if (ofTags) return ["These are kinds of music, each as probable as its strongest tag. They contradict the genre that was guessed."];
  if (!told) return ["Where the release abstains is not known here: its files are not those of TASTEWAVE_RELEASE of this server."];
  const values = [...new Set(track.genres.map(([genre]) => least[genre]).filter((value) => value !== undefined))];
  if (!values.length) return ["The release tells no threshold of these genres."];
  const from = values.length === 1 ? `From ${fmt.percent(values[0])} on` : "From the line of each genre on";
  return [el("span", { class: "line-sample", "aria-hidden": "true" }), `${from} the release answers a genre; below it abstains.`];
}

function tagsCard(context, ends) {
  const { track, explanation, path, signal, page } = context;
  const { el, card, state, get } = page;
  const body = el("div");
  const box = card("Tags over time", body);
  if (!explanation.has_taggram) {
    body.append(topTags(track, page), el("p", { class: "muted small" }, "Their course over time is not kept: the answer was rescored, or TASTEWAVE_STORE_TAGGRAM of the workers is not true."));
    return box;
  }
  state(body, "loading", "Loading the taggram …");
  const player = explanation.has_audio ? new Player(context, (ms) => map?.play(ms)) : null;
  let map = null;
  const load = async () => {
    try {
      const taggram = readTaggram(await get(`${path}/taggram`, { signal }));
      map = new HeatMap(taggram, { label: `Tags over time of ${track.title ?? track.track_id}`, onpick: player && ((ms) => player.play(ms)) });
      body.replaceChildren(...(player ? [player.element] : []), map.element);
      ends.push(() => map.close());
    } catch (error) {
      if (!signal.aborted) state(body, "error", error.message, { retry: load });
    }
  };
  if (player) ends.push(() => player.close());
  load();
  return box;
}

function topTags(track, { el, fmt }) {
  return el("p", { class: "top-tags" }, (track.tags ?? []).map(([tag, share]) => el("span", { class: "tag" }, `${tag} ${fmt.percent(share)}`)));
}

function similarCard({ path, signal, page }) {
  const { el, card, get, table } = page;
  const body = el("div");
  fill(body, async () => (await get(`${path}/similar?limit=10`, { signal })).tracks, {
    empty: "No other track has a place in taste space yet.",
    drawn: (rows) => table(foundColumns(page), rows, { label: "Similar tracks" }),
    signal,
  });
  return card("Similar tracks", body);
}

function placeCard({ track: { track_id: id }, signal, page }, ends) {
  const body = page.el("div");
  const place = async () => (await page.post("/v1/map/tracks/batch", { ids: [id] }, { signal })).tracks[0];
  const map = smallMap(body, { place, kind: "track", href: `#/map?track=${encodeURIComponent(id)}`, signal, page });
  map.read();
  ends.push(() => map.close());
  return page.card("Place on the map", body);
}

function audienceCard({ path, signal, page }) {
  const { el, card, get, table, link } = page;
  const body = el("div");
  const columns = [{ name: "User", of: ({ user_id: id }) => el("a", { class: "id", href: link("user", id) }, id) }, SCORE];
  const ask = async () => {
    const { users } = await get(`${path}/audience?limit=10`, { signal });
    showsAudience = true;
    return users;
  };
  const load = () => {
    body.replaceChildren();
    fill(body, ask, {
      empty: "No user of the last days has a place in taste space.",
      drawn: (rows) => table(columns, rows, { label: "Audience" }),
      signal,
    });
  };
  if (showsAudience || token()) load();
  else body.append(el("button", { type: "button", onclick: load }, "Show the users that it is for"));
  return card("Audience", body);
}
