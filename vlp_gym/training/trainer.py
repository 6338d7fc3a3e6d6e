"""Trains a vision-language preference model on clips of many tasks."""

import dataclasses
import hashlib
import json
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
from vlp_gym.errors import CheckpointError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.device import resolve_device
from vlp_gym.models.vlp import VLP
from vlp_gym.tasks.instruction_file import load_instructions
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.batches import TaskPool
from vlp_gym.training.clips import together
from vlp_gym.training.config import TrainConfig
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import draw_data_set
from vlp_gym.training.jitter import STILL, Jitter
from vlp_gym.training.run import TrainingRun, replayed


def train(config: TrainConfig) -> Path:
    """Train a model and return the folder of its checkpoint, `config.out / "checkpoint"`.

    Under `accelerate launch` every process draws batches of its own and the gradients are averaged. A killed run goes
    on from its last checkpoint and ends as if it had never been killed. Torch takes numbers below 1e-38 for 0 in this
    process from then on.

    Raises:
        CheckpointError: data, weights to begin with or a run folder that are missing, damaged or of another
            configuration; or a base that knows a test task.
        InstructionError: a sentence of `instructions` that is none, or is kept for testing.
    """
    sentences = training_sentences(config)
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
    # One process draws and encodes what no cache has yet; the others read it.
    with accelerator.main_process_first():
        config.out.mkdir(parents=True, exist_ok=True)
        _check_same_config(config)
        pool, fingerprint = load_pool(model, config, config.data, config.replays)
        unseen = (config.validation,) if config.validation is not None else ()
        still = dataclasses.replace(config, jitter=STILL)
        validation = [task for task, *_ in load_pool(model, still, unseen)[0]] if unseen else []
    run = TrainingRun(config, model, accelerator, sentences, fingerprint, base)
    run.resume()
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
    base = Checkpoint.from_pretrained(None if source == "bundled" else source)
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
        clips = together([task.clips for task in tasks], config.rank)
        pool.append(
            [dataclasses.replace(task, clips=each) for task, each in zip(tasks, clips, strict=True)]
        )
    return pool, digest.hexdigest()


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


def _check_same_config(config: TrainConfig) -> None:
    text = json.dumps(dataclasses.asdict(config), indent=1, default=str) + "\n"
    path = config.out / "config.json"
    if path.exists() and path.read_text() != text:
        raise CheckpointError(
            f"{config.out} holds a run of other settings; choose another folder for this one"
        )
    atomic_write_text(path, text)
