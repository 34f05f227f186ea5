"""The import rules of the house, read from the source itself."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parent.parent / "mammo_lib"
FORBIDDEN = {  # room or file -> rooms it must not import
    "data": {"models", "training", "evaluation", "stages"},
    "models": {"data", "training", "evaluation", "stages"},
    "training": {"data", "models", "evaluation", "stages"},
    "evaluation": {"data", "models", "training", "stages"},
    "config.py": {"data", "models", "training", "evaluation", "stages", "paths"},
    "paths.py": {"data", "models", "training", "evaluation", "stages"},
}
NOTHING_OF_OURS = ("evaluation/metrics.py", "evaluation/statistics.py", "evaluation/audit.py")
ONLY_USER = {  # package -> the only files that may import it
    "pydicom": {"data/dicom.py", "data/phantom.py"},  # one reads, the other writes phantoms
    "matplotlib": {
        "evaluation/figures.py",
        "evaluation/figures_case.py",
        "evaluation/figures_curves.py",
        "evaluation/figures_overview.py",
    },
    "ipywidgets": {"explore.py"},
    "papermill": {"notebooks.py"},
    "tqdm": {"progress.py"},
}


def has_relative_imports(path: Path) -> bool:
    """Whether an import begins with a dot: it names no room, so that the rules below would not see it."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return any(isinstance(node, ast.ImportFrom) and node.level > 0 for node in nodes)


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def rooms_of(path: Path) -> set[str]:
    """First part below mammo_lib of everything of ours that `path` imports."""
    return {name.split(".")[1] for name in imported_modules(path) if name.startswith("mammo_lib.")}


def library_files() -> list[str]:
    return sorted(path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("name", library_files())
def test_imports_stay_within_the_rules(name: str) -> None:
    assert not has_relative_imports(LIBRARY / name)
    forbidden = FORBIDDEN.get(name.split("/")[0], set())
    assert not rooms_of(LIBRARY / name) & forbidden
    packages = {module.split(".")[0] for module in imported_modules(LIBRARY / name)}
    for package, users in ONLY_USER.items():
        assert package not in packages or name in users, f"{name} imports {package}"


@pytest.mark.parametrize("name", NOTHING_OF_OURS)
def test_the_formulas_import_nothing_of_ours(name: str) -> None:
    assert not rooms_of(LIBRARY / name)


def test_importing_the_package_is_light() -> None:
    code = "import sys, mammo_lib, mammo_lib.__main__; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mammo_lib" in loaded
    assert not {"torch", "pydicom", "pandas", "matplotlib", "cv2", "papermill"} & set(loaded)


def test_what_is_no_dicom_is_read_where_pydicom_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "image.pgm").write_bytes(b"P5\n3 2\n255\n" + bytes(range(6)))
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from pathlib import Path\nfrom mammo_lib.data import images, prepare, reduced\n"
        "print(images.read_image(Path(sys.argv[1])).tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "image.pgm")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[[0, 1, 2], [3, 4, 5]]\n"


def test_the_rule_would_be_noticed(tmp_path: Path) -> None:
    offender = tmp_path / "offender.py"
    offender.write_text(f"# {time.time()}\nfrom mammo_lib.evaluation import metrics\nimport mammo_lib.data.cases\n")
    assert rooms_of(offender) == {"evaluation", "data"}
    assert not has_relative_imports(offender)
    for relative in (
        "from ..evaluation import metrics",
        "from . import cases",
        "def late():\n    from .cases import read",
    ):
        offender.write_text(f"import os\n{relative}\n")
        assert has_relative_imports(offender)
