"""Recurrent layers whose time axis is free, through torch.export.

torch works out the shape of an LSTM's or GRU's output by running it step by step, so a trace fixes the number of steps. The shapes are
known without::

    output    (T, N, D * H), or (N, T, D * H) where the batch is first      D: 2 where bidirectional, else 1; H: hidden size
    h_n, c_n  as h_0, c_0
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

_KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@contextlib.contextmanager
def free_steps() -> Iterator[None]:
    """Traces inside take the shapes of recurrent layers from the formula; real tensors are computed as ever, and all is as before after."""
    import torch
    from torch._decomp import decomposition_table

    ops = [getattr(torch.ops.aten, kind).input for kind in _KINDS]
    kernels = [dict(op.py_kernels) for op in ops]
    tables = {op: decomposition_table[op] for op in ops if op in decomposition_table}
    try:
        for op in ops:
            for key, kernel in list(op.py_kernels.items()):
                op.py_kernels[key] = _by_shape(kernel)
            if op in tables:
                decomposition_table[op] = _by_shape(tables[op])
            op._dispatch_cache.clear()
        yield
    finally:
        for op, before in zip(ops, kernels, strict=True):
            op.py_kernels.clear()
            op.py_kernels.update(before)
            op._dispatch_cache.clear()
        decomposition_table.update(tables)


def _by_shape(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel, or, for tensors without numbers, empty results of the right shapes."""

    def run(x: Any, hx: Any, params: Any, has_biases: bool, layers: int, dropout: float, train: bool, both: bool, first: bool) -> Any:
        from torch._subclasses.fake_tensor import FakeTensor

        if not isinstance(x, FakeTensor):
            return kernel(x, hx, params, has_biases, layers, dropout, train, both, first)
        states = hx if isinstance(hx, list | tuple) else (hx,)
        out = x.new_empty((*x.shape[:2], states[0].shape[2] * (2 if both else 1)))
        return (out, *(s.new_empty(s.shape) for s in states))

    return run
