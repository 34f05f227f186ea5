"""The protocols: who trains, who is tested, and how much leaks; drawn tables of cases and counts made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mammo_lib.config import DATA_SEED, ID_COLUMN, PARTS, PROTOCOLS, Split, get_profile
from mammo_lib.data import splits

CUT = Split(folds=3)
PATIENT_LEVEL = ("official", "grouped_cv")


def tables(patients: list[tuple[list[list[int]], str]], patches_per_mass: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of P and G for patients given as (label of each mass, image by image; official_split)."""
    patches, images = [], []
    for number, (labels_by_image, official_split) in enumerate(patients):
        for position, labels in enumerate(labels_by_image):
            image = {
                "image_id": f"p{number}_i{position}",
                "patient_id": f"p{number}",
                "side": ("LEFT", "RIGHT")[position // 2 % 2],
                "official_split": official_split,
            }
            images.append({**image, "label": max(labels)})
            for mass, label in enumerate(labels):
                mass_id = f"{image['image_id']}_{mass}"
                patches += [
                    {**image, "mass_id": mass_id, "patch_id": f"{mass_id}#{k}", "label": label}
                    for k in range(patches_per_mass)
                ]
    return pd.DataFrame(patches), pd.DataFrame(images)


masses = st.lists(st.integers(0, 1), min_size=1, max_size=3)
patient = st.tuples(st.lists(masses, min_size=1, max_size=4), st.sampled_from(["train", "test"]))
any_table = st.lists(patient, min_size=1, max_size=40)
relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def enough(patients: list[tuple[list[list[int]], str]], protocol: str) -> bool:
    """Whether there are cases enough that a split must exist: two to divide beside the test set, of each class."""
    labels = pd.DataFrame(
        [(max(max(image) for image in images), official) for images, official in patients], columns=["label", "split"]
    )
    if protocol == "official":
        counts = labels.groupby(["split", "label"]).size()
        return all(
            counts.get((split, label), 0) >= least for split, least in (("train", 2), ("test", 1)) for label in (0, 1)
        )
    # Three folds hold a patient or more each; beside the fullest fold two patients must remain: 2 folds.
    return all((labels["label"] == label).sum() >= CUT.folds for label in (0, 1))


@pytest.mark.parametrize("protocol", PATIENT_LEVEL)
@relaxed
@given(patients=any_table, seed=st.integers(0, 2**40))
def test_patient_level_protocols_share_no_patient_and_place_every_case_once(protocol, patients, seed):
    patches, globals_ = tables(patients)
    try:
        split = splits.make(protocol, patches, globals_, CUT, seed)
    except ValueError:
        assert not enough(patients, protocol)
        return

    owner = dict(zip(patches["patch_id"], patches["patient_id"], strict=True))
    owner.update(zip(globals_["image_id"], globals_["patient_id"], strict=True))
    for _, fold in split.groupby("fold"):
        part_of_patient: dict[str, str] = {}
        for case, part in zip(fold["id"], fold["part"], strict=True):
            assert part_of_patient.setdefault(owner[case], part) == part  # of both stages
        assert sorted(fold["id"]) == sorted([*patches["patch_id"], *globals_["image_id"]])
    assert set(split["part"]) == set(PARTS)

    tested = split[split["part"] == "test"]["id"]
    assert tested.is_unique
    if protocol == "grouped_cv":
        assert split["fold"].nunique() == CUT.folds
        assert set(tested) == set(owner)
    else:
        official = {f"p{n}" for n, (_, split_name) in enumerate(patients) if split_name == "test"}
        assert {owner[case] for case in tested} == official


@relaxed
@given(patients=any_table, seed=st.integers(0, 100))
def test_class_balance_of_patient_level_protocols_is_what_whole_patients_allow(patients, seed):
    patches, globals_ = tables(patients)
    try:
        split = splits.make("grouped_cv", patches, globals_, CUT, seed)
    except ValueError:
        assert not enough(patients, "grouped_cv")
        return
    kind = globals_.groupby("patient_id")["label"].max()
    size = globals_.groupby("patient_id").size()
    rows = split[split["stage"] == "G"].merge(globals_, left_on="id", right_on="image_id")
    for label in (0, 1):
        patients_of_kind = kind.index[kind == label]
        of_kind = rows[rows["patient_id"].isin(patients_of_kind)]
        images_tested = of_kind[of_kind["part"] == "test"].groupby("fold").size()
        assert images_tested.max() - images_tested.min() <= size[patients_of_kind].max()
        for _, fold in of_kind.groupby("fold"):
            count = fold.groupby("part")["patient_id"].nunique()
            rest = count["train"] + count["validation"]
            assert abs(count["validation"] - CUT.validation_share * rest) <= 1


@relaxed
@given(patients=any_table, seed=st.integers(0, 100))
def test_as_written_keeps_shares_and_class_ratio(patients, seed):
    patches, globals_ = tables(patients)
    try:
        split = splits.make("as_written", patches, globals_, CUT, seed)
    except ValueError:
        assert min((table["label"] == label).sum() for table in (patches, globals_) for label in (0, 1)) < len(PARTS)
        return
    for stage, table, shares in (("P", patches, CUT.patch_shares), ("G", globals_, CUT.global_shares)):
        key = ID_COLUMN[stage]
        rows = split[split["stage"] == stage].merge(table, left_on="id", right_on=key, validate="one_to_one")
        assert len(rows) == len(table)
        for label in (0, 1):
            of_class = rows.loc[rows["label"] == label, "part"]
            for part, share in zip(PARTS, shares, strict=True):
                assert abs((of_class == part).sum() - share * len(of_class)) <= 2  # two roundings, one case at least


def usual(number: int = 20) -> tuple[pd.DataFrame, pd.DataFrame]:
    return tables([([[n % 2], [n % 2, 0]], "test" if n % 5 < 2 else "train") for n in range(number)])


@pytest.mark.parametrize("protocol", ["as_written", *PATIENT_LEVEL])
def test_a_split_depends_on_seed_and_content_not_on_row_order(protocol):
    patches, globals_ = usual()
    first = splits.make(protocol, patches, globals_, CUT, seed=4)
    shuffled = splits.make(
        protocol, patches.sample(frac=1, random_state=1), globals_.sample(frac=1, random_state=2), CUT, seed=4
    )
    pd.testing.assert_frame_equal(first, shuffled)
    assert not first.equals(splits.make(protocol, patches, globals_, CUT, seed=5))


def test_as_written_draws_the_two_stages_independently():
    patches, globals_ = tables([([[n % 2]], "") for n in range(1000)], patches_per_mass=1)
    even = replace(CUT, patch_shares=(0.5, 0.25, 0.25), global_shares=(0.5, 0.25, 0.25))
    split = splits.make("as_written", patches, globals_, even, seed=0)
    part_of_patch = split[split["stage"] == "P"].set_index(patches.sort_values("patch_id")["image_id"])["part"]
    part_of_image = split[split["stage"] == "G"].set_index("id")["part"]
    both = ((part_of_patch == "test") & (part_of_image.reindex(part_of_patch.index) == "test")).sum()
    assert 40 <= both <= 85  # 1000/16 = 62.5 expected; a shared draw would give 250


def test_leakage_agrees_with_a_hand_count():
    patches, globals_ = tables([([[1], [1, 0], [1]], ""), ([[0]], ""), ([[0]], "")], patches_per_mass=2)
    part = {
        "P": {
            **{
                "p0_i0_0#0": "test",
                "p0_i0_0#1": "validation",
            },  # mass and image seen in validation only; breast in train
            **{"p0_i1_0#0": "test", "p0_i1_0#1": "train", "p0_i1_1#0": "test", "p0_i1_1#1": "test"},
            **{"p0_i2_0#0": "test", "p0_i2_0#1": "test"},  # the other breast
            **{"p1_i0_0#0": "train", "p1_i0_0#1": "train", "p2_i0_0#0": "test", "p2_i0_0#1": "test"},
        },
        "G": {"p0_i0": "test", "p0_i1": "validation", "p0_i2": "train", "p1_i0": "test", "p2_i0": "train"},
    }
    split = pd.DataFrame(
        [(stage, 0, case, name) for stage in part for case, name in part[stage].items()], columns=list(splits.COLUMNS)
    )
    found = splits.leakage(split, patches, globals_, near_duplicates=[("p1_i0", "p2_i0")])
    counted = {
        (row.stage, row.relation, row.seen_in): (row.test_cases, row.with_relative) for row in found.itertuples()
    }
    assert counted == {
        ("P", "same mass", "train"): (8, 1),
        ("P", "same mass", "train or validation"): (8, 2),
        ("P", "same image", "train"): (8, 3),
        ("P", "same image", "train or validation"): (8, 4),
        ("P", "same breast", "train"): (8, 4),
        ("P", "same breast", "train or validation"): (8, 4),
        ("P", "same patient", "train"): (8, 6),
        ("P", "same patient", "train or validation"): (8, 6),
        ("P", "near duplicate", "train"): (8, 2),
        ("P", "near duplicate", "train or validation"): (8, 2),
        ("G", "same breast", "train"): (2, 0),
        ("G", "same breast", "train or validation"): (2, 1),
        ("G", "same patient", "train"): (2, 1),
        ("G", "same patient", "train or validation"): (2, 1),
        ("G", "near duplicate", "train"): (2, 1),
        ("G", "near duplicate", "train or validation"): (2, 1),
        ("P into G", "same image", "train"): (2, 1),
        ("P into G", "same image", "train or validation"): (2, 2),
        ("P into G", "same breast", "train"): (2, 2),
        ("P into G", "same breast", "train or validation"): (2, 2),
        ("P into G", "same patient", "train"): (2, 2),
        ("P into G", "same patient", "train or validation"): (2, 2),
        ("P into G", "near duplicate", "train"): (2, 0),
        ("P into G", "near duplicate", "train or validation"): (2, 0),
    }
    np.testing.assert_allclose(found["share"], found["with_relative"] / found["test_cases"])


@pytest.mark.parametrize("protocol", PATIENT_LEVEL)
def test_patient_level_protocols_leak_nothing(protocol):
    patches, globals_ = usual()
    found = splits.leakage(splits.make(protocol, patches, globals_, CUT, 0), patches, globals_, [])
    assert (found["with_relative"] == 0).all()
    if protocol == "grouped_cv":  # pooled over folds, each case is tested once
        assert set(found.loc[found["stage"] == "P", "test_cases"]) == {len(patches)}


def test_a_split_survives_the_disk(tmp_path):
    patches, globals_ = usual()
    split = splits.make("grouped_cv", patches, globals_, CUT, 0)
    path = tmp_path / "splits" / "grouped_cv.csv"
    splits.write(split, path)
    pd.testing.assert_frame_equal(splits.read(path, patches, globals_), split)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda split: split.iloc[1:], "p0_i0_0#0 is not placed"),
        (lambda split: pd.concat([split, split.iloc[[0]]]), "p0_i0_0#0 is placed twice"),
        (lambda split: pd.concat([split, split.iloc[[0]].assign(id="p99")]), "p99 is unknown"),
        (lambda split: split.assign(part=split["part"].replace("test", "tset")), "part 'tset'"),
        (lambda split: split.assign(stage=split["stage"].replace("G", "H")), "stage 'H'"),
        (lambda split: split.drop(columns="fold"), "has columns stage, id, part"),
        (lambda split: split.iloc[:0], "no rows"),
    ],
)
def test_reading_a_damaged_split_names_file_and_case(tmp_path, damage, message):
    patches, globals_ = usual()
    split = splits.make("official", patches, globals_, CUT, 0)
    path = tmp_path / "official.csv"
    damage(split).to_csv(path, index=False)
    with pytest.raises(ValueError, match=message) as error:
        splits.read(path, patches, globals_)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("protocol", "change", "message"),
    [
        ("random", lambda table: table, "unknown protocol 'random'"),
        ("official", lambda table: table.assign(official_split=""), "grouped_cv"),
        ("official", lambda table: table.assign(official_split="train"), "lacks benign or malignant"),
        ("official", lambda table: table.drop(columns="patient_id"), "no column patient_id"),
        ("as_written", lambda table: table.assign(label=0), "0 malignant left to divide"),
        ("grouped_cv", lambda table: table.assign(label=1), "0 benign patients cannot fill 3 folds"),
        ("grouped_cv", lambda table: table.assign(label=2), "label other than 0 and 1"),
        ("grouped_cv", lambda table: pd.concat([table, table]), "twice"),
        ("grouped_cv", lambda table: table.iloc[:0], "cannot fill 3 folds"),
    ],
)
def test_what_cannot_be_split_gets_a_sentence(protocol, change, message):
    patches, globals_ = usual()
    with pytest.raises(ValueError, match=message):
        splits.make(protocol, change(patches), change(globals_), CUT, 0)


@pytest.mark.parametrize("protocol", PATIENT_LEVEL)
def test_a_stage_without_a_case_or_without_one_in_a_part_of_one_fold_is_refused(protocol):
    patches, globals_ = usual()
    first = splits.make(protocol, patches, globals_, CUT, 0).query("stage == 'G' and fold == 0")
    for removed in (first, first[first["part"] == "test"]):
        left = globals_[~globals_["image_id"].isin(removed["id"])]
        with pytest.raises(ValueError, match=f"{protocol}: a part of stage G lacks benign or malignant cases"):
            splits.make(protocol, patches, left, CUT, 0)


@pytest.mark.parametrize(("protocol", "training"), [("official", 40), ("grouped_cv", 40)])
def test_validation_is_its_share_of_the_training_patients(protocol, training):
    """120 patients, every second malignant; 40 of each class are left for training and validation in each fold."""
    patients = [([[number % 2]], "train" if number < 2 * training else "test") for number in range(120)]
    patches, globals_ = tables(patients)
    split = splits.make(protocol, patches, globals_, replace(CUT, validation_share=0.2), seed=0)
    whole = split[(split["stage"] == "G") & (split["part"] == "validation")]
    labels = globals_.set_index("image_id")["label"]
    for _, fold in whole.groupby("fold"):
        assert labels[fold["id"]].value_counts().to_dict() == {0: 8, 1: 8}


@pytest.mark.parametrize("protocol", PATIENT_LEVEL)
@pytest.mark.parametrize("order", [[[0], [1]], [[1], [0]]], ids=["benign first", "malignant first"])
def test_validation_keeps_the_share_of_patients_with_any_malignant_mass(protocol, order):
    """60 benign patients and 20 with a mass of each kind are left to divide, a fifth of them for validation."""
    patients = [(order if number % 4 == 3 else [[0], [0]], ("train", "test")[number // 80]) for number in range(160)]
    patches, globals_ = tables(patients)
    for seed in range(3):
        split = splits.make(protocol, patches, globals_, replace(CUT, folds=2, validation_share=0.2), seed)
        rows = split[split["part"] == "validation"].merge(globals_, left_on="id", right_on="image_id")
        for _, fold in rows.groupby("fold"):
            worst = fold.groupby("patient_id")["label"].max()
            assert worst.value_counts().to_dict() == {0: 12, 1: 4}


def test_a_patient_on_both_sides_of_the_official_split_is_refused():
    patches, globals_ = usual()
    globals_.loc[0, "official_split"] = "train"  # p0 is a test patient; its other image stays in test
    patches.loc[patches["image_id"] == "p0_i0", "official_split"] = "train"
    with pytest.raises(ValueError, match="patient p0 has official_split train and test"):
        splits.make("official", patches, globals_, CUT, 0)


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        splits.make("as_written", *usual(), replace(CUT, patch_shares=(0.8, 0.1, 0.2)), 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_splits_of_the_published_results_are_drawn_again(protocol):
    """Every number of README rests on them: another draw of the same seed would be another experiment."""
    folder = Path(__file__).parents[2] / "results" / "reduced-cpu-imagenet" / protocol
    profile = get_profile("reduced-cpu-imagenet")
    masses = pd.read_csv(folder / "masses.csv").drop_duplicates("mass_id")
    patches = pd.concat(
        [masses.assign(patch_id=masses["mass_id"] + f"#{number}") for number in range(profile.patches.centres)]
    )
    images = masses.sort_values("label").drop_duplicates("image_id", keep="last")
    drawn = splits.make(protocol, patches, images, profile.split, DATA_SEED)
    for stage in ("P", "G"):
        tested = pd.read_csv(folder / f"expected_{stage}.csv").set_index(["fold", "id"])["part"].sort_index()
        ours = drawn[(drawn["stage"] == stage) & (drawn["part"] != "train")].set_index(["fold", "id"])["part"]
        pd.testing.assert_series_equal(ours.sort_index(), tested)
