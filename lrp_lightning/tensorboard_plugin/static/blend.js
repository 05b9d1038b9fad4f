// Heatmaps over images, and one slider from image to heatmap for all of them.

import { h } from "./dom.js";

let blend = 60; // 0: the image alone, 50: both in full, 100: the heatmap alone

/** Of image and heatmap the opacity. */
export const opacities = (value) => ({ image: Math.min(1, (100 - value) / 50), heat: Math.min(1, value / 50) });

function set(value) {
  blend = value;
  const { image, heat } = opacities(value);
  document.documentElement.style.setProperty("--image", image);
  document.documentElement.style.setProperty("--heat", heat);
  for (const slider of document.querySelectorAll("input.blend")) slider.value = value;
}

export function blendSlider() {
  const slider = h("input", { class: "blend", type: "range", min: 0, max: 100, value: blend, "aria-label": "From image to heatmap", oninput: () => set(Number(slider.value)) });
  return h("label", { class: "quiet blends", title: "Blend images with the heatmaps over them" }, "image", slider, "heatmap");
}

/** A heatmap over an image, both canvases of the same shape; either may be absent. */
export function stack(image, heat, ...over) {
  heat?.classList.add("over");
  return h("span", { class: image && heat ? "stack" : "stack alone" }, image, heat, over);
}
