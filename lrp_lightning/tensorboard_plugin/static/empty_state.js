// What to do where there is nothing to see.

import { h } from "./dom.js";

const CODE = `from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lrp_lightning.callbacks import RelevanceMonitor

trainer = Trainer(
    logger=TensorBoardLogger("runs"),
    callbacks=[RelevanceMonitor()],
)
trainer.fit(model, train_loader, val_loader)`;

export const emptyState = () => [
  h("h2", {}, "No relevance in this log yet"),
  h("p", {}, "Add RelevanceMonitor to a Trainer that logs to TensorBoard. After its first validation epoch this tab shows which neurons the model's decisions run through."),
  h("pre", {}, h("code", {}, CODE)),
  h("p", { class: "quiet" }, "This page looks for new records every five seconds. Is training on another machine? Then start TensorBoard with the folder of its logs: tensorboard --logdir runs"),
];
