"""Time and peak memory of each stage of a profile, in an empty home, and of a second run that finds all of it done.

    python benchmarks/quick.py [--profile quick] [--out results/benchmarks/quick_cpu.md]

Memory is the sum of the resident sets of a stage's process and all its children, looked at ten times a second.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import tables

NOTEBOOKS = sorted(path.stem for path in (Path(__file__).parent.parent / "notebooks").glob("0[0-6]_*.ipynb"))
INTERVAL = 0.1  # seconds between two looks at the memory


def measure(command: list[str], home: Path) -> tuple[float, float]:
    """Wall seconds and peak memory, GB, of a command and its children; RuntimeError when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | {"MAMMO_CBAM_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    watcher.start()
    _, errors = process.communicate()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {errors.decode()[-500:]}")
    return time.perf_counter() - start, peak[0] / 1e9


def _watch(process: "subprocess.Popen[bytes]", peak: list[int]) -> None:
    while process.poll() is None:
        try:
            parent = psutil.Process(process.pid)
            family = [parent, *parent.children(recursive=True)]
            peak[0] = max(peak[0], sum(member.memory_info().rss for member in family))
        except psutil.NoSuchProcess:  # one of them ended between two looks: the next look sees the others
            continue
        finally:
            time.sleep(INTERVAL)


def import_seconds() -> float:
    """Median of five fresh `import mammo_lib`, without the interpreter's own start."""
    code = "import time; t = time.perf_counter(); import mammo_lib; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return sorted(float(run.stdout) for run in runs)[2]


def main() -> None:
    parser = tables.parser(__doc__ or "", "quick", devices=False)
    parser.add_argument("--profile", default="quick")
    arguments = parser.parse_args()
    steps = [["notebook", name] for name in NOTEBOOKS] + [["report"]]
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for step in steps:
            command = [sys.executable, "-m", "mammo_lib", *step, "--profile", arguments.profile]
            (first, memory), (second, _) = measure(command, Path(home)), measure(command, Path(home))
            rows.append((step[-1], first, memory, second))
            print(f"{step[-1]:25s} {first:7.1f} s {memory:5.2f} GB   again {second:5.1f} s", flush=True)
    rows.append(("all", sum(r[1] for r in rows), max(r[2] for r in rows), sum(r[3] for r in rows)))
    shown = [[name, f"{first:.0f}", f"{memory:.2f}", f"{second:.0f}"] for name, first, memory, second in rows]
    what = f"Profile {arguments.profile}; `import mammo_lib` takes {import_seconds():.3f} s."
    tables.write("quick", arguments, what, ["stage", "first run, s", "peak memory, GB", "second run, s"], shown)


if __name__ == "__main__":
    main()
