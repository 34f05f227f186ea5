"""Grad-CAM over every test image of set G (3.2): how well it finds the lesion, and the pictures of it."""

import json
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import FIG7_SAMPLES, NETWORK_LABELS
from mammo_lib.stages.archive import lesion_masks, load, parts
from mammo_lib.stages.experiment import IDS, Experiment, default_device, read_table
from mammo_lib.stages.trainings import PREDICTIONS, build_network, cells, is_done_as_asked, load_network, outcomes
from mammo_lib.training.folder import BEST

if TYPE_CHECKING:
    from mammo_lib.evaluation.export import Table
    from mammo_lib.evaluation.figures import Sample
    from mammo_lib.models.networks import Classifier
    from mammo_lib.training.experiments import Cell

GRADCAM, GATE = "Grad-CAM", "CBAM spatial gate"
UNTRAINED_HEAD, UNTRAINED = "Grad-CAM, untrained head", "Grad-CAM, random weights"
RANDOM_NETWORKS = 3  # ours: measured and averaged, since the map of a single one is often empty
LOCALISATION = "localisation.csv"  # as the tables beside it of one training seed, which its column tells
RECORD = "gradcam.json"  # in the cell's folder: of which network the maps are
MAPS = "gradcam.npz"  # in the cell's folder: Grad-CAM of the test images, float16 (n, S, S), in their order in G
CASES = "localisation_cases.csv"
DRAWN = ("fig7_gradcam", "gradcam_contact_sheet", "localisation")
RULE = "median cases by predicted probability within equal groups of each class, not chosen by looks"
CONTACT_COUNT = 16  # ours: samples of each group in the contact sheet, evenly spread over probability


def explain(experiment: Experiment, executor: Executor | None = None) -> pd.DataFrame:
    """Heat maps of the main network for every test image, measured against the lesion boxes beside controls.

    Returns the summary over images with intervals over patients; also written, with the single images and the
    differences from the controls, to results/. A cell whose maps are made is not explained again. `executor` spreads
    the folds. FileNotFoundError when a fold's cell is not trained, with the reason when it came to nothing.
    """
    from mammo_lib.evaluation import localisation, removal

    every, shares = executor.map if executor else map, removal.SHARES if experiment.profile.removal else ()
    job = partial(_explain_cell, experiment, shares)
    rows = pd.concat(every(job, _explained_cells(experiment)), ignore_index=True)
    threshold = experiment.profile.evaluation.threshold  # of now: the maps may be older
    decided = zip(rows["label"], rows["probability"], strict=True)
    rows["group"] = [localisation.group(label, probability, threshold) for label, probability in decided]
    paths.write_table(rows.assign(seed=experiment.seed), experiment.results / CASES)
    return write_localisation(experiment, rows, GRADCAM, experiment.results, *([removal.MEASURE] if shares else []))


def write_localisation(
    experiment: Experiment, rows: pd.DataFrame, method: str, folder: Path, *further: str
) -> pd.DataFrame:
    """The summary of `rows`, which is returned, and how `method` differs from the others: two tables in `folder`.

    rows: from `localisation.per_image`; `further` are columns measured beside those that every map has.
    """
    from mammo_lib.evaluation import localisation

    rule = experiment.profile.evaluation
    settings = (rule.resamples, rule.confidence, experiment.seed, (*localisation.MEASURES, *further))
    summary = localisation.summary(rows, *settings)
    differences = localisation.differences(rows, method, *settings)
    how = {"resamples": rule.resamples, "seed": experiment.seed}
    paths.write_table(summary.assign(**how), folder / LOCALISATION)
    paths.write_table(differences.assign(**how), folder / "localisation_differences.csv")
    return summary


def is_measured(experiment: Experiment) -> bool:
    """Whether localisation.csv is there, of this training seed, and of the networks whose predictions are published."""
    path, cases = experiment.results / LOCALISATION, experiment.results / CASES
    if not (path.exists() and cases.exists()):
        return False
    if not pd.read_csv(path).reindex(columns=["seed"]).eq(experiment.seed).all(axis=None):
        return False
    files = [experiment.published / cell.name / PREDICTIONS for cell in _explained_cells(experiment)]
    published = [read_table(file).query("part == 'test'") for file in files if file.exists()]
    if not published:  # nothing stands beside it
        return True
    now = pd.concat(published).set_index("id")["probability"]
    then = read_table(cases).drop_duplicates("image_id").set_index("image_id")["probability"]
    return set(now.index) == set(then.index) and np.allclose(now, then[now.index], atol=1e-6)


def _explained_cells(experiment: Experiment) -> "list[Cell]":
    """The profile's main network on G, in every fold: the paper's own, from patch weights, where it is trained."""
    profile = experiment.profile
    return cells(experiment, f"G/{profile.main_network}/{profile.main_initial['G']}/*")


def has_maps(experiment: Experiment) -> bool:
    """Whether `explain` has left heat maps here to draw from, of networks and images as they are now."""
    at_hand = is_measured(experiment) and (experiment.places.prepared / "prepare.json").exists()
    return at_hand and all(_are_current(experiment, cell) for cell in _explained_cells(experiment))


def _are_current(experiment: Experiment, cell: "Cell") -> bool:
    folder = experiment.runs / cell.name
    if not all((folder / name).exists() for name in (RECORD, MAPS, BEST)):
        return False
    try:
        done = is_done_as_asked(experiment, cell)
    except paths.StageMismatch as reason:
        print(f"{cell.name}: its heat maps are not drawn: {reason}")
        return False
    ours = paths.read_json(folder / RECORD)["settings"]["network"] == paths.file_hash(folder / BEST)
    if not ours:
        print(f"{cell.name}: its heat maps are of an earlier training and not drawn: delete {folder / RECORD}, explain")
    return done and ours


def _explain_cell(experiment: Experiment, shares: tuple[float, ...], cell: "Cell") -> pd.DataFrame:
    """One row per test image and method with its measures; the maps of Grad-CAM go to the cell's folder."""
    folder, (images, test) = experiment.runs / cell.name, _test_images(experiment, cell)
    if not is_done_as_asked(experiment, cell):  # best.pt is there from the first epoch on
        _refuse(experiment, cell)
    settings = {
        "network": paths.file_hash(folder / BEST),
        "cases": test["id"].tolist(),
        "removed_shares": shares,
        "random_networks": _random_seeds(cell),
    }
    if paths.is_done(folder / RECORD, settings):
        return pd.read_csv(folder / CASES, dtype=IDS)
    network = load_network(experiment, cell).to(default_device())
    maps = _maps(experiment, cell, network, images)
    rows = _measure(experiment, network, images, test.assign(probability=_probability(folder, test)), maps, shares)
    with paths.atomic_write(folder / MAPS) as part, open(part, "wb") as file:
        np.savez_compressed(file, maps=maps[GRADCAM].astype(np.float16))
    paths.write_table(rows, folder / CASES)
    paths.write_json(folder / RECORD, {"settings": settings})
    return rows


def _refuse(experiment: Experiment, cell: "Cell") -> NoReturn:
    """Say why there is no network to explain; what an earlier one left goes if it diverged, as its predictions do."""
    from mammo_lib.training.experiments import DIVERGED, NOT_AVAILABLE

    tried = outcomes(experiment)
    told = tried[(tried["cell"] == cell.name) & tried["state"].isin((DIVERGED, NOT_AVAILABLE))]
    if told.empty:
        raise FileNotFoundError(
            f"{experiment.runs / cell.name}: this training is not finished: run {experiment.command('train')} first"
        )
    if told["state"].item() == DIVERGED:
        old = [experiment.runs / cell.name / name for name in (MAPS, CASES, RECORD)]
        if is_measured(experiment):  # or they are another seed's
            old += experiment.results.glob("localisation*.csv")
            old += [path for name in DRAWN for path in experiment.figures.glob(f"{name}.*")]
        for path in old:
            path.unlink(missing_ok=True)
    raise FileNotFoundError(f"{cell.name} is {told['state'].item()}, nothing to explain: {told['message'].item()}")


def _maps(experiment: Experiment, cell: "Cell", network: "Classifier", images: np.ndarray) -> dict[str, np.ndarray]:
    """Grad-CAM and spatial gate of the trained network; Grad-CAM of what is not trained: its head, all of it."""
    import torch

    from mammo_lib.evaluation import gradcam
    from mammo_lib.training.augment import network_input

    x = network_input(torch.from_numpy(images)).to(default_device())
    seen = gradcam.look(network, x)
    maps = {GRADCAM: seen.heat} | ({} if seen.gate is None else {GATE: seen.gate})
    headless = load_network(experiment, cell)
    headless.head = build_network(experiment.profile, cell).head
    maps[UNTRAINED_HEAD] = gradcam.look(headless.eval().to(x.device), x).heat
    for number, seed in enumerate(_random_seeds(cell)):
        untrained = build_network(experiment.profile, replace(cell, seed=seed)).eval().to(x.device)
        maps[f"{UNTRAINED} #{number}"] = gradcam.look(untrained, x).heat
    return maps


def _random_seeds(cell: "Cell") -> list[int]:
    """Of the networks that are not trained: no two training seeds share one."""
    return [RANDOM_NETWORKS * cell.seed + number for number in range(RANDOM_NETWORKS)]


def _measure(
    experiment: Experiment,
    network: "Classifier",
    images: np.ndarray,
    test: pd.DataFrame,
    maps: dict[str, np.ndarray],
    shares: tuple[float, ...],
) -> pd.DataFrame:
    """Localisation and removal of every map and control, per image; the random networks of an image averaged."""
    import torch

    from mammo_lib.evaluation import localisation, removal
    from mammo_lib.training.augment import network_input

    threshold = experiment.profile.evaluation.threshold
    rows = localisation.per_image(test, images, test["probability"].to_numpy(), maps, threshold)
    if shares:
        x = network_input(torch.from_numpy(images)).to(default_device())
        controls = {name: np.stack([draw(image) for image in images]) for name, draw in localisation.CONTROLS.items()}
        every = {
            name: removal.removal(network, x, heat, experiment.seed, shares) for name, heat in (maps | controls).items()
        }
        removed = pd.DataFrame(every, index=pd.Index(test["image_id"]))
        removed = removed.melt(var_name="method", value_name=removal.MEASURE, ignore_index=False)
        rows = rows.merge(removed.reset_index(), on=["image_id", "method"], validate="one_to_one")
    rows["method"] = rows["method"].str.replace(r" #\d+$", "", regex=True)
    measured = {*localisation.MEASURES, "best_threshold", "empty", removal.MEASURE}
    return rows.groupby([name for name in rows if name not in measured], sort=False, as_index=False).mean()


def _test_images(experiment: Experiment, cell: "Cell") -> tuple[np.ndarray, pd.DataFrame]:
    images, table = load(experiment, "G")[0], parts(experiment, "G")
    test = table[(table["fold"] == cell.fold) & (table["part"] == "test")].reset_index(drop=True)
    return np.asarray(images[test["row"].to_numpy()]), test


def _probability(folder: Path, test: pd.DataFrame) -> np.ndarray:
    predicted = read_table(folder / PREDICTIONS).set_index("id")["probability"]
    return predicted.loc[test["id"]].to_numpy()


def draw_explanations(experiment: Experiment) -> list[Path]:
    """Fig. 7 by a stated rule, a contact sheet of successes and failures, and the localisation measures."""
    from mammo_lib.evaluation import figures, localisation

    cell, *other_folds = _explained_cells(experiment)
    images, test = _test_images(experiment, cell)
    probability = _probability(experiment.runs / cell.name, test)
    with np.load(experiment.runs / cell.name / MAPS) as maps:
        heat = maps["maps"].astype(np.float32)
    samples = _samples(images, heat, test, probability)
    data = experiment.sentence + (f", fold {cell.fold}" if other_folds else "")
    network = NETWORK_LABELS[cell.network]
    rows = localisation.representative_cases(test, probability, *FIG7_SAMPLES)
    masks = lesion_masks(experiment, test.iloc[rows])
    chosen = [replace(samples[row], mask=mask) for row, mask in zip(rows, masks, strict=True)]
    threshold = experiment.profile.evaluation.threshold
    groups = {name: _spread([s for s in samples if _group(s, threshold) == name]) for name in localisation.GROUPS[1:]}
    drawn = figures.gradcam_samples(chosen, data, network, RULE), figures.contact_sheet(groups, data)
    saved = [figures.save(figure, experiment.figures, name) for name, figure in zip(DRAWN[:-1], drawn, strict=True)]
    return [*(path for both in saved for path in both), *draw_localisation(experiment)]


def explained(experiment: Experiment) -> str:
    """The network whose heat maps are drawn and measured, and what it started from, in words."""
    return "{}, started from: {}".format(*experiment.main_in_words)


def draw_localisation(experiment: Experiment) -> list[Path]:
    """The localisation measures of localisation.csv: needs neither maps nor images."""
    from mammo_lib.evaluation import figures, figures_curves

    summary = pd.read_csv(experiment.results / LOCALISATION).query("group == 'all'")
    measures = {"energy": "energy in the lesion", "pointing": "pointing game", "iou": "IoU at half maximum"}
    data = f"{experiment.sentence}; network: {explained(experiment)}"
    figure = figures_curves.localisation(summary, measures, data)
    return figures.save(figure, experiment.figures, DRAWN[-1])


def localisation_tables(experiment: Experiment) -> "list[Table]":
    """What `explain` measured, as people read it: over all test images, against the controls, and by decision."""
    return tables_of_maps(experiment, GRADCAM, experiment.results, explained(experiment))


def tables_of_maps(experiment: Experiment, method: str, folder: Path, network: str) -> "list[Table]":
    """The same of the maps of any `method` that were measured in `folder`; network: whose maps they are, in words."""
    from mammo_lib.evaluation import localisation_tables as tables

    rule = experiment.profile.evaluation
    long, differences = (pd.read_csv(folder / f"{name}.csv") for name in ("localisation", "localisation_differences"))
    resamples = long["resamples"].iloc[0]  # of then
    interval = f"Mean [{rule.confidence:.0%} interval, {resamples} bootstrap resamples of patients]."
    told = interval, f"Network: {network}. Data: {experiment.sentence}."
    against = tables.against_controls(differences, method, *told)
    return [tables.overall(long, *told), against, tables.by_decision(long, *told)]


def _samples(images: np.ndarray, heat: np.ndarray, test: pd.DataFrame, probability: np.ndarray) -> "list[Sample]":
    from mammo_lib.evaluation.figures import Sample

    return [
        Sample(images[row], heat[row], json.loads(boxes), float(probability[row]), int(label))
        for row, (boxes, label) in enumerate(zip(test["boxes"], test["label"], strict=True))
    ]


def _group(sample: "Sample", threshold: float) -> str:
    from mammo_lib.evaluation import localisation

    return localisation.group(sample.label, sample.probability, threshold)


def _spread(samples: "list[Sample]") -> "list[Sample]":
    """At most CONTACT_COUNT samples, evenly spread over the order of probability."""
    ordered = sorted(samples, key=lambda sample: sample.probability)
    if len(ordered) <= CONTACT_COUNT:
        return ordered
    return [ordered[place] for place in np.linspace(0, len(ordered) - 1, CONTACT_COUNT).round().astype(int)]
