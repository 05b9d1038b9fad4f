// Words that the panels share, and what measures are. No DOM here.

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

/** What tells names apart: each without the parts that all begin or end with. Parts end at a separator. */
export function apart(names) {
  const parts = names.map((name) => name.split(/(?<=[/\\,;_\s-])/));
  const least = Math.min(...parts.map((all) => all.length));
  const same = (place) => parts.every((all) => all.at(place) === parts[0].at(place));
  let [start, end] = [0, 0];
  while (start < least - 1 && same(start)) start += 1;
  while (end < least - 1 - start && same(-1 - end)) end += 1;
  return names.map((name, i) => (names.length < 2 ? name : parts[i].slice(start, parts[i].length - end).join("").replace(/[/\\,;_\s-]+$/, "") || name));
}

export const ABOUT_TAB = [
  "Each answer of the network is traced back through its neurons, by layer-wise relevance propagation. The few neurons of each layer through which most of it runs are its critical neurons.",
  "A strategy is a group of a class's images that are decided alike. It is a likely shortcut if a small region of it, copied into images of other classes, turns these into the class: then the network goes by that region rather than by the thing.",
  "The graph shows through which neurons the chosen class is decided, from the input on the left to the class on the right. Red speaks for the class, blue against it.",
];

/** What each measure is, what is good and what is bad. */
export const ABOUT = {
  contest_accuracy: "How often the predicted class wins against the runner-up, each computed with its own critical neurons alone. Good is near 100 % with random neurons near 50 %; near 50 % critical neurons do not decide.",
  random_contest_accuracy: "The same contest with as many random neurons: the control. About 50 % is as it should be; if it is as high as the contest, any neurons would do.",
  runner_up_accuracy: "How often the runner-up's own critical neurons turn the image into the runner-up. Low is good; near 100 % neurons force their class whatever the image shows, and the other measures say little.",
  critical_neuron_accuracy: "How often the prediction stays with only the critical neurons at work. Good is near 100 % with random neurons near chance; low means that the decision needs more neurons.",
  random_accuracy: "How often the prediction stays with as many random neurons: the control. Near chance is good; if it is high, so many neurons are kept that any do.",
  retained_accuracy: "How often the network is right with only the critical neurons at work. Good is near its usual accuracy; far below, they are not enough.",
  ablated_accuracy: "How often the network is right with all but the critical neurons. Low is good, it needs them; high means that it decides as well without them.",
  sufficiency: "How much probability the predicted class loses with only the critical neurons at work. Near 0 is good, they suffice; near 1 they do not.",
  comprehensiveness: "How much probability the predicted class loses with all but the critical neurons. Near 1 is good, it needs them; near 0 it does without.",
  logit_correlation: "Whether the predicted class's logit with only the critical neurons rises and falls with that of all neurons, from sample to sample. Near 1 is good; at 0 or below it does not follow.",
  circuit_agreement: "How often an image's class is told from one set of neurons for each class, those most often critical for it in the epoch before. Near 1 is good, classes have neurons of their own; near chance they change from image to image.",
  smape: "How far the logits with only the critical neurons are from those with all. 0 is good, they are the same; 2 is as far as can be.",
  mse: "How far the logits with only the critical neurons are from those with all, squared. Near 0 is good; how much is bad depends on the size of the logits.",
  stability: "How many of the classes' critical neurons are those of the epoch before. It rises to 1 while a network settles; near 0 they are others in every epoch.",
  conservation_error: "How much of the output's relevance is lost on its way to the input. Around 1e−6 is good, that is rounding; above 1e−3 an operator passes relevance wrongly.",
  shortcuts: "How many strategies are likely shortcuts: a small region of theirs, copied into images of other classes, turns these into the class. 0 is good; above it, look at what that region shows.",
};
