"""ResNets as R3M and VIP use them, and R3M's language reward head.

R3M: Nair et al., 2022, arXiv 2203.12601. VIP: Ma et al., 2023, arXiv 2210.00030.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision import models as torchvision_models

from vlp_gym.errors import CheckpointError, MissingExtraError
from vlp_gym.models.official import OfficialWeights

WIDTHS = {18: 512, 34: 512, 50: 2048}
"""Width of a ResNet's features, by number of layers."""


def resnet(size: int, width: int | None) -> nn.Module:
    """Return an untrained torchvision ResNet that gives its pooled features, or `width` numbers made of them."""
    network = getattr(torchvision_models, f"resnet{size}")(weights=None)
    network.fc = nn.Identity() if width is None else nn.Linear(WIDTHS[size], width)
    built: nn.Module = network
    return built


def resnet_size(weights: OfficialWeights, prefix: str = "convnet.") -> int:
    """Return how many layers the ResNet of a checkpoint has: 18, 34 or 50.

    Raises:
        CheckpointError: it holds no ResNet.
    """
    names = weights.tensors
    if f"{prefix}layer1.0.conv1.weight" not in names:
        raise CheckpointError(
            f"{weights.path} is a checkpoint of another architecture: there is no {prefix}layer1.0.conv1.weight in it"
        )
    if f"{prefix}layer1.0.conv3.weight" in names:
        return 50
    return 34 if f"{prefix}layer1.2.conv1.weight" in names else 18


class VIPNetwork(nn.Module):
    """VIP's embedding of a picture: a ResNet and a linear layer, not normalised."""

    def __init__(self, size: int = 50, width: int = 1024) -> None:
        super().__init__()
        self.convnet = resnet(size, width)

    @classmethod
    def of(cls, weights: OfficialWeights) -> "VIPNetwork":
        """Return the network of a checkpoint.

        Raises:
            CheckpointError: it is of another architecture.
        """
        head = weights.tensors.get("convnet.fc.weight")
        if head is None:
            raise CheckpointError(
                f"{weights.path} is a checkpoint of another architecture: VIP's has a convnet.fc.weight"
            )
        network = cls(resnet_size(weights), len(head))
        weights.load_into(network)
        return network

    def see(
        self, pixels: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels"]:
        """Return the embedding of normalised pictures."""
        embedded: Tensor = self.convnet(pixels)
        return embedded


class R3MNetwork(nn.Module):
    """R3M: a ResNet's features, a DistilBERT's reading of a sentence, and a head that scores progress towards it.

    Args:
        size: layers of the ResNet: 18, 34 or 50.
        hidden: width of the head's hidden layers.
        language: the DistilBERT of `transformers`, untrained.
    """

    def __init__(self, size: int, hidden: int, language: nn.Module) -> None:
        super().__init__()
        self.convnet = resnet(size, None)
        # The names of the published weights.
        self.lang_enc, self.lang_rew = nn.Module(), nn.Module()
        self.lang_enc.model = language
        words = int(language.config.dim)  # type: ignore[arg-type]
        widths = [2 * WIDTHS[size] + words, hidden, hidden, hidden, hidden]
        layers: list[nn.Module] = []
        for n_in in widths[:4]:
            layers += [nn.Linear(n_in, hidden), nn.ReLU()]
        self.lang_rew.pred = nn.Sequential(*layers, nn.Linear(hidden, 1))

    @classmethod
    def of(cls, weights: OfficialWeights) -> "R3MNetwork":
        """Return the network of a checkpoint.

        Raises:
            CheckpointError: it is of another architecture, or its language head was stripped.
            MissingExtraError: `transformers` is not installed.
        """
        size = resnet_size(weights)
        head = weights.tensors.get("lang_rew.pred.0.weight")
        words = weights.tensors.get("lang_enc.model.embeddings.word_embeddings.weight")
        if head is None or words is None:
            raise CheckpointError(
                f"{weights.path} has no language reward head (lang_rew, lang_enc): R3M's own `load_r3m` drops both. "
                "Name the model.pt that was downloaded, not one that was saved afterwards"
            )
        network = cls(size, len(head), distilbert(weights))
        # Older versions of transformers stored the numbers of the places, which are no weights.
        weights.load_into(network, ignore=("lang_enc.model.embeddings.position_ids",))
        return network

    def see(
        self, pixels: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels"]:
        """Return the features of normalised pictures."""
        features: Tensor = self.convnet(pixels)
        return features

    def read(self, tokens: Int[Tensor, "1 words"]) -> Float[Tensor, "1 channels"]:
        """Return what a sentence says: the mean over all its tokens, marks included.

        One sentence at a time: in a batch the padding of the shorter ones would be averaged in (R3M's own does).
        """
        language: Any = self.lang_enc.model
        states: Tensor = language(tokens, attention_mask=torch.ones_like(tokens))[0]
        return states.mean(1)

    def progress(
        self,
        first: Float[Tensor, "frames channels"],
        now: Float[Tensor, "frames channels"],
        words: Float[Tensor, "frames words"],
    ) -> Float[Tensor, " frames"]:
        """Return the logit of how far the sentence is done between two frames; there is no sigmoid behind it."""
        predict: Any = self.lang_rew.pred
        logit: Tensor = predict(torch.cat([first, now, words], -1))
        return logit.squeeze(-1)


def distilbert(weights: OfficialWeights) -> nn.Module:
    """Return an untrained DistilBERT of the sizes in a checkpoint, heads 64 wide as in the published model.

    Raises:
        MissingExtraError: `transformers` is not installed.
    """
    try:
        from transformers import DistilBertConfig, DistilBertModel  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "R3M's language reward reads sentences with DistilBERT; pip install 'vlp-gym[r3m]'"
        ) from error
    below = "lang_enc.model."
    n_words, dim = weights.tensors[below + "embeddings.word_embeddings.weight"].shape
    layers = {
        name.split(".")[4]
        for name in weights.tensors
        if name.startswith(below + "transformer.layer.")
    }
    places = weights.tensors[below + "embeddings.position_embeddings.weight"]
    hidden = weights.tensors[below + "transformer.layer.0.ffn.lin1.weight"]
    # Its types leave out what every config of transformers takes.
    config = DistilBertConfig(  # type: ignore[call-arg]
        vocab_size=n_words,
        dim=dim,
        n_layers=len(layers),
        n_heads=max(1, dim // 64),
        hidden_dim=len(hidden),
        max_position_embeddings=len(places),
        attn_implementation="eager",
    )
    built: nn.Module = DistilBertModel(config)
    return built
