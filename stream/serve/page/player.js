// The player of a track.

import { token } from "./api.js";

/**
 * Plays the audio, and says where it is as long as it plays.
 *
 * A player cannot send a token. Where one is needed, the file is fetched as a whole when it is first played.
 */
export class Player {
  #audio;
  #context; // path of the track, signal, page
  #wanted = 0; // s
  #url = null; // of the fetched file
  #frame = 0;

  constructor(context, onmove) {
    const { el } = context.page;
    this.#context = context;
    const follow = () => {
      onmove(1000 * this.#audio.currentTime);
      this.#frame = this.#audio.paused ? 0 : requestAnimationFrame(follow);
    };
    this.#audio = el("audio", { controls: true, preload: "none", onplay: follow, onseeked: () => this.#frame || follow(), onerror: () => this.#fail() });
    this.element = el("div", { class: "player" });
    if (token()) this.element.append(el("button", { type: "button", onclick: () => this.#fetch() }, "Play"));
    else this.#open(`${context.path}/audio`);
  }

  /** Play from a moment of the track on. */
  async play(ms) {
    this.#wanted = ms / 1000;
    if (this.#audio.src) await this.#start();
    else await this.#fetch();
  }

  #open(url) {
    this.#audio.src = url;
    this.element.replaceChildren(this.#audio);
  }

  async #start() {
    this.#audio.currentTime = this.#wanted;
    await this.#audio.play().catch(() => {}); // it was paused again, the view was left, or #fail tells it
  }

  async #fetch() {
    const { path, signal, page } = this.#context;
    page.state(this.element, "loading", "Loading the audio …");
    try {
      this.#url = URL.createObjectURL(new Blob([await page.get(`${path}/audio`, { signal, as: "buffer" })]));
      this.#open(this.#url);
      await this.#start();
    } catch (error) {
      if (!signal.aborted) page.state(this.element, "error", error.message, { retry: () => this.#fetch() });
    }
  }

  #fail() {
    if (this.#url) this.#context.page.state(this.element, "error", "This browser cannot play the file.");
    else this.#fetch(); // maybe it needs a token; else this says what is wrong
  }

  close() {
    cancelAnimationFrame(this.#frame);
    this.#audio.pause();
    this.#audio.removeAttribute("src");
    this.#audio.load(); // or it goes on fetching
    if (this.#url) URL.revokeObjectURL(this.#url);
  }
}
