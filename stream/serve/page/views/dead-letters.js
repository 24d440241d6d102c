// Dead letters: what could not be answered and why, and the way to send it again.

import { nameField } from "../editor.js";

export const title = "Dead letters";

const REFRESH_MS = 5000;
const PAGE = 50;
const MOST_SELECTED = 500;
const SINCE = [
  ["Any time", 0],
  ["Last 15 minutes", 900_000],
  ["Last hour", 3_600_000],
  ["Last day", 86_400_000],
  ["Last week", 604_800_000],
];
const RUNBOOK = "runbook#7-dead-letters";

export function show(root, { signal, query, page }) {
  const { el, state, get, post, fmt, link, Problem } = page;
  const asked = { reason: query.get("reason"), within: Number(query.get("within")) || 0 };
  const selected = new Map(); // key -> letter
  const open = new Set(); // keys of the letters whose details are shown
  let told = null; // the last answer
  let older = []; // letters of further pages
  let next = null;
  let shown = ""; // what the list was made of
  let turn = 0; // of the newest request: an answer to an earlier one comes too late

  const chips = el("div", { class: "chips", role: "group", "aria-label": "Reason" });
  const within = el(
    "select",
    {
      "aria-label": "Given up",
      onchange: () => go({ within: Number(within.value) }),
    },
    SINCE.map(([name, ms]) => el("option", { value: ms, selected: ms === asked.within }, name)),
  );
  const explained = el("div");
  const list = el("div");
  const bar = el("div", { class: "selection card", hidden: true });
  root.append(
    el(
      "div",
      { class: "row heading" },
      el("h1", {}, title),
      el("a", { href: RUNBOOK, target: "_blank", rel: "noopener" }, "Runbook"),
      el("button", { type: "button", onclick: () => go({}) }, "Reload"),
    ),
    el("div", { class: "filters" }, chips, within),
    explained,
    list,
    bar,
  );
  state(list, "loading", "Loading …");

  const path = (more = {}) => {
    const since = asked.within ? Date.now() - asked.within : 0;
    const given = { limit: PAGE, ...(asked.reason && { reason: asked.reason }), ...(since && { since }), ...more };
    return `/v1/dead-letters?${new URLSearchParams(given)}`;
  };

  async function load() {
    const mine = ++turn;
    try {
      const answer = await get(path(), { signal });
      if (mine !== turn) return;
      told = answer;
      older = older.filter((letter) => letter.time < Math.min(...told.letters.map((one) => one.time)));
      if (!older.length) next = told.next;
      draw();
    } catch (error) {
      if (mine === turn) fail(error);
    }
  }

  async function loadOlder() {
    const mine = ++turn;
    try {
      const more = await get(path({ after: next }), { signal });
      if (mine !== turn) return;
      older.push(...more.letters);
      next = more.next;
      draw();
    } catch (error) {
      if (mine === turn) fail(error);
    }
  }

  function fail(error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    shown = "";
    told = null;
    state(list, "error", error.detail, { retry: load });
  }

  function go(change) {
    Object.assign(asked, change);
    const given = Object.entries(asked).filter(([, value]) => value);
    history.replaceState(null, "", `#/dead-letters${given.length ? `?${new URLSearchParams(given)}` : ""}`);
    selected.clear();
    older = [];
    load();
  }

  function draw() {
    const now = JSON.stringify([told, older, next, asked, Math.floor(Date.now() / 60_000)]);
    if (now === shown) return;
    shown = now;
    const focused = document.activeElement?.closest("[data-key]")?.dataset.key;
    drawFilters();
    const letters = [...told.letters, ...older];
    if (!letters.length) drawNothing();
    else {
      list.replaceChildren(
        el("ul", { class: `letters card${told.may_redrive ? "" : " read-only"}`, "aria-label": "Letters, newest first" }, letters.map(letterRow)),
        el(
          "p",
          { class: "row muted below" },
          next ? el("button", { type: "button", onclick: loadOlder }, "Older letters") : null,
          !next && !told.are_all && el("span", {}, marked("Kafka holds older letters; `tastewave dead-letters` lists them.")),
          !told.may_redrive &&
            el("span", {}, marked("Nothing can be redriven here: TASTEWAVE_SERVE_REDRIVE is off. `tastewave dead-letters redrive` does it.")),
        ),
      );
    }
    if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    drawSelection();
  }

  function drawNothing() {
    const isFiltered = asked.reason || asked.within;
    if (isFiltered) return state(list, "empty", "No such letters.");
    state(list, "empty", "No dead letters. Every event was answered.");
    list.firstChild.prepend(el("span", { class: "all-well", "aria-hidden": "true" }, "✓"));
  }

  function drawFilters() {
    const all = Object.values(told.counts).reduce((sum, count) => sum + count, 0);
    const chip = (reason, name, count) =>
      el(
        "button",
        { type: "button", class: "chip", "aria-pressed": String(asked.reason === reason), onclick: () => go({ reason }) },
        name,
        el("span", { class: "count" }, fmt.number(count)),
      );
    const counts = Object.entries(told.counts);
    if (asked.reason && !told.counts[asked.reason]) counts.push([asked.reason, 0]);
    chips.replaceChildren(chip(null, "all", all), ...counts.map(([reason, count]) => chip(reason, reason, count)));
    const advice = told.explained[asked.reason];
    explained.hidden = !asked.reason;
    explained.replaceChildren(
      el(
        "section",
        { class: "card explained" },
        el("h2", {}, asked.reason ?? ""),
        advice && el("p", {}, marked(advice.meaning), "."),
        advice && el("p", {}, el("b", {}, "What to do: "), marked(advice.advice)),
        told.may_redrive &&
          told.counts[asked.reason] > 0 &&
          el("button", { type: "button", onclick: redriveReason }, "Redrive all of this reason …"),
      ),
    );
  }

  function letterRow(letter) {
    const key = keyOf(letter);
    const isOpen = open.has(key);
    const details = el("div", { class: "details", hidden: !isOpen });
    if (isOpen) details.append(...detailsOf(letter));
    const toggle = el(
      "button",
      {
        type: "button",
        class: "toggle",
        "data-key": `open ${key}`,
        "aria-expanded": String(isOpen),
        onclick: () => {
          if (open.delete(key)) details.replaceChildren();
          else {
            open.add(key);
            details.replaceChildren(...detailsOf(letter));
          }
          details.hidden = !open.has(key);
          toggle.ariaExpanded = String(open.has(key));
        },
      },
      el("span", { class: "message" }, letter.message || "no message"),
    );
    return el(
      "li",
      {},
      told.may_redrive ? tick(letter, key) : null,
      el("time", { datetime: new Date(letter.time).toISOString(), title: fmt.time(letter.time) }, fmt.ago(letter.time)),
      el("span", { class: "what" }, el("span", { class: "reason" }, letter.reason), el("span", { class: "ids" }, named(letter))),
      toggle,
      letter.redriven_at && el("span", { class: "status good" }, `sent again ${fmt.ago(letter.redriven_at)}`),
      letter.truncated && el("span", { class: "status warn" }, "cut"),
      details,
    );
  }

  function tick(letter, key) {
    const box = el("input", {
      type: "checkbox",
      "data-key": `tick ${key}`,
      "aria-label": `Select ${letter.reason} of ${nameOf(letter)}`,
      disabled: letter.truncated,
      title: letter.truncated ? "A part of the event is missing: its producer has to publish it again" : null,
      onchange: () => {
        if (!box.checked) selected.delete(key);
        else if (selected.size < MOST_SELECTED) selected.set(key, letter);
        else box.checked = false;
        drawSelection();
      },
    });
    box.checked = selected.has(key);
    return box;
  }

  function named(letter) {
    return [
      letter.track_id !== undefined && el("a", { class: "id", href: link("track", letter.track_id) }, letter.track_id),
      letter.user_id !== undefined && el("a", { class: "id", href: link("user", letter.user_id) }, letter.user_id),
      letter.track_id === undefined && letter.user_id === undefined && el("span", { class: "id muted" }, letter.key || "no key"),
    ];
  }

  const nameOf = (letter) => letter.track_id ?? letter.user_id ?? letter.key ?? "an event";

  function detailsOf(letter) {
    const advice = asked.reason ? null : told.explained[letter.reason]; // else it stands above the list
    const { topic, partition, offset } = letter.source;
    const rows = [
      ["Message", letter.message || "none"],
      ["Means", advice && [marked(advice.meaning), "."]],
      ["What to do", advice && marked(advice.advice)],
      ["Event", topic ? `${topic}, partition ${partition}, offset ${offset}` : "unknown"],
      ["Key", letter.key && el("span", { class: "id" }, letter.key)],
      ["Given up", `${fmt.time(letter.time)}, after ${fmt.plural(Math.max(1, letter.attempts), "attempt")}, by release ${letter.release || "unknown"}`],
      ["Sent again", letter.redriven_at && `${fmt.time(letter.redriven_at)}, by ${letter.redriven_by}`],
      ["Cut", letter.truncated && "A part of the event is missing. Have its producer publish it again."],
    ];
    return [
      el("dl", {}, rows.filter(([, what]) => what).map(([name, what]) => [el("dt", {}, name), el("dd", {}, what)])),
      el("a", { href: RUNBOOK, target: "_blank", rel: "noopener" }, "Runbook, section 7"),
    ];
  }

  function drawSelection() {
    bar.hidden = !selected.size;
    bar.replaceChildren(
      el("span", { "aria-live": "polite" }, `${fmt.plural(selected.size, "letter")} selected`),
      el("button", { type: "button", class: "primary", onclick: redriveSelected }, "Redrive …"),
      el(
        "button",
        {
          type: "button",
          onclick: () => {
            selected.clear();
            shown = "";
            draw();
          },
        },
        "Clear",
      ),
    );
  }

  const redriveSelected = () =>
    redrive(`Redrive ${fmt.plural(selected.size, "letter")}?`, { sources: [...selected.values()].map((letter) => letter.source) });

  function redriveReason() {
    const since = asked.within ? Date.now() - asked.within : 0;
    const when = since ? ` since ${fmt.time(since)}` : "";
    redrive(`Redrive all letters of the reason ${asked.reason}${when}?`, { reason: asked.reason, ...(since && { since }) });
  }

  /** Asks once more, then redrives, and says what became of it. */
  function redrive(question, choice) {
    const { field, value } = nameField();
    const said = el("div", { class: "said", role: "status" });
    const start = el("button", { type: "submit", class: "primary" }, "Redrive");
    const cancel = el("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const dialog = el(
      "dialog",
      { class: "redrive", "aria-labelledby": "redrive-title", onclose: () => dialog.remove() },
      el(
        "form",
        {
          onsubmit: async (event) => {
            event.preventDefault();
            if (!value()) return;
            start.disabled = true;
            cancel.textContent = "Close";
            const watching = setInterval(tellProgress, 1000, said);
            said.textContent = "Reading the letters …";
            try {
              const done = await post("/v1/dead-letters/redrive", { by: value(), ...choice });
              said.replaceChildren(...outcome(done));
              start.hidden = true;
              selected.clear();
            } catch (error) {
              if (!(error instanceof Problem)) throw error;
              said.replaceChildren(el("p", { class: "bad" }, error.detail));
              start.disabled = false;
            } finally {
              clearInterval(watching);
            }
            shown = "";
            if (!signal.aborted) load();
          },
        },
        el("h2", { id: "redrive-title" }, question),
        el("p", {}, "Their events go to their topic again, as they came the first time: 100 a second. An event that has its answer is not handled twice. One that fails again becomes a new letter."),
        field,
        said,
        el("div", { class: "buttons" }, cancel, start),
      ),
    );
    document.body.append(dialog);
    signal.addEventListener("abort", () => dialog.close());
    dialog.showModal();
  }

  async function tellProgress(said) {
    const { running } = await get("/v1/dead-letters?limit=1", { signal }).catch(() => ({}));
    if (running?.of) said.textContent = `Read ${fmt.number(running.read)} of ${fmt.plural(running.of, "letter")} …`;
  }

  function outcome({ sent, repeated, truncated, foreign }) {
    const total = Object.values(sent).reduce((sum, count) => sum + count, 0);
    return [
      el("p", {}, el("b", { class: "good" }, `${fmt.plural(total, "event")} sent again.`)),
      repeated > 0 && el("p", {}, `${fmt.plural(repeated, "further letter")} of the same events.`),
      truncated > 0 && el("p", {}, `${fmt.plural(truncated, "letter")} refused: a part of the event is missing.`),
      foreign > 0 && el("p", {}, `${fmt.plural(foreign, "letter")} refused: of no topic that workers read.`),
    ].filter(Boolean);
  }

  /** Markdown of the runbook: what stands in backticks is code. */
  const marked = (text) => text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));

  const timer = setInterval(() => document.hidden || (told && load()), REFRESH_MS);
  load();
  return () => clearInterval(timer);
}

const keyOf = ({ time, source }) => `${source.topic}/${source.partition}/${source.offset}/${time}`;
