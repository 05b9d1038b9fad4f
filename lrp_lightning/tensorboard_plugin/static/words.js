// Words that strategies and cards share. No DOM here.

import { percent } from "./numbers.js";

const LONGEST = 40;

/** A name that fits into a sentence. */
export function brief(name) {
  const letters = [...name.slice(0, 4 * LONGEST)];
  return letters.length > LONGEST ? `${letters.slice(0, LONGEST - 1).join("")}…` : name;
}

/** A share in whole per cent, unless that would say none of a few; never broken between lines. */
export const whole = (share) => (share >= 0.005 ? `${Math.round(share * 100)} %` : percent(share)).replace(" ", "\u00a0");

export const counted = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
