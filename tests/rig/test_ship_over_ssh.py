"""A shipped bundle replayed on a device that is reached over ssh, by the command itself."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import shipping
from sshd import Sshd

from packlight.core.progress import Silent
from packlight.export.ship.verify import Verified
from packlight.export.ship.write import write_sums
from packlight.search.verify import verify_over
from packlight.targets.link.ssh import Ssh


@pytest.fixture(scope="module")
def bundle(critters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipping.make_bundle(critters, tmp_path_factory.mktemp("ssh") / "out", "linux")


def over_ssh(bundle: Path, server: Sshd) -> Verified:
    with Ssh("box", config=server.config, python=sys.executable) as link:
        return verify_over(bundle, link, Silent())


def test_all_as_shipped(bundle: Path, server: Sshd) -> None:
    result = over_ssh(bundle, server)
    assert result.findings == ()
    assert result.skipped == ()
    assert result.stages == 10 * 3 + 10 * 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": [0.485, 0.5, 0.406]}, "mean of channel 1: the specification says 0.5, the golden tensor was made with 0.456"),
        ({"colour": "BGR"}, "channel order: the golden pixels are in the reverse order of colour BGR"),
        (None, "'models/critters.int8.onnx' is not the file that was shipped"),
    ],
    ids=["mean", "order", "byte"],
)
def test_a_planted_fault_is_named(change: dict[str, Any] | None, words: str, bundle: Path, server: Sshd, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    if change is None:
        model = copy / "models" / "critters.int8.onnx"
        raw = bytearray(model.read_bytes())
        raw[-40] ^= 0x55
        model.write_bytes(raw)
    else:
        tree = json.loads((copy / "ship.json").read_text())
        tree["preprocess"].update(change)
        (copy / "ship.json").write_text(json.dumps(tree))
    write_sums(copy)
    found = over_ssh(copy, server).findings
    assert any(words in f.what for f in found), found
