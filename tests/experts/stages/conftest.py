import pytest

from moehub.base import Base
from moehub.experts.folder import Expert
from moehub.experts.settings import TrainConfig
from moehub.experts.training import train
from tests.experts.stages.practice import ANSWERED, SMALL, small_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The base that every stage is trained on."""
    return small_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="session")
def tuned(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Expert:
    """An expert that was fine-tuned, for later stages to start from."""
    output = tmp_path_factory.mktemp("experts") / "sums"
    return train(base, "sums", ANSWERED, output, TrainConfig(**SMALL), stage="sft")
