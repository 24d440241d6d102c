// Drop a file, and see what the workers hear in it.

import { token } from "../api.js";
import { askForToken } from "../token.js";

export const title = "Try it";

const LOOK_MS = 3000;
const LATE_MS = 60_000;
const FIELDS = "genre,confidence,genres,tags,title,reason";
const REASONS = {
  not_audio: "No decoder reads this file as audio.",
  damaged: "The file is damaged.",
  too_short: "The audio is too short to be heard.",
  too_long: "The audio is too long.",
  too_large: "The file is too large.",
  silent: "The audio is silent.",
  not_found: "The worker did not find the file.",
  refused_uri: "The worker may not read the folder of uploads: it has to be in its TASTEWAVE_FILE_ROOTS.",
  fetch_failed: "The worker could not read the file.",
  process_crashed: "The process that heard the file has crashed.",
  process_timed_out: "Hearing the file took too long.",
  out_of_memory: "Hearing the file took too much memory.",
};

export async function show(root, { signal, page }) {
  const { el, get } = page;
  const taken = await get("/v1/uploads", { signal });
  root.append(el("h1", {}, title));
  if (!taken.taken) {
    const off = el("div", { class: "card" });
    page.state(off, "empty", "Uploads are off here. TASTEWAVE_SERVE_UPLOADS names the folder that allows them.");
    root.append(off);
    return;
  }
  const list = el("div", { class: "try-list" });
  const view = { page, signal, taken, list, waiting: new Set(), last: Promise.resolve() };
  root.append(dropZone(view), list);
  const offs = [
    page.events.on("track", ({ id }) => [...view.waiting].some((upload) => upload.track_id === id) && look(view)),
    page.events.on("state", (state) => state === "open" && look(view)),
  ];
  const looking = setInterval(() => look(view), LOOK_MS);
  return () => {
    offs.forEach((off) => off());
    clearInterval(looking);
  };
}

function dropZone(view) {
  const { el, fmt } = view.page;
  const { max_bytes, suffixes } = view.taken;
  const input = el("input", { type: "file", id: "try-file", multiple: true, accept: suffixes.join(",") });
  const take = (files) => {
    for (const file of files) view.last = view.last.then(() => upload(view, file));
  };
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  const zone = el(
    "div",
    { class: "try-drop" },
    el("p", { class: "try-lead" }, "Drop an audio file here"),
    el("p", { class: "muted" }, `MP3, FLAC, WAV, Ogg, M4A and others, up to ${fmt.bytes(max_bytes)}`),
    el("label", { class: "try-choose" }, "Choose files", input),
    el("p", { class: "muted small" }, "The file is stored, the workers are told, and the answer appears below."),
  );
  const over = (is) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", is);
  };
  zone.addEventListener("dragenter", over(true));
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", (event) => {
    over(false)(event);
    take([...event.dataTransfer.files]);
  });
  return zone;
}

async function upload(view, file) {
  const { page, signal, taken } = view;
  const { el, fmt } = page;
  if (signal.aborted) return;
  const body = el("div", { class: "try-body" });
  const card = el("section", { class: "card try-card" }, el("div", { class: "row" }, el("h2", {}, file.name), el("span", { class: "muted small" }, fmt.bytes(file.size))), body);
  view.list.prepend(card);
  const failed = (text) => body.replaceChildren(el("p", { class: "bad", role: "alert" }, text));
  const suffix = /\.[^.]+$/.exec(file.name.toLowerCase())?.[0];
  if (!taken.suffixes.includes(suffix)) return failed("The name does not end like that of an audio file, such as .mp3.");
  if (file.size > taken.max_bytes) return failed(`The file has ${fmt.bytes(file.size)}, and ${fmt.bytes(taken.max_bytes)} are allowed.`);
  const bar = el("progress", { max: file.size || 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const told = el("p", { class: "muted", role: "status" }, "Uploading …");
  body.replaceChildren(bar, told);
  try {
    const uploaded = await send(file, { signal, page, progress: (sent) => (bar.value = sent) });
    told.textContent = "Stored; the workers know. Waiting for the answer …";
    bar.removeAttribute("value");
    view.waiting.add({ ...uploaded, body, told });
    await look(view); // another upload of the same file may have been answered meanwhile
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof page.Problem)) throw error;
    failed(error.detail);
  }
}

/** POST a file; fetch tells no progress. Throws a Problem, or AbortError. */
async function send(file, { signal, page, progress }) {
  for (;;) {
    const used = token();
    const { status, answer } = await sent(file, { signal, page, progress });
    if (status === 202) return answer;
    if (status === 401 && (await askForToken({ refused: used }))) continue;
    throw new page.Problem({ title: `Status ${status}`, ...answer, status });
  }
}

function sent(file, { signal, page, progress }) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    signal.addEventListener("abort", abort);
    request.open("POST", new URL(`../../v1/uploads?name=${encodeURIComponent(file.name.slice(-255))}`, import.meta.url));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (token()) request.setRequestHeader("Authorization", `Bearer ${token()}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onload = () => done({ status: request.status, answer: request.response ?? {} });
    request.onerror = () => fail(new page.Problem({ status: 0, title: "The upload broke off; look whether tastewave serve runs" }));
    request.onabort = () => fail(new DOMException("left", "AbortError"));
    request.onloadend = () => signal.removeEventListener("abort", abort);
    request.send(file);
  });
}

/** Ask for the answers that are waited for, and show those that have come. */
async function look({ page, waiting, signal }) {
  if (!waiting.size) return;
  const ids = [...new Set([...waiting].map((upload) => upload.track_id))];
  try {
    const { tracks } = await page.post(`/v1/tracks/batch?fields=${FIELDS}`, { ids }, { signal });
    for (const track of tracks) {
      for (const upload of waiting) {
        if (upload.track_id !== track.track_id || track.event_time < upload.uploaded_at) continue; // of an earlier upload
        waiting.delete(upload);
        showAnswer(page, upload, track);
      }
    }
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof page.Problem)) throw error;
  }
  for (const upload of waiting) {
    if (Date.now() - upload.uploaded_at > LATE_MS) upload.told.textContent = "No answer yet. Look whether a tracks worker runs and may read the folder of uploads.";
  }
}

function showAnswer({ el, fmt, colour, link }, { body, uploaded_at }, track) {
  const after = el("p", { class: "muted small" }, `Answered ${fmt.duration(track.tagged_at - uploaded_at)} after the upload`);
  if (track.status === "failed") {
    body.replaceChildren(
      el("p", { class: "bad", role: "alert" }, `${REASONS[track.reason] ?? "The file could not be heard."} (${track.reason})`),
      after,
    );
    return;
  }
  const guess = track.genres?.[0]?.[0];
  body.replaceChildren(
    el(
      "p",
      { class: "try-answer", role: "status" },
      track.genre
        ? el("strong", { class: "genre", style: { "--genre": colour(track.genre) } }, track.genre)
        : el("strong", {}, guess ? `Not sure: ${guess}?` : "Not sure"),
      el("span", { class: "muted" }, track.confidence === undefined ? track.status : `${track.status} at ${fmt.percent(track.confidence)}`),
    ),
    el("p", { class: "try-tags" }, (track.tags ?? []).slice(0, 8).map(([tag, share]) => el("span", { class: "tag" }, `${tag} ${fmt.percent(share)}`))),
    el("p", {}, el("a", { href: link("track", track.track_id) }, "See what was heard"), " · ", el("a", { href: `#/map?track=${encodeURIComponent(track.track_id)}` }, "on the map")),
    after,
  );
}
