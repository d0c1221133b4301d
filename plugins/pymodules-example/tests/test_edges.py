"""The edge detector and the hook that provides it."""

from pathlib import Path

import torch
from pymodules_example import plugin
from pymodules_example.edges import SobelEdges

from pymodules_core.specs import DiscoveryContext


def test_a_vertical_step_has_edges_along_the_step_only():
    images = torch.zeros(1, 1, 5, 6)
    images[..., 3:] = 1.0

    edges = SobelEdges()(images)[0, 0, 1:-1]

    assert torch.allclose(edges[:, 2:4], torch.full((3, 2), 0.5))
    assert edges[:, 1].max() < 1e-5


def test_gradients_flow_through_to_the_image():
    images = torch.rand(2, 3, 8, 8, requires_grad=True)

    SobelEdges()(images).sum().backward()

    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_the_hook_provides_a_frozen_module():
    context = DiscoveryContext(experiment_dir=None, data_home=Path("data"))

    spec = plugin.provide_module(context)

    assert spec.name == "example_edges"
    assert spec.settings == {"frozen": True}
