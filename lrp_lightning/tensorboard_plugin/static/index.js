// The tab Relevance: TensorBoard imports this module in a frame of its own, and calls render().

import { App } from "./app.js";
import { h } from "./dom.js";
import { followTheme } from "./theme.js";

export async function render() {
  document.documentElement.lang = "en";
  document.title = "Relevance";
  const style = h("link", { rel: "stylesheet", href: new URL("style.css", import.meta.url).href });
  await new Promise((done) => {
    style.onload = style.onerror = done;
    document.head.append(style);
  });
  let app = null;
  followTheme(() => app?.now !== undefined && app?.loaded && app.draw());
  const root = h("div", { class: "app" });
  document.body.replaceChildren(root);
  app = new App(root);
  await app.reload();
}
