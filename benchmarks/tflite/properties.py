"""Every operator of the TFLite emitter with random shapes, strides, paddings, axes and orders in memory, against torch: thousands of cases.

    python benchmarks/tflite/properties.py [--cases 120] [--row NAME ...] [--precision float32 int8 int16] [--seed 1] [--out FILE]

Each case is a file of one operator, run in ai-edge-litert with and without XNNPACK, and (where PACKLIGHT_TFLITE_RUNTIME names a folder
with it) in tflite-runtime 2.14 with and without. float32: the operator against torch, the worst distance over max(1, largest value). int8
and int16: the operator between quantize/dequantize pairs, integers in and out, the worst distance in steps of the output; rows without
int8 figures have no integer form here and stay float in an int8 file. A case is refused where the emitter says no; its reasons are
listed.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from collections import Counter
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests"), str(Path(__file__).resolve().parents[2] / "src")]

from tflite_cases import CASES, Judge, cases
from tflite_cases.aside import Aside, missing

from packlight.targets.runtime import versions

PRECISIONS = ("float32", "int8", "int16")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--row", nargs="*", default=list(CASES))
    parser.add_argument("--precision", nargs="*", default=["float32", "int8"], choices=PRECISIONS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    why = missing()
    judge = Judge(None if why else Aside())
    columns = [f"{p} cases | refused | wrong | worst {'error' if p == 'float32' else 'steps'}" for p in chosen.precision]
    lines, refusals, total = [f"| operator | {' | '.join(columns)} |", "|" + "---|" * (1 + 4 * len(columns))], Counter(), Counter()
    for row in chosen.row:
        line = measure(judge, row, chosen, refusals, total)
        if line.strip("| ") != row:
            lines.append(line)
        print(line, flush=True)
    text = heading(chosen, total, why) + "\n".join(lines) + "\n\n## Refusals\n\n" + reasons(refusals)
    print(f"{total}")
    if chosen.out:
        chosen.out.write_text(text)
    if total["wrong"]:
        sys.exit(1)


def measure(judge: Judge, row: str, chosen: argparse.Namespace, refusals: Counter[tuple[str, str]], total: Counter[str]) -> str:
    cells = [row]
    made = list(cases(row, chosen.cases, chosen.seed))
    for precision in chosen.precision:
        kinds, worst = Counter(), 0.0
        for case in made:
            outcome = judge(case, precision)
            if outcome is None:
                continue
            kind = outcome.kind if outcome.kind in ("right", "refused") else "wrong"
            kinds[kind] += 1
            total[kind] += 1
            total[precision] += 1
            worst = max(worst, outcome.error) if kind == "right" else worst
            if kind == "refused":
                refusals[row, outcome.why] += 1
            if kind == "wrong":
                print(str(outcome)[:600], flush=True)
        cases_ = sum(kinds.values())
        told = f"{worst:.1e}" if precision == "float32" else f"{worst:.0f}"
        cells += [str(cases_), str(kinds["refused"]), str(kinds["wrong"]), told] if cases_ else ["", "", "", ""]
    return "| " + " | ".join(cells) + " |"


def heading(chosen: argparse.Namespace, total: Counter[str], why: str) -> str:
    known = ", ".join(f"{k} {v}" for k, v in versions().items() if k in ("litert", "tflite-runtime"))
    old = f"without tflite-runtime ({why})" if why else "tflite-runtime 2.14.0 (numpy 1.26, a process of its own)"
    return (
        "# Random cases of every operator\n\n"
        f"Made by `python benchmarks/tflite/properties.py --precision {' '.join(chosen.precision)} --cases {chosen.cases} "
        f"--seed {chosen.seed}` on {datetime.date.today()}, "
        f"{platform.machine()} {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}, {known}, {old}; every "
        "file with and without XNNPACK.\n"
        f"{' and '.join(f'{total[p]} {p}' for p in chosen.precision)} cases: {total['right']} right in every interpreter, "
        f"{total['refused']} refused by the emitter, {total['wrong']} wrong.\n"
        "Worst error: largest distance over max(1, largest value); worst steps: largest distance in steps of the output's integers. A "
        "kernel that insists on a scale of\nits own (LOGISTIC, pools) and is then quantized again rounds twice: more than one step where "
        "the graph asks for a finer scale.\n\n"
    )


def reasons(refusals: Counter[tuple[str, str]]) -> str:
    if not refusals:
        return "None.\n"
    return "".join(f"- {row}: {why} ({count} cases)\n" for (row, why), count in sorted(refusals.items()))


if __name__ == "__main__":
    main()
