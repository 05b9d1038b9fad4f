// Numbers as people read them. No DOM here.

/** Three digits, without what a reader would have to skip. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return minus(value.toExponential(1).replace(".0e", "e"));
  return minus(String(Number(value.toPrecision(3))));
}

/** A share in per cent. */
export function percent(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const hundredth = value * 100;
  if (hundredth === 0) return "0 %";
  if (Math.abs(hundredth) < 0.1) return `${minus(hundredth.toPrecision(1))} %`;
  return `${minus(hundredth.toFixed(Math.abs(hundredth) < 10 ? 1 : 0))} %`;
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

const minus = (text) => text.replace(/-/g, "−");
