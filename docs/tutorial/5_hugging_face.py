# %% [markdown]
# # 5. Transformers of Hugging Face
#
# *You learn to explain a vision transformer by its patches and a language model by its tokens, with two rules for
# attention.*
#
# Nothing is downloaded: both models are built from a configuration of `transformers` and trained here, in seconds, on
# tasks that are small enough for us to know the right explanation. Pretrained models are used in the same way.

# %%
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

from lrp_lightning import Composite, Epsilon, Flat, Gamma, SelectiveLRP
from lrp_lightning.drawing import draw_contact_sheet, draw_tokens

torch.manual_seed(0)
images, labels = map(torch.tensor, load_digits(return_X_y=True))  # 1,797 images of 8 x 8, values 0 to 16; here -1 to 1
images = F.interpolate(images.view(-1, 1, 8, 8).float() / 8 - 1, size=(16, 16), mode="bilinear")
order = torch.randperm(len(images))
images, labels = images[order], labels[order]


def train(model, inputs, labels, steps, rate):
    """A model of transformers gives an object whose ``logits`` are the output."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(inputs), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[batch]).logits, labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


# %% [markdown]
# ## A vision transformer
#
# The model cuts the image of 16 x 16 pixels into 64 patches of 2 x 2, which attend to each other.

# %%
config = ViTConfig(
    image_size=16, patch_size=2, num_channels=1, num_labels=10, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
    intermediate_size=128, initializer_range=0.1,
)  # fmt: skip
vit = train(ViTForImageClassification(config), images[:1437], labels[:1437], steps=400, rate=2e-3)
test, truth = images[1437:], labels[1437:]
with torch.no_grad():
    predicted = vit(test).logits.argmax(1)
print(f"accuracy on {len(test)} test images {(predicted == truth).float().mean():.3f}")

# %% [markdown]
# Pass the model to `SelectiveLRP` unchanged: outputs with `logits` are supported. Two choices matter for a transformer:
#
# - *The rule for attention.* By default, the attention weights are constants, and relevance goes through the values
#   alone (Ali et al. 2022). With `attention="attnlrp"`, it goes through queries and keys as well (Achtibat et al.
#   2024).
# - *The rules for layers.* `Gamma` in linear layers makes calmer heatmaps than `Epsilon`. `Flat` in the first layer
#   spreads a patch's relevance evenly over its pixels, because the patch is the smallest unit that attention sees.

# %% [picture]
ways = {
    "values alone": Composite(Epsilon(), linear=Gamma(), first=Flat()),
    "queries and keys too": Composite(Epsilon(), linear=Gamma(), first=Flat(), attention="attnlrp"),
}
shown = torch.stack([test[(truth == digit) & (predicted == digit)][0] for digit in (0, 2, 4, 7)])
traces = {way: SelectiveLRP(vit, composite).trace(shown, target=[0, 2, 4, 7]) for way, composite in ways.items()}
heatmaps = torch.stack([trace.inputs for trace in traces.values()])
draw_contact_sheet(shown, heatmaps, rows=["0", "2", "4", "7"], columns=[*ways], overlay=True)

# %% [markdown]
# Red patches support the digit. Both columns have relevance on the strokes: on the foot and the stem of the two, on the
# crossbar of the four, on the stroke through the seven. With queries and keys it is concentrated in fewer patches, such
# as the lower end of the two's foot. Neither picture is as smooth as that of a convolutional network: a few patches
# carry most of the relevance.
#
# How much of a logit reaches the pixels? The rest is absorbed on the way, for example where the network adds a
# constant; `absorbed` lists where.

# %%
for way, trace in traces.items():
    print(f"{way}: conservation error {trace.conservation_error.max():.0e}")
    reached = trace.inputs.flatten(1).sum(1) / trace.explained
    print(f"  {reached.mean():>5.0%} of the logit reaches the pixels")
    stayed = {where: (of / trace.explained).mean().item() for where, of in trace.absorbed.items()}
    for where in sorted(stayed, key=lambda where: -abs(stayed[where]))[:3]:
        print(f"  {stayed[where]:>5.0%} stays in {where}")

# %% [markdown]
# Everything is accounted for: the conservation error is rounding error. But the larger part of the logit never reaches
# a pixel. It stays in the position table: a patch's embedding and its position are added, and each gets relevance in
# proportion. With AttnLRP, the softmax keeps a part as well. A heatmap of a transformer shows only the rest. Check this
# number before you trust one.
#
# ## A language model
#
# For text we need a task for which we know the words that matter. This is a grammar of film reviews: some words praise,
# some blame, most are neutral, and `not` turns the word that follows into its opposite.

# %%
praise, blame = ["fine", "great", "lovely"], ["dull", "awful", "weak"]
neutral = ["the", "film", "is", "a", "story", "with", "music"]
words = ["[PAD]", "[CLS]", "not", *praise, *blame, *neutral]


def review(generator):
    """Eight words and [CLS]; one of them is an opinion, in half of the reviews after ``not``. The label: 1 if it praises."""

    def pick(of):
        return of[torch.randint(len(of), (1,), generator=generator).item()]

    good, negated = (torch.rand(2, generator=generator) < 0.5).tolist()
    opinion = (["not"] if negated else []) + [pick(praise if good else blame)]
    text = [pick(neutral) for _ in range(8 - len(opinion))]
    at = torch.randint(len(text) + 1, (1,), generator=generator).item()
    return ["[CLS]", *text[:at], *opinion, *text[at:]], int(good != negated)


generator = torch.Generator().manual_seed(0)
reviews, praises = zip(*(review(generator) for _ in range(3000)))
ids, praises = torch.tensor([[words.index(word) for word in text] for text in reviews]), torch.tensor(praises)
config = BertConfig(
    vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, num_labels=2,
    max_position_embeddings=16,
)  # fmt: skip
bert = train(BertForSequenceClassification(config), ids[:2500], praises[:2500], steps=400, rate=2e-3)
with torch.no_grad():
    predicted = bert(ids[2500:]).logits.argmax(1)
print(f"accuracy on {len(predicted)} other reviews {(predicted == praises[2500:]).float().mean():.3f}")

# %% [markdown]
# Pass the token numbers unchanged; relevance is one number per token. The target is the difference of the two logits:
# the evidence for praise rather than blame.

# %%
texts = [
    "[CLS] the film is great with a story music",
    "[CLS] the film is not great with a story",
    "[CLS] a story with music is dull the film",
    "[CLS] a story with music is not dull film",
]
tokens = [text.split() for text in texts]
x = torch.tensor([[words.index(word) for word in text] for text in tokens])
margin = lambda logits: logits[:, 1] - logits[:, 0]
titles = [f"praise {p:.0%}" for p in bert(x).logits.softmax(1)[:, 1].tolist()]
draw_tokens(tokens, SelectiveLRP(bert, Epsilon()).attribute(x, target=margin), titles=titles)

# %%
attnlrp = SelectiveLRP(bert, Composite(Epsilon(), attention="attnlrp"))
draw_tokens(tokens, attnlrp.attribute(x, target=margin), titles=titles)

# %% [markdown]
# Red words support praise, blue ones blame; each text has its own scale. "great" alone is red and "dull" alone is blue.
# In "not great" both words are blue; in "not dull" the opinion has turned red. The network has learned that the pair
# matters: the relevance of an opinion depends on the word before it. "not" itself leans to blame in both texts, even
# where the review praises. Of the neutral words, "music" in the last text gets some relevance, more with AttnLRP; the
# others get little.
#
# For a pretrained model, use its tokenizer's numbers and strings,
# `tokens = [tokenizer.convert_ids_to_tokens(row) for row in ids]`, and pass the attention mask as
# `additional_forward_args`. The [guide](../../docs/guides/hugging_face_models.md) shows this, inputs by keyword, and
# language models.
