"""The edge detector by itself."""

import pytest
import torch
from pymodules_example.edges import EdgeStrength


@pytest.mark.parametrize("operator", ["sobel", "scharr"])
def test_a_vertical_step_has_edges_along_the_step_only(operator):
    images = torch.zeros(1, 1, 5, 6)
    images[..., 3:] = 1.0

    edges = EdgeStrength(operator)(images)[0, 0, 1:-1]

    assert torch.allclose(edges[:, 2:4], torch.full((3, 2), 0.5))
    assert edges[:, 1].max() < 1e-5


def test_scharr_depends_less_on_the_direction_than_sobel():
    across = torch.arange(-4.0, 5.0)
    # One wave, along a row and along a diagonal: in the middle both rise equally steeply.
    straight = torch.sin(across).expand(1, 1, 9, 9)
    diagonal = torch.sin((across[:, None] + across[None, :]) / 2**0.5)[None, None]

    def bias(operator: str) -> float:
        edges = EdgeStrength(operator)
        return (edges(diagonal)[0, 0, 4, 4] / edges(straight)[0, 0, 4, 4] - 1).abs().item()

    assert bias("scharr") < bias("sobel") / 2


def test_gradients_flow_through_to_the_image():
    images = torch.rand(2, 3, 8, 8, requires_grad=True)

    EdgeStrength()(images).sum().backward()

    assert images.grad is not None
    assert images.grad.abs().sum() > 0
