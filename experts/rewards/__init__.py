"""How good an answer is: rewards that have names, with weights, for reinforcement learning (docs/rewards.md)."""

from moehub.experts.rewards.making import KINDS, Scored, check, combine, make
from moehub.experts.rewards.reward import Opener, Reward, RewardModel, Scores, Weighted

__all__ = [
    "KINDS",
    "Opener",
    "Reward",
    "RewardModel",
    "Scored",
    "Scores",
    "Weighted",
    "check",
    "combine",
    "make",
]
