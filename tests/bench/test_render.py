"""The report as people read it: true sentences, a table at any width, a page that a real browser opens offline."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from example_report import example_report
from PIL import Image

from packlight.bench.render import plots, units, words
from packlight.bench.render.html import breaks, html, plain, state
from packlight.bench.render.table import table
from packlight.core.artifact import Artifact, Manifest
from packlight.core.history import Step
from packlight.core.report import Environment, Measurement, Model, Report, json_schema
from packlight.core.tensor import Signature, TensorSpec

DOCS = Path(__file__).resolve().parents[2] / "docs"
BROWSER = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here; Debian: apt-get install chromium")
EVIL = "<script>alert('x')</script>&\"'</td> $a_b$ {{ 7*7 }}"


def bare() -> Report:
    """A report of one file of which nothing could be measured."""
    one = Measurement(
        file="m.int8.onnx",
        format="onnx",
        runtime="onnxruntime",
        precision="int8",
        bytes=10,
        sha256="0" * 64,
        why={"latency": "onnxruntime is not installed"},
    )
    return Report(
        packlight="0.1.0",
        created="",
        model=Model(name="m", parameters=3, macs=None),
        task=None,
        target="t",
        environment=Environment(),
        artifacts=(one,),
    )


def as_json(value: msgspec.Struct) -> dict[str, object]:
    """The value as a file on disk holds it."""
    read: dict[str, object] = json.loads(msgspec.json.encode(value))
    return read


def printed(report: Report, width: int) -> str:
    from rich.console import Console

    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(report))
    return console.export_text()


@pytest.fixture(scope="module")
def whole() -> str:
    """The page of the example."""
    return html(example_report())


class Page(HTMLParser):
    """What is in the page: tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "wbr", "use", "path", "img", "rect", "circle", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


class TestUnits:
    @pytest.mark.parametrize(
        ("value", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (331_077, "323 KiB"), (1_101_204, "1.05 MiB"), (3 << 31, "6.00 GiB")]
    )
    def test_size(self, value: int, text: str) -> None:
        assert units.size(value) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.000649, "0.649 ms"),
            (0.0121, "12.1 ms"),
            (0.999, "999 ms"),
            (1.5, "1.50 s"),
            (None, "–"),
            (float("nan"), "–"),
            (0.0, "0.00 ms"),
        ],
    )
    def test_seconds(self, value: float | None, text: str) -> None:
        assert units.seconds(value) == text

    def test_span(self) -> None:
        assert units.span((0.0011184, 0.00112)) == "1.118 to 1.120 ms"
        assert units.span((0.9, 1.1)) == "900.0 ms to 1.100 s"

    @pytest.mark.parametrize(("value", "text"), [(272_474, "0.272 M"), (40_813_184, "40.8 M"), (1.82e9, "1.82 G"), (512, "512")])
    def test_count(self, value: float, text: str) -> None:
        assert units.count(value) == text


class TestWords:
    def test_what_is_recommended(self) -> None:
        report = example_report()
        assert words.headline(report) == "Ship resnet20.int8.xml, in openvino."
        assert "1.62x the speed of resnet20.fp32.xml" in words.reason(report)
        assert words.notes(report) == ("calibrated on 512 images of the training split",)

    def test_gains_and_losses_are_the_figures(self) -> None:
        report = example_report()
        size, latency, memory = words.gained(report)
        assert f"{410_880 / 1_160_377:.2f} of resnet20.fp32.xml" in size
        assert "1.05 ms → 0.649 ms" in latency
        assert latency.endswith(": faster.")
        assert "59.3 MiB → 58.6 MiB" in memory
        accuracy, flips = words.lost(report)
        assert "92.25 % → 92.14 %, 0.11 points lower, on 10,000 samples" in accuracy
        assert flips.startswith("92 of 10,000 answers changed: 41 from right to wrong, 33")

    def test_an_unproven_speed_up_is_called_so(self) -> None:
        report = example_report()
        vino = next(m for m in report.artifacts if m.recommended)
        assert vino.speedup
        for interval, told in (((0.98, 1.05), "a difference is not proven"), ((0.90, 0.95), "slower")):
            changed = msgspec.structs.replace(vino, speedup=msgspec.structs.replace(vino.speedup, ci95=interval))
            artifacts = tuple(changed if m is vino else m for m in report.artifacts)
            assert told in words.gained(msgspec.structs.replace(report, artifacts=artifacts))[1]

    def test_keeping_the_float_file(self) -> None:
        report = example_report()
        artifacts = tuple(msgspec.structs.replace(m, recommended=m.file == "resnet20.fp32.xml") for m in report.artifacts)
        report = msgspec.structs.replace(report, artifacts=artifacts)
        assert words.headline(report) == "Keep the uncompressed resnet20.fp32.xml, in openvino."
        assert "resnet20.int8.tflite" in words.gained(report)[0]

    def test_the_file_it_stands_against(self) -> None:
        """A pruned float file has a peer too: the one that its speed-up names."""
        report = example_report()
        against = report.artifacts[1]
        pruned = msgspec.structs.replace(report.artifacts[4], file="resnet20-pruned.fp32.xml", precision="fp32")
        assert words.baseline_of(report, pruned) is against
        assert words.baseline_of(report, against) is None
        unmeasured = msgspec.structs.replace(report.artifacts[4], speedup=None)
        assert words.baseline_of(report, unmeasured) is against

    def test_no_recommendation(self) -> None:
        assert words.headline(bare()) == "1 file measured; nothing was judged."
        judged = msgspec.structs.replace(bare(), notes=("recommended: no file is recommended: none was measured that keeps the limits",))
        assert words.headline(judged) == "No file is recommended."
        assert words.reason(judged) == "Why: no file is recommended: none was measured that keeps the limits."

    def test_doubts(self) -> None:
        (told,) = words.doubts(example_report())
        assert told == "resnet20.int8.tflite in litert: latency is unstable: the median drifts by 4 % over the run."
        simulated = msgspec.structs.replace(bare(), environment=Environment(kind="emulated"))
        assert words.doubts(simulated) == (
            "m.int8.onnx in onnxruntime: latency was not measured: onnxruntime is not installed.",
            "The device was emulated: its times are not those of a real one.",
        )

    def test_a_lower_is_better_metric(self) -> None:
        report = example_report()
        assert report.model.metric
        error = msgspec.structs.replace(report.model.metric, name="error", value=0.10, higher_is_better=False)
        worse = msgspec.structs.replace(error, value=0.12)
        assert units.worse_by(error, worse) == pytest.approx(2.0)
        artifacts = tuple(msgspec.structs.replace(m, metric=worse) for m in report.artifacts)
        model = msgspec.structs.replace(report.model, metric=error)
        assert "2.00 points higher" in words.lost(msgspec.structs.replace(report, model=model, artifacts=artifacts))[0]


class TestTable:
    @pytest.mark.parametrize("width", [80, 120, 160])
    def test_fits(self, width: int) -> None:
        text = printed(example_report(), width)
        assert max(len(line) for line in text.splitlines()) <= width
        for m in example_report().artifacts:
            assert m.file in text
        assert "resnet20.int8.xml *" in text
        assert "gate NOT met max-latency 0.5: 0.671 resnet20.int8.xml" in text

    def test_wide_shows_more(self) -> None:
        assert "118.2 dB" in printed(example_report(), 160)
        assert "118.2 dB" not in printed(example_report(), 120)

    def test_markup_in_names_is_text(self) -> None:
        report = msgspec.structs.replace(bare(), model=Model(name="[red]x[/red]", parameters=1, macs=None))
        assert "not measured" in printed(report, 120)
        assert "[red]x[/red]" in printed(report, 120)


class TestPage:
    def test_holds_every_section_and_row(self, whole: str) -> None:
        page = Page(whole)
        ids = [a["id"] for t, a in page.tags if t == "h2"]
        assert ids == ["summary", "gates", "files", "plots", "history", "details", "environment", "notes"]
        assert sum(t == "svg" for t, _ in page.tags) == 4
        for m in example_report().artifacts:
            assert m.sha256 in page.text
        for word in ("max-drop", "fold-batchnorm", "AMD EPYC", "no cpufreq here", "92 of 10,000 answers", "GlobalAveragePool (pool)"):
            assert word in page.text

    def test_is_balanced_and_has_unique_ids(self, whole: str) -> None:
        page = Page(whole)
        assert page.open == []
        ids = [a["id"] for _, a in page.tags if "id" in a]
        assert len(ids) == len(set(ids))

    def test_asks_nothing_of_the_network(self, whole: str) -> None:
        text = whole
        links = set(re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^"'\s<)]*""", text))
        assert links <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        page = Page(text)
        assert not any(t in ("script", "img", "iframe", "object", "embed") for t, _ in page.tags)
        assert [a["href"] for t, a in page.tags if t == "link"] == ["data:,"]
        policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy is not None
        assert policy.startswith("default-src 'none'")

    def test_everything_is_escaped(self) -> None:
        report = example_report()
        m = msgspec.structs.replace(report.artifacts[0], file=EVIL, runtime=EVIL, notes=(EVIL,), why={EVIL: EVIL})
        metric = msgspec.structs.replace(m.metric, name=EVIL, unit=EVIL, more={"per_class": [{"recall": 0.5}, {"recall": None}, EVIL]})
        m = msgspec.structs.replace(m, metric=metric, precision=EVIL, recommended=True)
        step = msgspec.structs.replace(report.history[0], name=EVIL, settings={EVIL: EVIL}, changes={EVIL: [EVIL]})
        model = msgspec.structs.replace(report.model, name=EVIL, source=EVIL, metric=metric, labels=(EVIL, "b", "c"))
        environment = msgspec.structs.replace(report.environment, cpu=EVIL, versions={EVIL: EVIL}, why={"governor": EVIL})
        gate = msgspec.structs.replace(report.gates[0], name=EVIL, file=EVIL, why=EVIL)
        changed = msgspec.structs.replace(
            report,
            model=model,
            target=EVIL,
            artifacts=(m, *report.artifacts[1:]),
            history=(step,),
            environment=environment,
            gates=(gate,),
            notes=(EVIL,),
        )
        page = Page(html(changed))
        assert not any(t == "script" for t, _ in page.tags)
        assert not any(k.startswith("on") for _, a in page.tags for k in a)
        assert "{{ 7*7 }}" in page.text
        assert page.text.count("alert('x')") > 15

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("mse", "mse"),
            ([164, 101], "164 → 101"),
            (True, "yes"),
            (None, "none"),
            (41_000_000, "41,000,000"),
            (0.123456789, "0.123457"),
            ({"a": 1}, '{"a": 1}'),
            (list(range(100)), "100 entries, in report.json"),
        ],
    )
    def test_values_of_the_history(self, value: object, text: str) -> None:
        assert plain(value) == text

    def test_a_file_name_breaks_behind_dots(self) -> None:
        assert breaks("a-b.int8.<x>") == "a-<wbr>b.<wbr>int8.<wbr>&lt;x&gt;"

    def test_what_all_share_is_said_once(self) -> None:
        report = example_report()
        slow = [
            msgspec.structs.replace(m, latency=msgspec.structs.replace(m.latency, verdict="unstable", why="BUSY")) for m in report.artifacts
        ]
        assert Page(html(msgspec.structs.replace(report, artifacts=tuple(slow)))).text.count("BUSY") == 1

    def test_how_the_device_was_doing(self) -> None:
        known = Environment(
            governor="performance",
            frequency_mhz=1800.0,
            frequency_range_mhz=(600.0, 1800.0),
            temperature_c=61.2,
            temperature_range_c=(61.2, 61.2),
            throttled=("under-voltage",),
            load=0.314,
            steal=0.021,
        )
        assert state(known) == [
            ("governor", "performance"),
            ("frequency", "1800 MHz (600 to 1800)"),
            ("temperature", "61.2 °C"),
            ("throttled", "under-voltage"),
            ("load", "0.31"),
            ("steal", "2.1 % of the CPU time went to other guests"),
        ]
        assert state(Environment(throttled=(), why={"governor": "no cpufreq here"})) == [
            ("governor", "no cpufreq here"),
            ("throttled", "no"),
        ]

    def test_the_same_report_gives_the_same_page(self, whole: str) -> None:
        assert html(example_report()) == whole

    def test_nothing_measured(self) -> None:
        page = Page(html(bare()))
        assert not any(t == "svg" for t, _ in page.tags)
        assert "1 file measured; nothing was judged." in page.text
        assert "latency was not measured: onnxruntime is not installed" in page.text

    def test_matplotlib_s_settings_are_left_alone(self) -> None:
        import matplotlib

        before = dict(matplotlib.rcParams)
        html(example_report())
        assert dict(matplotlib.rcParams) == before


class TestPlots:
    def test_points_lie_where_the_figures_say(self) -> None:
        """The plots are drawn from raw values: the centre of each row's median mark must order as the medians do."""
        svg = plots.latency_distributions(example_report())
        rows = re.findall(
            r"M ([\d.]+) [\d.]+ \nL \1 [\d.]+ \n\" clip-path=\"[^\"]+\" style=\"fill: none; stroke: var\(--ink\); stroke-width: 2", svg
        )
        medians = [m.latency.median_s for m in example_report().artifacts if m.latency]
        places = np.array([float(x) for x in rows])
        assert len(places) == len(medians)
        slope = np.polyfit(np.array(medians, float), places, 1)
        assert np.abs(np.polyval(slope, np.array(medians, float)) - places).max() < 0.1

    def test_classes(self) -> None:
        report = example_report()
        assert plots.class_accuracies(report.model.metric, report.model.labels)["cat"] == 0.834
        assert plots.class_accuracies(report.model.metric)["3"] == 0.834
        assert plots.class_accuracies(None) == {}
        text = Page(plots.per_class(report)).text
        assert "-0.90" in text.replace("−", "-")
        assert "dog" in text

    def test_many_classes_say_that_some_are_left_out(self) -> None:
        report = example_report()
        assert report.model.metric
        before = msgspec.structs.replace(report.model.metric, more={"per_class": [{"recall": 0.5, "n": 9}] * 100})
        after = msgspec.structs.replace(before, more={"per_class": [{"recall": 0.5 - i / 1000, "n": 9} for i in range(100)]})
        artifacts = tuple(msgspec.structs.replace(m, metric=after) for m in report.artifacts)
        changed = msgspec.structs.replace(
            report,
            model=msgspec.structs.replace(report.model, metric=before, labels=tuple(f"c{i}" for i in range(100))),
            artifacts=artifacts,
        )
        text = Page(plots.per_class(changed)).text
        assert "the 30 worst of 100 classes" in text
        assert "c99" in text
        assert "c50" not in text


def net_events(text: str) -> list[dict[str, Any]]:
    """The events of a net log; one that a quick exit cut off lacks its closing brackets."""
    try:
        read = json.loads(text)
    except ValueError:
        read = json.loads(text.rstrip().rstrip(",") + "]}")
    events: list[dict[str, Any]] = read["events"]
    return events


def browse(page: Path, work: Path, *flags: str) -> tuple[str, list[str]]:
    """Opens ``page`` in a real headless browser: the document after loading, and the addresses that the page itself asked for."""
    assert BROWSER is not None
    log = work / "net.json"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command += ["--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars"]
    command += [f"--user-data-dir={work / 'profile'}", f"--log-net-log={log}", *flags, page.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    events = net_events(log.read_text(encoding="utf-8"))
    asked = [
        e["params"] for e in events if isinstance(e.get("params"), dict) and e["params"].get("initiator") not in (None, "not an origin")
    ]
    return ran.stdout, [str(p["url"]) for p in asked if "url" in p]


@needs_browser
class TestBrowser:
    def test_the_page_opens_and_asks_for_nothing(self, whole: str, tmp_path: Path) -> None:
        page = tmp_path / "report.html"
        page.write_text(whole, encoding="utf-8")
        document, asked = browse(page, tmp_path, "--dump-dom")
        assert asked == []
        rows = re.search(r'<table[^>]*id="artifacts".*?</table>', document, re.DOTALL)
        assert rows is not None
        assert rows[0].count("<tr") == 1 + len(example_report().artifacts)
        assert document.count("<svg") == 4

    def test_the_check_sees_a_request(self, tmp_path: Path) -> None:
        page = tmp_path / "bad.html"
        page.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png">', encoding="utf-8")
        _, asked = browse(page, tmp_path, "--dump-dom")
        assert "http://127.0.0.1:9/x.png" in asked

    @pytest.mark.parametrize(("width", "height", "scheme"), [(1200, 3300, 1), (500, 3300, 0)], ids=["wide-light", "narrow-dark"])
    def test_the_picture_is_not_blank(self, width: int, height: int, scheme: int, whole: str, tmp_path: Path) -> None:
        page, shot = tmp_path / "report.html", tmp_path / "shot.png"
        page.write_text(whole, encoding="utf-8")
        flags = (f"--window-size={width},{height}", f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={scheme}")
        browse(page, tmp_path, *flags)
        pixels = np.asarray(Image.open(shot).convert("L"), np.int16)
        assert pixels.shape[1] == width
        paper = np.median(pixels)
        assert paper > 240 if scheme else paper < 40
        inked = np.abs(pixels - paper) > 40
        assert 0.01 < inked.mean() < 0.4
        bands = inked.reshape(10, -1, width).any(axis=(1, 2)) if height % 10 == 0 else inked
        assert bands[:9].all(), "a tenth of the page is empty"


class TestSchemas:
    def test_the_published_report_schema_is_in_step(self) -> None:
        assert json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8")) == json.loads(json.dumps(json_schema()))

    def test_the_published_manifest_schema_is_in_step(self) -> None:
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "packlight manifest, schema 1"}
        schema |= json.loads(json.dumps(msgspec.json.schema(Manifest)))
        assert json.loads((DOCS / "manifest.schema.json").read_text(encoding="utf-8")) == schema

    def test_a_report_validates(self) -> None:
        schema = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        for report in (example_report(), bare()):
            jsonschema.validate(as_json(report), schema)

    @pytest.mark.parametrize(("key", "value"), [("schema", 2), ("artifacts", [{}]), ("environment", None), ("created", 5)])
    def test_a_wrong_report_does_not(self, key: str, value: object) -> None:
        schema = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(as_json(example_report()) | {key: value}, schema)

    def test_a_manifest_validates(self) -> None:
        schema = json.loads((DOCS / "manifest.schema.json").read_text(encoding="utf-8"))
        spec = TensorSpec(name="x", shape=("batch", 3, 32, 32), layout="NCHW")
        artifact = Artifact(
            file="m.fp32.onnx",
            files={"m.fp32.onnx": "0" * 64},
            model="m",
            format="onnx",
            precision="fp32",
            runtimes=("onnxruntime",),
            target="x86-64-avx2",
            bytes=10,
            signature=Signature((spec,), (spec,)),
        )
        manifest = as_json(Manifest(packlight="0.1.0", versions={"torch": "2.13.0"}, artifacts=(artifact,)))
        jsonschema.validate(manifest, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(manifest | {"surprise": 1}, schema)


def test_what_pruning_took_away() -> None:
    layers = {"stem": [4_000_000, 2_000_000], "body.0": [8_000_000, 1_000_000]}
    timed = {"before": 1.25, "after": 0.5, "runtime": "onnxruntime", "precision": "fp32"}
    pruned = msgspec.structs.replace(bare(), history=(Step(name="prune", changes={"macs-by-layer": layers, "latency-ms": timed}),))
    picture = plots.pruned_layers(pruned)
    for told in ("stem", "body.0", "50%", "12%", "12 before", "3 left", "1.25 → 0.5 ms in onnxruntime, fp32"):
        assert told in picture
    assert "What pruning took away" in html(pruned)
    assert plots.pruned_layers(bare()) == ""
    assert "What pruning took away" not in html(bare())
