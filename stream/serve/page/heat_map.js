// The tags of a track over time: a row for each tag, a column for each patch of about 3 s.

import { heat } from "./colours.js";
import { el } from "./elements.js";
import { percent, position } from "./format.js";

const ROW_PX = 20;
const GAP_PX = 8; // between two windows of the track, of which what lies between was not heard
const FIRST_ROWS = 15;
const PATCH_MS = 3000; // where a taggram does not tell when its patches start

/** A moment to the nearest second. */
const second = (ms) => position(1000 * Math.round(ms / 1000));

/** What a taggram tells, ready to be drawn: rows by strength, columns by time. */
export function readTaggram({ tags, starts_ms: starts, values }) {
  const patches = values.length;
  const rows = (values[0] ?? []).map((_, tag) => {
    const shares = values.map((patch) => patch[tag] / 255);
    return { name: tags?.[tag] ?? `tag ${tag + 1}`, shares, mean: shares.reduce((sum, share) => sum + share, 0) / patches };
  });
  rows.sort((first, second) => second.mean - first.mean);
  const patchMs = starts?.length > 1 ? starts[1] - starts[0] : PATCH_MS;
  const windows = []; // [first patch, patch behind the last]
  for (let patch = 0; patch < patches; patch++) {
    const goesOn = patch && (!starts || starts[patch] - starts[patch - 1] < 1.5 * patchMs);
    if (goesOn) windows.at(-1)[1] = patch + 1;
    else windows.push([patch, patch + 1]);
  }
  const most = Math.max(0.1, Math.ceil(10 * Math.max(0, ...rows.flatMap((row) => row.shares))) / 10);
  return { rows, starts, patches, patchMs, windows, most };
}

/**
 * The map as an element.
 *
 *     const map = new HeatMap(readTaggram(answer), { label: "Tags of So What", onpick: (ms) => ... })
 *     root.append(map.element)
 *     map.play(74_000)   // the cursor stands there; null takes it away
 *
 * Colours go from 0 to the strongest tag. onpick is called with a moment of the track; without moments, never.
 */
export class HeatMap {
  #taggram;
  #onpick;
  #shown = FIRST_ROWS;
  #cell = null; // [row, patch] under the pointer or the arrow keys
  #canvas = el("canvas", { tabindex: "0", role: "application", "aria-roledescription": "heat map" });
  #names = el("ol", { class: "heat-names" });
  #axis = el("div", { class: "heat-axis", "aria-hidden": "true" });
  #mark = el("div", { class: "heat-mark", hidden: true });
  #cursor = el("div", { class: "heat-cursor", hidden: true });
  #said = el("p", { class: "heat-said", role: "status" });
  #more;
  #observer = new ResizeObserver(() => this.#draw());

  constructor(taggram, { label, onpick }) {
    this.#taggram = taggram;
    this.#onpick = taggram.starts ? onpick : null;
    this.#canvas.setAttribute("aria-label", `${label}. Arrow keys move from cell to cell${this.#onpick ? ", Enter plays the moment" : ""}.`);
    this.#more = el("button", { type: "button", onclick: () => this.#show(this.#shown > FIRST_ROWS ? FIRST_ROWS : taggram.rows.length) });
    this.element = el(
      "div",
      { class: "heat-map" },
      this.#names,
      el("div", { class: "heat-field" }, this.#canvas, this.#mark, this.#cursor),
      el("div", { class: "heat-unit" }, el("span", {}, "mean")),
      this.#axis,
      el("div", { class: "heat-foot" }, this.#said, legend(taggram.most)),
      taggram.rows.length > FIRST_ROWS && this.#more,
    );
    this.#canvas.addEventListener("pointermove", (event) => this.#point(this.#at(event)));
    this.#canvas.addEventListener("pointerleave", () => this.#point(null));
    this.#canvas.addEventListener("click", (event) => this.#pick(this.#at(event)));
    this.#canvas.addEventListener("keydown", (event) => this.#press(event));
    this.#canvas.addEventListener("blur", () => this.#point(null));
    this.#show(FIRST_ROWS);
    this.#observer.observe(this.#canvas);
  }

  /** Put the cursor at a moment of the track, in ms; it is hidden where that was not heard, and by null. */
  play(ms) {
    const { starts, patchMs } = this.#taggram;
    const patch = ms === null || !starts ? -1 : starts.findIndex((start) => start <= ms && ms < start + patchMs);
    this.#cursor.hidden = patch < 0;
    if (patch < 0) return;
    const [left, width] = this.#column(patch);
    this.#cursor.style.setProperty("left", `${left + (width * (ms - starts[patch])) / patchMs}px`);
  }

  close() {
    this.#observer.disconnect();
  }

  #show(rows) {
    this.#shown = Math.min(rows, this.#taggram.rows.length);
    this.#point(null);
    this.#names.replaceChildren(
      ...this.#taggram.rows.slice(0, this.#shown).map(({ name, mean }) => el("li", {}, el("span", {}, name), el("span", { class: "muted" }, percent(mean)))),
    );
    this.#more.textContent = this.#shown > FIRST_ROWS ? `Show the ${FIRST_ROWS} strongest` : `Show all ${this.#taggram.rows.length} tags`;
    this.#canvas.style.setProperty("height", `${ROW_PX * this.#shown}px`);
    this.#draw();
  }

  #draw() {
    const { width } = this.#canvas.getBoundingClientRect();
    if (!width) return;
    const scale = devicePixelRatio;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(ROW_PX * this.#shown * scale);
    const ink = this.#canvas.getContext("2d");
    const { rows, patches, most } = this.#taggram;
    for (let patch = 0; patch < patches; patch++) {
      const [left, wide] = this.#column(patch);
      const from = Math.round(left * scale);
      const to = Math.round((left + wide) * scale) - (wide > 4 ? 1 : 0);
      for (let row = 0; row < this.#shown; row++) {
        ink.fillStyle = `rgb(${heat(rows[row].shares[patch] / most)})`;
        ink.fillRect(from, Math.round(row * ROW_PX * scale), to - from, Math.round(ROW_PX * scale) - 1);
      }
    }
    this.#label();
    this.#point(this.#cell);
  }

  /** [left, width] of a patch, in px. */
  #column(patch) {
    const { patches, windows } = this.#taggram;
    const each = (this.#canvas.clientWidth - GAP_PX * (windows.length - 1)) / patches;
    const before = windows.findIndex(([begin, end]) => begin <= patch && patch < end);
    return [patch * each + before * GAP_PX, each];
  }

  /** Where each window begins, and the last one ends. */
  #label() {
    const { starts, windows, patchMs, patches } = this.#taggram;
    const [left, width] = this.#column(patches - 1);
    const end = starts ? second(starts[patches - 1] + patchMs) : `${patches} patches of 3 s`;
    this.#axis.replaceChildren(
      ...windows.map(([begin]) => el("span", { style: { left: `${this.#column(begin)[0]}px` } }, starts ? second(starts[begin]) : "0")),
      el("span", { class: "last", style: { left: `${left + width}px` } }, end),
    );
  }

  #at({ offsetX, offsetY }) {
    const { patches } = this.#taggram;
    const row = Math.floor(offsetY / ROW_PX);
    for (let patch = 0; patch < patches; patch++) {
      const [left, width] = this.#column(patch);
      if (left <= offsetX && offsetX < left + width) return row >= 0 && row < this.#shown ? [row, patch] : null;
    }
    return null;
  }

  /** Mark a cell, and say what it tells. */
  #point(cell) {
    this.#cell = cell;
    this.#mark.hidden = !cell;
    this.#canvas.classList.toggle("over", Boolean(cell && this.#onpick));
    if (!cell) {
      this.#said.textContent = this.#onpick ? "Click a moment to hear it." : "Point at a cell to read it.";
      return;
    }
    const [row, patch] = cell;
    const { rows, starts, patchMs } = this.#taggram;
    const [left, width] = this.#column(patch);
    for (const [name, px] of Object.entries({ left, top: row * ROW_PX, width, height: ROW_PX })) this.#mark.style.setProperty(name, `${px}px`);
    const when = starts ? `${second(starts[patch])}–${second(starts[patch] + patchMs)}` : `patch ${patch + 1}`;
    this.#said.replaceChildren(el("strong", {}, rows[row].name), ` ${percent(rows[row].shares[patch])} at ${when}`);
  }

  #press(event) {
    const [row, patch] = this.#cell ?? [0, 0];
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter" || event.key === " ") this.#pick(this.#cell);
    else if (event.key === "Escape") this.#point(null);
    else if (!moves[event.key]) return;
    else if (!this.#cell) this.#point([0, 0]);
    else {
      const [down, right] = moves[event.key];
      const bounded = (value, end) => Math.min(end - 1, Math.max(0, value));
      this.#point([bounded(row + down, this.#shown), bounded(patch + right, this.#taggram.patches)]);
    }
    event.preventDefault();
  }

  #pick(cell) {
    if (cell) this.#onpick?.(this.#taggram.starts[cell[1]]);
  }
}

function legend(most) {
  const steps = 24;
  const ink = el("canvas", { width: steps, height: 1, "aria-hidden": "true" });
  const drawing = ink.getContext("2d");
  for (let step = 0; step < steps; step++) {
    drawing.fillStyle = `rgb(${heat(step / (steps - 1))})`;
    drawing.fillRect(step, 0, 1, 1);
  }
  return el("div", { class: "heat-legend muted small" }, percent(0), ink, `${percent(most)} probability`);
}
