"""The tables of README.md and RESULTS.md, made from results/: `python -m mammo_lib.readme` writes them anew.

A table stands between `<!-- begin results/<...>.csv -->` and `<!-- end -->`; nobody types what is between. Knows the
CSV files that tables are stored in, and Markdown; computes nothing. tests/test_claims.py says when one is behind.
"""

import re
import sys
from pathlib import Path

import pandas as pd

from mammo_lib.evaluation.export import p_values, plain, text, with_interval
from mammo_lib.paths import write_text

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "RESULTS.md")
BLOCK = re.compile(r"<!-- begin (results/\S+\.csv) -->\n(.*?)<!-- end -->", re.DOTALL)
LEFT_TO_THE_FILE = ("block", "unit", "threshold", "malignant", "patients", "fitted_on", "applied_to")
NOT_RUN = r"(fold \d+ |\w+: )?not run"
PRINTED = "{:.4f}"  # as many digits as the paper has
HEADINGS = {"auc": "AUC", "auc_printed": "printed AUC", "initial": "initial weights"}


def readme_table(path: Path) -> str:
    """A stored table as Markdown, one line a row; FileNotFoundError, with what to do, when it is not there.

    A number with an interval is shown as `0.861 [0.832, 0.890]`; what else hangs on such a number is left to the file,
    but for the printed AUC. Columns without any value are left out, and so are rows that were not run.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: README or RESULTS shows this table: make it, or take its block out")
    frame = pd.read_csv(path).convert_dtypes()  # counts stay whole beside empty cells
    if "note" in frame:
        frame = frame[~frame["note"].astype("string").fillna("").str.fullmatch(NOT_RUN)]
    if "difference" in frame:
        frame = frame.rename(columns={"low": "difference_low", "high": "difference_high"})
    shown = plain(frame)
    for name in [name for name in frame if {f"{name}_low", f"{name}_high"} <= set(frame)]:
        shown[name] = with_interval(frame[name], frame[f"{name}_low"], frame[f"{name}_high"])
        shown = shown.drop(
            columns=[other for other in shown if str(other).startswith(f"{name}_") and other not in HEADINGS]
        )
        shown = shown.drop(columns=list(LEFT_TO_THE_FILE), errors="ignore")
    if "p" in shown:
        shown["p"] = p_values(frame["p"])
    if "auc_printed" in shown:
        shown["auc_printed"] = text(frame["auc_printed"], PRINTED)
    shown = shown[[name for name in shown if shown[name].ne("").any()]]
    headings = [HEADINGS.get(name, name.replace("_", " ")) for name in shown.columns.astype(str)]
    lines = [headings, ["---"] * len(headings), *shown.to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def refreshed(text: str, root: Path) -> str:
    """A document's text with the table of every block made anew from the file it names, below `root`.

    ValueError for a block that is not closed, or whose file is not one of results/.
    """
    begun, closed = text.count("<!-- begin "), len(BLOCK.findall(text))
    if begun != closed:
        form = "<!-- begin results/x.csv --> to <!-- end -->"
        raise ValueError(f"{begun} tables are begun, {closed} can be read: write each as {form}")
    return BLOCK.sub(lambda found: f"<!-- begin {found[1]} -->\n\n{readme_table(root / found[1])}\n<!-- end -->", text)


def main() -> int:
    """Write both documents with their tables anew; one sentence and exit status 1 when a table is not there."""
    for path in (ROOT / name for name in DOCUMENTS):
        try:
            write_text(path, refreshed(path.read_text(encoding="utf-8"), ROOT))
        except (OSError, ValueError) as error:
            print(f"error: {path.name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
