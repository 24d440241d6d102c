// The frame of the page: which view the address names, the navigation, and whether the server answers.

import { events, get, post, Problem } from "./api.js";
import { colour, heat, onScheme } from "./colours.js";
import * as elements from "./elements.js";
import * as fmt from "./format.js";
import { takeTokenFromAddress } from "./token.js";
import { VIEWS } from "./views.js";

const { el, state } = elements;
const main = document.querySelector("main");
const nav = document.querySelector("nav");
const banner = document.querySelector(".banner");

/** The address of a view, and of one thing in it. */
export const link = (view, id) => (id === undefined ? `#/${view}` : `#/${view}/${encodeURIComponent(id)}`);

const page = { ...elements, get, post, events, fmt, colour, heat, link, Problem };

let leave = null; // ends the view that is shown

async function show() {
  takeTokenFromAddress();
  leave?.();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const view = Object.hasOwn(VIEWS, name) ? VIEWS[name] : null;
  for (const one of nav.children) one.ariaCurrent = one.dataset.view === name ? "page" : null;
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  const left = new AbortController();
  let cleanUp = null;
  leave = () => {
    left.abort();
    cleanUp?.();
    cleanUp = null;
  };
  const root = el("div", { class: `view view-${view?.file ?? "none"}` });
  main.replaceChildren(root);
  try {
    if (!view) {
      document.title = "Not found · tastewave";
      root.append(el("h1", {}, "Not found"), el("div"));
      state(root.lastChild, "empty", `This page has no view “${decoded(name)}”.`);
      return;
    }
    state(root, "loading", "Loading …");
    const [module] = await Promise.all([import(`./views/${view.file}.js`), styled(view.file)]);
    if (left.signal.aborted) return;
    document.title = `${module.title} · tastewave`;
    root.replaceChildren();
    const ended = await module.show(root, {
      id: rest.length ? decoded(rest.join("/")) : undefined,
      query: new URLSearchParams(query),
      signal: left.signal,
      page,
    });
    if (left.signal.aborted) ended?.();
    else cleanUp = ended;
  } catch (error) {
    if (left.signal.aborted || error.name === "AbortError") return;
    state(root, "error", error instanceof Problem ? error.detail : "This view could not be shown.", { retry: show });
    if (!(error instanceof Problem)) throw error;
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand, with a stray %
  }
}

/** The style sheet of a view, once; settles when it has come. */
function styled(file) {
  const href = new URL(`./views/${file}.css`, import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href)) return null;
  return new Promise((come, fail) => {
    document.head.append(el("link", { rel: "stylesheet", href, onload: come, onerror: fail }));
  });
}

function tellState() {
  const text = {
    open: events.problem && `What is shown may be old: ${events.problem}`,
    connecting: null,
    away: "Disconnected: tastewave serve does not answer. The page connects again by itself.",
  }[events.state];
  banner.textContent = text || "";
  banner.hidden = !text;
  banner.classList.toggle("away", events.state === "away");
}

for (const [name, { label }] of Object.entries(VIEWS)) {
  if (label) nav.append(el("a", { href: link(name), "data-view": name }, label));
}
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  main.focus();
});
events.on("state", tellState);
events.on("problem", tellState);
onScheme(show);
addEventListener("hashchange", () => show().then(() => main.focus({ preventScroll: true })));
show();
