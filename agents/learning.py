"""What the updates of all offline agents share: a step down a loss, schedules, means of what counts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlp_gym.data.comparisons import Comparisons
from vlp_gym.data.transitions import Transitions
from vlp_gym.labelers.regret import ValueFunction


@dataclass(frozen=True)
class About:
    """What an agent learns from.

    Attributes:
        task_name: the task as in `vlp/<name>`; None where the data do not say.
        obs_dim: numbers of an observation.
        source: the data, in words.
        fingerprint: a hash of the data.
    """

    task_name: str | None
    obs_dim: int
    source: str
    fingerprint: str


def about_of(data: Comparisons | Transitions) -> About:
    """Return what a run says of its data."""
    return About(data.task_name, int(data.obs.shape[-1]), data.about, data.fingerprint())


@runtime_checkable
class Learner(Protocol):
    """An agent that several seeds share; axis 0 of all it holds is the seed."""

    method: str
    """What the method is called in tables."""
    networks: nn.ModuleDict
    optimizers: dict[str, torch.optim.Adam]
    device: torch.device
    about: About
    step: int
    """Gradient steps so far; with networks and optimisers all that the next ones depend on."""

    def update(self) -> dict[str, Float[Tensor, " seeds"]]:
        """Take one gradient step and return what it measured, still on the device."""
        ...

    def act(self, obs: Float[Tensor, "rows obs"], seed: int) -> Float[Tensor, "rows action"]:
        """Return what the policy of one of the seeds does, in [-1, 1]."""
        ...


@runtime_checkable
class HasValue(Protocol):
    """An agent that knows the value of states under the simulator's reward."""

    def value_of(self, seed: int) -> ValueFunction:
        """Return V of one of the seeds."""
        ...


def by_seed(function: Callable[..., Tensor], *stacked: Tensor, **settings: Any) -> Tensor:
    """Return what a function of [seeds, ...] gives, on a CPU one seed at a time.

    A CPU computes the last few numbers of an array unlike the others, an ulp apart (exp, tanh, softplus): what a seed
    gets would depend on how many stand before it. Matrix products, sums and the four operations are not affected.
    """
    if stacked[0].device.type != "cpu" or len(stacked[0]) == 1:
        return function(*stacked, **settings)
    rows = (
        function(*(each[i : i + 1] for each in stacked), **settings) for i in range(len(stacked[0]))
    )
    return torch.cat(list(rows))


def adam_step(optimizer: torch.optim.Adam) -> None:
    """Take the step of `optimizer.step()`, fused and with a gradient everywhere, without what surrounds it in PyTorch.

    That takes longer than the step itself where networks are small.
    """
    if not optimizer.state:
        optimizer.step()
        return
    with torch.no_grad():
        for group in optimizer.param_groups:
            parameters, (beta1, beta2) = group["params"], group["betas"]
            states = [optimizer.state[each] for each in parameters]
            steps, means, squares = (
                [state[part] for state in states] for part in ("step", "exp_avg", "exp_avg_sq")
            )
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                parameters, [each.grad for each in parameters], means, squares, [], steps, lr=group["lr"],
                beta1=beta1, beta2=beta2, weight_decay=0, eps=group["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def cosine(rate: float, step: int, steps: int) -> float:
    """Return the rate of a step on a cosine from `rate` to 0 over `steps` (PyTorch's CosineAnnealingLR).

    >>> cosine(2.0, 0, 10), cosine(2.0, 5, 10), cosine(2.0, 10, 10)
    (2.0, 1.0, 0.0)
    """
    return rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def weighted_mean(
    value: Float[Tensor, "seeds rows"], weight: Float[Tensor, "seeds rows"]
) -> Float[Tensor, " seeds"]:
    """Return the mean over what counts, 0 where nothing does."""
    total = weight.sum(-1)
    return (value * weight).sum(-1) / torch.where(total > 0, total, 1.0)


def label_accuracy(
    logit: Float[Tensor, "seeds pairs"],
    label: Float[Tensor, "seeds pairs"],
    weight: Float[Tensor, "seeds pairs"],
) -> Float[Tensor, " seeds"]:
    """Return the share of labels that the sign of a logit agrees with; ties and weights of 0 are left out."""
    decided = ((label != 0.5) & (weight > 0)).to(logit.dtype)
    right = ((logit > 0) == (label > 0.5)).to(logit.dtype)
    return weighted_mean(right, decided).detach()


def learner_state(learner: Learner) -> dict[str, Any]:
    """Return all that the rest of a training depends on, as arrays and numbers."""
    return {
        "step": learner.step,
        "networks": {name: _array(each) for name, each in learner.networks.state_dict().items()},
        "optimizers": {
            name: {
                str(index): {part: _array(each) for part, each in moments.items()}
                for index, moments in optimizer.state_dict()["state"].items()
            }
            for name, optimizer in learner.optimizers.items()
        },
        "fingerprint": learner.about.fingerprint,
    }


def load_learner_state(learner: Learner, state: dict[str, Any]) -> None:
    """Continue from `learner_state()` of an agent of the same config and data.

    Raises:
        ValueError: it learned from other data.
    """
    if state["fingerprint"] != learner.about.fingerprint:
        raise ValueError(
            f"the run was begun with other data than {learner.about.source} holds now; put the old file back, or "
            "start a new run"
        )
    learner.step = int(state["step"])
    networks = {name: torch.from_numpy(each.copy()) for name, each in state["networks"].items()}
    learner.networks.load_state_dict(networks)
    for name, optimizer in learner.optimizers.items():
        moments = {
            int(index): {part: torch.from_numpy(each.copy()) for part, each in entry.items()}
            for index, entry in state["optimizers"][name].items()
        }
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy().copy()
