"""The 50 tasks of Meta-World v3: names, default instructions, and which task undoes which; and ours that undo."""

from dataclasses import dataclass

from vlp_gym.errors import UnknownNameError

DEFAULT_CAMERA = "corner4"
"""The camera that labels are drawn with: the gripper and every object stay in its view."""
CAMERAS = (
    "topview",
    "corner",
    "corner2",
    "corner3",
    "corner4",
    "behindGripper",
    "gripperPOV",
    "free",
)
"""Where a scene is seen from: the cameras of Meta-World, and MuJoCo's default view."""


@dataclass(frozen=True)
class MetaworldTask:
    """One task: `name` as in `vlp/<name>`, `env_name` as in Meta-World, and its default sentence.

    Attributes:
        counterpart: name of the task that undoes this one ("open" against "close"), if there is one.
        said_like: name of the task whose sentences this one has; None: it has its own.
    """

    name: str
    env_name: str
    instruction: str
    counterpart: str | None = None
    said_like: str | None = None


_SENTENCES = {
    "assembly": "put the ring on the peg",
    "basketball": "put the ball into the basket",
    "bin-picking": "move the block into the other bin",
    "box-close": "close the box with its lid",
    "button-press": "press the button",
    "button-press-topdown": "press the button from above",
    "button-press-topdown-wall": "press the button from above behind the wall",
    "button-press-wall": "reach around the wall and press the button",
    "coffee-button": "press the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial",
    "disassemble": "take the ring off the peg",
    "door-close": "close the door",
    "door-lock": "lock the door",
    "door-open": "open the door",
    "door-unlock": "unlock the door",
    "drawer-close": "close the drawer",
    "drawer-open": "open the drawer",
    "faucet-close": "close the faucet",
    "faucet-open": "open the faucet",
    "hammer": "hit the nail with the hammer",
    "hand-insert": "put the gripper into the hole",
    "handle-press": "press the handle down",
    "handle-press-side": "press the handle down from the side",
    "handle-pull": "pull the handle up",
    "handle-pull-side": "pull the handle up from the side",
    "lever-pull": "pull the lever up",
    "peg-insert-side": "insert the peg into the hole",
    "peg-unplug-side": "unplug the peg",
    "pick-out-of-hole": "pick the puck out of the hole",
    "pick-place": "lift the puck to the goal",
    "pick-place-wall": "lift the puck over the wall to the goal",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-back": "slide the plate back out of the cabinet",
    "plate-slide-back-side": "slide the plate sideways out of the cabinet",
    "plate-slide-side": "slide the plate sideways into the cabinet",
    "push": "push the puck to the goal",
    "push-back": "pull the puck back to the goal",
    "push-wall": "push the puck around the wall to the goal",
    "reach": "reach the goal",
    "reach-wall": "reach the goal behind the wall",
    "shelf-place": "put the block on the shelf",
    "soccer": "kick the ball into the goal",
    "stick-pull": "pull the box with the stick",
    "stick-push": "push the box with the stick",
    "sweep": "sweep the block off the table",
    "sweep-into": "sweep the block into the hole",
    "window-close": "close the window",
    "window-open": "open the window",
}

_COUNTERPARTS = (
    ("door-close", "door-open"),
    ("door-lock", "door-unlock"),
    ("drawer-close", "drawer-open"),
    ("faucet-close", "faucet-open"),
    ("window-close", "window-open"),
    ("coffee-pull", "coffee-push"),
    ("handle-press", "handle-pull"),
    ("handle-press-side", "handle-pull-side"),
    ("plate-slide", "plate-slide-back"),
    ("plate-slide-side", "plate-slide-back-side"),
    ("assembly", "disassemble"),
    ("peg-insert-side", "peg-unplug-side"),
    ("push", "push-back"),
    ("stick-pull", "stick-push"),
)


def camel_case(env_name: str) -> str:
    """Return the name of a Meta-World task as it stands in a `vlp/` id.

    >>> camel_case("button-press-v3")
    'ButtonPress'
    """
    return "".join(word.capitalize() for word in env_name.removesuffix("-v3").split("-"))


def _table() -> dict[str, MetaworldTask]:
    opposite = {a: b for pair in _COUNTERPARTS for a, b in (pair, pair[::-1])}
    rows = (
        MetaworldTask(
            name=camel_case(slug),
            env_name=f"{slug}-v3",
            instruction=sentence,
            counterpart=camel_case(opposite[slug]) if slug in opposite else None,
        )
        for slug, sentence in _SENTENCES.items()
    )
    return {row.name: row for row in rows}


TASKS: dict[str, MetaworldTask] = _table()
"""All 50 tasks by name, in alphabetical order of Meta-World's names."""


# Not FaucetOpen: it turns the handle from the middle to one side and FaucetClose from the middle to the other, so that
# a faucet whose opening was undone is not yet a closed one, and who learns that it is prefers what FaucetClose begins
# with. Nor HandlePress: a pressed handle rises on its own.
UNDO = "Undo"
"""What the names in `UNDOING` begin with."""

_UNDONE = (
    "DoorOpen",
    "DrawerOpen",
    "WindowClose",
    "DoorLock",
    "CoffeePull",
    "CoffeePush",
    "HandlePull",
    "HandlePullSide",
    "PlateSlideBack",
    "PlateSlideSide",
    "PlateSlideBackSide",
)


def _undoing() -> dict[str, MetaworldTask]:
    rows = (
        MetaworldTask(
            name=UNDO + done.name,
            env_name=done.env_name,
            instruction=TASKS[done.counterpart].instruction,
            counterpart=done.name,
            said_like=done.counterpart,
        )
        for done in (TASKS[name] for name in _UNDONE)
        if done.counterpart is not None
    )
    return {row.name: row for row in rows}


UNDOING: dict[str, MetaworldTask] = _undoing()
"""Tasks of ours, by name, to train a preference model on: each in the scene of one of the 50 as its expert leaves it
(the drawer open), and it asks, in the words of that one's counterpart, to undo what was done ("close the drawer")."""


def family(name: str) -> str:
    """Return one name for a task, its counterpart and those that undo either: they show the same things.

    >>> family("DoorOpen"), family("DoorClose"), family("UndoDoorOpen"), family("DoorLock")
    ('DoorClose', 'DoorClose', 'DoorClose', 'DoorLock')
    """
    task = find_task(name)
    names = {task.name, task.counterpart or task.name, task.said_like or task.name}
    return min(names - set(UNDOING))


def find_task(name: str) -> MetaworldTask:
    """Return the task of a name in any of its spellings.

    >>> find_task("button-press-v3").name, find_task("ButtonPress").env_name
    ('ButtonPress', 'button-press-v3')

    Raises:
        UnknownNameError: no such task; the closest names are in the message.
    """
    plain = name.removeprefix("vlp/")
    for candidate in (plain, camel_case(plain)):
        for table in (TASKS, UNDOING):
            if candidate in table:
                return table[candidate]
    raise UnknownNameError.of("Meta-World task", name, list(TASKS))
