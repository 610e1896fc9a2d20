"""Short imperative labels of subtasks, from the words of the task.

A segment comes with its role, which the motion told: `approach` (the arm moves, nothing else has
changed yet), `contact` (it works slowly where something is about to change), `act` (the scene
itself changes), `leave` (the arm lets go and moves off), `whole` (nothing could be told apart).
"""

import re
from collections.abc import Sequence
from typing import Literal

from demo_vlm.words import Clause, Task

Role = Literal["approach", "contact", "act", "leave", "whole"]


def labels(task: Task, roles: Sequence[Role]) -> list[str]:
    """One label for each segment. Of neighbors no two are the same."""
    found: list[str] = []
    acts = max(1, sum(role == "act" for role in roles))
    act = 0
    for index, role in enumerate(roles):
        clause = _clause_of(task, act, acts)
        if role == "act":
            label = _act(task, act, acts)
            act += 1
        elif role == "approach":
            label = f"reach for {_thing(task, clause)}"
        elif role == "contact":
            label = _contact(task, clause)
        elif role == "leave":
            before = _clause_of(task, max(0, act - 1), acts)
            label = _leave(task, before)
        else:
            label = task.order if task.text else "move the arm"
        found.append(_different(label, found, index))
    return found


def _different(label: str, before: list[str], index: int) -> str:
    if not before or before[-1] != label:
        return label
    longer = f"continue to {label}"
    return longer if before[-1] != longer else f"{longer} ({index + 1})"


def _acting(task: Task) -> list[Clause]:
    """The clauses that change the scene: taking hold of a thing is only the way there."""
    acting = [clause for clause in task.clauses if clause.family not in ("grasp", "reach")]
    return acting or list(task.clauses)


def _clause_of(task: Task, act: int, acts: int) -> Clause | None:
    acting = _acting(task)
    if not acting:
        return None
    return acting[min(len(acting) - 1, act * len(acting) // acts)]


def _thing(task: Task, clause: Clause | None) -> str:
    pronoun = clause is not None and clause.thing in ("it", "them")
    if clause is not None and clause.thing and not pronoun and task.clauses[0].family != "grasp":
        return clause.thing
    return task.thing or "the object"


def _contact(task: Task, clause: Clause | None) -> str:
    thing = _thing(task, clause)
    grasps = any(part.family == "grasp" for part in task.clauses)
    if grasps or (clause is not None and clause.family == "place"):
        return f"grasp {thing}"
    return f"line up with {thing}"


def _act(task: Task, act: int, acts: int) -> str:
    acting = _acting(task)
    if not acting:
        return task.order if task.text else "move the object"
    if acts >= len(acting):
        clause = acting[act * len(acting) // acts]
        said = [clause]
    else:
        # More clauses than changes that were seen: the change stands for several of them.
        said = acting[act * len(acting) // acts : (act + 1) * len(acting) // acts]
    parts = []
    for clause in said:
        order = clause.imperative()
        if order not in parts:
            parts.append(order)
    same = len(said) == 2 and said[0].thing == said[1].thing and not said[0].rest
    if same:
        return f"{said[0].verb} and {said[1].imperative()}"
    label = " and ".join(parts)
    # Each label stands alone: what "it" is must be said.
    if len(said) == 1 and task.thing and task.thing not in ("it", "them"):
        label = re.sub(r"\b(?:it|them)\b", task.thing, label, count=1)
    return label


def _leave(task: Task, clause: Clause | None) -> str:
    thing = _thing(task, clause)
    held = any(part.family == "grasp" for part in task.clauses) or (
        clause is not None and clause.family == "place"
    )
    return f"let go of {thing} and move away" if held else f"move away from {thing}"
