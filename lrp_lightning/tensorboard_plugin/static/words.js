// Words that the panels share, and what measures are. No DOM here.

import { percent } from "./numbers.js";

const LONGEST = 40;

/** A name that fits into a sentence. */
export function brief(name) {
  const letters = [...name.slice(0, 4 * LONGEST)];
  return letters.length > LONGEST ? `${letters.slice(0, LONGEST - 1).join("")}…` : name;
}

/** A share in whole per cent, with more digits if it would round to 0; never broken between lines. */
export const whole = (share) => (share >= 0.005 ? `${Math.round(share * 100)} %` : percent(share)).replace(" ", "\u00a0");

export const counted = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** Names shortened to what distinguishes them: without the parts that all begin or end with. Parts end at a separator. */
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
  "Layer-wise relevance propagation (LRP) traces each prediction back through the network. The few neurons of each layer that carry most of the relevance are the critical neurons.",
  "A strategy is a group of images of one class that the network decides alike. It is a likely shortcut if a small region of its images, copied into images of other classes, turns these into the class: then the network decides by that region, not by the object.",
  "The graph shows the neurons that carry relevance for the chosen class, from the input on the left to the class on the right. Red supports the class, blue opposes it.",
  "A neuron that is selected can be named, pinned and grouped with others of its layer: Shift-click these, or press G on them. All of this is kept in the link.",
];

/** What each measure is, what is good and what is bad. */
export const ABOUT = {
  contest_accuracy: "How often the predicted class beats the runner-up when the logit of each is computed with that class's own critical neurons alone. Good is near 100 % with random neurons near 50 %; near 50 % the critical neurons do not decide.",
  random_contest_accuracy: "The control: the same contest with random sets of neurons of the same size. About 50 % is expected; if it is as high as the contest itself, any neurons would do.",
  runner_up_accuracy: "How often the runner-up's own critical neurons make the runner-up win. Low is good; near 100 % neurons force their class whatever the image shows, and the other measures prove little.",
  critical_neuron_accuracy: "How often the prediction stays the same with only the critical neurons active. Good is near 100 % with random neurons near chance; low means that the decision needs more neurons.",
  random_accuracy: "The control: how often the prediction stays the same with random sets of neurons of the same size. Near chance is good; if it is high, so many neurons are kept that any would do.",
  retained_accuracy: "Accuracy with only the critical neurons active. Good is near the network's usual accuracy; far below it, they are not enough.",
  ablated_accuracy: "Accuracy with the critical neurons switched off. Low is good: the network needs them. High means that it decides equally well without them.",
  sufficiency: "How much probability the predicted class loses with only the critical neurons active. Near 0 is good: they suffice. Near 1 they do not.",
  comprehensiveness: "How much probability the predicted class loses with the critical neurons switched off. Near 1 is good: the network needs them. Near 0 it does not.",
  logit_correlation: "Correlation, over samples, of the predicted class's logit with only the critical neurons and its logit with all neurons. Near 1 is good; at 0 or below the critical neurons do not explain the logit.",
  circuit_agreement: "How often an image's class is recognised from one fixed set of neurons per class: those most often critical for it in the epoch before. Near 1 is good: classes have neurons of their own. Near chance critical neurons change from image to image.",
  smape: "Relative distance (SMAPE) of the logits with only the critical neurons from those with all neurons. 0 is good: they are equal. 2 is the maximum.",
  mse: "Mean squared difference of the logits with only the critical neurons and those with all neurons. Near 0 is good; what counts as large depends on the size of the logits.",
  stability: "Overlap (Jaccard index) of each class's critical neurons with those of the epoch before. It rises towards 1 as a network settles; near 0 they differ in every epoch.",
  conservation_error: "How much of the output's relevance is lost on its way to the input. Around 1e−6 is good: that is rounding. Above 1e−3 an operator propagates relevance wrongly.",
  shortcuts: "Number of strategies that are likely shortcuts: a small region of their images, copied into images of other classes, turns these into the class. 0 is good; otherwise check what that region shows.",
};
