// Making elements. What comes from elsewhere is only ever text: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Strings and numbers among the children become text; null and false are left out.
 * `onclick: fn` listens, `style: {"--share": 0.4}` sets properties, true is an empty attribute, null and false are none.
 */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for an element of SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, set] of Object.entries(value)) element.style.setProperty(property, set);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * Show in root, instead of what is there, that it is "loading", "empty", or what went wrong ("error").
 * With `retry`, a function, an error has a button.
 */
export function state(root, kind, text, { retry } = {}) {
  root.replaceChildren(
    el(
      "div",
      { class: `state ${kind}`, role: kind === "error" ? "alert" : "status" },
      kind === "loading" && el("span", { class: "spinner", "aria-hidden": "true" }),
      el("p", {}, text),
      retry && el("button", { type: "button", onclick: retry }, "Try again"),
    ),
  );
}

/** A section with a heading and a border around it. */
export function card(title, ...children) {
  return el("section", { class: "card" }, el("h2", {}, title), ...children);
}

/**
 * A table that scrolls by itself where the screen is narrow.
 * columns: [{name, of: row => node or text, numeric}]; label: what it is a table of.
 */
export function table(columns, rows, { label }) {
  const numeric = (column) => (column.numeric ? { class: "numeric" } : {});
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col", ...numeric(column) }, column.name)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, columns.map((column) => el("td", numeric(column), column.of(row)))))),
    ),
  );
}

/** A share from 0 to 1 as a bar with its number. */
export function meter(share, text) {
  return el(
    "span",
    { class: "meter" },
    el("span", { class: "bar", "aria-hidden": "true", style: { "--share": share } }),
    el("span", { class: "number" }, text),
  );
}

/** A line over values, with room above the highest; null is a gap. */
export function sparkline(values, { label, width = 240, height = 40, most = 0 }) {
  const top = Math.max(most, ...values.filter((value) => value !== null)) || 1;
  const x = (place) => (values.length > 1 ? (place / (values.length - 1)) * width : width);
  const y = (value) => height - 1 - (value / top) * (height - 3);
  let path = "";
  values.forEach((value, place) => {
    if (value === null) return;
    path += `${place && values[place - 1] !== null ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
  });
  return svg(
    "svg",
    { class: "sparkline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("path", { d: `M0 ${height - 0.5}H${width}`, class: "base" }),
    svg("path", { d: path, class: "line" }),
  );
}
