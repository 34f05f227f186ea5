"""What a network adds to the reading, against a direct minimisation, scikit-learn's AUC and cases made to be known."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mammo_lib.config import get_profile
from mammo_lib.evaluation import added, statistics
from mammo_lib.evaluation.tables import Setting

KEY = ("P", "vgg16", "scratch")
SETTING = Setting(get_profile("paper"), "grouped_cv")


def masses(seed: int = 0, folds: int = 2, each: int = 60) -> pd.DataFrame:
    """Masses of two folds: half validation, half test; `place` knows a part of the truth, `other` another part."""
    draw, count = np.random.default_rng(seed), folds * each
    place, other = draw.choice([0.2, 0.4, 0.6, 0.8], count), draw.normal(size=count)
    label = (draw.random(count) < expit(6 * (place - 0.5) + 1.5 * other)).astype(int)
    frame = pd.DataFrame({"label": label, "place": place, "other": other, "fold": np.repeat(range(folds), each)})
    names = [f"p{number // 2}_LEFT_CC_{number}" for number in range(count)]
    frame["part"] = np.where(np.arange(count) % each < each // 2, "validation", "test")
    return frame.assign(
        id=names, mass_id=names, image_id=names, patient_id=[name.partition("_")[0] for name in names], side="LEFT"
    )


def predictions(frame: pd.DataFrame, probability: pd.Series) -> pd.DataFrame:
    return frame.drop(columns=["place", "other"]).assign(probability=probability)


def row_of(frame: pd.DataFrame, network: pd.Series, reading: pd.Series | None = None) -> pd.Series:
    readings = {"birads": predictions(frame, frame["place"])}
    readings |= {} if reading is None else {"reading": predictions(frame, reading)}
    table = added.added("P", {KEY: predictions(frame, network)}, SETTING, readings)
    assert table.frame["note"].tolist()[1:] == ["not run"] * 5
    return table.frame.iloc[0]


def fitted_by_hand(frame: pd.DataFrame, columns: list[np.ndarray]) -> float:
    """AUC, mean over folds weighted by their pairs, of the penalised likelihood minimised on validation masses."""
    aucs, pairs = [], []
    for fold in frame["fold"].unique():
        known, test = (
            ((frame["fold"] == fold) & (frame["part"] == part)).to_numpy() for part in ("validation", "test")
        )
        x, y = np.column_stack(columns), frame["label"].to_numpy()
        x = (x - x[known].mean(axis=0)) / x[known].std(axis=0)

        def loss(w: np.ndarray, x: np.ndarray = x[known], y: np.ndarray = y[known]) -> float:
            z = w[0] + x @ w[1:]
            return float(np.sum(np.logaddexp(0, z) - y * z) + w[1:] @ w[1:] / 2)

        w = minimize(loss, np.zeros(x.shape[1] + 1), tol=1e-10).x
        aucs.append(roc_auc_score(y[test], x[test] @ w[1:]))
        pairs.append(y[test].sum() * (1 - y[test]).sum())
    return float(np.average(aucs, weights=pairs))


def alone(frame: pd.DataFrame, column: str, within: str = "fold") -> tuple[float, float]:
    """AUC of a column among test masses, over the pairs within each group; and how many pairs that are."""
    groups = [group for _, group in frame[frame["part"] == "test"].groupby(["fold", within])]
    aucs = [roc_auc_score(group["label"], group[column]) for group in groups if group["label"].nunique() > 1]
    pairs = [group["label"].sum() * (1 - group["label"]).sum() for group in groups]
    return float(np.average(aucs, weights=[count for count in pairs if count])), float(sum(pairs))


def test_the_gain_is_that_of_the_penalised_likelihood_of_each_fold() -> None:
    frame = masses()
    said = frame["other"] + np.random.default_rng(1).normal(size=len(frame))
    row = row_of(frame, expit(3 * frame["other"]), expit(said))
    place, network = frame["place"].to_numpy(), 3 * frame["other"].to_numpy()
    assert row["birads_alone"] == pytest.approx(alone(frame, "place")[0])
    assert row["birads_with_network"] == pytest.approx(fitted_by_hand(frame, [place, network]), abs=2e-3)
    assert row["reading_alone"] == pytest.approx(alone(frame.assign(said=said), "said")[0])
    assert row["reading_with_network"] == pytest.approx(fitted_by_hand(frame, [said.to_numpy(), network]), abs=2e-3)
    for name in ("birads", "reading"):
        assert row[f"{name}_gain"] == pytest.approx(row[f"{name}_with_network"] - row[f"{name}_alone"])
        assert row[f"{name}_low"] < row[f"{name}_gain"] < row[f"{name}_high"]
    assert (row["cases"], row["patients"], row["unit"], row["note"]) == (60, 30, "mass", "")


def test_the_interval_is_of_patients_and_of_regressions_fitted_anew() -> None:
    """The resamples of `statistics.draws`, each fitted by scikit-learn on validation masses as often as drawn."""
    frame, setting = masses(folds=1, each=160), Setting(get_profile("tiny"), "official")
    network = expit(frame["other"])
    readings = {"birads": predictions(frame, frame["place"])}
    row = added.added("P", {KEY: predictions(frame, network)}, setting, readings).frame.iloc[0]
    columns, label = frame[["place", "other"]].to_numpy(), frame["label"].to_numpy()
    known, gains = (frame["part"] == "validation").to_numpy(), []
    count = setting.profile.evaluation.refits
    for weights in np.concatenate(list(statistics.draws(frame["patient_id"], count, setting.seed))).astype(int):
        learnt, tested = (np.repeat(np.arange(len(frame)), weights * part) for part in (known, ~known))
        model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10)).fit(columns[learnt], label[learnt])
        both, alone = model.decision_function(columns[tested]), columns[tested, 0]
        gains.append(roc_auc_score(label[tested], both.round(6)) - roc_auc_score(label[tested], alone))
    assert len(gains) == 200
    np.testing.assert_allclose(row[["birads_low", "birads_high"]].astype(float), np.quantile(gains, [0.025, 0.975]))
    beyond = min((np.array(gains) <= 0).sum(), (np.array(gains) >= 0).sum())
    assert row["birads_p"] == pytest.approx(min(1, 2 * (beyond + 1) / (count + 1)))


def test_pairs_of_one_grade_are_counted_and_ranked_by_the_network() -> None:
    frame = masses(each=400)
    row = row_of(frame, expit(frame["other"]))
    auc, tied = alone(frame, "other", "place")
    assert row["tied"] == pytest.approx(tied / alone(frame, "other")[1])
    assert row["auc_within"] == pytest.approx(auc)
    apart = masses().assign(place=lambda frame: np.linspace(0, 1, len(frame)))  # no two are of one grade
    row = row_of(apart, expit(apart["other"]))
    assert row["tied"] == 0
    assert pd.isna(row["auc_within"])


def test_what_the_reading_already_says_adds_nothing_and_what_it_does_not_say_does() -> None:
    frame = masses(each=400)
    same, knows = row_of(frame, expit(4 * frame["place"])), row_of(frame, expit(frame["other"]))
    assert same["birads_gain"] == pytest.approx(0, abs=1e-12)
    assert knows["birads_low"] > 0.05
    guess = row_of(frame, pd.Series(np.random.default_rng(5).random(len(frame))))
    assert guess["birads_low"] < 0 < guess["birads_high"]
    assert pd.isna(guess["reading_alone"]), "no words were given"


def test_nothing_is_fitted_on_the_cases_that_are_tested() -> None:
    """Turn what is asked of the test cases round, and a score that has not seen it is as wrong as it was right."""
    frame = masses()
    turned = frame.assign(label=frame["label"].where(frame["part"] == "validation", 1 - frame["label"]))
    row, other = (row_of(one, expit(one["other"])) for one in (frame, turned))
    assert other["birads_with_network"] == pytest.approx(1 - row["birads_with_network"])


def test_certain_probabilities_have_finite_log_odds() -> None:
    frame = masses()
    row = row_of(frame, (frame["other"] > 0).astype(float))
    assert row["birads_with_network"] > row["birads_alone"]


def test_what_cannot_be_fitted_or_paired_says_why() -> None:
    frame = masses()
    one_class = frame.assign(label=frame["label"].where((frame["part"] == "test") | (frame["fold"] == 0), 1))
    row = row_of(one_class, expit(frame["other"]))
    assert row["note"] == "birads: the validation part of fold 1 does not hold both classes"
    assert pd.isna(row["birads_gain"])
    fewer, scored = predictions(frame, frame["place"]).iloc[1:], predictions(frame, expit(frame["other"]))
    with pytest.raises(ValueError, match="not scored the same validation and test cases"):
        added.added("P", {KEY: scored}, SETTING, {"birads": fewer})
