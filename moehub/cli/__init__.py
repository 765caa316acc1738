"""The command line: verbs are commands, and each command calls one library function.

A command's module is imported when the command is used, so `moehub --help` loads no torch.
"""

import errno
import logging
import os
import sys
from typing import Any

import click

from moehub import __version__
from moehub.cli.lazy import Lazy
from moehub.errors import ConfigError, MoehubError

COMMANDS = {
    "data": ("moehub.cli.data", "Check, deduplicate, mix, split and write text to learn from."),
    "train-expert": ("moehub.cli.train_expert", "Train a LoRA expert for one domain on your own text."),
    "push": ("moehub.cli.push", "Publish an expert or a MoE to a hub."),
    "pull": ("moehub.cli.pull", "Fetch an expert or a MoE from a hub and verify every file."),
    "keys": ("moehub.cli.keys", "Sign what you publish; pin the keys of others."),
    "list": ("moehub.cli.list", "List the experts that a hub offers."),
    "check": ("moehub.cli.check", "Say what the admission gate finds in an expert."),
    "merge": ("moehub.cli.merge", "Assemble experts into one MoE; add or remove an expert."),
    "tune-router": ("moehub.cli.tune_router", "Train a MoE's gate on text, alone or with others."),
    "eval": ("moehub.cli.eval", "Measure loss and routing of a base, an expert or a MoE."),
    "report": ("moehub.cli.report", "Say what each expert is worth to a MoE."),
    "judge": ("moehub.cli.judge", "Judge answers with models, and say how far they agree."),
    "arena": ("moehub.cli.arena", "Rate models by comparing their answers."),
    "generate": ("moehub.cli.generate", "Write text, and show which expert each token went to."),
    "export": ("moehub.cli.export", "Turn a MoE into Mixtral, PEFT adapters, one model or GGUF."),
    "inspect": ("moehub.cli.inspect", "Say what an expert or a MoE folder is."),
    "federate": ("moehub.cli.federate", "Train experts together with others, who keep their text."),
    "node": ("moehub.cli.node", "Take part in a federation, with text that stays here."),
    "hub": ("moehub.cli.hub", "Run a hub of your own, and look after it."),
    "doctor": ("moehub.cli.doctor", "Check this machine: versions, devices, backends, hub."),
    "demo": ("moehub.cli.demo", "Run the whole road on this machine's own text."),
}
"""Name → the module that holds the command as `command`, and the line that `moehub --help` shows."""


class _Commands(Lazy):
    """The commands, whose errors are shown as sentences."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, click.exceptions.Exit, click.Abort, click.ClickException):
            # click's own; and whoever read our output has seen enough, as `| head` does.
            raise
        except Exception as error:
            if ctx.find_root().params.get("debug"):
                raise
            raise _Sentence(_sentence(error), 2 if isinstance(error, ConfigError) else 1) from error


class _Sentence(click.ClickException):
    """A failure that is shown as its sentence alone."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click reads it, and never writes it
        return self.code


def _sentence(error: Exception) -> str:
    if isinstance(error, MoehubError):
        return str(error)
    if not isinstance(error, OSError) or not error.strerror:
        return (
            f"moehub met something it did not expect ({type(error).__name__}: {error}): "
            "please report it, with what `moehub --debug COMMAND` shows"
        )
    where = f" ({error.filename})" if error.filename else ""
    cure = ": free some space, or choose another folder" if error.errno == errno.ENOSPC else ""
    return f"{error.strerror}{where}{cure}"


@click.group(
    cls=_Commands,
    modules=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="moehub")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:  # noqa: ARG001 (read from the context)
    """Assemble independently trained LoRA experts into one mixture-of-experts model.

    \b
    Example, the whole road:
      moehub train-expert --base org/base --domain law --data law.jsonl --output law
      moehub push law org/law
      moehub merge --base org/base --expert org/law --expert org/medicine --output moe
      moehub generate moe "The lessee shall"
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    # It complains of kernels that are not there to every command, because PEFT imports it wherever it is installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait soon sleep instead of spinning on: beside another busy process, training is several times
    # faster, and alone as fast.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
