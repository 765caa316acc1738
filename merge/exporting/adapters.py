"""A MoE's experts as PEFT's adapters: each by itself, or several merged into one by PEFT's own methods."""

import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from moehub.base import quiet_transformers
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, README
from moehub.errors import MergeError
from moehub.hub.model_card import render_expert
from moehub.merge.exporting.dense import adapter_of
from moehub.merge.exporting.planned import Planned, Twin
from moehub.merge.load import Parts

METHODS = (
    "linear",
    "cat",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_ties",
    "dare_linear_svd",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
)
"""PEFT's ways to merge adapters (`add_weighted_adapter`)."""
PRUNING = tuple(method for method in METHODS if method.startswith(("ties", "dare", "magnitude")))
"""Those that drop a share of the numbers first."""
_MIXTURE = "Mixture"
"""PEFT's name for the result; names of experts have no capitals."""


@dataclass(frozen=True)
class Experts:
    """Every expert in a folder of its own."""

    name: str = "peft"

    def plan(self, parts: Parts) -> Planned:
        """Return what will be written."""
        names = [expert.name for expert in parts.experts]
        size = sum((expert.folder / ADAPTER_WEIGHTS).stat().st_size for expert in parts.experts)
        return Planned(
            kind=f"{len(names)} adapters of PEFT",
            experts=tuple(names),
            size=size,
            files=tuple(f"{name}/{file}" for name in names for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)),
            lost=("the gate: who loads an adapter chooses it",),
            notes=("each adapter is compared with the MoE sent to its expert",),
            write=lambda folder: _copy(parts, folder),
            twins=tuple(Twin(name, name, lambda folder, name=name: _load(parts, folder / name)) for name in names),  # type: ignore[misc]
            library="peft",
            relation="adapter",
            tags=("lora",),
        )


@dataclass(frozen=True)
class Mixture:
    """One adapter made of several."""

    weights: Mapping[str, float]
    """Expert → its weight."""
    method: str = "linear"
    density: float | None = None
    """Share of the numbers that the pruning methods keep."""
    name: str = "peft"

    def plan(self, parts: Parts) -> Planned:
        """Return what will be written.

        Raises:
            MergeError: there is no such expert or method, or the method cannot merge these.
        """
        self._require(parts)
        others = [expert.name for expert in parts.experts if expert.name not in self.weights]
        mixed = ", ".join(f"{weight:g} {name}" for name, weight in self.weights.items())
        return Planned(
            kind=f"one adapter of PEFT: {mixed}, by {self.method}",
            experts=tuple(self.weights),
            size=sum((one.folder / ADAPTER_WEIGHTS).stat().st_size for one in parts.experts if one.name not in others),
            files=(ADAPTER_CONFIG, ADAPTER_WEIGHTS),
            lost=(
                "the gate: every token gets the same mixture",
                *((f"the experts that are not in the mixture: {', '.join(others)}",) if others else ()),
                *((f"what {self.method} drops or approximates",) if self.method != "cat" else ()),
            ),
            notes=("compared with the MoE and its gate",),
            write=lambda folder: self._write(parts, folder),
            twins=(Twin("mixture", None, lambda folder: _load(parts, folder)),),
            library="peft",
            tags=("lora",),
        )

    def _require(self, parts: Parts) -> None:
        for name, weight in self.weights.items():
            if adapter_of(parts, name).magnitudes:
                raise MergeError(
                    f"--mixture {name}={weight}: {name} is a DoRA expert, and PEFT merges plain LoRAs only: leave it "
                    "out, or leave --mixture out to have every expert as an adapter of its own"
                )
            if not math.isfinite(weight):
                raise MergeError(f"--mixture {name}={weight}: expected a finite number")
        if len(self.weights) < 2:
            raise MergeError("a mixture takes two or more experts: name them as --mixture law=0.6,code=0.4")
        if self.method not in METHODS:
            raise MergeError(f"PEFT has no method {self.method!r}, expected {', '.join(METHODS)}")
        if (self.density is not None) != (self.method in PRUNING):
            cure = "give --density, such as 0.5" if self.method in PRUNING else "leave --density out"
            raise MergeError(f"--method {self.method} with density {self.density}: {cure}")
        if self.density is not None and not 0 < self.density <= 1:
            raise MergeError(f"--density {self.density}: expected a share above 0 and at most 1")

    def _write(self, parts: Parts, folder: Path) -> tuple[str, ...]:
        model = self._merged(parts)
        config = model.peft_config[_MIXTURE]
        # PEFT keeps what the first adapter's configuration says; the result's scale is one.
        config.use_rslora = False
        config.base_model_name_or_path = parts.config.base["reference"]
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            model.save_pretrained(scratch, selected_adapters=[_MIXTURE], save_embedding_layers=False)
            for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
                shutil.copyfile(Path(scratch) / _MIXTURE / file, folder / file)
        return ()

    def _merged(self, parts: Parts) -> Any:
        chosen = [expert for expert in parts.experts if expert.name in self.weights]
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # DARE drops at random, and equal mixtures are to be equal bytes
            # Names of experts may hold dots, which PEFT's may not; and PEFT's must not be parts of the base's names,
            # as numbers or "mlp" are: saving would drop what has them in its name.
            names = [f"Expert{number}" for number in range(len(chosen))]
            model = PeftModel.from_pretrained(parts.base.load_model(), str(chosen[0].folder), adapter_name=names[0])
            for name, expert in zip(names[1:], chosen[1:], strict=True):
                model.load_adapter(str(expert.folder), adapter_name=name)
            try:
                model.add_weighted_adapter(
                    names,
                    [self.weights[expert.name] for expert in chosen],
                    _MIXTURE,
                    combination_type=self.method,
                    density=self.density,
                )
            except (ValueError, TypeError, RuntimeError) as error:
                raise MergeError(
                    f"PEFT cannot merge {', '.join(self.weights)} by {self.method} ({error}): "
                    "try --method cat or --method svd, which take adapters of any rank"
                ) from error
        return model


def _copy(parts: Parts, folder: Path) -> tuple[str, ...]:
    for expert in parts.experts:
        (folder / expert.name).mkdir()
        for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(expert.folder / file, folder / expert.name / file)
        if (expert.folder / README).is_file():
            shutil.copyfile(expert.folder / README, folder / expert.name / README)
        else:
            (folder / expert.name / README).write_text(render_expert(expert.card), encoding="utf-8")
    return ()


def _load(parts: Parts, folder: Path) -> Any:
    with quiet_transformers():
        return PeftModel.from_pretrained(parts.base.load_model(dtype=torch.float32), str(folder)).eval()
