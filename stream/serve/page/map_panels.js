// What stands beside the taste map: search, genres, and whom to follow.

const SEARCH_MS = 150;

/** What to do with an error of a request, unless the view was left meanwhile. */
export function unlessEnded({ page }, tell) {
  return (error) => {
    if (error.name === "AbortError") return;
    if (!(error instanceof page.Problem)) throw error;
    tell(error);
  };
}

/** A genre with its colour. */
export function genreLabel({ el, colour }, genre) {
  return el("span", { class: "genre", style: { "--genre": colour(genre) } }, genre ?? "no genre");
}

/** Finds tracks of the map, and flies there. */
export function searchCard(view) {
  const { el } = view.page;
  const results = el("ul", { class: "map-results" });
  const told = el("p", { class: "muted small", role: "status" });
  const input = el("input", { id: "map-search", type: "search", placeholder: "Title, or start of an id", autocomplete: "off", maxlength: 256 });
  let typed = 0;
  let found = [];
  const go = (track) => {
    view.map.data.put(track);
    view.choose(track);
    view.map.flyTo(track, { zoom: Math.max(view.map.zoom, 8) });
  };
  const search = async () => {
    const mine = ++typed;
    const sought = input.value.trim();
    await new Promise((wait) => setTimeout(wait, SEARCH_MS));
    if (mine !== typed) return;
    const answer = sought ? await view.page.get(`/v1/map/search?q=${encodeURIComponent(sought)}`, { signal: view.signal }) : { tracks: [] };
    if (mine !== typed) return;
    if (sought) await view.ofThisMap(answer);
    found = answer.tracks;
    told.textContent = !sought ? "" : found.length ? "" : "Nothing is called like this.";
    results.replaceChildren(
      ...found.map((track) =>
        el("li", {}, el("button", { type: "button", onclick: () => go(track) }, el("span", {}, track.title || track.track_id), genreLabel(view.page, track.genre ?? null))),
      ),
    );
  };
  const form = el(
    "form",
    {
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        if (found.length) go(found[0]);
      },
    },
    el("label", { for: "map-search" }, "Search"),
    input,
  );
  input.addEventListener("input", () => search().catch(unlessEnded(view, (error) => (told.textContent = error.detail))));
  return el("section", { class: "card" }, form, told, results);
}

/** The legend; each genre may be hidden. */
export function genreCard(view) {
  const { el } = view.page;
  const all = (isHidden) => () => {
    view.map.hidden = new Set(isHidden ? view.map.data.counts().map(([genre]) => genre) : []);
    drawGenres(view);
    view.map.draw();
  };
  return el(
    "section",
    { class: "card" },
    el("div", { class: "map-heading" }, el("h2", {}, "Genres"), el("button", { type: "button", onclick: all(false) }, "All"), el("button", { type: "button", onclick: all(true) }, "None")),
    view.genres,
  );
}

/** Write the legend anew. */
export function drawGenres(view) {
  const { map, page, genres } = view;
  const { el, fmt } = page;
  const toggle = (genre) => (event) => {
    if (!map.hidden.delete(genre)) map.hidden.add(genre);
    event.currentTarget.ariaPressed = String(!map.hidden.has(genre));
    map.draw();
  };
  genres.parentElement.hidden = !map.data.count;
  genres.replaceChildren(
    ...map.data.counts().map(([genre, count]) =>
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", "aria-pressed": String(!map.hidden.has(genre)), onclick: toggle(genre) },
          genreLabel(page, genre),
          el("span", { class: "muted small" }, fmt.number(count)),
        ),
      ),
    ),
  );
}

/** Asks whom to follow; `view.listener` is where they are told. */
export function listenerCard(view, id) {
  const { el, link } = view.page;
  const input = el("input", { id: "map-user", value: id ?? "", autocomplete: "off", placeholder: "user id", maxlength: 256 });
  view.listener = el("p", { class: "muted small", "aria-live": "polite" }, id ? "" : "Their dot moves while their listens arrive.");
  return el(
    "section",
    { class: "card" },
    el(
      "form",
      {
        class: "map-follow",
        onsubmit: (event) => {
          event.preventDefault();
          location.hash = input.value ? `#/map?user=${encodeURIComponent(input.value)}` : link("map");
        },
      },
      el("label", { for: "map-user" }, "Follow a listener"),
      el("div", { class: "row" }, input, el("button", { type: "submit" }, "Follow")),
    ),
    view.listener,
  );
}
