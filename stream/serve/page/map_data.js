// The points of the taste map, as GET /v1/map tells them, and those that come while it is looked at.

const NO_GENRE = 0xffff;
const MORE = 1024;

/** Read the map. */
export async function readMap(page, { signal } = {}) {
  return new MapData(await page.get("/v1/map", { signal, as: "buffer" }));
}

export class MapData {
  constructor(buffer) {
    const size = new DataView(buffer).getUint32(0, true);
    this.head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
    const { points, box, genres } = this.head;
    const read = (part) => new Uint16Array(buffer, 4 + size + 2 * part * points, points);
    const steps = [read(0), read(1)];
    this.count = points;
    this.genres = [...genres];
    [this.xs, this.ys] = [0, 1].map((axis) => {
      const [least, greatest] = [box[axis], box[axis + 2]];
      const places = new Float32Array(points + MORE);
      for (let point = 0; point < points; point++) places[point] = least + (steps[axis][point] / 65535) * (greatest - least);
      return places;
    });
    this.codes = new Uint16Array(points + MORE);
    this.codes.set(read(2));
    this.tracks = new Map(); // what is known of points, by their numbers
    this.added = new Map(); // the points of tracks that came since
  }

  /** The genre of a point, or null. */
  genre(point) {
    return this.codes[point] === NO_GENRE ? null : this.genres[this.codes[point]];
  }

  /** How many points each genre has, most first; [null, n] for those without. */
  counts() {
    const counts = new Map();
    for (let point = 0; point < this.count; point++) {
      const code = this.codes[point];
      counts.set(code, (counts.get(code) ?? 0) + 1);
    }
    return [...counts]
      .map(([code, count]) => [code === NO_GENRE ? null : this.genres[code], count])
      .sort(([a, m], [b, n]) => (a === null) - (b === null) || n - m);
  }

  /** Put a track, as the API places it, into the map; its point, or null where there is no room for more. */
  put(track) {
    const point = track.point ?? this.added.get(track.track_id) ?? this.count;
    if (point >= this.codes.length) return null;
    if (point === this.count) {
      this.count++;
      this.added.set(track.track_id, point);
    }
    if (track.genre && !this.genres.includes(track.genre)) this.genres.push(track.genre);
    this.xs[point] = track.x;
    this.ys[point] = track.y;
    this.codes[point] = track.genre ? this.genres.indexOf(track.genre) : NO_GENRE;
    this.tracks.set(point, track);
    return point;
  }
}
