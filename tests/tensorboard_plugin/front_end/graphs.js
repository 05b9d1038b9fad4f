// A graph as /step gives it, for tests: input -> hidden (two shown, one not) -> output.

export const part = ({ shares = [0.75, 0.25], total = 8, hidden = [0, 1], other = [7, 0.5] } = {}) => ({
  class: 1,
  samples: 4,
  layers: [["input", "input"], ["a:b@c", "convolution"], ["out", "linear"]],
  nodes: [
    [0, 0, total, 0.5, 0],
    ...hidden.map((neuron, i) => [1, neuron, shares[i] * total, 0.1, 0]),
    [2, 1, total, 2, 1],
  ],
  edges: hidden.flatMap((_, i) => [[0, 1 + i, shares[i] * total, 1], [1 + i, 1 + hidden.length, shares[i] * total, shares[i]]]),
  paths: [[[0, 1, 1 + hidden.length], shares[0], null]],
  others: [[[], []], [[other[0]], [other[1]]], [[], []]],
});
