// Numbers as people read them. No DOM here.

/** Three digits, without what a reader would have to skip, and `more` where it is asked for. */
export function number(value, more = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return minus(value.toExponential(1 + more).replace(/\.0+e/, "e"));
  return minus(String(Number(value.toPrecision(3 + more))));
}

/** A share in per cent, with `more` digits where they are asked for. */
export function percent(value, more = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const hundredth = value * 100;
  if (hundredth === 0) return "0 %";
  if (Math.abs(hundredth) < 0.1) return `${minus(hundredth.toPrecision(1 + more))} %`;
  return `${minus(hundredth.toFixed((Math.abs(hundredth) < 10 ? 1 : 0) + more))} %`;
}

/** The same with its sign, for changes. */
export const change = (value) => (value > 0 ? `+${percent(value)}` : percent(value));

/** Round values that lie between two, for an axis. */
export function ticks(low, high, about = 2) {
  if (!(high > low)) return [low];
  const raw = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [5, 2, 1].map((factor) => factor * power).find((size) => size <= raw) ?? power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** Values of an axis in words: no two alike. */
export function labels(values, format) {
  const most = 6; // digits that float numbers of a log have
  for (let more = 0; ; more += 1) {
    const texts = values.map((value) => format(value, more));
    if (new Set(texts).size === texts.length || more === most) return texts;
  }
}

/** Wilson's 95 % confidence interval of a share of `n`. */
export function interval(share, n) {
  const z2 = 1.96 ** 2;
  const middle = (share + z2 / (2 * n)) / (1 + z2 / n);
  const half = (Math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))) / (1 + z2 / n);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

const minus = (text) => text.replace(/-/g, "−");
