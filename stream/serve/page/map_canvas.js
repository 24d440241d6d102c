// The taste map on a canvas. All points are drawn in each frame that changes, into a buffer of pixels: that takes some
// milliseconds of 50,000, and canvas's own circles take hundreds. The canvas is one of main memory (willReadFrequently),
// since moving each frame to a graphics card and back takes longer than drawing it.

import { el } from "./elements.js";

const FLY_MS = 500;
const MOVE_MS = 800; // of a dot to its next place
const REACH = 14; // how near the pointer has to be, in px
const ZOOM = { least: 0.5, most: 400 };
const OPACITY = 0.85;
const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * The canvas: `element` is its own; put it where there is a size to fill.
 *
 *     const map = new MapCanvas({ colour });
 *     map.data = data;
 *     map.fit();
 *
 * `hidden` is a set of genres (null: without). `marks` are drawn above the points: {x, y, label, kind: "track" | "hover" |
 * "user" | "new", trail: [{x, y}, ...]}. After a change call `draw`.
 */
export class MapCanvas {
  hidden = new Set();
  marks = [];
  data = null;
  onview = () => {};
  #colour;
  #view = { x: 0, y: 0, scale: 1 }; // the place in the middle, and px of the screen for one unit
  #fitted = 1; // px for one unit where all of the map is shown
  #isFitted = true;
  #flight = null;
  #frame = 0;
  #ratio = 1;
  #context = null;
  #image = null;
  #pixels = null;
  #resized = new ResizeObserver(() => this.#resize());

  constructor({ colour }) {
    this.points = el("canvas", { class: "map-points" });
    this.above = el("canvas", { class: "map-above" });
    this.element = el("div", { class: "map-canvas" }, this.points, this.above);
    this.#colour = colour;
    this.#resized.observe(this.element);
  }

  close() {
    this.#resized.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  get zoom() {
    return this.#view.scale / this.#fitted;
  }

  /** Show all of the map. */
  fit({ fly = false } = {}) {
    const view = this.#fitting();
    this.#fitted = view.scale;
    this.#go(view, fly);
    this.#isFitted = true;
  }

  /** Show all of the map, where nobody has moved it. */
  refit() {
    if (this.#isFitted) this.fit();
  }

  /** Move a place into the middle, and nearer. */
  flyTo({ x, y }, { zoom = Math.max(this.zoom, 4) } = {}) {
    this.#go({ x, y, scale: this.#fitted * zoom }, true);
  }

  /** Move by px of the screen. */
  pan(right, down) {
    const { x, y, scale } = this.#view;
    this.#go({ x: x - right / scale, y: y + down / scale, scale }, false);
  }

  /** Zoom, and leave the place under a px of the screen where it is. */
  zoomBy(factor, [left, top] = [this.width / 2, this.height / 2]) {
    const [x, y] = this.placeAt(left, top);
    const scale = Math.min(ZOOM.most, Math.max(ZOOM.least, this.zoom * factor)) * this.#fitted;
    this.#go({ x: x - (left - this.width / 2) / scale, y: y + (top - this.height / 2) / scale, scale }, false);
  }

  /** The place under a px of the screen. */
  placeAt(left, top) {
    const { x, y, scale } = this.#view;
    return [x + (left - this.width / 2) / scale, y - (top - this.height / 2) / scale];
  }

  /** Where a place is on the screen, in px. */
  at(x, y) {
    const view = this.#view;
    return [this.width / 2 + (x - view.x) * view.scale, this.height / 2 - (y - view.y) * view.scale];
  }

  /** The point nearest to a px of the screen, or null. */
  nearest(left, top, { reach = REACH } = {}) {
    const { data } = this;
    if (!data) return null;
    const [x, y] = this.placeAt(left, top);
    const isHidden = this.#hiddenCodes();
    let best = null;
    let least = (reach / this.#view.scale) ** 2;
    for (let point = 0; point < data.count; point++) {
      const distance = (data.xs[point] - x) ** 2 + (data.ys[point] - y) ** 2;
      if (distance < least && !isHidden[data.codes[point]]) [best, least] = [point, distance];
    }
    return best;
  }

  /** Draw with the next frame. */
  draw() {
    this.#frame ||= requestAnimationFrame((now) => {
      this.#frame = 0;
      this.#drawNow(now);
    });
  }

  #fitting() {
    const [left, bottom, right, top] = this.data?.head.box ?? [-1, -1, 1, 1];
    const spread = (least, greatest, room) => (room * 0.9) / Math.max(greatest - least, 1e-3);
    const scale = Math.min(spread(left, right, this.width), spread(bottom, top, this.height));
    return { x: (left + right) / 2, y: (bottom + top) / 2, scale: scale > 0 ? scale : 1 };
  }

  #go(view, fly) {
    this.#isFitted = false;
    if (fly && !still.matches) this.#flight = { from: { ...this.#view }, to: view, began: performance.now() };
    else [this.#view, this.#flight] = [view, null];
    this.draw();
    this.onview();
  }

  #resize() {
    this.width = this.element.clientWidth;
    this.height = this.element.clientHeight;
    const ratio = Math.min(devicePixelRatio, 2);
    for (const canvas of [this.points, this.above]) {
      canvas.width = Math.max(1, Math.round(this.width * ratio));
      canvas.height = Math.max(1, Math.round(this.height * ratio));
    }
    this.#ratio = ratio;
    this.#context = this.points.getContext("2d", { alpha: false, willReadFrequently: true });
    this.#image = this.#context.createImageData(this.points.width, this.points.height);
    this.#pixels = new Uint32Array(this.#image.data.buffer);
    this.refit();
    this.#drawNow(performance.now()); // a canvas that was given a size is empty until then
  }

  #drawNow(now) {
    if (!this.#pixels) return;
    let moving = this.#fly(now);
    this.#drawPoints();
    moving = this.#drawMarks(now) || moving;
    if (moving) this.draw();
  }

  #fly(now) {
    if (!this.#flight) return false;
    const { from, to, began } = this.#flight;
    const part = Math.min(1, Math.max(0, (now - began) / FLY_MS));
    const eased = part * part * (3 - 2 * part);
    const between = (one, other) => one + (other - one) * eased;
    const scale = from.scale * (to.scale / from.scale) ** eased;
    this.#view = { x: between(from.x, to.x), y: between(from.y, to.y), scale };
    if (part === 1) [this.#view, this.#flight] = [to, null];
    this.onview();
    return part < 1;
  }

  #hiddenCodes() {
    const isHidden = new Uint8Array(0x10000);
    if (this.hidden.has(null)) isHidden[0xffff] = 1;
    this.data.genres.forEach((genre, code) => (isHidden[code] = this.hidden.has(genre) ? 1 : 0));
    return isHidden;
  }

  /** Radius of a point in px of the screen: smaller where there are many, larger where the map is near. */
  get radius() {
    const count = this.data?.count ?? 0;
    const alone = count > 20_000 ? 1.4 : count > 4000 ? 2 : count > 500 ? 2.8 : count > 100 ? 4 : 5.5;
    return Math.min(6, alone * Math.max(1, this.zoom) ** 0.35);
  }

  #drawPoints() {
    const [data, pixels, ratio] = [this.data, this.#pixels, this.#ratio];
    const { width, height } = this.points;
    pixels.fill(packed(getComputedStyle(this.element).backgroundColor));
    if (data) {
      const { offsets, alphas, reach } = disc(this.radius * ratio, width);
      const isHidden = this.#hiddenCodes();
      const colours = new Uint32Array(0x10000);
      data.genres.forEach((genre, code) => (colours[code] = packed(this.#colour(genre))));
      colours[0xffff] = packed(this.#colour(null));
      const scale = this.#view.scale * ratio;
      const [left, top] = [width / 2 - this.#view.x * scale, height / 2 + this.#view.y * scale];
      const { xs, ys, codes, count } = data;
      const parts = offsets.length;
      for (let point = 0; point < count; point++) {
        const code = codes[point];
        const x = Math.round(left + xs[point] * scale);
        const y = Math.round(top - ys[point] * scale);
        if (isHidden[code] || x < reach || y < reach || x >= width - reach || y >= height - reach) continue;
        const [middle, colour] = [y * width + x, colours[code]];
        const [redBlue, green] = [colour & 0xff00ff, colour & 0xff00];
        for (let part = 0; part < parts; part++) {
          const at = middle + offsets[part];
          const alpha = alphas[part];
          const [rb, g] = [pixels[at] & 0xff00ff, pixels[at] & 0xff00];
          pixels[at] =
            0xff000000 |
            ((rb + (Math.imul(redBlue - rb, alpha) >> 8)) & 0xff00ff) |
            ((g + (Math.imul(green - g, alpha) >> 8)) & 0xff00);
        }
      }
    }
    this.#context.putImageData(this.#image, 0, 0);
  }

  #drawMarks(now) {
    const context = this.above.getContext("2d", { willReadFrequently: true });
    const style = getComputedStyle(this.element);
    const [ground, text, accent] = [style.backgroundColor, style.color, style.caretColor]; // as the style sheet sets them
    context.setTransform(this.#ratio, 0, 0, this.#ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    let moving = false;
    for (const mark of this.marks) {
      const { place, isMoving } = placeOf(mark, now);
      moving ||= isMoving;
      const [x, y] = this.at(place.x, place.y);
      if (mark.trail) this.#drawTrail(context, mark.trail, place, { ground, accent });
      if (mark.kind === "user") {
        circle(context, x, y, 9, { fill: ground });
        circle(context, x, y, 7, { fill: accent });
      } else if (mark.kind === "new") {
        const age = (now - mark.began) / 1500;
        moving ||= age < 1;
        if (age < 1) circle(context, x, y, 4 + 18 * (still.matches ? 0.4 : age), { line: text, opacity: 1 - age });
      } else {
        circle(context, x, y, this.radius + 4, { line: ground, size: 4 });
        circle(context, x, y, this.radius + 4, { line: text, size: mark.kind === "track" ? 2 : 1.5 });
      }
      if (mark.label) label(context, mark.label, x, y, { ground, text, within: this.width });
    }
    return moving;
  }

  /** The way to a place, the older the fainter. */
  #drawTrail(context, trail, place, { ground, accent }) {
    const ends = [...trail.slice(0, -1), place].map(({ x, y }) => this.at(x, y));
    context.lineCap = "round";
    for (const [colour, width] of [[ground, 6], [accent, 3]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      ends.slice(1).forEach((end, part) => {
        context.globalAlpha = 0.2 + (0.7 * (part + 1)) / ends.length;
        context.beginPath();
        context.moveTo(...ends[part]);
        context.lineTo(...end);
        context.stroke();
      });
    }
    context.globalAlpha = 1;
  }
}

/** Where a mark is now: on its way from the last but one place of its trail to the last. */
function placeOf(mark, now) {
  const [before, last] = mark.trail?.slice(-2) ?? [];
  if (!last) return { place: before ?? mark, isMoving: false };
  const part = still.matches ? 1 : Math.min(1, Math.max(0, (now - last.began) / MOVE_MS));
  const eased = 1 - (1 - part) ** 3;
  const place = { x: before.x + (last.x - before.x) * eased, y: before.y + (last.y - before.y) * eased };
  return { place, isMoving: part < 1 };
}

function circle(context, x, y, radius, { fill, line, size = 2, opacity = 1 }) {
  context.globalAlpha = opacity;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  if (fill) {
    context.fillStyle = fill;
    context.fill();
  } else {
    context.strokeStyle = line;
    context.lineWidth = size;
    context.stroke();
  }
  context.globalAlpha = 1;
}

function label(context, words, x, y, { ground, text, within }) {
  const shown = words.length > 40 ? `${words.slice(0, 39)}…` : words;
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  const width = context.measureText(shown).width;
  const left = x + 14 + width > within ? x - 14 - width : x + 14;
  context.lineWidth = 4;
  context.lineJoin = "round";
  context.strokeStyle = ground;
  context.strokeText(shown, left, y);
  context.fillStyle = text;
  context.fillText(shown, left, y);
}

let lastDisc = null;

/** The pixels of a disc, from its middle, in an image of a width: their offsets, and how much they cover (to 256). */
function disc(radius, width) {
  if (lastDisc?.radius === radius && lastDisc.width === width) return lastDisc;
  const reach = Math.ceil(radius + 0.5);
  const [offsets, alphas] = [[], []];
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      const cover = Math.min(1, radius + 0.5 - Math.hypot(x, y));
      if (cover <= 0) continue;
      offsets.push(y * width + x);
      alphas.push(Math.round(cover * OPACITY * 256));
    }
  }
  lastDisc = { radius, width, reach, offsets: Int32Array.from(offsets), alphas: Int32Array.from(alphas) };
  return lastDisc;
}

const known = new Map();

/** A colour of CSS (#rrggbb or rgb()) as a pixel. */
function packed(colour) {
  if (!known.has(colour)) {
    const parts = colour.startsWith("#") ? colour.slice(1).match(/../g).map((part) => parseInt(part, 16)) : colour.match(/\d+/g).map(Number);
    known.set(colour, 0xff000000 | (parts[2] << 16) | (parts[1] << 8) | parts[0]);
  }
  return known.get(colour);
}
