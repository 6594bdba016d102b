"""The ten graphs of the test zoo in three formats and three precisions, beside litert-torch and the raw PT2E export.

    python benchmarks/graphs.py --work DIR [--step write,judge,time,table] [--graph NAME ...] [--out benchmarks/graphs.md]

Random weights under fixed seeds, so SQNR is the figure. int8 is quantized by the scheme of x86-64-avx2, calibrated on 32 smooth random
inputs; parity is taken on 16 others. What is measured goes line by line to ``graphs.jsonl`` beside this file; what is there is not done
again (delete its lines for that). Without packlight[oracle] the peers' columns stay as they are. How: ``graphs_work.py``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "src"), str(HERE)]

import graphs_work as work

GRAPHS = ("resnet18", "mobilenetv2", "efficientnet", "unet", "dcgan", "cyclegan", "superres", "crnn", "gruvideo", "convlstm")
PACKAGES = ("torch", "onnxruntime", "openvino", "ai-edge-litert", "litert-torch", "ai-edge-quantizer")

HEAD = (
    "graph | written by | format | precision | SQNR dB to its graph | to float torch | off the quantized graph dB | max abs | KiB "
    "| operators | transposes | float left | time / ORT float | export CPU s | memory MiB"
)
PAIRS = (
    ("packlight tflite fp32", "litert-torch tflite fp32"),
    ("packlight tflite int8", "ai-edge-quantizer tflite int8"),
    ("packlight onnx int8", "raw-pt2e onnx int8"),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graph", nargs="*", default=list(GRAPHS))
    parser.add_argument("--step", default="write,judge,time,table")
    parser.add_argument("--cell", help="only cells whose name holds this word")
    parser.add_argument("--work", type=Path, default=Path("runs/graphs"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--launch", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.launch is not None:
        print(json.dumps(work.launch(chosen.launch, json.load(sys.stdin))))
        return
    book = work.Book(HERE / "graphs.jsonl")
    there = importlib.util.find_spec("litert_torch") is not None
    cells = [c for c in work.CELLS if there or not c.startswith(("litert-torch", "ai-edge"))]
    if chosen.cell:
        cells = [c for c in cells if chosen.cell in c]
    steps = {"write": work.write, "judge": work.judge, "time": work.measure_times}
    for graph in chosen.graph:
        for name, step in steps.items():
            if name in chosen.step.split(","):
                step(chosen.work, graph, book, cells)
    if "table" in chosen.step:
        text = page(book)
        if chosen.out:
            chosen.out.write_text(text)
        else:
            print(text)


def page(book: work.Book) -> str:
    """The whole of graphs.md."""
    told = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _there(name))
    lines = [
        "# The ten graphs",
        "",
        f"Made by `python benchmarks/graphs.py` on {datetime.date.today()}: {_cpu()}, {platform.system()}, "
        f"Python {platform.python_version()}, {told}. "
        "Seeds fixed in tests/zoo.py; calibration on 32 inputs (seed 2), parity on 16 others (seed 3).",
        "",
        "- SQNR: fp32 and fp16 against torch, int8 against the quantized graph; the worst runtime's (LiteRT with and without XNNPACK). "
        '"off the quantized graph" is the file\'s SQNR to float torch less that of the quantized graph itself.',
        "- time / ORT float: one thread, batch 1, over ONNX Runtime on packlight's own fp32 file, taken round by round in one process; the "
        f"median of {work.LAUNCHES} launches and their range. Other work ran on the machine; ratios within a round carry that alike.",
        "- export CPU s and memory: the exporter alone, in a process of its own; the growth of its peak over what torch and the model "
        "take. ai-edge-quantizer's come on top of litert-torch's.",
        "- TFLite int8 LSTM and GRU: int8 matrices whose input is quantized at each step; ai-edge-quantizer's are static int8 all "
        "through. It gives integer doors; here its files take and give float32 as packlight's do.",
        "- Graphs were written, judged and timed one after the other, on one day; a graph's times are of one sitting. The ConvLSTM's and "
        "MobileNetV2's changed files were written after their neighbours (export figures there are not all of one sitting).",
        "- The DCGAN's, U-Net's and CycleGAN's OpenVINO int8 files are those of before transposed convolutions became convolutions there, "
        "and the TFLite int8 files those of before weights of 7 bits were stored in 8 and small averages became convolutions.",
        "- An empty cell, a graph or a file that is not listed: not measured yet.",
        "",
        "## packlight beside its peers",
        "",
        "Time of packlight's file over that of the peer's, in the same runtime; CPU seconds and memory of writing them.",
        "",
        "| graph | files | time ratio | | export s | memory MiB |",
        "|---|---|---|---|---|---|",
        *(row for graph in GRAPHS for row in beside(book, graph)),
        "",
        "## Every file",
        "",
        f"| {HEAD} |",
        "|" + "---|" * (HEAD.count("|") + 1),
        *(row for graph in GRAPHS for cell in sorted(work.CELLS, key=_rank) if (row := shown(book, graph, cell))),
    ]
    return "\n".join(lines) + "\n"


def beside(book: work.Book, graph: str) -> list[str]:
    """One row a pair of files."""
    rows = []
    for mine, other in PAIRS:
        a, b = book.get("write", graph, mine), book.get("write", graph, other)
        if a is None or b is None:
            continue
        found = work.ratio(book, graph, mine, other)
        if found is None:
            why = b.get("error") or (book.get("judge", graph, other) or {}).get("error") or "not timed"
            rows.append(f"| {graph} | {mine} / {other} | | {_cell(why)} | | |")
            continue
        value, low, high = found
        verdict = "faster" if high < 1 else "slower" if low > 1 else "no difference proven"
        seconds, memory = (f"{a[key]:.1f} / {b[key]:.1f}" for key in ("seconds", "grew_mib"))
        rows.append(f"| {graph} | {mine} / {other} | {value:.2f} [{low:.2f}, {high:.2f}] | {verdict} | {seconds} | {memory} |")
    return rows


def shown(book: work.Book, graph: str, cell: str) -> str:
    """One row a file; "" where it was not written yet."""
    line, figures = book.get("write", graph, cell), book.get("judge", graph, cell) or {}
    if line is None:
        return ""
    names = " | ".join([graph, *cell.split()])
    error = line.get("error") or figures.get("error")
    if error:
        return f"| {names} | {_cell(error)} " + "| " * 10 + "|"
    own = cell.startswith("ai-edge")
    off = figures["float_db"] - figures["graph_db"] if figures.get("graph_db") and not own else None
    took = work.ratio(book, graph, cell, "packlight onnx fp32")
    cells = [
        names,
        "" if own or not figures else _db(figures["sqnr_db"]),
        _db(figures["float_db"]) if figures else "",
        "" if off is None else f"{off:+.2f}",
        "" if own or not figures else f"{figures['max_abs']:.1e}",
        f"{line['bytes'] / 1024:.0f}",
        str(line["ops"]),
        str(line["transposes"]),
        str(len(line["float_left"])) if cell.endswith("int8") else "",
        "" if took is None else f"{took[0]:.2f} [{took[1]:.2f}, {took[2]:.2f}]",
        f"{line['seconds']:.1f}",
        f"{line['grew_mib']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _rank(cell: str) -> tuple[int, int, bool]:
    writer, format, precision = cell.split()
    return work.FORMATS.index(format), work.PRECISIONS.index(precision), writer != "packlight"


def _db(value: float | None) -> str:
    return "equal" if value is None or value == float("inf") else f"{value:.1f}"


def _cell(text: str) -> str:
    return text.replace("|", "/")


def _there(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        if line.startswith("model name"):
            return f"{os.cpu_count()} cores of {line.partition(':')[2].strip()}"
    return platform.machine()


if __name__ == "__main__":
    main()
