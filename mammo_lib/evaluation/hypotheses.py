"""Test sets that a text on CBIS-DDSM may mean, as named hypotheses for the audit.

Knows the data set's counts and what the paper says of its splits, both from config.py; the arithmetic is in `audit.py`.
"""

from collections.abc import Iterator
from itertools import product
from math import ceil, floor

from mammo_lib import config
from mammo_lib.evaluation.audit import Hypothesis, PrintedRow

DECIMALS = 4  # of every number in Tables 1 and 2


def printed_rows(stage: str) -> list[PrintedRow]:
    """The rows of Table 1 (stage "P") or 2 ("G") as printed, named `VGG16` or `VGG16, ImageNet`."""
    return [
        PrintedRow(
            row_name(row), *(f"{value:.{DECIMALS}f}" for value in (row.sensitivity, row.specificity, row.accuracy))
        )
        for row in config.PUBLISHED
        if row.stage == stage
    ]


def row_name(row: config.PublishedRow) -> str:
    network = config.NETWORK_LABELS[row.network]
    return network if row.stage == "P" else f"{network}, {config.INITIAL_LABELS[row.initial]}"


def named_test_sets(profile: config.Profile) -> list[Hypothesis]:
    """Named test sets of CBIS-DDSM: the official one by several units, and the splits as written.

    A split as written is stratified by class, so its class sizes are a share of the class, rounded either way. Section
    2.5 says so of the patches; that the images were drawn likewise is our reading.
    """
    known, paper = config.CBIS_DDSM_CLASSES, (config.PAPER_COUNTS["malignant"], config.PAPER_COUNTS["benign"])
    centres, patches, images = (
        profile.patches.centres,
        profile.split.patch_shares[2],
        profile.split.global_shares[2],
    )
    official = {unit: classes for (subset, unit), classes in known.items() if subset == "test"}
    masses, all_images = known["train + test", "masses"], known["train + test", "images"]
    return [
        *(_counted(f"official test set, {unit}", classes) for unit, classes in official.items()),
        _counted(f"official test set, {centres} patches a mass", official["masses"], centres),
        *_split(f"as written: {patches:.0%} of {centres} patches a mass", masses, patches * centres),
        *_split(f"as written: {patches:.0%} of {centres} patches, the paper's counts", paper, patches * centres),
        *_split(f"as written: {images:.0%} of images", all_images, images),
        *_split(f"as written: {images:.0%} of images, the paper's counts", paper, images),
    ]


def _counted(name: str, classes: tuple[int, int], times: int = 1) -> Hypothesis:
    return Hypothesis(name, classes[0] * times, classes[1] * times)


def _split(name: str, classes: tuple[int, int], share: float) -> Iterator[Hypothesis]:
    exact = [round(count * share, 6) for count in classes]  # 0.1 x 8 is not a binary number
    sizes = (sorted({floor(size), ceil(size)}) for size in exact)
    for malignant, benign in product(*sizes):
        yield Hypothesis(name, malignant, benign)
