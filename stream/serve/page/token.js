// The bearer token: it comes in the address (#token=...) or is asked for, and stays in this tab alone.

import { el } from "./elements.js";

/** Take the token out of the address, where it would stay in the history. */
export function takeTokenFromAddress() {
  const given = /^#token=([^&]+)/.exec(location.hash);
  if (!given) return;
  sessionStorage.setItem("token", given[1]);
  history.replaceState(null, "", "#/");
}

let asking = null;

/** Ask for the token in a dialog, once for all who need it; whether there is another one than was refused. */
export async function askForToken({ refused }) {
  if (sessionStorage.getItem("token") !== refused) return true;
  asking ??= dialog(Boolean(refused)).finally(() => (asking = null));
  return asking;
}

function dialog(wasRefused) {
  return new Promise((answer) => {
    const input = el("input", { id: "token", type: "password", autocomplete: "off", required: true });
    const close = (given) => {
      shown.close();
      shown.remove();
      answer(given);
    };
    const shown = el(
      "dialog",
      { "aria-labelledby": "token-title", oncancel: () => close(false) },
      el(
        "form",
        {
          onsubmit: (event) => {
            event.preventDefault();
            sessionStorage.setItem("token", input.value.trim());
            close(true);
          },
        },
        el("h2", { id: "token-title" }, "A token is needed"),
        el("p", {}, wasRefused ? "This token was refused." : "What names people, or changes anything, needs the token of the server (TASTEWAVE_SERVE_TOKEN)."),
        el("label", { for: "token" }, "Token"),
        input,
        el(
          "div",
          { class: "buttons" },
          el("button", { type: "button", onclick: () => close(false) }, "Cancel"),
          el("button", { type: "submit", class: "primary" }, "Use it"),
        ),
      ),
    );
    document.body.append(shown);
    shown.showModal();
  });
}
