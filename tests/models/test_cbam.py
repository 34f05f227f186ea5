"""CBAM against a transcription of equations (1) to (4) in numpy, forward and backward, that never touches torch."""

from itertools import product

import numpy as np
import pytest
import torch

from mammo_lib.models.cbam import Cbam

N, C, H, W, R = 2, 12, 5, 6, 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def convolve(x, kernel):
    """Sum over channels of x (N, 2, H, W) correlated with kernel (2, K, K), zeros outside: (N, 1, H, W)."""
    side = kernel.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (side // 2, side // 2), (side // 2, side // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    return np.einsum("nchwij,cij->nhw", windows, kernel)[:, None]


def forward(F, W0, W1, kernel):
    """Equations as printed; F (N, C, H, W). Returns (M_c, M_s, F'')."""

    def mlp(pooled):
        return np.maximum(pooled @ W0.T, 0) @ W1.T

    gate_c = sigmoid(mlp(F.mean((2, 3))) + mlp(F.max((2, 3))))[:, :, None, None]
    refined = gate_c * F
    pooled = np.stack((refined.mean(1), refined.max(1)), axis=1)
    gate_s = sigmoid(convolve(pooled, kernel))
    return gate_c, gate_s, gate_s * refined


def backward(F, W0, W1, kernel, G):
    """Gradients of sum(F'' * G) by the chain rule, by hand: (dF, dW0, dW1, dkernel)."""
    gate_c, gate_s, _ = forward(F, W0, W1, kernel)
    refined = gate_c * F
    side = kernel.shape[-1]

    # (4) and (2): F'' = M_s(F') * F'
    d_refined = G * gate_s
    d_before = (G * refined).sum(1, keepdims=True) * gate_s * (1 - gate_s)
    pooled = np.stack((refined.mean(1), refined.max(1)), axis=1)
    padded = np.pad(pooled, ((0, 0), (0, 0), (side // 2,) * 2, (side // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    d_kernel = np.einsum("nhw,nchwij->cij", d_before[:, 0], windows)
    d_pooled = np.concatenate(
        [convolve(np.concatenate((d_before, 0 * d_before), 1), kernel[[c, c], ::-1, ::-1]) for c in (0, 1)], axis=1
    )
    highest = refined == refined.max(1, keepdims=True)
    d_refined = d_refined + d_pooled[:, :1] / refined.shape[1] + d_pooled[:, 1:] * highest

    # (3) and (1): F' = M_c(F) * F
    d_sum = ((d_refined * F).sum((2, 3), keepdims=True) * gate_c * (1 - gate_c))[:, :, 0, 0]
    d_F, d_W0, d_W1 = d_refined * gate_c, np.zeros_like(W0), np.zeros_like(W1)
    where_mean = np.full_like(F, 1 / (F.shape[2] * F.shape[3]))
    where_max = (F.max((2, 3), keepdims=True) == F).astype(float)
    for pooled_c, where in ((F.mean((2, 3)), where_mean), (F.max((2, 3)), where_max)):
        hidden = np.maximum(pooled_c @ W0.T, 0)
        d_W1 += d_sum.T @ hidden
        d_hidden = (d_sum @ W1) * (hidden > 0)
        d_W0 += d_hidden.T @ pooled_c
        d_F += (d_hidden @ W0)[:, :, None, None] * where
    return d_F, d_W0, d_W1, d_kernel


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "F": rng.normal(size=(N, C, H, W)),
        "W0": rng.normal(size=(C // R, C)),
        "W1": rng.normal(size=(C, C // R)),
        "kernel": rng.normal(size=(2, 7, 7)),
    }


def as_torch(arrays):
    block = Cbam(C, R, 7).double()
    with torch.no_grad():
        block.mlp[0].weight.copy_(torch.from_numpy(arrays["W0"]))
        block.mlp[2].weight.copy_(torch.from_numpy(arrays["W1"]))
        block.conv.weight.copy_(torch.from_numpy(arrays["kernel"])[None])
    return block


def test_forward_is_the_equations(arrays):
    block, F = as_torch(arrays), torch.from_numpy(arrays["F"])
    gate_c, gate_s, refined = forward(**arrays)
    with torch.no_grad():
        np.testing.assert_allclose(block.channel_gate(F).numpy(), gate_c, rtol=1e-12)
        np.testing.assert_allclose(block.spatial_gate(torch.from_numpy(gate_c) * F).numpy(), gate_s, rtol=1e-12)
        np.testing.assert_allclose(block(F).numpy(), refined, rtol=1e-11, atol=1e-14)


def test_gradients_are_the_hand_written_ones(arrays):
    block, F = as_torch(arrays), torch.from_numpy(arrays["F"]).requires_grad_()
    G = np.random.default_rng(1).normal(size=(N, C, H, W))
    (block(F) * torch.from_numpy(G)).sum().backward()
    expected = backward(**arrays, G=G)
    got = (F.grad, block.mlp[0].weight.grad, block.mlp[2].weight.grad, block.conv.weight.grad[0])
    for tensor, array in zip(got, expected, strict=True):
        np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-9, atol=1e-12)


def test_hand_written_gradients_are_the_slopes_of_the_transcription(arrays):
    """The reference itself, against central differences, along one random direction per array."""
    rng = np.random.default_rng(2)
    G = rng.normal(size=(N, C, H, W))
    for (name, array), gradient in zip(arrays.items(), backward(**arrays, G=G), strict=True):
        step = rng.normal(size=array.shape) * 1e-6
        up, down = ((forward(**{**arrays, name: array + sign * step})[2] * G).sum() for sign in (1, -1))
        assert (gradient * step).sum() == pytest.approx((up - down) / 2, rel=1e-6)


def test_a_normalised_gate_does_not_close_however_large_the_features_are():
    """By numpy: minus the mean of the batch, by its deviation. Without it a gate of these weights is shut at once."""
    torch.manual_seed(0)
    plain, normalised = Cbam(C, R, 7).double(), Cbam(C, R, 7, normalised=True).double()
    normalised.load_state_dict(plain.state_dict(), strict=False)
    features = torch.rand(N, C, H, W, dtype=torch.float64)
    with torch.no_grad():
        for cbam in (plain, normalised):
            cbam.conv.weight.abs_().neg_()
        pooled = torch.stack((features.mean(1), features.amax(1)), dim=1).numpy()
        before = convolve(1000 * pooled, plain.conv.weight[0].numpy())
        assert plain.spatial_gate(1000 * features).max() < 1e-6
        gate = normalised.spatial_gate(1000 * features).numpy()
    assert gate == pytest.approx(sigmoid((before - before.mean()) / np.sqrt(before.var() + 1e-5)), abs=1e-12)


def test_no_bias_and_no_other_state():
    assert {name: tuple(value.shape) for name, value in Cbam(32, 16, 7).state_dict().items()} == {
        "mlp.0.weight": (2, 32),
        "mlp.2.weight": (32, 2),
        "conv.weight": (1, 2, 7, 7),
    }


def test_any_map_size_down_to_one_position():
    for size, (reduction, kernel) in product((1, 2, 3, 16), ((16, 7), (1, 1))):
        assert Cbam(32, reduction, kernel)(torch.rand(2, 32, size, size + 1)).shape == (2, 32, size, size + 1)


@pytest.mark.parametrize(("reduction", "kernel"), [(5, 7), (0, 7), (64, 7), (16, 4), (16, 0), (16, -1)])
def test_sizes_that_do_not_work_are_named(reduction, kernel):
    with pytest.raises(ValueError, match=f"reduction {reduction} " if kernel == 7 else f"kernel {kernel} "):
        Cbam(32, reduction, kernel)
