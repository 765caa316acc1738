"""Step 2: sizes. Nothing is opened but the header of a safetensors file, and no more of that than it may have."""

from collections.abc import Iterator

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, check
from moehub.admission.header import MOST_BYTES, MOST_METADATA, MOST_TENSORS
from moehub.admission.policy import Policy
from moehub.admission.subject import Subject
from moehub.card import ADAPTER_WEIGHTS, STATISTICS_FILE
from moehub.files import to_json

_AGAIN = "publish the expert again as moehub or PEFT wrote it"


@check(2)
def file_size(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """No file is larger than its kind can be."""
    most = {ADAPTER_WEIGHTS: policy.most_weights_bytes, STATISTICS_FILE: policy.most_statistics_bytes}
    for name in subject.modes:
        size, limit = subject.size(name), most.get(name, policy.most_text_bytes)
        if size > limit:
            yield Fault(f"{name} has {size} bytes, expected at most {limit}", "publish a smaller one")


@check(2)
def header_length(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The header of a safetensors file is inside the file, and no longer than that of an adapter."""
    for header in subject.headers:
        if header.raw is None:
            said = "ends before it has a header" if header.length < 0 else f"says its header has {header.length} bytes"
            expected = f"expected 2 to {MOST_BYTES}, and the file to go on behind it"
            yield Fault(f"{header.path.name} {said}, {expected}", _AGAIN)


@check(2)
def header_start(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The first byte of a safetensors header is an opening brace, as the format says."""
    for header in subject.headers:
        if header.raw is not None and header.raw[:1] != b"{":
            yield Fault(f"the header of {header.path.name} begins with {header.raw[:1]!r}, expected b'{{'", _AGAIN)


@check(2)
def tensor_count(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """A safetensors file holds no more tensors than an adapter of the largest bases."""
    for header in subject.headers:
        if len(header.values) > MOST_TENSORS:
            found = f"{header.path.name} holds {len(header.values)} tensors, expected at most {MOST_TENSORS}"
            yield Fault(found, "adapt fewer linears")


@check(2)
def metadata_size(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """A safetensors file's metadata are short."""
    for header in subject.headers:
        size = len(to_json(header.metadata).encode("utf-8", errors="replace"))
        if size > MOST_METADATA:
            found = f"the metadata of {header.path.name} have {size} bytes, expected at most {MOST_METADATA}"
            yield Fault(found, _AGAIN)
