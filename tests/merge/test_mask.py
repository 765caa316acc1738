import pytest
import torch

from moehub.merge.mask import text_mask

IDS = torch.zeros(2, 3, dtype=torch.int64)
TEXT = torch.tensor([[False, True, True], [True, True, True]])


@pytest.mark.parametrize("past", [0, 4])
def test_every_form_of_mask_says_the_same(past: int) -> None:
    """Two and four dimensions, booleans and additive floats, alone or by kind of layer, mark the same padding."""
    whole = torch.cat([torch.ones(2, past, dtype=torch.bool), TEXT], 1)
    four = torch.nn.functional.pad(whole, (0, 5))[:, None, None].expand(-1, 1, 3, -1)
    additive = torch.zeros(four.shape).masked_fill(~four, -torch.inf)
    for mask in (whole, whole.long(), four, additive, {"full_attention": four}, {"sliding_attention": four}):
        assert torch.equal(text_mask(IDS, mask, past=past), TEXT)


def test_no_mask_means_all_text() -> None:
    """Without a mask every token is text."""
    assert bool(text_mask(IDS, None, past=0).all())
