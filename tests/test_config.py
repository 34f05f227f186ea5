"""The numbers in config.py against the printed ones, which stand beside the paper's text outside this repository."""

import csv
from pathlib import Path

import pytest

from mammo_lib import config

PAPER = Path(__file__).parent.parent.parent / "shared" / "paper" / "published_tables.csv"


@pytest.mark.skipif(not PAPER.exists(), reason="../shared/paper/published_tables.csv is not there")
def test_published_rows_equal_the_printed_tables() -> None:
    with open(PAPER, newline="") as file:
        printed = {
            (row["table"], row["network"], row["transfer_source"]): tuple(
                float(row[name]) for name in ("sensitivity", "specificity", "accuracy", "auc")
            )
            for row in csv.DictReader(file)
        }
    ours = {
        (
            {"P": "1", "G": "2"}[row.stage],
            config.NETWORK_LABELS[row.network],
            {"scratch": "", "imagenet": "ImageNet", "patch": "patch"}[row.initial],
        ): (row.sensitivity, row.specificity, row.accuracy, row.auc)
        for row in config.PUBLISHED
    }
    assert ours == printed
    assert len(config.PUBLISHED) == 18


def test_the_papers_settings_are_those_of_section_2_5() -> None:
    paper = config.get_profile("paper")
    patch, whole = paper.training("P"), paper.training("G")
    assert (patch.optimiser, patch.learning_rate, patch.batch_size, patch.max_epochs) == ("adam", 1e-3, 32, 150)
    assert (whole.optimiser, whole.learning_rate, whole.batch_size, whole.max_epochs) == ("sgd", 1e-2, 4, 200)
    assert whole.momentum == 0.9
    for training in (patch, whole):
        assert (training.plateau_factor, training.plateau_patience, training.stop_patience) == (0.2, 10, 20)
    assert (paper.patches.size, paper.patches.centres, paper.globals.size) == (224, 8, 512)


@pytest.mark.parametrize(
    ("profile", "network", "patch", "whole"),
    [
        ("paper", "resnet50_cbam", "scratch", "patch"),
        ("reduced-cpu-imagenet", "vgg16_cbam", "imagenet", "imagenet_patch"),
    ],
)
def test_the_main_arm_is_the_papers_own_or_what_comes_nearest(
    profile: str, network: str, patch: str, whole: str
) -> None:
    chosen = config.get_profile(profile)
    assert chosen.main_network == network
    assert chosen.main_initial == {"P": patch, "G": whole}


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown profile 'papper': choose one of quick, paper, reduced, reduced-cpu, reduced-cpu-adapted, ",
    ):
        config.get_profile("papper")


@pytest.mark.parametrize("profile", [profile for profile in config.PROFILES.values() if profile.shorter])
def test_longer_trainings_are_of_the_same_data_as_the_shorter_ones(profile: config.Profile) -> None:
    shorter = config.PROFILES[profile.shorter]
    assert shorter.source == profile.source
    assert shorter.split == profile.split
    more = [profile.training(stage).max_epochs - shorter.training(stage).max_epochs for stage in ("P", "G")]
    assert max(more) > 0
