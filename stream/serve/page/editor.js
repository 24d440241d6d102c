// Who sits before the page: the name under which changes stand in the log. The token is one for all.

import { el } from "./elements.js";

const KEY = "editor";

/** A field for the name; `value()` gives it, and moves the focus there where it is missing. */
export function nameField() {
  const input = el("input", { id: "editor", maxlength: "256", autocomplete: "nickname", required: true, value: localStorage.getItem(KEY) || "" });
  input.addEventListener("input", () => localStorage.setItem(KEY, input.value.trim()));
  return {
    field: el("span", { class: "editor" }, el("label", { for: "editor" }, "Your name"), input),
    value() {
      if (!input.value.trim()) input.focus();
      return input.value.trim();
    },
  };
}
