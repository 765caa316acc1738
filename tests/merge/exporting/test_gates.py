import torch

from moehub.merge.exporting.gates import TEMPERATURE, _discriminant


def test_where_a_feature_is_constant_the_gate_is_the_discriminant_itself() -> None:
    """The bias that Mixtral has no place for goes into that feature: logits are LDA's log posterior over 2."""
    generator = torch.Generator().manual_seed(0)
    E, H, N = 3, 6, 4000
    means = torch.randn(E, H, generator=generator, dtype=torch.float64)
    h = means[:, None] + 0.5 * torch.randn(E, N, H, generator=generator, dtype=torch.float64)
    h[..., 0] = 1.0
    means = h.mean(1)
    within = torch.stack([each.T @ each / N for each in h]).mean(0) - means.T @ means / E
    weight = _discriminant(means, torch.stack([each.T @ each / N for each in h]).mean(0), 10**12)
    inverse = torch.linalg.inv(within[1:, 1:])
    posterior = h[..., 1:] @ inverse @ means[:, 1:].T - 0.5 * (means[:, 1:] @ inverse * means[:, 1:]).sum(1)
    logits = TEMPERATURE * (h @ weight.double().T)
    torch.testing.assert_close(torch.log_softmax(logits, -1), torch.log_softmax(posterior, -1), atol=1e-3, rtol=1e-3)


def test_without_much_text_the_gate_still_exists() -> None:
    """Fewer tokens than dimensions: the covariance is singular, and shrinkage makes it invertible."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(2, 5, 32, generator=generator, dtype=torch.float64)
    h[1] += 1
    weight = _discriminant(h.mean(1), torch.stack([each.T @ each / 5 for each in h]).mean(0), 10)
    assert bool(weight.isfinite().all())
    assert ((h @ weight.double().T).argmax(-1) == torch.tensor([[0], [1]])).float().mean() > 0.9
