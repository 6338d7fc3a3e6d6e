"""Folds batch norms into the convolutions before them, for a network that is only asked and no longer trained."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)
_Conv = nn.Conv2d | nn.Conv3d
_Norm = nn.BatchNorm2d | nn.BatchNorm3d


@torch.no_grad()
def fold_norms(network: Network, run: Callable[[Network], object]) -> Network:
    """Return a copy that computes the same with fewer layers: what a batch norm does, the convolution before it does.

    Args:
        network: it is not changed; the copy is in evaluation mode. What a convolution gives to a batch norm goes
            nowhere else.
        run: runs the network once on any input, which shows what feeds what.
    """
    folded = copy.deepcopy(network).eval()
    feeders: dict[int, tuple[_Conv, Tensor]] = {}
    pairs: list[tuple[_Conv, _Norm]] = []

    def remember(convolution: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(convolution, _Conv)
        feeders[id(output)] = convolution, output  # kept, so that no other tensor gets its id

    def look_up(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _Norm)
        if id(inputs[0]) in feeders:
            pairs.append((feeders[id(inputs[0])][0], norm))

    hooks = [
        module.register_forward_hook(remember)
        if isinstance(module, _Conv)
        else module.register_forward_pre_hook(look_up)
        for module in folded.modules()
        if isinstance(module, _Conv | _Norm)
    ]
    run(folded)
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        _replace(folded, norm, _rest_of(norm))
    return folded


def _rest_of(norm: nn.Module) -> nn.Module:
    # timm's norm layers also hold the activation that follows.
    return nn.Sequential(
        *(
            part
            for name in ("drop", "act")
            if isinstance(part := getattr(norm, name, None), nn.Module)
        )
    )


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in network.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)
