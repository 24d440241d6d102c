// A small taste map with one dot: where a track or a user stands.

import { colour } from "./colours.js";
import { el, state } from "./elements.js";
import { MapCanvas } from "./map_canvas.js";
import { readMap } from "./map_data.js";

const NOWHERE = "There is no place on the map yet.";

/**
 * The map in an element, as a link to the whole one.
 *
 *     const map = smallMap(body, { place: () => page.get("/v1/map/users/ann"), kind: "user", href: "#/map?user=ann", signal, page });
 *     map.read();
 *     map.close();
 *
 * place brings {x, y}, and nothing where there is no place; read again after it has changed.
 */
export function smallMap(body, { place, kind, href, signal, page }) {
  let map = null;
  const read = async () => {
    if (!map) state(body, "loading", "Loading the map …");
    try {
      const [data, found] = await Promise.all([readMap(page, { signal }), place()]);
      if (!found) {
        state(body, "empty", NOWHERE);
        return;
      }
      if (!map) {
        map = new MapCanvas({ colour });
        map.element.classList.add("small");
      }
      Object.assign(map, { data, marks: [{ kind, x: found.x, y: found.y }] });
      body.replaceChildren(el("a", { class: "small-map", href }, map.element, el("span", {}, "Open the taste map")));
      map.fit();
    } catch (error) {
      if (error.status === 404) state(body, "empty", NOWHERE);
      else if (!signal.aborted) state(body, "error", error.message, { retry: read });
    }
  };
  return { read, close: () => map?.close() };
}
