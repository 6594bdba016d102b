"""Reconstruction and BatchNorm statistics against closed forms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from packlight.compress.passes import run_passes
from packlight.compress.prune.reconstruct import reconstruct
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle


def test_what_the_rest_can_say_is_found_again(avx2: Callable[..., Any], arrays: type) -> None:
    """Half of the channels are sums of the others: without them, the layers behind are fitted to the same outputs exactly."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 5, 3, 2, 1))
    net += nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    with torch.no_grad():
        net[0].weight[4:] = net[0].weight[:4] * 0.1 + net[0].weight[:4].roll(1, 0) * 0.05
    images = torch.randn(64, 3, 8, 8)
    bundle = Bundle.capture(net, (images[:2],))
    context = avx2(train=arrays(images.numpy()))
    plain = run_passes(bundle, [make_pass("prune", {"ratio": 0.5, "reconstruct": False})], context)
    fitted = run_passes(bundle, [make_pass("prune", {"ratio": 0.5})], context)
    assert fitted.graph.get_parameter("0.weight").shape[0] == 4
    x = torch.randn(4, 3, 8, 8)
    error = [float((b.run(x)[0] - bundle.run(x)[0]).pow(2).mean()) for b in (plain, fitted)]
    assert error[1] < 0.01 * error[0]
    assert fitted.history[-1].changes["reconstructed"]["layers"] == 2


def test_linear_layer_equals_least_squares() -> None:
    torch.manual_seed(0)
    dense = Bundle.capture(nn.Linear(6, 4), (torch.randn(2, 6),)).graph
    x = torch.randn(300, 6)
    target = copy.deepcopy(dense)
    student = Bundle.capture(nn.Linear(6, 4), (torch.randn(2, 6),)).graph
    left = reconstruct(target, student, lambda name: torch.arange(4), (x,), pull=0.0)
    with torch.no_grad():
        y = dense(x).numpy()
    told, *_ = np.linalg.lstsq(np.c_[x.numpy(), np.ones(300)], y, rcond=None)
    np.testing.assert_allclose(student.get_parameter("weight").detach(), told[:6].T, atol=1e-5)
    np.testing.assert_allclose(student.get_parameter("bias").detach(), told[6], atol=1e-5)
    assert left["weight"] < 1e-6


def test_statistics_are_those_of_the_images(avx2: Callable[..., Any], arrays: type) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    images = torch.randn(64, 3, 8, 8) * 2 + 1
    bundle = Bundle.capture(net, (images[:2],))
    context = avx2(calib=arrays(images.numpy()))
    after = run_passes(bundle, [make_pass("reestimate-batchnorm", {"images": 64, "batch": 64})], context)
    with torch.no_grad():
        y = net[0](images)
        z = net[3](torch.relu(nn.functional.batch_norm(y, None, None, net[1].weight, net[1].bias, training=True)))
    buffers = dict(after.graph.named_buffers())
    torch.testing.assert_close(buffers["1.running_mean"], y.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(buffers["1.running_var"], y.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(buffers["4.running_var"], z.var((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert after.history[-1].changes == {"layers": 2, "images": 64}
