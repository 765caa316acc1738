"""GGUF, for llama.cpp and what is built on it: Mixtral or one dense model, through llama.cpp's own converter.

moehub calls the converter of the llama.cpp that a person has, in a process of its own, and if that llama.cpp was built,
lets it write a few words and compares them with what transformers writes.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from moehub.base import Base
from moehub.errors import MergeError
from moehub.merge.exporting.dense import Dense
from moehub.merge.exporting.loading import load_exported
from moehub.merge.exporting.mixtral import Mixtral
from moehub.merge.exporting.planned import Planned, Twin
from moehub.merge.load import Parts

CONVERTER = "convert_hf_to_gguf.py"
PROGRAMS = ("llama-completion", "llama-cli")
"""Those of llama.cpp that go on with a text, in the order in which they are tried."""
GGUF_FILE = "model.gguf"
_PLACES = ("", "build/bin", "bin")
_HF = "hf"
_WORDS = 8
_PROMPT = "The"
_SECONDS = 600
_SHOWN = 2000


@dataclass(frozen=True)
class Gguf:
    """One GGUF file."""

    inner: Mixtral | Dense
    """What is converted."""
    llama_cpp: Path
    """A checkout of llama.cpp."""
    outtype: str = "auto"
    """Of the weights, in the converter's words."""
    name: str = "gguf"

    def plan(self, parts: Parts) -> Planned:
        """Return what will be written.

        Raises:
            MergeError: there is no converter, or the MoE cannot become what is to be converted.
        """
        converter = self.llama_cpp / CONVERTER
        if not converter.is_file():
            raise MergeError(
                f"{self.llama_cpp} holds no {CONVERTER}: name a checkout of llama.cpp with --llama-cpp "
                "(git clone https://github.com/ggml-org/llama.cpp)"
            )
        inner = self.inner.plan(parts)
        return replace(
            inner,
            kind=f"GGUF of {inner.kind}",
            files=(GGUF_FILE,),
            notes=(*inner.notes, "what is compared with the MoE is the folder that was converted, not the GGUF file"),
            write=lambda folder: self._write(inner, folder),
            twins=tuple(Twin(twin.name, twin.forced, _within(twin.load)) for twin in inner.twins),
            library="gguf",
            tags=(*inner.tags, "gguf"),
            finish=self._finish,
        )

    def _write(self, inner: Planned, folder: Path) -> tuple[str, ...]:
        (folder / _HF).mkdir()
        said = inner.write(folder / _HF)
        command = [sys.executable, str(self.llama_cpp / CONVERTER), str(folder / _HF)]
        command += ["--outfile", str(folder / GGUF_FILE), "--outtype", self.outtype]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 (the person named it)
        if done.returncode or not (folder / GGUF_FILE).is_file():
            raise MergeError(
                f"{CONVERTER} of {self.llama_cpp} failed with code {done.returncode}; if it lacks a library, "
                f"install those in its requirements.txt beside moehub. Its last words:\n"
                f"{(done.stdout + done.stderr)[-_SHOWN:].strip()}"
            )
        return (*said, f"converted by {CONVERTER} with --outtype {self.outtype}")

    def _finish(self, folder: Path) -> tuple[str, ...]:
        """Let llama.cpp use the file, and remove what it was converted from."""
        said = self._verified(folder)
        for path in sorted((folder / _HF).iterdir()):
            path.unlink()
        (folder / _HF).rmdir()
        return (said,)

    def _verified(self, folder: Path) -> str:
        program = find_program(self.llama_cpp)
        if program is None:
            return f"not run by llama.cpp: {self.llama_cpp} holds no {' or '.join(PROGRAMS)}; build it for that"
        theirs = run_program(program, folder / GGUF_FILE)
        if theirs is None:
            return f"{program.name} could not use the file"
        mine = _continued(folder / _HF)
        if theirs.strip() == mine.strip():
            return f"{program.name} writes the same {_WORDS} tokens as transformers"
        return f"{program.name} writes {theirs.strip()!r:.80}, transformers {mine.strip()!r:.80}"


def find_program(llama_cpp: Path) -> Path | None:
    """Return llama.cpp's own program that goes on with a text, where it was built."""
    found = (llama_cpp / place / name for name in PROGRAMS for place in _PLACES)
    return next((path for path in found if path.is_file()), None)


def run_program(program: Path, file: Path) -> str | None:
    """Return what llama.cpp writes after a prompt, choosing the most probable tokens; None where it fails."""
    command = [str(program), "-m", str(file), "-p", _PROMPT, "-n", str(_WORDS), "--temp", "0", "-no-cnv"]
    command += ["--no-display-prompt", "--no-warmup"]
    with tempfile.TemporaryFile("w+") as complaints:
        try:
            done = subprocess.run(  # noqa: S603 (the person named it)
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
    return done.stdout.removesuffix("[end of text]\n") if done.returncode == 0 else None


def _within(load: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: load(folder / _HF)


@torch.no_grad()
def _continued(folder: Path) -> str:
    tokenizer, model = Base(folder, folder.name, None).load_tokenizer(), load_exported(folder)
    ids = tokenizer(_PROMPT, return_tensors="pt")["input_ids"]
    begin = ids.shape[1]
    for _ in range(_WORDS):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return str(tokenizer.decode(ids[0, begin:], skip_special_tokens=True))
