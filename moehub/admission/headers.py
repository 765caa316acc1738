"""Step 3: what the safetensors library would let through, and other readers would read differently."""

import re
from collections.abc import Iterator

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, check
from moehub.admission.header import Header
from moehub.admission.policy import Policy
from moehub.admission.strict import StrictJsonError, quoted
from moehub.admission.subject import Subject
from moehub.card import ADAPTER_WEIGHTS

_AGAIN = "publish the expert again as moehub or PEFT wrote it"
_NAME = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}")
_PLAIN = re.compile(r"[ -~]{0,65536}")


@check(3)
def header_json(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The header of a safetensors file is one JSON object in UTF-8."""
    for header in subject.headers:
        try:
            value = header.document.value
        except StrictJsonError as error:
            yield Fault(f"the header of {header.path.name} is no JSON ({error})", _AGAIN)
            continue
        if not isinstance(value, dict):
            yield Fault(f"the header of {header.path.name} is {quoted(value)}, expected a JSON object", _AGAIN)


@check(3)
def duplicate_key(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """No key stands twice in a header: one reader would take the first, another the last."""
    for header in subject.headers:
        if header.values and header.document.duplicates:
            name = quoted(header.document.duplicates[0])
            yield Fault(f"the header of {header.path.name} holds {name} twice", _AGAIN)


@check(3)
def tensor_name(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Tensors have plain names: no paths, and nothing that a terminal would obey."""
    for header in subject.headers:
        for entry in header.entries:
            if not _NAME.fullmatch(entry.name):
                found = f"{header.path.name} holds a tensor called {quoted(entry.name)}"
                yield Fault(f"{found}, expected letters, digits, '.', '_' and '-', and no '..'", _AGAIN)


@check(3)
def tensor_entry(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """A header describes each tensor by a known dtype, a shape and two offsets, and by nothing else."""
    for header in subject.headers:
        for name in header.malformed:
            found = f"{header.path.name} describes the tensor {quoted(name)} as {quoted(header.values[name])}"
            yield Fault(f"{found}, expected dtype, shape and data_offsets", _AGAIN)


@check(3)
def tensor_bytes(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """A tensor has as many bytes as its dtype and shape ask for."""
    for header in subject.headers:
        for entry in header.entries:
            if entry.end - entry.begin != entry.size:
                found = f"the tensor {quoted(entry.name)} in {header.path.name} has {entry.end - entry.begin} bytes"
                yield Fault(f"{found}, expected {entry.size} for {entry.dtype} of {quoted(entry.shape)}", _AGAIN)


@check(3)
def tensor_offsets(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The tensors fill the file: one begins where the one before ends, and the last ends with the file."""
    for header in subject.headers:
        if not header.malformed and (fault := _misplaced(header)):
            yield fault


@check(3)
def metadata_keys(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """A safetensors file's metadata are those that its writer makes."""
    for header in subject.headers:
        metadata = header.metadata
        known = {"format"} if header.path.name == ADAPTER_WEIGHTS else {"moehub"}
        if not isinstance(metadata, dict) or not metadata.keys() <= known or not _plain(metadata):
            found = f"the metadata of {header.path.name} are {quoted(metadata)}"
            yield Fault(f"{found}, expected nothing but a text under {', '.join(known)}", _AGAIN)


def _misplaced(header: Header) -> Fault | None:
    end = 0
    for entry in sorted(header.entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != end:
            kind = "overlaps the one before it" if entry.begin < end else "leaves a gap before it"
            return Fault(f"the tensor {quoted(entry.name)} in {header.path.name} {kind}", _AGAIN)
        end = entry.end
    if header.raw is not None and header.values and end != header.data:
        return Fault(f"the tensors in {header.path.name} end at byte {end}, the file at {header.data}", _AGAIN)
    return None


def _plain(metadata: dict[str, object]) -> bool:
    return all(isinstance(value, str) and _PLAIN.fullmatch(value) for value in metadata.values())
