# %% [markdown]
# # 2. Training with the monitor
#
# *You learn to watch, epoch by epoch and with one callback, which neurons drive a network's decisions and whether they
# really decide.*
#
# A small convolutional network learns scikit-learn's handwritten digits. The code is ordinary Lightning code; only one
# line, in the second code cell, is new.

# %%
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

seed_everything(0, verbose=False)
images, labels = map(torch.tensor, load_digits(return_X_y=True))  # 1,797 images of 8 x 8, values 0 to 16
images = F.interpolate(images.view(-1, 1, 8, 8).float() / 16, size=(16, 16), mode="bilinear")
train, val = random_split(TensorDataset(images, labels), [1437, 360])
train_loader, val_loader = DataLoader(train, 32, shuffle=True), DataLoader(val, 120)


class DigitsNet(LightningModule):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.conv3, self.head = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(512, 10)

    def forward(self, x):
        x = F.max_pool2d(self.conv2(self.conv1(x).relu()).relu(), 2)
        x = F.max_pool2d(self.conv3(x).relu(), 2)
        return self.head(x.flatten(1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


# %% [markdown]
# That line is `RelevanceMonitor(...)`. It works on validation batches, adds nothing to the loss and draws no random
# numbers: training ends with the same weights with and without it.
#
# - `selection` determines which neurons count as critical, here the fifth of each layer with the largest relevance.
# - `max_share=None` logs everything in every epoch. By default the monitor may take only a few per cent of the training
#   time, and draws less often.

# %%
from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor

monitor = RelevanceMonitor(selection=TopK(0.2), class_names=list("0123456789"), max_share=None)
every_epoch = ModelCheckpoint(filename="{epoch}", save_top_k=-1)  # to compare epochs later
trainer = Trainer(
    max_epochs=5, logger=TensorBoardLogger("runs", name="digits"), callbacks=[monitor, every_epoch],
    accelerator="cpu", log_every_n_steps=10, enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
model = DigitsNet()
trainer.fit(model, train_loader, val_loader)
for name, value in sorted(trainer.callback_metrics.items()):
    if name != "relevance/seconds":
        print(f"{name:<36} {value:.3g}")

# %% [markdown]
# Which of these values should you watch?
#
# - `contest_accuracy`: the predicted class and the runner-up each get their own critical neurons, and nothing else. In
#   what share of images does the predicted class still win? `random_contest_accuracy` is the same with random neurons,
#   about a half.
# - `runner_up_accuracy`: the share of images in which the *runner-up's* neurons make the network predict the runner-up.
#   A value near 1 is a warning: sets of neurons force their class, whatever the image shows.
# - `shortcuts`: the number of groups of images whose class depends on a small region; [notebook
#   3](3_right_for_the_wrong_reasons.ipynb) shows one.
#
# All of them are ordinary logged values, so `ModelCheckpoint(monitor="relevance/contest_accuracy", mode="max")` works.
#
# ## The tab in TensorBoard
#
# Run `tensorboard --logdir runs` in a shell, or `%load_ext tensorboard` and then `%tensorboard --logdir runs` in a
# notebook. The tab *Relevance* has an interactive graph of each class for every epoch; its button *Compare* shows two
# epochs side by side.
#
# ## Reading the log back
#
# Everything is in an ordinary TensorBoard log, which TensorBoard's own reader opens.

# %%
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lrp_lightning.drawing import draw_curves

log = EventAccumulator(trainer.logger.log_dir, size_guidance={"images": 0}).Reload()  # 0: all, else the reader drops some
measures = {
    "accuracy": "accuracy",
    "contest, critical neurons": "relevance/contest_accuracy",
    "contest, random neurons": "relevance/random_contest_accuracy",
    "runner-up wins": "relevance/runner_up_accuracy",
}
curves = {name: [event.value for event in log.Scalars(tag)] for name, tag in measures.items()}
draw_curves(curves, xlabel="epoch", ylabel="share of images", static=True)

# %% [markdown]
# After the first epoch, critical neurons win two thirds of their contests, and in half of the images the runner-up's
# neurons make the runner-up win: such neurons often just force their class. From the second epoch on, critical neurons
# win about nine contests in ten and random ones about half, and the runner-up wins less with every epoch.
#
# The log also contains the pictures, as PNG. These are the heatmaps of the first and the last epoch.

# %%
from IPython.display import Image, display

heatmaps = log.Images("relevance/heatmaps")
display(Image(heatmaps[0].encoded_image_string), Image(heatmaps[-1].encoded_image_string))

# %% [markdown]
# Each digit has three pictures: the image, the relevance through its critical neurons, and the relevance through all
# neurons. "42 %" is the part of the logit that the heatmap contains; the rest stayed in biases and in neurons that were
# not selected. After the first epoch, the network took the three for an eight, because of the upper part of its stroke,
# and the seven for a one. After the last epoch, both are right. The three now has its relevance on both ends of its
# upper arc, the four on its left corner and its right stroke, the six along its left stroke and on the lower right of
# its loop.
#
# You can also read the record on which the tab is based. Its head contains the measures and the findings, in sentences.

# %%
from tensorboard.util.tensor_util import make_ndarray

from lrp_lightning.tensorboard_plugin.schema import read_head

for event in log.Tensors("relevance/record"):
    head = read_head(make_ndarray(event.tensor_proto))
    print(f"epoch {head['epoch']}:", *head["headline"])

# %% [markdown]
# Consider the warning after the first epoch: the middle of a one, copied into other digits, turned many of them into
# ones. Nobody planted this mark. It is what a one looks like to a network that has hardly learned anything, and the
# warning disappears an epoch later. A likely shortcut is something to examine, not a verdict.
#
# ## What changed between two epochs?
#
# The checkpoints contain the network of each epoch. `class_graph` is the mean graph over the images of a class;
# `diff_graphs` shows for each neuron and edge whether it carries more or less of the class than before.

# %% [picture]
from lrp_lightning import class_graph, diff_graphs
from lrp_lightning.drawing import draw_graph


def threes(epoch):
    """The graph of the class 3 after an epoch."""
    path = f"{trainer.logger.log_dir}/checkpoints/epoch={epoch}.ckpt"
    state = DigitsNet.load_from_checkpoint(path, map_location="cpu")
    return class_graph(state, val_loader, target=3, selection=TopK(0.2), progress=False)


diff = diff_graphs(threes(0), threes(4))
draw_graph(diff, title="the class 3: fifth epoch less first", static=True)

# %%
from collections import Counter

print(Counter(change for (layer, _), change in diff.nodes(data="change") if layer != "input"))

# %% [markdown]
# Red neurons and edges carry more of the class than after the first epoch, blue ones less. The class 3 has left neurons
# 16 of `conv2` and 13 of `conv3` and moved to others, such as 7 and 18 of `conv2` and 4 and 29 of `conv3`. About as
# many neurons are new as have disappeared: the critical neurons are still changing, and `relevance/stability` measures
# how much, for all classes.
#
# Next: [a network that is right for the wrong reasons](3_right_for_the_wrong_reasons.ipynb).
