"""From easy to the full task: the stages that a task offers, as a training walks through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.tasks.base import Task
from delaynet_lava.tasks.registry import task as task_of
from delaynet_lava.tasks.registry import varied
from delaynet_lava.tasks.words import split_word
from delaynet_lava.training.recipe import Recipe, Schedule
from delaynet_lava.training.samples import Pool, epoch_borders, pools

__all__ = ["Stage", "stages_of"]


@dataclass(frozen=True)
class Stage:
    """What one stage trains on.

    Attributes:
        pool: its samples. easy: those of its easy companion.
    """

    pool: Pool
    easy: Pool

    @property
    def word(self) -> str:
        """Of its task."""
        return self.pool.task.word

    def epoch(self, schedule: Schedule, easy: float) -> list[tuple[Pool, int]]:
        """Where each batch of an epoch comes from, and its number of samples.

        Args:
            easy: share of the batches that the companion gives, spread evenly.
        """
        sizes = np.diff(epoch_borders(self.pool.most(schedule.epoch_samples), schedule.batch))
        # One whenever the share, added up, passes a whole number.
        passes = [int((k + 1) * easy) > int(k * easy) for k in range(len(sizes))]
        return [(self.easy if p else self.pool, int(n)) for p, n in zip(passes, sizes, strict=True)]


def stages_of(recipe: Recipe, task: Task, seed: int) -> list[Stage]:
    """The stages of a training, the full task last and often alone.

    Raises:
        InputError: the recipe adds options that the task has not, stages differ in what a network must fit,
            or as :func:`pools`.
    """
    chosen, held_out = recipe.curriculum, recipe.schedule.held_out
    training = _for_training(task, chosen.training)
    walked = training.curriculum() if chosen.walk and not recipe.init.model else [training]
    for one in (training, *walked):
        for name in ("channels", "classes", "dt_ms", "payload_bits"):
            if getattr(one, name) != getattr(task, name):
                raise InputError(
                    f"task {one.word}: {name}",
                    f"is {getattr(one, name)}, that of {task.word} {getattr(task, name)}",
                )
    return [Stage(pools(one, seed, held_out)[0], pools(one.easier(), seed, held_out)[0]) for one in walked]


def _for_training(task: Task, options: str) -> Task:
    if not options:
        return task
    try:
        return task_of(varied(task.word, **split_word(f"task:{options}")[1]), task.seed)
    except InputError as error:
        raise InputError(
            f"recipe: curriculum.training {options!r}", str(error), "make it empty for this task"
        ) from error
