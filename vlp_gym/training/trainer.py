"""Trains a vision-language preference model on clips of many tasks."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from safetensors.torch import load_file
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from vlp_gym.atomic import atomic_write_text
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.denormals import flush_denormals
from vlp_gym.errors import CheckpointError, DataError, SettingError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.device import resolve_device
from vlp_gym.models.vlp import VLP
from vlp_gym.tasks.instruction_file import load_instructions
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.batches import Sentences, TaskPool
from vlp_gym.training.behaviours import LEVELS
from vlp_gym.training.clips import together
from vlp_gym.training.config import TrainConfig
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import draw_data_set
from vlp_gym.training.jitter import STILL, Jitter
from vlp_gym.training.run import TrainingRun, replayed

logger = logging.getLogger(__name__)

CONFIG = "config.json"
"""What a run folder says of its settings."""
SEGMENT_LENGTH = 50
"""Steps of a segment that is labelled, unless asked otherwise (VLP, label inference)."""


def train(config: TrainConfig) -> Path:
    """Train a model and return the folder of its checkpoint, `config.out / "checkpoint"`.

    Under `accelerate launch` every process draws batches of its own and the gradients are averaged. A killed run goes
    on from its last checkpoint and ends as if it had never been killed. Torch takes numbers below 1e-38 for 0 in this
    process from then on.

    Raises:
        CheckpointError: data, weights to begin with or a run folder that are missing, damaged or of another
            configuration; or a base that knows a test task.
        DataError: a task has not the clips that a batch is made of.
        InstructionError: a sentence of `instructions` that is none, is longer than the model reads, or is kept for
            testing.
        SettingError: more strangers than there are other tasks.
    """
    sentences = training_sentences(config)
    if len(sentences) <= config.loss.strangers:
        raise SettingError(
            f"split {config.split!r} trains {len(sentences)} tasks: none has {config.loss.strangers} strangers; "
            "lower loss.strangers"
        )
    accelerator = Accelerator(
        cpu=resolve_device(config.device).type == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    alone = accelerator.num_processes == 1
    device = resolve_device(config.device) if alone else accelerator.device
    flush_denormals()
    torch.manual_seed(config.seed)
    model = VLP(config.model)
    if config.start is not None:
        _load_start(model, config.start)
    base = None if config.base is None else _load_base(model, config, config.base)
    model.to(device)
    check_readable(model, sentences)
    _warn_of_span(config)
    text = _as_text(config)
    _check_same_config(config.out, text)
    # One process draws and encodes what no cache has yet; the others read it.
    with accelerator.main_process_first():
        pool, fingerprint = load_pool(model, config, config.data, config.replays)
        unseen = (config.validation,) if config.validation is not None else ()
        still = dataclasses.replace(config, jitter=STILL)
        validation = [task for task, *_ in load_pool(model, still, unseen)[0]] if unseen else []
    run = TrainingRun(config, model, accelerator, sentences, fingerprint, base)
    run.resume()
    if accelerator.is_main_process:
        config.out.mkdir(parents=True, exist_ok=True)
        atomic_write_text(config.out / CONFIG, text)
    silent = None if accelerator.is_main_process else True
    bar = tqdm(total=config.steps, initial=run.step, desc="batches", disable=silent)
    logs = config.out / "tensorboard" / (str(accelerator.process_index) if silent else "")
    with bar, SummaryWriter(str(logs), purge_step=run.step + 1) as board:
        while run.step < config.steps:
            info = run.advance(pool)
            bar.set_postfix({name: f"{value:.3f}" for name, value in info.items()}, refresh=False)
            bar.update()
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                info |= run.validate(validation)
                run.save()
            for name, value in info.items():
                board.add_scalar(f"train/{name}", value, run.step)
    return run.export("checkpoint")


def _load_start(model: VLP, path: Path) -> None:
    try:
        model.encoders.load_state_dict(load_file(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not hold weights of {model.config.clip!r} encoders: {error}"
        ) from error


def _load_base(model: VLP, config: TrainConfig, source: str) -> dict[str, Any]:
    """Load the weights of a checkpoint and return what it says of its own training."""
    base = Checkpoint.from_pretrained(source)
    # A match is read as before.
    model.config = dataclasses.replace(config.model, **base.model.config.reading)
    mine = (model.config, config.view, config.grid.stride)
    if mine != (base.model.config, base.view, base.frame_stride):
        raise CheckpointError(
            f"the base {source} has {base.model.config}, {base.view} and stride {base.frame_stride}, this training has "
            "others; give it the same --model, --view and --grid"
        )
    test = find_split(config.split).test
    if known := sorted(set(test) & set(base.training.get("train_tasks", ()))):
        raise CheckpointError(
            f"the base {source} was trained on {', '.join(known)}, test tasks of split {config.split!r}: its figures "
            "there would say nothing; choose the split that it was trained with"
        )
    model.load_state_dict(base.model.state_dict())
    return base.training


def trained_on(config: TrainConfig) -> tuple[str, ...]:
    """Return the names of the tasks that a config trains on."""
    split = find_split(config.split)
    return (*split.train, *split.undoing) if config.undoing else split.train


def training_sentences(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    """Return the sentences of every training task of the split, ours and those of the config's file."""
    more = {} if config.instructions is None else load_instructions(config.instructions)
    names = trained_on(config)
    return {
        name: (*_spread(instructions(name), config.own_sentences), *more.get(name, ()))
        for name in names
    }


def _warn_of_span(config: TrainConfig) -> None:
    n_frames, stride = config.model.n_frames, config.grid.stride
    span = stride * (n_frames - 1) + 1
    if abs(span - SEGMENT_LENGTH) > SEGMENT_LENGTH / 5:
        logger.warning(
            "the %d frames of a training window span %d steps, those of a labelled segment %d; --grid.stride %d makes "
            "them alike",
            n_frames,
            span,
            SEGMENT_LENGTH,
            (SEGMENT_LENGTH - 1) // (n_frames - 1),
        )


def check_readable(model: VLP, sentences: Sentences) -> None:
    """Refuse, before anything is drawn, a sentence that the model cannot read.

    Raises:
        InstructionError: a sentence has more tokens than the text tower reads.
    """
    for of_task in sentences.values():
        for sentence in of_task:
            model.encoders.tokenize(sentence)


def _spread(sentences: tuple[str, ...], n_sentences: int | None) -> tuple[str, ...]:
    if n_sentences is None:
        return sentences
    return sentences[:: max(1, len(sentences) // n_sentences)][:n_sentences]


def load_pool(
    model: VLP,
    config: TrainConfig,
    data_folders: tuple[Path, ...],
    replays: tuple[Path, ...] = (),
) -> tuple[TaskPool, str]:
    """Return the clips of the split's training tasks, of every folder, and the hash of what they hold.

    Raises:
        CheckpointError: a data folder lacks a task, or a folder of replays has none.
        DataError: a task has not the clips that a batch is made of.
    """
    of_task = _files(config, data_folders, replays)
    # Still frames, too: what a scene shows is told from them, and segments are scored on them.
    looks = (STILL,) if config.jitter.is_still else (STILL, config.jitter)
    if config.workers > 1:
        files = [path for paths in of_task.values() for path in paths]
        frames = config.cache / "frames"
        for look in looks:
            draw_data_set(files, config.view, config.grid, frames, config.workers, look)
    digest = hashlib.blake2b(digest_size=16)
    model.eval()

    def clips_in(path: Path, look: Jitter) -> TaskClips:
        data = Trajectories.load(path)
        if look is STILL:
            digest.update(data.fingerprint().encode())
        return task_clips(
            data,
            model.encoders,
            config.view,
            config.grid,
            config.model.n_frames,
            config.cache,
            encoded="vision" not in config.tune,
            rank=config.rank,
            jitter=look,
        )

    pool = []
    for paths in of_task.values():
        tasks = [clips_in(path, look) for look in looks for path in paths]
        _check_enough(tasks, config.batch.windows)
        clips = together([task.clips for task in tasks], config.rank)
        pool.append(
            [dataclasses.replace(task, clips=each) for task, each in zip(tasks, clips, strict=True)]
        )
    return pool, digest.hexdigest()


def _check_enough(tasks: Sequence[TaskClips], n_windows: int) -> None:
    """Refuse files of a task of which no batch can be drawn."""
    name = tasks[0].clips.task_name
    fewest = min(int((~task.clips.whole).sum()) for task in tasks)
    if fewest < n_windows:
        raise DataError(
            f"a file of {name} has {fewest} windows, and a batch draws {n_windows} (batch.windows): its episodes are "
            "too few, or shorter than a window (grid.stride); collect more or longer ones"
        )
    levels = {int(level) for task in tasks for level in task.clips.level[task.clips.whole]}
    if len(levels) < len(LEVELS):
        raise DataError(
            f"{name} has not all of the levels {', '.join(LEVELS)}, of which a batch has one each; collect them, too"
        )


def _files(
    config: TrainConfig, data_folders: tuple[Path, ...], replays: tuple[Path, ...]
) -> dict[str, list[Path]]:
    """Return the trajectory files of every task that is trained on."""
    names = trained_on(config)
    of_task = {name: [folder / f"{name}.npz" for folder in data_folders] for name in names}
    for folder in replays:
        found = replayed(names, (folder,))
        if not found:
            raise CheckpointError(
                f"{folder} has no replay of a training task; run `python -m agents.replay` with names of split "
                f"{config.split!r}, such as {names[0]}"
            )
        for name in found:
            of_task[name].append(folder / f"{name}.npz")
    return of_task


def _as_text(config: TrainConfig) -> str:
    return json.dumps(dataclasses.asdict(config), indent=1, default=str) + "\n"


def _check_same_config(out: Path, text: str) -> None:
    path = out / CONFIG
    if path.exists() and path.read_text() != text:
        raise CheckpointError(
            f"{out} holds a run of other settings; choose another folder for this one"
        )
