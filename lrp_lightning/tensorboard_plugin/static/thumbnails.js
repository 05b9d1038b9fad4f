// Pictures of neurons as small images, which SVG can show and a file of it can hold.

import { image } from "./heatmap.js";

/**
 * @param wanted Map of key -> {ref, at}: a ref of pictures, and which of them.
 * @param get fetches the pictures of a ref.
 * @returns promise of a Map of key -> address of its picture; of those that can be had.
 */
export async function thumbnails(wanted, get) {
  const found = await Promise.all([...wanted].map(([key, { ref, at }]) =>
    get(ref).then((values) => [key, image(values, ref, at, "").toDataURL()], () => null)));
  return new Map(found.filter(Boolean));
}
