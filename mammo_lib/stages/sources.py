"""The sources of data: how each archive is read, and what a run says of it. A new source is one entry of SOURCES.

A reader takes the archive's folder, the profile, and whether a part of the archive will do.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mammo_lib.config import PROTOCOLS, Profile

Reading = tuple[str, pd.DataFrame, pd.DataFrame]  # the layout in words, the case table, what was set aside


@dataclass(frozen=True)
class Source:
    """read: raises FileNotFoundError when files of masses are missing, unless a part will do. citation: of the data.

    facts: sentences for the reporting checklist, by what `evaluation.checklist` asks, from the source's own
    publication; what is not known is left out.
    official: what the protocol "official" is there, in words; blank: the archive has no such split. how_to_get: at the
    end of the message that the archive is not there. light: reading it opens no image, so that it is read, and its
    split tried, before hours go into its images. glance: for one that is not light, what can be refused at once, with
    FileNotFoundError; as `read`, but without the profile.
    """

    read: Callable[[Path, Profile, bool], Reading]
    citation: str
    facts: dict[str, str]
    official: str = PROTOCOLS["official"]
    how_to_get: str = ""
    light: bool = False
    glance: Callable[[Path, bool], object] | None = None


def of(profile: Profile) -> Source:
    """The profile's source. ValueError when there is none of its name."""
    if profile.source not in SOURCES:
        raise ValueError(
            f"profile {profile.name} has the source {profile.source!r}: choose one of {', '.join(SOURCES)}, or enter "
            "it where CONTRIBUTING.md says (Add a data set)"
        )
    return SOURCES[profile.source]


def protocol_in_words(profile: Profile, protocol: str) -> str:
    """What a split protocol is; "official" is what the profile's source has by that name."""
    return of(profile).official if protocol == "official" else PROTOCOLS[protocol]


def _cbis_ddsm(root: Path, profile: Profile, allow_partial: bool) -> Reading:
    from mammo_lib.data import archive_layouts, cbis_ddsm

    layout = f"CBIS-DDSM in the layout {archive_layouts.recognise(root)}"
    return layout, *cbis_ddsm.case_table(root, allow_partial)


def _glance_at_cbis_ddsm(root: Path, allow_partial: bool) -> None:
    """The official tables are there, and a file in one of the layouts; no header is read."""
    from mammo_lib.data import archive_layouts, cbis_ddsm

    cbis_ddsm.find_descriptions(root, allow_partial)
    archive_layouts.recognise(root)


def _reduced(root: Path, profile: Profile, allow_partial: bool) -> Reading:
    from mammo_lib.data import reduced

    return "reduced CBIS-DDSM, images and COCO boxes", *reduced.case_table(root, allow_partial)


def _mini_mias(root: Path, profile: Profile, allow_partial: bool) -> Reading:
    from mammo_lib.data import mini_mias

    return "mini-MIAS", *mini_mias.case_table(root, allow_partial, profile.asymmetries)


def _table(root: Path, profile: Profile, allow_partial: bool) -> Reading:
    from mammo_lib.data import own_table

    return "a table, cases.csv", *own_table.case_table(root, allow_partial)


_DDSM = Source(
    read=_cbis_ddsm,
    citation="Lee RS, Gimenez F, Hoogi A, et al. A curated mammography data set for use in computer-aided detection "
    "and diagnosis research. Scientific Data 4, 170177, 2017 (CBIS-DDSM, CC BY 3.0).",
    facts={
        "design": "Retrospective: a public collection (CBIS-DDSM, made from DDSM).",
        "acquisition": "Screen-film mammograms, digitised for DDSM (Lee et al. 2017).",
        "deidentification": "By the providers of the collection; nothing that identifies a patient is read here.",
        "reference": "Pathology as CBIS-DDSM's tables give it; benign without callback counts as benign.",
        "annotation": "Outlines and BI-RADS descriptors of CBIS-DDSM (Lee et al. 2017); none were added.",
        "setting": "Four centres in the United States, as DDSM names them; the centre of a case is not recorded.",
        "data_availability": "CBIS-DDSM is public (The Cancer Imaging Archive, CC BY 3.0).",
    },
    how_to_get=" (python -m mammo_lib download fetches it)",
    glance=_glance_at_cbis_ddsm,
)
SOURCES = {
    "cbis_ddsm": _DDSM,
    "reduced": replace(_DDSM, read=_reduced, how_to_get="", light=True),
    "mini_mias": Source(
        read=_mini_mias,
        citation="Suckling J, Parker J, Dance D, et al. The Mammographic Image Analysis Society digital mammogram "
        "database. Excerpta Medica, International Congress Series 1069, 375-378, 1994 (mini-MIAS, for research only).",
        facts={
            "design": "Retrospective: a public collection (mini-MIAS).",
            "acquisition": "Film mammograms, digitised and reduced to 1024 x 1024 pixels (Suckling et al. 1994).",
            "reference": "Severity as the collection's table gives it.",
            "annotation": "Centre and radius of each lesion, from the collection's table; none were added.",
            "data_availability": "mini-MIAS is to be had from its providers, for research only.",
        },
        official="",
        light=True,
    ),
    "table": Source(
        read=_table,
        citation="The data: as its owner asks.",
        facts={
            "reference": "Labels as the user's case table gives them.",
            "annotation": "Boxes or masks as the user's case table names them.",
        },
        official="the test patients of the table's column official_split; validation cut from the others (ours)",
        how_to_get=" (a folder with cases.csv, whose columns mammo_lib/data/cases.py documents, and the images that it "
        "names)",
        light=True,
    ),
    "phantom": Source(
        read=_cbis_ddsm,
        citation=_DDSM.citation,  # of the real mammograms beside the phantoms
        facts={
            "design": "No study of patients: the images are drawn by a program.",
            "acquisition": "Drawn by data/phantom.py.",
            "deidentification": "Nothing to remove: there are no patients.",
            "reference": "Known: a phantom is drawn from its label.",
            "annotation": "Known: a mask is drawn with its mass.",
            "setting": "None: there are no patients.",
            "data_availability": "Drawn anew from the seed by anyone, with the pinned packages byte for byte.",
        },
        official="the phantoms that were drawn as test patients; validation cut from the others (ours)",
    ),
}
