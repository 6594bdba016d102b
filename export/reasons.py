"""Why an operator of an integer file computes in float, by the runtimes' own names; for notes in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOVED = "it moves or combines values that are float there"

REASONS: Mapping[str, str] = {
    # ONNX Runtime
    "InstanceNormalization": "no runtime normalizes in integers; its sums of squares need more than 8 bits",
    "LayerNormalization": "no runtime normalizes in integers; its sums of squares need more than 8 bits",
    "LSTM": "ONNX Runtime has no static integer LSTM",
    "GRU": "ONNX Runtime has no integer GRU",
    "PRelu": "ONNX Runtime has an integer kernel for one slope only, not for one a channel",
    "Resize": "ONNX Runtime truncates where it interpolates integers, so linear resizing stays exact in float",
    "ConvTranspose": "ONNX Runtime has no integer transposed convolution",
    "Relu": MOVED,
    "Add": MOVED,
    "Mul": MOVED,
    # OpenVINO
    "MVN": "no runtime normalizes in integers; its sums of squares need more than 8 bits",
    "RNNSeq": "OpenVINO computes LSTM and GRU sequences in float",
    "Interpolate": "OpenVINO interpolates in float",
    "Eltwise": "OpenVINO combines these in float, reading and writing integers where it can",
    "FakeQuantize": "it quantizes again where two scales meet",
    "Deconvolution": "OpenVINO has no integer kernel for it on this CPU",
    "Reshape": MOVED,
    "Split": MOVED,
    "Concatenation": MOVED,
    "Broadcast": "it makes the recurrent layer's first state",
}


def explain(float_left: Sequence[str], most: int = 3) -> tuple[str, ...]:
    """One note an operator type: how many are left, the first of them, and why. Entries are "name (type)"."""
    kinds: dict[str, list[str]] = {}
    for entry in float_left:
        name, _, kind = entry.rpartition(" (")
        kinds.setdefault(kind.removesuffix(")"), []).append(name)
    notes = []
    for kind, names in kinds.items():
        told = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
        why = REASONS.get(kind, MOVED if kind in ("Transpose", "Slice", "Concat", "Gather", "Squeeze", "Unsqueeze", "Pad") else "")
        notes.append(f"{len(names)} {kind} in float ({told}): {why or 'the runtime has no integer kernel for it there'}")
    return tuple(notes)
