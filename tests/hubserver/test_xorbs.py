"""Xet's formats, and the folder of what came in them."""

import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hf_xet
import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import xorbs
from moehub.hubserver.store.blobs import Blob
from moehub.hubserver.store.chunks import LARGEST_CHUNK, chunks_of, name_of, unpack
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.shards import Rebuild, files_of
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver.xorb_bytes import FOOTER, GROUPED, LZ4, PLAIN, Term, chunk, framed, numbers, sha256, shard, xorb


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "root", create=True)


@pytest.fixture
def repo(store: Store) -> Repo:
    return store.repos.create("acme/law", EVERYBODY)


def send(store: Store, repo: Repo, name: str, data: bytes, epoch: str | None = None) -> bool:
    place = store.xorbs.place(epoch or store.xorbs.epoch(), repo)
    with store.blobs.receiving() as incoming:
        incoming.write(data)
        return store.xorbs.take(incoming, place, name, repo)


def rebuild(store: Store, repo: Repo, data: bytes, *, largest: int | None = None) -> list[Blob]:
    place = store.xorbs.place(store.xorbs.epoch(), repo)
    return store.xorbs.rebuild(io.BytesIO(data), place, repo, largest=largest)


def content(store: Store, blob: Blob) -> bytes:
    return store.blobs.path(blob.sha256).read_bytes()


@pytest.mark.filterwarnings("ignore:hf_xet.upload_files:DeprecationWarning")  # the one that writes to a folder
def test_the_clients_own_xorbs_and_shards_are_understood(store: Store, repo: Repo, tmp_path: Path) -> None:
    """What hf_xet writes has the name that we give it, and the files come back, with chunks that occur twice."""
    noise, weights = numbers(900_000), (b"\x00\x00\x80\x3f\xcd\xcc\xcc\x3d" * 90_000)
    files = {"noise": noise, "both": noise[100_000:] + weights, "text": b"the court finds " * 40_000, "small": b"x"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    sent = [str(tmp_path / name) for name in files]
    hf_xet.upload_files(sent, f"local://{tmp_path}/cas", None, None, None, None)
    written = [path for path in (tmp_path / "cas").rglob("default.*") if path.suffix != ".tagset"]
    for path in written:
        assert send(store, repo, path.name.removeprefix("default."), path.read_bytes())
    shards = [path.read_bytes() for path in (tmp_path / "cas" / "xet" / "xorbs" / "shards").glob("*.mdb")]
    blobs = [blob for data in shards for blob in rebuild(store, repo, data)]
    assert sorted(content(store, blob) for blob in blobs) == sorted(files.values())
    assert written


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=40), st.sampled_from([PLAIN, LZ4, GROUPED]))
def test_every_packing_gives_the_bytes_back(parts: list[bytes], packing: int) -> None:
    """Of any length, also where it is no multiple of four; the name depends on the bytes alone."""
    name, data = xorb(parts, packing)
    file = io.BytesIO(data)
    assert list(unpack(file, chunks_of(file))) == parts
    assert name_of(file) == name == xorb(parts)[0]


@given(data=st.data(), seed=st.integers(0, 3))
@settings(max_examples=150)
def test_a_damaged_xorb_is_refused_or_has_another_name(data: st.DataObject, seed: int) -> None:
    """Whatever byte is changed or missing: a sentence, never a crash, and never the same name with other chunks."""
    parts = [numbers(50, seed), b"law " * 60]
    name, whole = xorb(parts, LZ4, footer=b"")
    at = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.binary(max_size=3))
    damaged = io.BytesIO(whole[:at] + new + whole[at + data.draw(st.integers(0, 3)) :])
    try:
        found = name_of(damaged)
    except RefusedError as error:
        assert (error.status, "this is no xorb" in str(error)) == (400, True)  # noqa: PT017 (some are xorbs)
    else:
        assert found != name or b"".join(unpack(damaged, chunks_of(damaged))) == b"".join(parts)


@given(st.binary(max_size=400))
def test_bytes_that_are_no_xorb_are_refused(data: bytes) -> None:
    """Or happen to be one."""
    for start in (b"", b"\0"):
        try:
            assert len(name_of(io.BytesIO(start + data))) == 64
        except RefusedError as error:
            assert error.status == 400  # noqa: PT017 (some bytes are a xorb)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "holds no chunk"),
        (FOOTER, "holds no chunk"),
        (framed(b"x", PLAIN, 1, version=1), "the header of a chunk"),
        (framed(b"x", 3, 1), "packed the way 3"),
        (framed(b"x", PLAIN, LARGEST_CHUNK + 1), "131073 bytes in 1"),
        (framed(b"", PLAIN, 1), "in 0"),
        (framed(b"xy", PLAIN, 1), "another number"),
        (framed(lz4.frame.compress(b"xy"), LZ4, 1), "another number"),
        (framed(b"nothing at all", LZ4, 14), "no LZ4 frame"),
        (chunk(b"whole")[:-1], "ends at byte"),
        (framed(b"x", PLAIN, 1) * ((1 << 14) + 1), "chunk 16384"),
    ],
)
def test_a_malformed_xorb_is_a_sentence(data: bytes, what: str) -> None:
    """With what is wrong."""
    with pytest.raises(RefusedError, match=rf"this is no xorb, .*{what}.*HF_HUB_DISABLE_XET=1"):
        name_of(io.BytesIO(data))


@pytest.mark.parametrize("announced", [True, False])
def test_a_chunk_that_unpacks_to_much_more_is_never_unpacked(announced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of 100 MB costs no more than the chunk that it said it was, whatever its frame announces."""
    bomb = lz4.frame.compress(bytes(100_000_000), store_size=announced)[:200_000]
    asked: list[int] = []
    plain = lz4.frame.LZ4FrameDecompressor

    class Watched:
        def decompress(self, data: bytes, max_length: int) -> bytes:
            asked.append(max_length)
            return bytes(plain().decompress(data, max_length=max_length))

    monkeypatch.setattr(lz4.frame, "LZ4FrameDecompressor", Watched)
    with pytest.raises(RefusedError, match="another number of them"):
        name_of(io.BytesIO(framed(bomb, LZ4, 1000)))
    assert asked == [1001]


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_shard_is_refused_or_says_something_else(data: st.DataObject) -> None:
    """Any byte of it: the numbers of records are compared with what is there before any is read."""
    whole = shard((sha256(b"a"), [("ab" * 32, 5, 0, 1)] * 3), (None, [("cd" * 32, 5, 0, 1)]))
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=8)) + whole[at + data.draw(st.integers(0, 8)) :]
    try:
        for file in files_of(io.BytesIO(damaged)):
            assert file.count * 48 < len(damaged)
            list(file.terms())
    except RefusedError as error:
        assert (error.status, "this is no shard" in str(error)) == (400, True)  # noqa: PT017 (some are shards)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "ends in the middle"),
        (b"HFRepoMetaDatX" + bytes(40), "begins with"),
        (shard()[:32] + b"\x03" + bytes(15), "version 3"),
        (shard((None, []))[:60], "ends in the middle"),
        (shard((None, [("ab" * 32, 5, 0, 1)] * 9))[:200], "has 9 terms"),
    ],
)
def test_a_malformed_shard_is_a_sentence(data: bytes, what: str) -> None:
    """With what is wrong."""
    with pytest.raises(RefusedError, match=rf"this is no shard, .*{what}"):
        list(files_of(io.BytesIO(data)))


def test_a_shard_without_what_is_optional_is_understood(store: Store, repo: Repo) -> None:
    """A file without a sha256 becomes the blob that it is."""
    name, data = xorb([b"one", b"two"])
    send(store, repo, name, data)
    blobs = rebuild(store, repo, shard((None, [(name, 6, 0, 2)]), (None, []), verified=False))
    assert [content(store, blob) for blob in blobs] == [b"onetwo", b""]


def test_a_xorb_of_another_name_is_refused(store: Store, repo: Repo) -> None:
    """Its name is computed from its bytes, and it is not kept."""
    _, data = xorb([b"one"])
    with pytest.raises(RefusedError, match="announced was abababababab") as refused:
        send(store, repo, "ab" * 32, data)
    assert refused.value.status == 400
    assert [path for path in store.root.rglob("*") if path.name == "ab" * 32] == []


def test_a_xorb_that_is_there_is_no_news(store: Store, repo: Repo) -> None:
    """The second answer says so."""
    name, data = xorb([b"one"])
    assert [send(store, repo, name, data), send(store, repo, name, data)] == [True, False]


@pytest.mark.parametrize(
    "wrong", [("ab" * 32, 3, 0, 1), (0, 3, 0, 3), (0, 3, 1, 1), (0, 3, 2, 1), (0, 4, 0, 1), (0, 3, 7, 9)]
)
def test_a_term_that_is_not_in_its_xorb_is_refused(
    store: Store, repo: Repo, wrong: tuple[str | int, *tuple[int, ...]]
) -> None:
    """No xorb, no such chunks, none at all, or other sizes; nothing is left behind."""
    name, data = xorb([b"one", b"two"])
    send(store, repo, name, data)
    term: Term = (str(wrong[0] or name), *wrong[1:])  # type: ignore[assignment]
    with pytest.raises(RefusedError, match=r"was not uploaded to this repo|chunks of other sizes") as refused:
        rebuild(store, repo, shard((sha256(b"one"), [term])))
    assert refused.value.status == 400
    assert list((store.root / "incoming").iterdir()) == []


def test_a_file_of_another_sha256_is_refused(store: Store, repo: Repo) -> None:
    """The sha256 that the commit will name is computed from the bytes."""
    name, data = xorb([b"one"])
    send(store, repo, name, data)
    with pytest.raises(RefusedError, match="announced were 3 with"):
        rebuild(store, repo, shard((sha256(b"two"), [(name, 3, 0, 1)])))
    assert not store.uploads.holds(repo.number, sha256(b"one"))


def test_a_xorb_serves_the_repo_that_it_was_sent_to(store: Store, repo: Repo) -> None:
    """Who knows the hash of a private file's xorb cannot rebuild the file elsewhere, not even in the same namespace."""
    name, data = xorb([b"secret"])
    send(store, repo, name, data)
    for other in ("evil/law", "acme/other"):
        theirs = store.repos.create(other, EVERYBODY)
        with pytest.raises(RefusedError, match="was not uploaded to this repo"):
            rebuild(store, theirs, shard((sha256(b"secret"), [(name, 6, 0, 1)])))


def test_a_repo_that_takes_the_name_of_a_deleted_one_gets_none_of_its_xorbs(store: Store, repo: Repo) -> None:
    """Numbers of repos are not given again."""
    name, data = xorb([b"secret"])
    send(store, repo, name, data)
    store.repos.delete(repo)
    again = store.repos.create("acme/law", EVERYBODY)
    with pytest.raises(RefusedError, match="was not uploaded to this repo"):
        rebuild(store, again, shard((sha256(b"secret"), [(name, 6, 0, 1)])))


def test_a_file_that_is_there_is_not_built_again(store: Store, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that lost the answer asks again; the time in which it may commit the blob begins anew."""
    name, data = xorb([b"one"])
    send(store, repo, name, data)
    asked = shard((sha256(b"one"), [(name, 3, 0, 1)]))
    (blob,) = rebuild(store, repo, asked)
    since = "select since from link"
    before = store.database.reading().execute(since).fetchone()["since"]
    monkeypatch.setattr(xorbs, "_content", lambda *_: pytest.fail("it was built again"))
    time.sleep(0.002)
    assert rebuild(store, repo, asked) == [blob]
    assert store.database.reading().execute(since).fetchone()["since"] > before


def test_a_file_is_built_once_at_a_time(store: Store, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that lost patience asks again while the first answer is on its way."""
    name, data = xorb([b"one"])
    send(store, repo, name, data)
    builds: list[str | None] = []
    build = xorbs._content

    def slowly(file: Rebuild, place: Path) -> Iterator[bytes]:
        builds.append(file.sha256)
        time.sleep(0.2)
        return build(file, place)

    monkeypatch.setattr(xorbs, "_content", slowly)
    asked = shard((sha256(b"one"), [(name, 3, 0, 1)]))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: rebuild(store, repo, asked), range(4)))
    assert found == [[Blob(sha256(b"one"), 3)]] * 4
    assert builds == [sha256(b"one")]


def test_a_file_that_is_too_large_is_not_begun(store: Store, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small xorb can be named often: what the terms add up to decides."""
    name, data = xorb([b"one"])
    send(store, repo, name, data)
    monkeypatch.setattr(xorbs, "_content", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(RefusedError, match="a file of 3000 bytes is larger than the 2999") as refused:
        rebuild(store, repo, shard((None, [(name, 3, 0, 1)] * 1000)), largest=2999)
    assert refused.value.status == 413


def test_the_quota_counts_what_comes_through_xet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that would exceed it is not begun, and what is on its way may not be more than the quota either."""
    store = open_store(tmp_path / "root", create=True, quota=1000)
    repo = store.repos.create("acme/law", EVERYBODY)
    sent = [xorb([numbers(400, seed)], footer=b"") for seed in range(3)]
    for name, data in sent[:2]:
        send(store, repo, name, data)
    other = store.repos.create("acme/other", EVERYBODY)
    with pytest.raises(RefusedError, match="816 bytes are on their way to acme already") as refused:
        send(store, other, *sent[2])
    assert refused.value.status == 507
    monkeypatch.setattr(xorbs, "_content", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(RefusedError, match="namespace's quota of 1000"):
        rebuild(store, repo, shard((None, [(sent[0][0], 400, 0, 1)] * 3)))


def test_an_epoch_ends_and_takes_its_xorbs_with_it(store: Store, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest and the one before it serve; then the address is gone, so that the client begins anew."""
    first = store.xorbs.epoch()
    assert store.xorbs.epoch() == first
    name, data = xorb([b"one"])
    send(store, repo, name, data)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 12 * 3600)
    second = store.xorbs.epoch()
    assert send(store, repo, name, data, epoch=first) is False
    assert send(store, repo, name, data, epoch=second) is True
    monkeypatch.setattr(time, "time", lambda: now + 24 * 3600)
    store.xorbs.epoch()
    with pytest.raises(RefusedError, match="time for this upload is over") as refused:
        store.xorbs.place(first, repo)
    assert refused.value.status == 404
    assert not (store.root / "xorbs" / first).exists()
    assert store.xorbs.place(second, repo).is_dir()


@pytest.mark.parametrize("epoch", ["", "..", "../blobs", "1", "40512-1f6a2b8e/acme", "40512-1F6A2B8E"])
def test_an_epoch_leads_nowhere_else(store: Store, repo: Repo, epoch: str) -> None:
    """It is part of an address that anybody can change."""
    (store.root / "xorbs" / store.xorbs.epoch() / "acme").mkdir()
    (store.root / "xorbs" / "1").mkdir()
    with pytest.raises(RefusedError, match="time for this upload is over"):
        store.xorbs.place(epoch, repo)


def test_an_epoch_that_was_removed_by_hand_is_another_one(store: Store) -> None:
    """A client that knows of its xorbs must not be believed by the next, also on the same day."""
    first = store.xorbs.epoch()
    os.rmdir(store.root / "xorbs" / first)  # noqa: PTH106 (as somebody would by hand)
    assert store.xorbs.epoch() != first
