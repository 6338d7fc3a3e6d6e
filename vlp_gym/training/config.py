"""How a preference model is trained, as one frozen config."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vlp_gym.errors import SettingError
from vlp_gym.models.vlp import VLPConfig
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.training.batches import BatchConfig, check_least
from vlp_gym.training.clips import Rank
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.jitter import Jitter
from vlp_gym.training.objective import LossConfig
from vlp_gym.types import View

Tower = Literal["vision", "text"]


@dataclass(frozen=True)
class TrainConfig:
    """How a preference model is trained; the README says with which settings the bundled one was."""

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
    """Whose tasks: paper, paper-dev or ml45, see `vlp_gym.tasks.splits`."""
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
    """Gradient steps."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    tune: tuple[Tower, ...] = ("text",)
    """Towers of the encoders that are trained, too. A frozen vision tower is what the cache of features is for: with
    "vision" in it every step encodes its frames."""
    lr: float = 5e-4
    """Learning rate at its highest, of AdamW; it falls along half a cosine (ours: VLP does not say its own)."""
    match_lr: float = 5e-3
    """Learning rate of the two embeddings that say what is shown and meant; they are linear."""
    weight_decay: float = 0.05
    """Of AdamW."""
    warmup_steps: int = 100
    """Gradient steps in which the learning rate rises; 0: it begins at its highest."""
    average_from: float = 0.4
    """Share of training after which weights are averaged; the average is what is saved."""
    accumulate: int = 1
    """Batches whose gradients make one step; for a larger batch than memory holds."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass; `auto`: bfloat16 on a GPU, float32 on a CPU."""
    compile: bool = False
    """Whether torch compiles the attention layers first; worth its minute in long runs on a GPU."""
    device: str = "auto"
    """`auto`, the GPU if there is one; or as torch names it."""
    workers: int = 2
    """Processes that draw frames which no cache has yet."""
    seed: int = 0
    """Of the weights to begin with, and of all chance."""
    order: int = 0
    """Another one has other batches and dropout from the same weights: a training to average with (`vlp average`)."""
    checkpoint_every: int = 250
    """Gradient steps between checkpoints to resume from, and between looks at `validation`."""

    def __post_init__(self) -> None:
        """Refuse settings under which nothing would be trained, or not what they say, before anything is drawn."""
        for name in ("steps", "own_sentences", "accumulate", "workers", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None:
                check_least(name, value, 1)
        for name in ("lr", "match_lr", "weight_decay", "warmup_steps"):
            check_least(name, getattr(self, name), 0)
        if self.base is not None and self.start is not None:
            raise SettingError(
                "base holds all weights of a model, so start has nothing to add; leave one of them out"
            )
        if not 0 <= self.average_from < 1:
            raise SettingError(f"average_from must be in [0, 1), got {self.average_from}")
        if self.loss.strangers >= self.batch.tasks:
            raise SettingError(
                f"of {self.batch.tasks} tasks in a batch each has {self.batch.tasks - 1} strangers at most, and "
                f"loss.strangers is {self.loss.strangers}; lower it, or raise batch.tasks"
            )
        if self.view.size_px != self.model.image_size_px:
            raise SettingError(
                f"frames are drawn at {self.view.size_px} px (view.size_px) for a model that reads "
                f"{self.model.image_size_px} px (model.image_size_px); make them the same"
            )
