"""Families of networks as their users write them, each small and with random weights.

Those that DynamicLRP counts operators of (VGG to Mamba), and four more of transformers that compute in ways of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import transformers as hf
from torch import Tensor, nn
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers
from zoo import with_biases

from lrp_lightning import ByKeyword

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {"vocab_size": 100, "num_labels": 3, **SMALL}
LLM = {"pad_token_id": 0, "num_key_value_heads": 2, "max_position_embeddings": 64, **TEXT}
IMAGE = {"image_size": 32, "patch_size": 8, "num_labels": 3, **SMALL}
GPT2 = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "num_labels": 3, "pad_token_id": 0}
SOUND = {
    "num_labels": 3, "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, **SMALL,
}  # fmt: skip
WHISPER = {
    "num_labels": 3, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "num_mel_bins": 16, "max_source_positions": 20, "decoder_layers": 1,
}  # fmt: skip
OF_T5 = {"vocab_size": 100, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
T5 = {"d_model": 32, "decoder_start_token_id": 0, **OF_T5}
PATCHES = {"patch_embed_hidden_size": 48, "seq_len": 16, "d_ff": 64, "d_kv": 8, **SMALL}
SIGLIP = {"vision_config": {"image_size": 32, "patch_size": 8, **SMALL}, "num_labels": 3}
MAMBA = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, **TEXT}
XLNET = {"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "num_labels": 3}


class Family(NamedTuple):
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    target: Callable[[Tensor], Tensor]
    double: bool = True
    """Whether it computes in the precision it is given. Some write single precision into their forward."""


def tokens(length: int = 7) -> Tensor:
    return torch.randint(5, 90, (3, length))


def patches() -> tuple[Tensor, Tensor]:
    """Flattened patches of three images, each with its row and column before it, and the tokens said so far."""
    row, column = torch.meshgrid(torch.arange(4) + 1.0, torch.arange(4) + 1.0, indexing="ij")
    places = torch.stack([row.flatten(), column.flatten()], -1).expand(3, 16, 2)
    return torch.cat([places, torch.randn(3, 16, 48)], -1), tokens(4)


def of_class(y: Tensor) -> Tensor:
    return y[:, 1]


def at_the_end(y: Tensor) -> Tensor:
    return y[:, -1, 1]


def transformer(name: str, **config: Any) -> nn.Module:
    family = name.split("For")[0]
    return getattr(hf, name)(getattr(hf, f"{family}Config")(**config))


def by_keyword(names: tuple[str, ...], name: str, **config: Any) -> nn.Module:
    return ByKeyword(transformer(name, **config), *names)


def text(name: str, double: bool = True, **config: Any) -> Family:
    classifies = name.endswith("SequenceClassification")
    return Family(partial(transformer, name, **config), lambda: (tokens(),), of_class if classifies else at_the_end, double)


def vgg() -> nn.Module:
    model = VGG(make_layers([8, "M", 16, "M", 16, 16, "M"], batch_norm=True), num_classes=3)
    model.avgpool, model.classifier[0] = nn.AdaptiveAvgPool2d(2), nn.Linear(64, 4096)
    return model


def efficientnet() -> nn.Module:
    blocks = [
        FusedMBConvConfig(1, 3, 1, 8, 8, 1), FusedMBConvConfig(4, 3, 2, 8, 16, 1), MBConvConfig(4, 3, 2, 16, 24, 1),
    ]  # fmt: skip
    return EfficientNet(blocks, 0.1, num_classes=3, norm_layer=partial(nn.BatchNorm2d, eps=1e-3), last_channel=32)


def images(*shape: int) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(3, *shape),)


FAMILIES = {
    "VGG": Family(vgg, images(3, 32, 32), of_class),
    "ResNet": Family(lambda: ResNet(Bottleneck, [1, 1, 1, 1], 3, width_per_group=16), images(3, 32, 32), of_class),
    "EfficientNetV2": Family(efficientnet, images(3, 32, 32), of_class),
    "ViT": Family(partial(transformer, "ViTForImageClassification", **IMAGE), images(3, 32, 32), of_class),
    "SigLIP": Family(partial(transformer, "SiglipForImageClassification", **SIGLIP), images(3, 32, 32), of_class),
    "Wav2Vec2": Family(partial(transformer, "Wav2Vec2ForSequenceClassification", **SOUND), images(400), of_class),
    "Whisper's encoder": Family(partial(transformer, "WhisperForAudioClassification", **WHISPER), images(16, 40), of_class),
    "GPT-2": text("GPT2ForSequenceClassification", **GPT2),
    "RoBERTa": text("RobertaForSequenceClassification", **TEXT),
    "Llama": text("LlamaForSequenceClassification", **LLM),
    "Gemma": text("GemmaForSequenceClassification", head_dim=8, **LLM),
    "Qwen3": text("Qwen3ForSequenceClassification", head_dim=8, **LLM),
    "T5": Family(
        partial(by_keyword, ("input_ids", "decoder_input_ids"), "T5ForConditionalGeneration", **T5),
        lambda: (tokens(), tokens(4)),
        at_the_end,
    ),
    "Pix2Struct": Family(
        partial(
            by_keyword, ("flattened_patches", "decoder_input_ids"), "Pix2StructForConditionalGeneration",
            text_config={"hidden_size": 32, **OF_T5}, vision_config=PATCHES,
        ),
        patches,
        at_the_end,
    ),
    "Mamba": text("MambaForCausalLM", double=False, **MAMBA),
    "BERT": text("BertForSequenceClassification", **TEXT),
    "DeBERTa": text("DebertaV2ForSequenceClassification", **DEBERTA),
    "XLNet": text("XLNetForSequenceClassification", **XLNET),
    "Mixtral": text(
        "MixtralForSequenceClassification", double=False, num_local_experts=4, num_experts_per_tok=2, **LLM
    ),
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, tuple[Tensor, ...], Callable[[Tensor], Tensor]]:
    """The family's model, in eval, three samples, and what is explained; in double precision where it computes in it."""
    torch.manual_seed(0)
    build, inputs, target, double = FAMILIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = with_biases(build()).eval()
    given = inputs()
    if not double:
        return model, given, target
    return model.double(), tuple(x.double() if x.is_floating_point() else x for x in given), target
