"""Opens the models that rewards ask, from the names that a person gave."""

from pathlib import Path
from typing import TYPE_CHECKING

from moehub.base import Base

if TYPE_CHECKING:
    from moehub.answering.answerer import Answerer
    from moehub.experts.rewards import RewardModel


class Openers:
    """What opens judges, each once, and reward models."""

    def __init__(self, base: Base) -> None:
        """Rate with reward models of this base."""
        self.base = base
        self._answerers: dict[str, Answerer] = {}

    def answerer(self, reference: str) -> "Answerer":
        """Return a judge: a base, an expert, a MoE, or a model behind a server.

        Raises:
            MoehubError: there is nothing of that name.
        """
        from moehub.judging.opening import open_answerer

        if reference not in self._answerers:
            self._answerers[reference] = open_answerer(reference)
        return self._answerers[reference]

    def reward_model(self, folder: str) -> "RewardModel":
        """Return what rates answers with the reward model in a folder.

        Raises:
            ExpertError: there is no reward model.
            BaseModelError: it belongs to another base.
        """
        from moehub.experts.stages.reward import open_rater

        return open_rater(Path(folder).expanduser(), self.base)
