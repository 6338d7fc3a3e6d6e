"""What this machine has and lacks: versions, OpenGL, torch, the bundled checkpoint."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from vlp_gym.errors import CheckpointError
from vlp_gym.scenes.opengl import ADVICE, BACKENDS, opens

PACKAGES = (
    "vlp-gym",
    "gymnasium",
    "metaworld",
    "mujoco",
    "numpy",
    "open_clip_torch",
    "stable_baselines3",
    "torch",
    "torchvision",
)
"""Distributions whose versions decide what works and what a result is."""

NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at.
        state: what was found.
        cure: what to do about it; empty when nothing is wrong.
        is_optional: whether it is missing, and that is no fault.
    """

    subject: str
    state: str
    cure: str = ""
    is_optional: bool = False


def doctor() -> None:
    """Say what this machine has, what it lacks, and what to do about it."""
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    console, ill = Console(highlight=False, soft_wrap=True), False
    for finding in examine():
        mark = "[red]lacks[/red]" if finding.cure else "[green]ok[/green]   "
        mark = "without" if finding.is_optional else mark
        console.print(f"{mark} [bold]{finding.subject}[/bold]: {escape(finding.state)}")
        if finding.cure:
            console.print(f"      to do: {escape(finding.cure)}")
        ill = ill or bool(finding.cure)
    if ill:
        sys.exit(1)


def examine() -> Iterator[Finding]:
    """Yield what is found, one check after the other; a check may take seconds."""
    checks: tuple[Callable[[], Finding], ...] = (
        check_packages,
        check_opengl,
        check_torchvision,
        check_device,
        check_checkpoint,
    )
    for check in checks:
        yield check()
    yield from check_official_files()


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages in `PACKAGES`."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = NOT_INSTALLED
    return found


def check_packages() -> Finding:
    """Look whether everything is installed."""
    versions = installed_versions()
    missing = [name for name, version in versions.items() if version == NOT_INSTALLED]
    state = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Finding("packages", state, f"pip install {' '.join(missing)}" if missing else "")


def check_opengl() -> Finding:
    """Look which OpenGL MuJoCo can draw with; each try runs in a process of its own."""
    chosen = os.environ.get("MUJOCO_GL")
    if not chosen and os.environ.get("DISPLAY"):
        return Finding("OpenGL", "a display is there, MuJoCo draws with it")
    tried = (chosen,) if chosen else BACKENDS
    working = next((backend for backend in tried if opens(backend)), None)
    if working:
        return Finding("OpenGL", f"off screen with MUJOCO_GL={working}")
    cure = f"unset MUJOCO_GL, or: {ADVICE}" if chosen else ADVICE
    return Finding("OpenGL", f"MuJoCo cannot draw with {' or '.join(tried)}", cure)


def check_torchvision() -> Finding:
    """Look whether torch and torchvision are builds for each other; a mismatch shows on import."""
    probe = subprocess.run(
        [sys.executable, "-c", "import torchvision; torchvision.ops.nms"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode == 0:
        return Finding("torchvision", "goes with this torch")
    reason = (probe.stderr.strip().splitlines() or ["no message"])[-1]
    return Finding(
        "torchvision",
        f"cannot be imported: {reason}",
        "install torch and torchvision in one command from one index, for instance: "
        "pip install --force-reinstall torch torchvision",
    )


def check_device() -> Finding:
    """Look where models run when the device is "auto"."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return Finding("device", f"cuda: {torch.cuda.get_device_name()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("device", f"cpu, {cores} cores (nothing here needs a GPU)")


def check_checkpoint() -> Finding:
    """Look whether the bundled preference model is there and whole."""
    from vlp_gym.scorers import load_scorer  # noqa: PLC0415

    try:
        scorer = load_scorer("vlp", device="cpu")
    except CheckpointError as error:
        return Finding("bundled checkpoint", str(error), "pip install --force-reinstall vlp-gym")
    return Finding("bundled checkpoint", f"whole; reads {scorer.n_frames} frames a segment")


def check_official_files() -> Iterator[Finding]:
    """Look for the files of other people's models; that one is missing is no fault: only its scorer needs it."""
    from vlp_gym.models.official import FOLDER_VARIABLE, OFFICIAL_FILES  # noqa: PLC0415

    for file in OFFICIAL_FILES:
        path = file.find()
        places = " or ".join(
            n if n.startswith("~") else f"${FOLDER_VARIABLE}/{n}" for n in file.names
        )
        missing = f"put it at {places}; get it from {file.source}"
        state = str(path) if path else missing
        yield Finding(f"{file.scorer} {file.role}", state, is_optional=path is None)
