// Light and dark, as TensorBoard is.

/** Keeps <html data-theme> as TensorBoard's page, and tells of changes. */
export function followTheme(changed) {
  const wished = window.matchMedia("(prefers-color-scheme: dark)");
  let host = null;
  try {
    host = window.parent === window ? null : window.parent.document.body;
  } catch {
    // shown within another site, as in a notebook
  }
  const read = () => {
    const dark = host ? host.classList.contains("dark-mode") : wished.matches;
    const theme = dark ? "dark" : "light";
    if (document.documentElement.dataset.theme === theme) return;
    document.documentElement.dataset.theme = theme;
    changed();
  };
  if (host) new MutationObserver(read).observe(host, { attributes: true, attributeFilter: ["class"] });
  wished.addEventListener("change", read);
  read();
}

export const theme = () => document.documentElement.dataset.theme;
