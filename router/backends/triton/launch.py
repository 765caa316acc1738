"""Which programs are started, and with which block sizes.

The sizes are chosen so that three stages of a block fit into the shared memory of any card since Ampere (99 KiB).
They were compiled for sm_90 and not yet timed on a GPU.

Shapes: T tokens, K slots of a token, E experts, r rank, d width of the linear's input or output, P parts of the input.
"""

import torch
from torch import Tensor

from moehub.router.backends.triton import by_tile, by_token
from moehub.router.backends.triton.interpreter import interpreted
from moehub.router.tiles import Tiles

_SMALLEST = 16
"""What a matrix unit multiplies at least."""
_RANK = 64
"""Rows of an adapter in a block, at most."""
_BYTES = 256
"""Of a row in a block."""
_VALUES = 4096
"""Of an adapter in a block, for few tokens."""
_PART, _PARTS = 256, 32
"""Columns in a part of the input, at least, and how many parts there are at most, for few tokens."""
_FEW_COLUMNS = 64
"""Columns of the output in a block, for few tokens."""


def shrink(rows: Tensor, matrices: Tensor, tiles: Tiles, *, zeroed: bool) -> Tensor:
    """Return matrices[e] · rows[t] for the active pairs, float32 [K, T, r].

    Args:
        rows: [T, d].
        matrices: [E, r, d].
        tiles: who goes where.
        zeroed: whether inactive pairs are zeros; otherwise anything stands there.
    """
    slots, tokens = tiles.order.shape
    experts, rank, width = matrices.shape
    make = torch.zeros if zeroed else torch.empty
    inner = make(slots, tokens, rank, dtype=torch.float32, device=rows.device)
    lines, columns = _block(rank, _RANK), _block(width, _BYTES // rows.element_size())
    grid = (tiles.table.shape[1], slots, -(-rank // lines))
    with torch.cuda.device_of(rows):
        by_tile.shrink_tiles[grid](
            rows.contiguous(), matrices.contiguous(), inner, tiles.order, tiles.table,
            tokens, width, rank, tiles.table.shape[1],
            EXPERTS=experts, SIZE=tiles.size, RANK=lines, WIDTH=columns, EVEN=width % columns == 0, WIDE=interpreted(),
        )  # fmt: skip
    return inner


def expand(
    base: Tensor | None, inner: Tensor, matrices: Tensor, weights: Tensor, scale: Tensor, tiles: Tiles
) -> Tensor:
    """Return base + Σ_k g·s · inner[k] · matrices[e], [T, d] in the dtype of `matrices`, or of `base` if there is one.

    Args:
        base: [T, d], or None for zeros.
        inner: [K, T, r], float32; inactive pairs are not read.
        matrices: [E, r, d].
        weights: g, [T, K].
        scale: s, [E].
        tiles: who goes where.
    """
    slots, tokens = tiles.order.shape
    experts, rank, width = matrices.shape
    like = matrices if base is None else base
    out = torch.empty(tokens, width, dtype=like.dtype, device=like.device)
    lines, columns = _block(rank, _RANK), _block(width, _BYTES // matrices.element_size())
    grid = (tiles.table.shape[1], -(-width // columns))
    with torch.cuda.device_of(inner):
        for slot in range(slots):
            by_tile.expand_tiles[grid](
                out if base is None else base.contiguous(), inner, matrices.contiguous(), weights.contiguous(), scale,
                out, tiles.order, tiles.table, slot, tokens, width, rank, tiles.table.shape[1],
                SLOTS=slots, EXPERTS=experts, SIZE=tiles.size, RANK=lines, WIDTH=columns,
                BASE=base is not None, FIRST=slot == 0, WIDE=interpreted(),
            )  # fmt: skip
    return out


def outer(inner: Tensor, rows: Tensor, weights: Tensor, scale: Tensor, tiles: Tiles) -> Tensor:
    """Return Σ over each expert's pairs of g·s · inner[k, t]ᵀ rows[t]: the gradient of an adapter, [E, r, d].

    Args:
        inner: [K, T, r], float32.
        rows: [T, d].
        weights: g, [T, K].
        scale: s, [E].
        tiles: who goes where.
    """
    slots, tokens, rank = inner.shape
    experts, width = len(scale), rows.shape[1]
    out = torch.empty(experts, rank, width, dtype=rows.dtype, device=rows.device)
    lines, columns = _block(rank, _RANK), _block(width, _BYTES // rows.element_size())
    grid = (experts, -(-width // columns), -(-rank // lines))
    with torch.cuda.device_of(rows):
        by_tile.sum_tokens[grid](
            inner, rows.contiguous(), weights.contiguous(), scale, out, tiles.order, tiles.ends,
            tokens, width, rank,
            SLOTS=slots, EXPERTS=experts, SIZE=tiles.size, RANK=lines, WIDTH=columns, WIDE=interpreted(),
        )  # fmt: skip
    return out


def few(x: Tensor, y: Tensor, indices: Tensor, weights: Tensor, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    """Return what `loop` returns, in two passes by token, without anything that depends on the route's values.

    Args:
        x: [T, d_in].
        y: [T, d_out].
        indices: expert of each pair, [T, K].
        weights: weight of each pair, [T, K].
        A: [E, r, d_in].
        B: [E, r, d_out].
        scale: [E].
    """
    (tokens, slots), (_, rank, width), out = indices.shape, A.shape, torch.empty_like(y)
    part = max(_PART, _power(-(-width // _PARTS)))
    parts, lines = -(-width // part), _block(rank, _RANK)
    inner = torch.empty(parts, slots, tokens, rank, dtype=torch.float32, device=x.device)
    indices, weights = indices.contiguous(), weights.contiguous()
    with torch.cuda.device_of(x):
        by_token.shrink_tokens[tokens * slots, parts, -(-rank // lines)](
            x.contiguous(), A.contiguous(), indices, weights, inner, tokens, width, rank,
            SLOTS=slots, RANK=lines, WIDTH=min(_VALUES // lines, part), PART=part,
        )  # fmt: skip
        by_token.expand_tokens[tokens, -(-y.shape[1] // _FEW_COLUMNS)](
            y.contiguous(), inner, B.contiguous(), indices, weights, scale, out, tokens, y.shape[1], rank, parts,
            SLOTS=slots, RANK=lines, WIDTH=_FEW_COLUMNS, PARTS=_power(parts),
        )  # fmt: skip
    return out


def _power(size: int) -> int:
    """Return the smallest power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()


def _block(size: int, most: int) -> int:
    return min(max(_power(size), _SMALLEST), most)
