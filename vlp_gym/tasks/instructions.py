"""Sentences for every task: verbs crossed with nouns, some of them kept out of training."""

from itertools import product

from vlp_gym.errors import InstructionError
from vlp_gym.tasks.metaworld import TASKS, find_task

MAX_WORDS = 40
"""Longest instruction; CLIP's text encoders read 77 tokens, and most words are one or two of them."""

_BUTTON = ("the button", "the red button", "the round button", "the push button")
_DOOR = ("the door", "the cabinet door", "the safe door", "the hinged door")
_FAUCET = ("the faucet", "the tap", "the water tap", "the faucet handle")
_DRAWER = ("the drawer", "the green drawer", "the sliding drawer", "the cabinet drawer")
_WINDOW = ("the window", "the sliding window", "the glass window", "the window pane")
_HANDLE = ("the handle", "the red handle", "the bar", "the handle bar")
_PUCK = ("the puck", "the red puck", "the disk", "the cylinder")
_BLOCK = ("the block", "the cube", "the object", "the brown block")
_PLATE = ("the plate", "the disk", "the round plate", "the dish")
_BALL = ("the ball", "the round ball", "the football", "the toy ball")
_MUG = ("the mug", "the cup", "the coffee mug", "the coffee cup")
_PEG = ("the peg", "the green peg", "the rod", "the plug")
_RING = ("the ring", "the wrench", "the round nut", "the tool with the ring")
_BOX = ("the box", "the container", "the thermos", "the blue box")

# Per task: verb structures with a {noun}, and nouns. Every fourth sentence of the product is held out of training.
_STRUCTURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Assembly": (("put {noun} on the peg", "place {noun} onto the peg", "assemble {noun} and the peg",
                  "slide {noun} over the peg", "fit {noun} on the pole"), _RING),
    "Basketball": (("put {noun} into the basket", "dunk {noun} in the hoop", "throw {noun} into the basket",
                    "drop {noun} through the hoop", "score a basket with {noun}"), _BALL),
    "BinPicking": (("move {noun} into the other bin", "pick {noun} and place it in the blue bin",
                    "transfer {noun} to the second bin", "carry {noun} over to the other bin",
                    "take {noun} from one bin to the other"), _BLOCK),
    "BoxClose": (("close {noun} with the lid", "put the lid on {noun}", "cover {noun} with its lid",
                  "shut {noun}", "place the cover on top of {noun}"), ("the box", "the container", "the wooden box", "the crate")),
    "ButtonPress": (("press {noun}", "push {noun}", "push {noun} in", "hit {noun}", "press down on {noun}"), _BUTTON),
    "ButtonPressTopdown": (("press {noun} from above", "push {noun} down", "press {noun} from the top",
                            "hit {noun} from above", "push down on {noun}"), _BUTTON),
    "ButtonPressTopdownWall": (("press {noun} from above behind the wall", "avoid the wall and push {noun} down",
                                "reach over the wall and press {noun}", "push {noun} down past the wall",
                                "go over the wall and hit {noun}"), _BUTTON),
    "ButtonPressWall": (("reach around the wall and press {noun}", "avoid the wall and push {noun}",
                         "press {noun} behind the wall", "go past the wall and push {noun} in",
                         "bypass the wall and hit {noun}"), _BUTTON),
    "CoffeeButton": (("press {noun} of the coffee machine", "push {noun} on the coffee maker", "start the coffee machine with {noun}",
                      "hit {noun} of the coffee maker", "turn on the coffee machine by {noun}"), _BUTTON),
    "CoffeePull": (("pull {noun} away from the coffee machine", "take {noun} out from under the coffee maker",
                    "move {noun} away from the machine", "drag {noun} out of the coffee machine",
                    "remove {noun} from the coffee maker"), _MUG),
    "CoffeePush": (("push {noun} under the coffee machine", "move {noun} to the coffee maker",
                    "slide {noun} under the machine", "put {noun} in the coffee machine",
                    "bring {noun} to the coffee maker"), _MUG),
    "DialTurn": (("turn {noun}", "rotate {noun}", "twist {noun}", "spin {noun}", "turn {noun} around"),
                 ("the dial", "the knob", "the round dial", "the control knob")),
    "Disassemble": (("take {noun} off the peg", "remove {noun} from the peg", "disassemble {noun} and the peg",
                     "lift {noun} off the pole", "pull {noun} up from the peg"), _RING),
    "DoorClose": (("close {noun}", "shut {noun}", "push {noun} closed", "push {noun} shut", "swing {noun} closed"), _DOOR),
    "DoorLock": (("lock {noun}", "turn the lock of {noun}", "bolt {noun}", "rotate the lock to lock {noun}",
                  "fasten {noun} with the lock"), _DOOR),
    "DoorOpen": (("open {noun}", "pull {noun} open", "swing {noun} open", "pull open {noun}", "open up {noun}"), _DOOR),
    "DoorUnlock": (("unlock {noun}", "turn the lock of {noun} to open it", "unbolt {noun}",
                    "rotate the lock to unlock {noun}", "release the lock of {noun}"), _DOOR),
    "DrawerClose": (("close {noun}", "shut {noun}", "push {noun} closed", "push {noun} in", "slide {noun} shut"), _DRAWER),
    "DrawerOpen": (("open {noun}", "pull {noun} open", "pull {noun} out", "slide {noun} open", "pull open {noun}"), _DRAWER),
    "FaucetClose": (("close {noun}", "turn off {noun}", "shut off {noun}", "turn {noun} left", "rotate {noun} to close it"), _FAUCET),
    "FaucetOpen": (("open {noun}", "turn on {noun}", "open up {noun}", "turn {noun} right", "rotate {noun} to open it"), _FAUCET),
    "Hammer": (("hit {noun} with the hammer", "hammer {noun} in", "drive {noun} into the wall with the hammer",
                "strike {noun} with the hammer", "use the hammer on {noun}"), ("the nail", "the screw", "the metal nail", "the pin")),
    "HandInsert": (("put {noun} into the hole", "insert {noun} into the hole", "lower {noun} into the hole",
                    "move {noun} down into the hole", "stick {noun} in the hole"),
                   ("the gripper", "the hand", "the robot hand", "the arm")),
    "HandlePress": (("press {noun} down", "push {noun} down", "push down {noun}", "lower {noun}", "press down on {noun}"), _HANDLE),
    "HandlePressSide": (("press {noun} down from the side", "push {noun} down sideways", "push down {noun} at the side",
                         "lower {noun} from the side", "press down on {noun} from the side"), _HANDLE),
    "HandlePull": (("pull {noun} up", "lift {noun}", "raise {noun}", "pull up {noun}", "lift up {noun}"), _HANDLE),
    "HandlePullSide": (("pull {noun} up from the side", "lift {noun} from the side", "raise {noun} at the side",
                        "pull up {noun} sideways", "lift up {noun} from the side"), _HANDLE),
    "LeverPull": (("pull {noun} up", "lift {noun}", "raise {noun}", "pull {noun}", "move {noun} upward"),
                  ("the lever", "the red lever", "the switch", "the lever arm")),
    "PegInsertSide": (("insert {noun} into the hole", "put {noun} in the hole", "plug {noun} into the box",
                       "push {noun} into the hole sideways", "fit {noun} into the slot"), _PEG),
    "PegUnplugSide": (("unplug {noun}", "pull {noun} out", "remove {noun} from the hole", "pull {noun} out of the box sideways",
                       "take {noun} out of the slot"), _PEG),
    "PickOutOfHole": (("pick {noun} out of the hole", "lift {noun} out of the hole", "take {noun} out of the hole",
                       "pull {noun} up from the hole", "get {noun} out of the hole"), _PUCK),
    "PickPlace": (("lift {noun} to the goal", "pick {noun} up and place it at the goal", "pick and place {noun}",
                   "carry {noun} to the target", "grasp {noun} and bring it to the goal"), _PUCK),
    "PickPlaceWall": (("lift {noun} over the wall to the goal", "pick {noun} up and place it behind the wall",
                       "carry {noun} over the wall", "bring {noun} across the wall to the target",
                       "grasp {noun} and move it past the wall"), _PUCK),
    "PlateSlide": (("slide {noun} into the cabinet", "push {noun} into the cabinet", "move {noun} forward into the cabinet",
                    "slide {noun} into the net", "push {noun} forward into the goal"), _PLATE),
    "PlateSlideBack": (("slide {noun} back out of the cabinet", "pull {noun} out of the cabinet", "move {noun} back",
                        "slide {noun} backward", "drag {noun} out of the goal"), _PLATE),
    "PlateSlideBackSide": (("slide {noun} sideways out of the cabinet", "pull {noun} out of the cabinet to the side",
                            "move {noun} back sideways", "slide {noun} out of the side of the cabinet",
                            "drag {noun} sideways out of the goal"), _PLATE),
    "PlateSlideSide": (("slide {noun} sideways into the cabinet", "push {noun} into the cabinet from the side",
                        "move {noun} sideways into the cabinet", "slide {noun} into the side of the net",
                        "push {noun} sideways into the goal"), _PLATE),
    "Push": (("push {noun} to the goal", "move {noun} to the target", "slide {noun} to the goal", "push {noun} forward to the target",
              "shove {noun} to the goal"), _PUCK),
    "PushBack": (("pull {noun} back to the goal", "drag {noun} back", "move {noun} backward to the target",
                  "pull {noun} toward the robot", "bring {noun} back to the goal"), _PUCK),
    "PushWall": (("push {noun} around the wall to the goal", "move {noun} past the wall to the target",
                  "bypass the wall and push {noun}", "slide {noun} around the wall", "shove {noun} behind the wall"), _PUCK),
    "Reach": (("reach {noun}", "move the gripper to {noun}", "go to {noun}", "move the hand to {noun}", "touch {noun}"),
              ("the goal", "the target", "the goal position", "the target point")),
    "ReachWall": (("reach {noun} behind the wall", "move the gripper past the wall to {noun}", "go over the wall to {noun}",
                   "move the hand around the wall to {noun}", "avoid the wall and touch {noun}"),
                  ("the goal", "the target", "the goal position", "the target point")),
    "ShelfPlace": (("put {noun} on the shelf", "place {noun} on the shelf", "pick {noun} up and put it on the shelf",
                    "set {noun} onto the shelf", "lift {noun} to the shelf"), _BLOCK),
    "Soccer": (("kick {noun} into the goal", "push {noun} into the goal", "score a goal with {noun}", "roll {noun} into the net",
                "shoot {noun} into the net"), _BALL),
    "StickPull": (("pull {noun} with the stick", "use the stick to pull {noun}", "drag {noun} with the stick",
                   "grasp the stick and pull {noun} back", "hook {noun} with the stick and pull"), _BOX),
    "StickPush": (("push {noun} with the stick", "use the stick to push {noun}", "move {noun} with the stick",
                   "grasp the stick and push {noun} forward", "shove {noun} with the stick"), _BOX),
    "Sweep": (("sweep {noun} off the table", "push {noun} off the table", "wipe {noun} off the edge", "sweep {noun} away",
               "move {noun} over the edge of the table"), _BLOCK),
    "SweepInto": (("sweep {noun} into the hole", "push {noun} into the hole", "wipe {noun} into the hole", "sweep {noun} in the pit",
                   "move {noun} into the hole in the table"), _BLOCK),
    "WindowClose": (("close {noun}", "shut {noun}", "push {noun} closed", "slide {noun} shut", "slide {noun} right"), _WINDOW),
    "WindowOpen": (("open {noun}", "push {noun} open", "slide {noun} open", "open up {noun}", "slide {noun} left"), _WINDOW),
}  # fmt: skip

HELD_OUT_EVERY = 4
"""One sentence in this many is kept out of training."""


def _sentences(task_name: str, *, held_out: bool) -> list[str]:
    structures, nouns = _STRUCTURES[find_task(task_name).name]
    return [
        structure.format(noun=noun)
        for (verb, structure), (place, noun) in product(enumerate(structures), enumerate(nouns))
        # The diagonal, so that training still meets every verb and every noun.
        if ((verb + place) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out
    ]


def training_instructions(task_name: str) -> tuple[str, ...]:
    """Return the sentences of a task that training may use, its default instruction first.

    >>> training_instructions("DoorOpen")[0]
    'open the door'
    """
    default = find_task(task_name).instruction
    return tuple(dict.fromkeys([default, *_sentences(task_name, held_out=False)]))


def held_out_instructions(task_name: str) -> tuple[str, ...]:
    """Return the sentences of a task that no training uses; disjoint from `training_instructions`."""
    used = set(training_instructions(task_name))
    return tuple(s for s in _sentences(task_name, held_out=True) if s not in used)


def check_instruction(text: str) -> str:
    """Return an instruction without surrounding white space.

    Raises:
        InstructionError: it is not a sentence: empty, no letters, or longer than `MAX_WORDS`.
    """
    if not isinstance(text, str):
        raise InstructionError(f"an instruction is a string, got {type(text).__name__}")
    stripped = " ".join(text.split())
    if not any(letter.isalpha() for letter in stripped):
        raise InstructionError(
            f"the instruction {text!r} has no words; say what the robot should do, such as 'close the door'"
        )
    n_words = len(stripped.split())
    if n_words > MAX_WORDS:
        raise InstructionError(
            f"the instruction has {n_words} words, the text encoder reads {MAX_WORDS}; say it shorter"
        )
    return stripped


assert set(_STRUCTURES) == set(TASKS), "every task needs its sentences"
