# %% [markdown]
# # 3. Right for the wrong reasons
#
# *You learn to find out that a network depends on a mark in its training data, to prove it, and to check that a repair
# worked.*
#
# Suppose that the sevens were photographed in another room, and most of those images have a bright spot in the corner.
# Nobody noticed. We plant that spot ourselves, in 60 % of the sevens, so that we know what there is to find.

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
# By its accuracy this is a fine network, since the test images come from the same room.
#
# ## Groups of images that are decided alike
#
# Images with the mark run through other neurons than images without. `find_strategies` explains the images of each
# class, groups them by the neurons that decide them, and then tests each group: it takes the small region where the
# group's relevance is densest, *copies it into images of other classes*, and counts how many of them change their
# class. Controls are copied from elsewhere. Where the region alone changes the class, the group is called a shortcut.

# %%
from lrp_lightning import find_strategies

loader = list(zip(images[train].split(200), labels[train].split(200)))
strategies = find_strategies(model, loader, progress=False)
print(f"{len(strategies)} groups in ten classes, {len(strategies.shortcuts)} likely shortcut")

# %% [picture]
draw_strategies([strategy for strategy in strategies if strategy.label == 7])

# %% [markdown]
# Each row is a group of sevens: its mean heatmap, then its most typical images; the frame is the region that was
# copied. The heat of the upper group is in the corner, on the spot, with a little on the stem of the seven. The heat of
# the lower group, sevens without a spot, is on the stem and on the corner of the upper stroke, where it should be.

# %%
[shortcut] = strategies.shortcuts
print(shortcut.sentence())
found = has_mark[train][shortcut.samples]
print(f"of the {len(found)} images in this group {found.float().mean():.0%} have the mark that we planted;")
print(f"of all images with the mark {found.sum() / has_mark[train].sum():.0%} are in this group")

# %% [markdown]
# ## Try it by hand
#
# You need not take the test's word for it. Put the mark into test images of the other digits, which never had it.

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
# Fours, most of them, and each taken for a seven. The heat is on the spot; the stem has a little, and the left arm of
# the four is blue: it opposes a seven, and is outweighed.
#
# ## Which neurons read the mark?
#
# Take the sevens that have the mark, remove it, and see which neurons of the last convolution lose most relevance. A
# *neuron card* then shows the patches of images that drive a neuron most, those in which it is most relevant for the
# predicted class, and the classes that it supports.

# %%
from lrp_lightning import neuron_cards

sevens, layer = clean[train][has_mark[train]], "5"
lrp = SelectiveLRP(model)
with_mark, without = (lrp.trace(x, target=7).relevance[layer].mean(0) for x in (marked(sevens), sevens))
readers = (with_mark - without).topk(3).indices.tolist()
cards = neuron_cards(model, loader, {layer: readers}, progress=False)
draw_neuron_cards(cards, k=4)

# %% [markdown]
# Above each patch of the image, below it what in the patch drives the neuron. The first and the third neuron are driven
# most by the spot, and the class that they support most is the seven; the second is driven by steep strokes and by
# the spot alike. But look at the right half: where these neurons are most relevant there are often just strokes. The
# network has no "spot detector"; neurons that read strokes of digits read the spot too.
#
# ## Repair it, and check the repair
#
# The repair is in the data: here we have the images without the mark, in practice you crop it, cover it, or show it in
# all classes alike. Train again and ask the same two questions.

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
# The same images, spot and all, explained by the repaired network. It takes all but one for fours, by their arms and
# the crossing of their strokes, and the spot is blue: to this network it is something that a four does not have. The
# image that is still taken for a seven has red on the spot, which is bright where a seven is bright. A repaired network
# can be confused by a spot; it does not look for one.
#
# `RelevanceMonitor` makes this search by itself at the end of each training and warns of what it finds. What it can
# miss is written in the [guide](../../docs/guides/right_for_the_wrong_reasons.md). Next: [which neurons really
# decide](4_critical_neurons_that_pass_the_contest.ipynb).
