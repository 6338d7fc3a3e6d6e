"""CPL: preferences teach the policy itself, by contrast, without a reward or a value.

`python -m agents.cpl --pairs data/mtvlp-0/ButtonPress.labels.parquet --seeds 0 1 2`; `--variant cpl-bc` adds cloning to
the loss, `--variant cpl-kl` subtracts what the cloned policy says, `--variant bc` only clones. Contrastive Preference
Learning is Hejna et al., 2024; the details are those of research/algs/cpl.py and cpl_kl.py in jhejna/cpl.
"""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents import learning, offline
from agents.draws import Dropout
from agents.learning import by_seed
from agents.networks import Actor, ActorKind, adam
from agents.offline_options import PairOptions, read_pairs
from agents.pair_batches import PairSampler
from vlp_gym.data.comparisons import Comparisons
from vlp_gym.models.device import resolve_device

Variant = Literal["cpl", "cpl-bc", "cpl-kl", "bc"]


@dataclass(frozen=True)
class Contrast:
    """What the variants differ in; values of jhejna/cpl configs/mw_state_dense/."""

    alpha: float = 0.1
    """Temperature on log-probabilities."""
    bias: float = 0.5
    """Lambda, in (0, 1]: below 1 all actions of the data become likelier, and a tie pulls both segments up."""
    cloning: float = 0.0
    """Weight of cloning beside the preference loss."""
    is_relative: bool = False
    """Count log-probabilities from those of the cloned policy (KL)."""
    warmup_factor: float = 1.0
    """Share of the learning rate that the warm-up ends at."""


VARIANTS: dict[Variant, Contrast] = {
    "cpl": Contrast(),
    "cpl-bc": Contrast(bias=1.0, cloning=1.0),
    "cpl-kl": Contrast(alpha=0.2, bias=0.75, is_relative=True, warmup_factor=0.1),
    "bc": Contrast(),
}
"""cpl.yaml, cpl_bc.yaml, cpl_kl.yaml; `bc` never leaves its warm start."""


@dataclass(frozen=True, kw_only=True)
class Config(PairOptions):
    """One run of CPL on state inputs; values of jhejna/cpl configs/mw_state_dense/cpl.yaml."""

    variant: Variant = "cpl"
    alpha: float | None = None
    """Temperature on log-probabilities; None: the variant's."""
    bias: float | None = None
    """Lambda, in (0, 1]; None: the variant's."""
    cloning: float | None = None
    """Weight of cloning beside the preference loss; None: the variant's."""
    steps: int = 500_000
    """Gradient steps, those of cloning included."""
    bc_steps: int = 200_000
    """Gradient steps of plain cloning before the preference loss."""
    bc_data: Literal["all", "preferred"] = "all"
    """Which segments are cloned; of a tie both are preferred."""
    warmup_steps: int = 10_000
    """Steps after cloning over which the learning rate rises from 0."""
    batch_size: int = 96
    """Pairs."""
    learning_rate: float = 1e-4
    hidden: tuple[int, ...] = (512, 512)
    dropout: float = 0.25
    actor: ActorKind = "deterministic"

    def __post_init__(self) -> None:
        """Refuse what the method has no meaning for."""
        super().__post_init__()
        if not 0 < self.contrast.bias <= 1:
            raise ValueError(f"bias (lambda) must lie in (0, 1], got {self.contrast.bias}")
        if self.contrast.is_relative and not self.bc_steps:
            raise ValueError("cpl-kl needs a cloned policy to count from; set bc_steps above 0")

    @property
    def contrast(self) -> Contrast:
        """The variant with what was set otherwise."""
        published = VARIANTS[self.variant]
        return replace(
            published,
            alpha=published.alpha if self.alpha is None else self.alpha,
            bias=published.bias if self.bias is None else self.bias,
            cloning=published.cloning if self.cloning is None else self.cloning,
        )


def cpl_loss(
    worth: Float[Tensor, "seeds 2 pairs"],
    label: Float[Tensor, "seeds pairs"],
    weight: Float[Tensor, "seeds pairs"],
    bias: float,
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, "seeds 2 pairs"]]:
    """Return the biased contrastive loss (CPL eq. 5 and its conservative form, appendix), and its gradient by `worth`.

    Args:
        worth: alpha times the sum of log-probabilities over a segment.
        label: probability that the second is preferred.
        weight: how much a pair counts in the mean; a pair of weight 0 does not at all.
        bias: lambda, in (0, 1].
    """
    total = weight.sum(-1, keepdim=True)
    share = weight / torch.where(total > 0, total, 1.0)
    first, second = worth.unbind(1)
    gaps = torch.stack([bias * first - second, bias * second - first], 1)
    # How much the second, and the first, of a pair ought to win.
    wins = torch.stack([label, 1 - label], 1) * share.unsqueeze(1)
    loss = (wins * by_seed(nn.functional.softplus, gaps)).sum((1, 2))
    to_second, to_first = (wins * by_seed(torch.sigmoid, gaps)).unbind(1)
    return loss, torch.stack([bias * to_second - to_first, bias * to_first - to_second], 1)


def bc_loss(
    log_prob: Float[Tensor, "seeds 2 pairs steps"],
    label: Float[Tensor, "seeds pairs"],
    only_preferred: bool,
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, "seeds 2 pairs 1"]]:
    """Return the loss of cloning: -log pi(a|s), mean over the steps of all segments or of the preferred ones.

    And its gradient by the log-probability of a step, which is that of all steps of a segment.
    """
    sides = (label <= 0.5, label >= 0.5) if only_preferred else (torch.ones_like(label),) * 2
    taken = torch.stack(sides, 1).to(log_prob.dtype)
    of_each = -taken / taken.sum((1, 2), keepdim=True) / log_prob.shape[-1]
    return (of_each * log_prob.sum(-1)).sum((1, 2)), of_each.unsqueeze(-1)


class CPL:
    """CPL on labelled pairs.

    Args:
        config: the run.
        data: the pairs.
    """

    def __init__(self, config: Config, data: Comparisons) -> None:
        self.method = config.variant.upper()
        self.config, self.device = config, resolve_device(config.device)
        obs_dim, action_dim = data.obs.shape[-1], data.action.shape[-1]
        dropout = Dropout(config.seeds, config.dropout, self.device)
        shape = (config.seeds, obs_dim, action_dim, config.hidden, config.actor)
        self.actor = Actor(*shape, dropout).to(self.device)
        # What is counted from (KL): a copy of the cloned policy.
        self.reference = copy.deepcopy(self.actor).requires_grad_(False)
        self.networks = nn.ModuleDict({"actor": self.actor})
        if config.contrast.is_relative:
            self.networks["reference"] = self.reference
        self.optimizers = {"actor": adam(self.actor, config.learning_rate)}
        self.step = 0
        self.about = learning.about_of(data)
        self._pairs = PairSampler(data, config.seeds, config.batch_size, self.device)

    @property
    def is_cloning(self) -> bool:
        """Whether the warm start lasts."""
        return self.config.variant == "bc" or self.step < self.config.bc_steps

    @torch.no_grad()
    def update(self) -> dict[str, Float[Tensor, " seeds"]]:
        """Take one step, of cloning or of CPL; return what it measured."""
        config, contrast, batch = self.config, self.config.contrast, self._pairs.at(self.step)
        if self.step == config.bc_steps and not self.is_cloning and self.step:
            self._leave_the_warm_start()
        obs, action = batch.obs.flatten(1, 3), batch.action.flatten(1, 3)
        log_prob, trace = self.actor.traced(obs, action, self.step)
        of_steps = log_prob.view(batch.obs.shape[:-1])  # [seeds, 2, pairs, steps]
        loss, gradient = bc_loss(of_steps, batch.label, config.bc_data == "preferred")
        info = {"bc_loss": loss}
        if not self.is_cloning:
            self._warm_up()
            worth = contrast.alpha * self._from_reference(of_steps, obs, action).sum(-1)
            loss, of_worth = cpl_loss(worth, batch.label, batch.weight, contrast.bias)
            gradient = contrast.cloning * gradient + contrast.alpha * of_worth.unsqueeze(-1)
            first, second = worth.unbind(1)
            accuracy = learning.label_accuracy(second - first, batch.label, batch.weight)
            info |= {"cpl_loss": loss, "label_accuracy": accuracy}
        self.actor.set_gradient(trace, gradient.expand_as(of_steps).flatten(1))
        learning.adam_step(self.optimizers["actor"])
        self.step += 1
        return info

    def _from_reference(
        self,
        log_prob: Float[Tensor, "seeds 2 pairs steps"],
        obs: Float[Tensor, "seeds rows obs"],
        action: Float[Tensor, "seeds rows action"],
    ) -> Float[Tensor, "seeds 2 pairs steps"]:
        """Return log-probabilities, of a KL variant relative to the cloned policy's."""
        if not self.config.contrast.is_relative:
            return log_prob
        return log_prob - self.reference.traced(obs, action)[0].view(log_prob.shape)

    def _leave_the_warm_start(self) -> None:
        # The official code begins anew with the optimiser, and counts from the policy as it is now.
        self.optimizers["actor"] = adam(self.actor, self.config.learning_rate)
        self.reference.load_state_dict(self.actor.state_dict())

    def _warm_up(self) -> None:
        config = self.config
        if not config.bc_steps:
            return  # without cloning the official code has no schedule
        done = self.step - config.bc_steps + 1
        share = min(1.0, done / config.warmup_steps) if config.warmup_steps else 1.0
        rate = config.learning_rate * config.contrast.warmup_factor * share
        learning.set_learning_rate(self.optimizers["actor"], rate)

    def act(self, obs: Float[Tensor, "rows obs"], seed: int) -> Float[Tensor, "rows action"]:
        """Return what the policy of one of the seeds does."""
        return self.actor.act(obs, seed)


def make(config: Config) -> CPL:
    """Return an untrained agent of a config, its pairs read and checked."""
    return CPL(config, read_pairs(config))


if __name__ == "__main__":
    offline.command_line(Config, make, __doc__)
