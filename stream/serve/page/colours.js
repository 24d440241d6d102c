// The colour of a genre, and the scale of a heat map. Colour is never the only carrier: the name stands beside it.

const dark = matchMedia("(prefers-color-scheme: dark)");

// Hues that people with any colour vision tell apart (after Okabe and Ito, and Tol), for a light and for a dark ground.
const PALETTE = [
  ["#0072b2", "#5ab4e8"],
  ["#d55e00", "#ff9256"],
  ["#00795c", "#2fc79e"],
  ["#aa4499", "#df8ccf"],
  ["#8a6d00", "#e6c229"],
  ["#882255", "#d3739e"],
  ["#44759a", "#9ac7e6"],
  ["#6b5b95", "#b4a3e0"],
  ["#5a7d1f", "#a9cf5e"],
  ["#7a5230", "#cfa27a"],
  ["#c0392b", "#ff8a7a"],
  ["#4a4e69", "#a8adc9"],
];
const KNOWN = ["jazz", "rock", "classical", "pop", "blues", "metal", "electronic", "hiphop", "reggae", "country", "disco", "folk"];

/** The colour of a genre, the same on every page and in every view; grey where there is none. */
export function colour(genre) {
  if (!genre) return dark.matches ? "#85888f" : "#73767d";
  const place = KNOWN.indexOf(genre.toLowerCase());
  return PALETTE[place >= 0 ? place : hashed(genre) % PALETTE.length][dark.matches ? 1 : 0];
}

function hashed(text) {
  let hash = 2166136261; // FNV-1a
  for (const letter of text) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
  return hash >>> 0;
}

// From the ground to the strongest, even in lightness: nothing, blue, and on to violet (light) or yellow-white (dark).
const LIGHT = [[247, 247, 248], [207, 221, 244], [143, 178, 232], [78, 124, 209], [45, 68, 160], [30, 24, 84]];
const DARK = [[27, 29, 33], [30, 49, 92], [40, 88, 158], [68, 142, 196], [140, 200, 205], [250, 246, 214]];

/** [red, green, blue] of a value from 0 to 1 on the sequential scale of heat maps. */
export function heat(value) {
  const stops = dark.matches ? DARK : LIGHT;
  const place = Math.min(1, Math.max(0, value)) * (stops.length - 1);
  const first = Math.min(stops.length - 2, Math.floor(place));
  return stops[first].map((from, part) => Math.round(from + (stops[first + 1][part] - from) * (place - first)));
}

/** Calls fn when the device changes between light and dark. */
export const onScheme = (fn) => dark.addEventListener("change", fn);
