// Elements. Text only ever becomes text nodes and attributes: what a run says is data, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Attributes: strings; true and false for those without a value; on...: a listener. */
export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that is one for the keyboard and for screen readers too. */
export const button = (text, label, onclick, attributes = {}) =>
  h("button", { type: "button", "aria-label": label, title: label, onclick, ...attributes }, text);

/** As high as it has been since it is `of` something else, or as wide: what stands below does not move with each step. */
export function keepHeight(element, of) {
  const now = JSON.stringify([of, element.clientWidth]);
  if (element.dataset.tallest !== now) element.style.minHeight = "";
  element.dataset.tallest = now;
  element.style.minHeight = `${element.offsetHeight}px`;
}

/** Put `items` into a select, each [value, text], and choose one. */
export function options(select, items, chosen) {
  const now = JSON.stringify(items);
  if (select.dataset.items !== now) {
    select.replaceChildren(...items.map(([value, text]) => h("option", { value }, text)));
    select.dataset.items = now;
  }
  select.value = String(chosen);
}
