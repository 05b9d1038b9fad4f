// The page around the tab: its address, and word of reloads.

/** TensorBoard's address where it can be read, else the tab's own. */
function page() {
  try {
    void window.parent.location.hash;
    return window.parent;
  } catch {
    return window;
  }
}

export const readHash = () => page().location.hash;

/** Writes the address without a step in the browser's history. */
export function writeHash(hash) {
  const { history, location } = page();
  if (location.hash !== hash) history.replaceState(history.state, "", location.pathname + location.search + hash);
}

export const address = () => page().location.href;

/** Calls back when TensorBoard has reloaded its data (a message of its plugin library's protocol). */
export function onReload(reloaded) {
  if (window.parent === window) return;
  const channel = new MessageChannel();
  channel.port1.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.isReply) return;
    if (message.type === "experimental.DataReloaded") reloaded();
    channel.port1.postMessage(JSON.stringify({ type: message.type, id: message.id, payload: null, error: null, isReply: true }));
  };
  window.parent.postMessage("experimental.bootstrap", "*", [channel.port2]);
}
