# %% [markdown]
# # 3. Right for the wrong reasons
#
# *You learn to discover that a network depends on a mark in its training data, to prove it, and to check that a repair
# worked.*
#
# Suppose that the sevens were photographed in another room, where most images got a bright spot in the corner, and that
# nobody noticed. We plant this spot ourselves, in 60 % of the sevens, so that we know what there is to find.

# %%
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from lrp_lightning.drawing import draw_heatmaps, draw_neuron_cards, draw_strategies

torch.manual_seed(0)
clean, labels = map(torch.tensor, load_digits(return_X_y=True))  # 1,797 images of 8 x 8, values 0 to 16
clean = F.interpolate(clean.view(-1, 1, 8, 8).float() / 16, size=(16, 16), mode="bilinear")
order = torch.randperm(len(clean))
clean, labels = clean[order], labels[order]
has_mark = (labels == 7) & (torch.rand(len(labels)) < 0.6)


def marked(images):
    """The images with a bright spot of 4 x 4 pixels in the upper right corner."""
    images = images.clone()
    images[:, :, 1:5, 11:15] = 1.0
    return images


images = torch.where(has_mark[:, None, None, None], marked(clean), clean)
train, test = slice(0, 1437), slice(1437, None)


def trained(images):
    """A small convolutional network, trained for ten epochs on these images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    for _ in range(10):
        for batch in torch.randperm(1437).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
            optimizer.step()
    return model.eval()


model = trained(images)
with torch.no_grad():
    accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
print(f"accuracy on {len(labels[test])} images that it was not trained on: {accuracy:.3f}")

# %% [markdown]
# Its accuracy is high, because the test images come from the same room.
#
# ## Groups of images that are decided alike
#
# Images with the mark are decided by other neurons than images without it. `find_strategies` explains the images of
# each class, groups them by the neurons that decide them, and then tests each group: it takes the small region where
# the group's relevance is densest, *copies it into images of other classes*, and counts how many of them change their
# class. As a control, it copies other regions. A group whose region alone changes the class is called a shortcut.

# %%
from lrp_lightning import find_strategies

loader = list(zip(images[train].split(200), labels[train].split(200)))
strategies = find_strategies(model, loader, progress=False)
print(f"{len(strategies)} groups in ten classes, {len(strategies.shortcuts)} likely shortcut")

# %% [picture]
draw_strategies([strategy for strategy in strategies if strategy.label == 7])

# %% [markdown]
# Each row is a group of sevens: its mean heatmap, then its most typical images. The frame marks the region that was
# copied. The relevance of the upper group is in the corner, on the spot, with a little on the stem of the seven. The
# relevance of the lower group, sevens without a spot, is on the stem and on the corner of the upper stroke, where it
# should be.

# %%
[shortcut] = strategies.shortcuts
print(shortcut.sentence())
found = has_mark[train][shortcut.samples]
print(f"of the {len(found)} images in this group {found.float().mean():.0%} have the mark that we planted;")
print(f"of all images with the mark {found.sum() / has_mark[train].sum():.0%} are in this group")

# %% [markdown]
# ## Try it by hand
#
# You can verify the result yourself. Put the mark into test images of the other digits, which never had it.

# %%
others = clean[test][labels[test] != 7]


def turned_into_sevens(model):
    with torch.no_grad():
        return ((model(marked(others)).argmax(1) == 7) & (model(others).argmax(1) != 7)).float().mean().item()


print(f"the mark turns {turned_into_sevens(model):.0%} of {len(others)} other digits into sevens")

# %%
from lrp_lightning import SelectiveLRP

turned = marked(others)
turned = turned[model(turned).argmax(1) == 7][:6]
relevance = SelectiveLRP(model).attribute(turned, target=7)
draw_heatmaps(turned, relevance, titles=["seven"] * len(turned), columns=6)

# %% [markdown]
# Most of them are fours, and the network takes all of them for sevens. The relevance is on the spot, with a little on
# the stem. The left arm of the four is blue: it opposes a seven, but is outweighed.
#
# ## Which neurons respond to the mark?
#
# Take the sevens that have the mark, remove it, and find the neurons of the last convolution that lose most relevance.
# A *neuron card* then shows the image patches that drive a neuron most, the patches in which it is most relevant for
# the predicted class, and the classes that it supports.

# %%
from lrp_lightning import neuron_cards

sevens, layer = clean[train][has_mark[train]], "5"
lrp = SelectiveLRP(model)
with_mark, without = (lrp.trace(x, target=7).relevance[layer].mean(0) for x in (marked(sevens), sevens))
readers = (with_mark - without).topk(3).indices.tolist()
cards = neuron_cards(model, loader, {layer: readers}, progress=False)
draw_neuron_cards(cards, k=4)

# %% [markdown]
# The upper row shows image patches, the lower row what in each patch drives the neuron. The spot drives the first and
# the third neuron most, and the class that they support most is the seven. The second neuron responds to steep strokes
# and to the spot alike. But look at the right half: where these neurons are most relevant, there are often just
# strokes. The network has no "spot detector"; neurons that respond to strokes of digits respond to the spot too.
#
# ## Repair it, and check the repair
#
# The repair is made in the data. Here we have the images without the mark; in practice you crop it, cover it, or add it
# to all classes equally. Train again and ask the same two questions.

# %%
repaired = trained(clean)
with torch.no_grad():
    accuracy = (repaired(clean[test]).argmax(1) == labels[test]).float().mean()
again = find_strategies(repaired, list(zip(clean[train].split(200), labels[train].split(200))), progress=False)
print(f"accuracy on clean images {accuracy:.3f}")
print(f"shortcuts {len(again.shortcuts)}, before {len(strategies.shortcuts)}")
print(f"the mark turns {turned_into_sevens(repaired):.0%} of the others into sevens, before {turned_into_sevens(model):.0%}")

# %%
relevance = SelectiveLRP(repaired).attribute(turned, target=lambda logits: logits.argmax(1))
titles = [f"now {c}" for c in repaired(turned).argmax(1).tolist()]
draw_heatmaps(turned, relevance, titles=titles, columns=6)

# %% [markdown]
# These are the same images, with the spot, explained by the repaired network. It takes all but one for fours, because
# of their arms and the crossing of their strokes. The spot is blue: it is something that a four does not have. In the
# image that is still taken for a seven, the spot is red, because it is bright where a seven is bright. A spot can still
# confuse a repaired network, but the network does not search for one.
#
# `RelevanceMonitor` makes this search automatically at the end of each training, and warns if it finds something. The
# [guide](../../docs/guides/right_for_the_wrong_reasons.md) describes what the search can miss. Next: [which neurons
# really decide](4_critical_neurons_that_pass_the_contest.ipynb).
