"""What can be said without a network: prevalence, the radiologist's assessment, the radiologist's descriptors.

Each baseline is a predictions table like a cell's (one row per mass, part "test"), so that the same tables take it.
Knows the case table's columns; sees no pixel. Nothing is fitted on the cases it is tested on.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

LABELS = {
    "prevalence": "Prevalence",
    "birads": "Radiologist's BI-RADS assessment alone",
    "descriptors": "Logistic regression on shape and margins",
}
# Ours: 0 (incomplete, needs work-up) is a recall, so it ranks above 3 (short-interval follow-up) and below 4 (biopsy);
# work-up of it finds less cancer than of 4: 14 % against 39 % in Timmers et al. 2012, Eur Radiol 22:1717.
ASSESSMENTS = {1: 0.0, 2: 0.2, 3: 0.4, 0: 0.6, 4: 0.8, 5: 1.0}
ZERO_AS_FOUR = ASSESSMENTS | {0: ASSESSMENTS[4]}  # who holds every recall for the same
DESCRIPTORS = ("shape", "margins")
READING = ("assessment", *DESCRIPTORS)
NOT_GIVEN = "NOT_GIVEN"  # a missing descriptor is a finding of its own: the category is left empty, no case is dropped


def prevalence(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """The malignant share of the training masses, for every test mass. Its AUC is 0.5 by construction."""
    return _predictions(test, pd.Series(train["label"].mean(), index=test.index))


def birads(test: pd.DataFrame, places: Mapping[int, float] = ASSESSMENTS) -> pd.DataFrame:
    """The assessment's place from 0 to 1: a rank, not a probability (no Brier score or calibration of it).

    At threshold 0.5 the upper half is called malignant: 0, 4 and 5, those who are called back. ValueError, naming the
    masses, for an assessment that is not in `places`.
    """
    score = pd.to_numeric(test["assessment"], errors="coerce").map(dict(places))
    if score.isna().any():
        row = test[score.isna()].iloc[0]
        raise ValueError(
            f"cases.csv: assessment of {int(score.isna().sum())} masses is not one of {sorted(places)} "
            f"(first: {row['mass_id']}, {row['assessment']!r}); leave them out by name or correct them"
        )
    return _predictions(test, score)


def descriptors(train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str] = DESCRIPTORS) -> pd.DataFrame:
    """Logistic regression on the radiologist's words for shape and margins, fitted on `train` alone.

    A compound such as IRREGULAR-ARCHITECTURAL_DISTORTION counts as each of its words. A word that training never saw
    has no weight. columns: `READING` adds the assessment, each grade a word of its own.
    """
    shared = set(train["patient_id"]) & set(test["patient_id"])
    if shared:
        raise ValueError(f"baseline: {len(shared)} patients are in train and test (first: {min(shared)})")
    model = descriptor_model(columns).fit(_words(train, columns), train["label"])
    return _predictions(test, pd.Series(model.predict_proba(_words(test, columns))[:, 1], index=test.index))


def descriptor_model(columns: Sequence[str] = DESCRIPTORS) -> Pipeline:
    """One indicator per word of each column, then scikit-learn's default logistic regression (ours)."""
    indicators = [
        (name, CountVectorizer(token_pattern=r"[^-]+", lowercase=False, binary=True), name) for name in columns
    ]
    return make_pipeline(ColumnTransformer(indicators), LogisticRegression(max_iter=1000))


def _words(cases: pd.DataFrame, columns: Sequence[str] = DESCRIPTORS) -> pd.DataFrame:
    words = cases[list(columns)].fillna("").astype(str)
    return words.replace(r"^[\s-]*$|^N/A$|^nan$", NOT_GIVEN, regex=True)  # "-" alone holds no word either


def _predictions(test: pd.DataFrame, probability: pd.Series) -> pd.DataFrame:
    frame = test[["mass_id", "image_id", "patient_id", "side", "label"]]
    return frame.assign(id=frame["mass_id"], part="test", probability=probability.astype(float)).reset_index(drop=True)
