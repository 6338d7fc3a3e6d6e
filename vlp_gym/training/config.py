"""How a preference model is trained, as one frozen config."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vlp_gym.models.vlp import VLPConfig
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.training.batches import BatchConfig
from vlp_gym.training.clips import Rank
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.jitter import Jitter
from vlp_gym.training.objective import LossConfig
from vlp_gym.types import View

Tower = Literal["vision", "text"]


@dataclass(frozen=True)
class TrainConfig:
    """How a preference model is trained; the bundled one so, from two folders of `data`."""

    data: tuple[Path, ...] = (Path("data/graded-0"),)
    """Folders that `vlp collect` wrote."""
    replays: tuple[Path, ...] = ()
    """Folders that `agents.replay` wrote: what learning agents did, of any of the training tasks. Their windows are
    drawn as often as those of a folder of `data`."""
    out: Path = Path("runs/vlp")
    """Run folder: the checkpoint, `curve.csv`, TensorBoard logs, and what a killed run resumes from."""
    cache: Path = Path("data/cache")
    """Drawn frames and encoder features."""
    validation: Path | None = None
    """A folder of other episodes of the training tasks (`vlp collect --seed 2`): the best checkpoint by them is kept,
    too, in `out/best`. None: only the last."""
    split: str = "paper"
    undoing: bool = True
    """Whether the tasks that undo what a training task does are trained on, too, in the scene of that task: what
    `vlp_gym.tasks.metaworld.UNDOING` says. Their sentences are those of its counterpart, a test task's among them."""
    instructions: Path | None = None
    """More sentences to train with: a file that `vlp instructions` wrote."""
    own_sentences: int | None = None
    """How many of our own sentences a task is trained with, the default one and others from all over the table; None:
    all of them."""
    start: Path | None = None
    """Weights of the encoders to start from (safetensors); None starts from random ones."""
    base: str | None = None
    """A checkpoint to go on with, such as "bundled", a folder or `hf-hub:OWNER/NAME`, with settings of `model`, `view`
    and `grid` like these; a tenth of the learning rates is a good beginning. None: a new model."""
    model: VLPConfig = field(default_factory=VLPConfig)
    view: View = View(DEFAULT_CAMERA, size_px=128)
    grid: FrameGrid = field(default_factory=FrameGrid)
    jitter: Jitter = Jitter()
    """How far the look of an episode may be from what `view` says: every one is trained on twice, as it says and with a
    look of its own."""
    rank: Rank = "return"
    """What windows of a task are ranked by: the simulator's return; or first by how long they are in success, which
    differs where a task pays little for success that is reached in an odd way."""
    steps: int = 1200
    batch: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    tune: tuple[Tower, ...] = ("text",)
    """Towers of the encoders that are trained, too. A frozen vision tower is what the cache of features is for: with
    "vision" in it every step encodes its frames."""
    lr: float = 5e-4
    match_lr: float = 5e-3
    """Learning rate of the two embeddings that say what is shown and meant; they are linear."""
    weight_decay: float = 0.05
    warmup_steps: int = 100
    average_from: float = 0.4
    """Share of training after which weights are averaged; the average is what is saved."""
    accumulate: int = 1
    """Batches whose gradients make one step; for a larger batch than memory holds."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass; `auto`: bfloat16 on a GPU, float32 on a CPU."""
    compile: bool = False
    """Whether torch compiles the attention layers first; worth its minute in long runs on a GPU."""
    device: str = "auto"
    workers: int = 2
    """Processes that draw frames which no cache has yet."""
    seed: int = 0
    """Of the weights to begin with, and of all chance."""
    order: int = 0
    """Another one has other batches and dropout from the same weights: a training to average with (`vlp average`)."""
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        """Refuse numbers under which nothing would be trained, before anything is drawn."""
        for name in ("steps", "own_sentences", "accumulate", "workers", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        if self.base is not None and self.start is not None:
            raise ValueError(
                "base holds all weights of a model, so start has nothing to add; leave one of them out"
            )
        if not 0 <= self.average_from < 1:
            raise ValueError(f"average_from must be in [0, 1), got {self.average_from}")
