"""Figures: what they draw is what was given, counted by hand or by scikit-learn; how they are saved; how they read."""

import re
import zlib
from dataclasses import replace
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from mammo_lib.config import NETWORKS
from mammo_lib.evaluation import figures, figures_curves, figures_overview

DATA = "phantoms, not patients"


def picture(shape=(40, 40)):
    image = np.zeros(shape, np.uint8)
    image[4:-4, : shape[1] // 2] = np.random.default_rng(0).integers(40, 200, (shape[0] - 8, shape[1] // 2))
    return image


def sample(probability=0.7, label=1, boxes=((5, 6, 8, 4),)):
    heat = np.zeros((40, 40), np.float32)
    heat[6:10, 5:13] = 1
    return figures.Sample(picture(), heat, boxes, probability, label)


def curves():
    rng = np.random.default_rng(0)
    label = np.r_[np.zeros(60, int), np.ones(50, int)]
    grid = np.linspace(0, 1, 11)
    scores = [1 / (1 + np.exp(-rng.normal(label - 0.5))) for _ in NETWORKS]
    band = (grid, grid * 0.9, np.minimum(1, grid * 1.2))
    return [figures_curves.Curve(n, label, s, "AUC 0.75", band) for n, s in zip(NETWORKS, scores, strict=True)]


def history(epochs=4, best=2):
    accuracy = np.full(epochs, 0.5)
    accuracy[best - 1] = 0.9
    columns = {
        f"{part}_{measure}": np.linspace(0.7, 0.5, epochs)
        for part in ("train", "validation")
        for measure in ("loss", "accuracy")
    }
    return pd.DataFrame({"epoch": np.arange(1, epochs + 1)} | columns | {"validation_accuracy": accuracy})


def forest_table():
    rows = [("VGG16+CBAM − VGG16", 0.02, -0.01, 0.05, 0.2), ("B", -0.1, -0.2, -0.05, 0.0001)]
    rows.append(("C", np.nan, np.nan, np.nan, np.nan))
    return pd.DataFrame(rows, columns=["label", "difference", "low", "high", "p"])


def localisation_table():
    rows = [(m, k, v, v - 0.1, v + 0.1) for m, v in (("Grad-CAM", 0.4), ("centre", 0.2)) for k in ("energy", "iou")]
    return pd.DataFrame(rows, columns=["method", "measure", "mean", "low", "high"])


def comparisons_table():
    names = ["question", "arm", "line", "profile", "seed", "auc_first", "auc_second", "difference", "low", "high"]
    printed = ("CBAM", "patches", "the paper", "printed")
    cbam = ("CBAM", "patches", "VGG16 (small)", "small")
    patch = ("patch over ImageNet", "then patches; minus ImageNet", "VGG16 (small)", "small")
    longer = ("training length", "CBAM, patches, minus small", "VGG16 (longer)", "longer")
    none = (np.nan, np.nan)
    rows = [
        (*printed, None, 0.85, 0.84, 0.01, *none, None),
        (*printed, None, 0.86, 0.83, 0.03, *none, None),
        (*cbam, 0, 0.80, 0.78, 0.02, -0.01, 0.05, 2),
        (*cbam, 1, 0.70, 0.74, -0.04, -0.07, -0.02, 1),
        (*patch, 0, 0.50, 0.50, 0.00, *none, 0),  # the same score for every case: no interval, and still ours
        ("CBAM", "patches", "one class only", "small", 0, np.nan, np.nan, np.nan, *none, 0),
        (*longer, 0, *none, -0.05, -0.09, -0.01, 2),
        (*longer, 1, *none, 0.01, -0.03, 0.05, 0),
        (*longer, None, *none, -0.02, -0.05, 0.01, 0),
    ]
    return pd.DataFrame(rows, columns=[*names, "above_chance"]).astype({"above_chance": "Int64"})


def every_figure():
    view = figures.View(picture((60, 40)), "L-CC", [[5, 6, 8, 4]], picture((60, 40)) > 190)
    yield "fig1", figures.work_flow([("archive", "DICOM images"), ("report", "tables and figures")], DATA)
    yield "fig2", figures.four_views([view] * 4, DATA)
    yield "fig3", figures.patch_and_global(figures.View(picture(), "patch"), view, view, DATA)
    yield "fig7", figures.gradcam_samples([sample(0.2, 0), sample(), sample(0.9)], DATA, "ResNet50+CBAM", "the medians")
    yield "contact", figures.contact_sheet({"malignant, correct": [sample()] * 3, "malignant, wrong": []}, DATA)
    yield "roc", figures_curves.roc_curves(curves(), DATA)
    yield "calibration", figures_curves.calibration(curves(), DATA)
    yield "confusion", figures_curves.confusion_matrices(curves(), 0.5, DATA)
    few = [replace(curve, network="probe") for curve in curves()[:3]]  # the longest title
    yield "few_confusion", figures_curves.confusion_matrices(few, 0.5, DATA)
    yield "learning", figures_curves.learning_curves({n: {"scratch": history()} for n in NETWORKS}, DATA)
    yield "forest", figures_curves.forest(forest_table(), DATA)
    yield "overview", figures_overview.overview(comparisons_table(), DATA)
    yield "localisation", figures_curves.localisation(localisation_table(), {"energy": "energy", "iou": "IoU"}, DATA)


@pytest.fixture(scope="module")
def drawn():
    return dict(every_figure())


def test_every_figure_says_its_data_and_has_a_column_width(drawn):
    for name, figure in drawn.items():
        assert figure.get_figwidth() * 25.4 == pytest.approx(180), name
        assert any(DATA in text.get_text() for text in figure.texts), name


def test_no_text_is_small_or_cut_off(drawn):
    for name, figure in drawn.items():
        for text in figure.findobj(Text):
            assert text.get_fontsize() >= 5.5, (name, text.get_text())
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn_box, slack = figure.get_tightbbox(canvas.get_renderer()), 0.01  # inches
        assert drawn_box.x0 >= -slack, name
        assert drawn_box.y0 >= -slack, name
        assert drawn_box.x1 <= figure.get_figwidth() + slack, name
        assert drawn_box.y1 <= figure.get_figheight() + slack, name


def test_saved_twice_gives_the_same_bytes_without_dates(tmp_path, drawn):
    first = figures.save(drawn["fig7"], tmp_path / "one", "fig7")
    samples = [sample(0.2, 0), sample(), sample(0.9)]
    again = figures.save(
        figures.gradcam_samples(samples, DATA, "ResNet50+CBAM", "the medians"), tmp_path / "two", "fig7"
    )
    assert [path.name for path in first] == ["fig7.pdf", "fig7.png"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert b"Date" not in one.read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_pdf_text_is_text(tmp_path, drawn):
    content = figures.save(drawn["roc"], tmp_path, "roc")[0].read_bytes()
    streams = []
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
        try:
            streams.append(zlib.decompress(found[1]))
        except zlib.error:
            continue
    everything = content + b"".join(streams)
    assert b"/FontFile2" in everything  # TrueType, embedded
    assert b"/Type3" not in everything
    assert b"\nBT\n" in everything


def test_a_failed_save_leaves_nothing(tmp_path, drawn):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        figures.save(drawn["roc"], blocked, "roc")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_global_state_is_left():
    before = dict(matplotlib.rcParams)
    figures.contact_sheet({"malignant, correct": [sample()]}, DATA)
    figures_curves.forest(forest_table(), DATA)
    assert dict(matplotlib.rcParams) == before
    pyplot = pytest.importorskip("matplotlib.pyplot")
    assert pyplot.get_fignums() == []


def test_numbers_of_an_axis_beside_long_names_keep_apart():
    name = "G, VGG16+CBAM (ImageNet, then patch data)\n− Linear probe of VGG16 (ours) (ImageNet)"
    table = pd.DataFrame([(name, 0.07, 0.02, 0.14, 0.011)], columns=["label", "difference", "low", "high", "p"])
    for shift in (0, -0.08):  # minus signs are wider
        figure = figures_curves.forest(table.assign(**table[["difference", "low", "high"]] + shift), DATA)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        shown = [text for text in figure.axes[0].get_xticklabels() if text.get_text()]
        boxes = sorted((text.get_window_extent(canvas.get_renderer()) for text in shown), key=lambda box: box.x0)
        assert len(boxes) > 1
        assert all(left.x1 + 2 < right.x0 for left, right in pairwise(boxes))


def test_the_box_is_drawn_where_the_lesion_is():
    """Rendered, not asked of the artist: white inside the red line, black outside it, as far as the line is wide."""
    image = np.zeros((40, 40), np.uint8)
    image[10:20, 8:24] = 255
    canvas = FigureCanvasAgg(figures.four_views([figures.View(image, "", [[8, 10, 16, 10]])], DATA))
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1:].max(axis=2) < 60))
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    line = 8  # pixels at 300 dpi: more than the red line with its black rim
    assert (pixels[top + line : bottom - line, left + line : right - line] > 250).all()
    assert (pixels[top - line, left:right] < 5).all()
    assert (pixels[bottom + line, left:right] < 5).all()
    assert (pixels[top:bottom, right + line] < 5).all()
    assert (right - left) / (bottom - top) == pytest.approx(16 / 10, rel=0.05)


def test_a_heat_map_is_shown_as_given_with_its_caption(drawn):
    figure = drawn["fig7"]
    shown = [axes for axes in figure.axes if axes.images]
    heat = shown[1].images[0]
    np.testing.assert_array_equal(heat.get_array(), sample().heat)
    assert (heat.get_clim()) == (0, 1)
    np.testing.assert_array_equal(shown[0].images[0].get_array(), picture())
    (box,) = [patch for patch in shown[0].patches if isinstance(patch, Rectangle)]
    assert to_rgb(box.get_edgecolor()) == (1, 0, 0)
    assert (box.get_x() + 0.5, box.get_y() + 0.5, box.get_width(), box.get_height()) == (5, 6, 8, 4)
    titles = [axes.get_title(loc="left") for axes in shown if axes.get_title(loc="left")]
    assert titles[0] == "(a)\nbenign, p(malignant) = 0.20"
    assert titles[2] == "(c)\nmalignant, p(malignant) = 0.90"
    assert "Cases: the medians" in figure.texts[0].get_text().replace("\n", " ")


def test_a_map_without_evidence_can_be_shown():
    empty = figures.Sample(picture(), np.zeros((40, 40), np.float32), [[5, 6, 8, 4]], 0.1, 1)
    for figure in (
        figures.gradcam_samples([empty], DATA, "VGG16", "all"),
        figures.contact_sheet({"malignant, wrong": [empty]}, DATA),
    ):
        FigureCanvasAgg(figure).draw()
        shown = [image.get_array() for axes in figure.axes for image in axes.images]
        assert shown
        assert all(np.isfinite(pixels).all() for pixels in shown)
    said = [text.get_text() for text in figures.gradcam_samples([empty], DATA, "VGG16", "all").axes[1].texts]
    assert said == ["no positive evidence"]
    assert not figures.gradcam_samples([sample()], DATA, "VGG16", "all").axes[1].texts


def test_the_contour_of_a_lesion_follows_its_mask_in_red():
    mask = np.zeros((40, 40), bool)
    mask[8:20, 10:16] = True
    left = figures.gradcam_samples([replace(sample(), mask=mask)], DATA, "VGG16", "all").axes[0]
    (contour,) = left.collections
    assert to_rgb(contour.get_edgecolor()[0]) == to_rgb(figures.LESION)
    corners = contour.get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == (9.5, 15.5, 7.5, 19.5)
    assert not figures.gradcam_samples([sample()], DATA, "VGG16", "all").axes[0].collections


def test_roc_lines_enclose_scikit_learns_area(drawn):
    panels = [axes for axes in drawn["roc"].axes if axes.lines]
    assert [axes.get_title() for axes in panels] == ["VGG16", "InceptionV3", "ResNet50"]
    lines = [line for axes in panels for line in axes.lines[:2]]
    for line, curve in zip(lines, curves(), strict=True):
        area = np.trapezoid(line.get_ydata(), line.get_xdata())
        assert area == pytest.approx(roc_auc_score(curve.label, curve.probability))
    assert {line.get_linestyle() for line in panels[0].lines[:2]} == {"--", "-"}  # told apart without colour


def test_calibration_points_are_scikit_learns(drawn):
    curve = curves()[0]
    observed, mean = calibration_curve(curve.label, curve.probability, n_bins=10, strategy="quantile")
    line = drawn["calibration"].axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), mean)
    np.testing.assert_allclose(line.get_ydata(), observed)


def test_confusion_counts_by_hand():
    curve = figures_curves.Curve("vgg16", np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.5, 0.4, 0.5, 0.2]))
    figure = figures_curves.confusion_matrices([curve], 0.5, DATA)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["2\n67%", "1\n33%", "1\n50%", "1\n50%"]


def test_the_dot_of_a_learning_curve_is_the_epoch_kept():
    figure = figures_curves.learning_curves({"vgg16": {"patch": history(epochs=6, best=4)}}, DATA)
    dots = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == [4, 4]
    assert dots[1].get_ydata()[0] == 0.9


def test_learning_curves_of_more_networks_than_fit_side_by_side_go_on_below():
    names = [*NETWORKS, "densenet121", "densenet121_cbam"]
    figure = figures_curves.learning_curves({name: {"scratch": history()} for name in names}, DATA)
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    assert len(titles) == len(names)
    extents = [title.get_window_extent() for title in titles]
    assert min(box.x0 for box in extents) >= 0
    assert max(box.x1 for box in extents) <= figure.bbox.x1
    assert len({round(box.y0) for box in extents}) == 2
    panels = [axes for axes in figure.axes if axes.lines]
    assert len(panels) == 2 * len(names)
    assert all(len(axes.get_shared_x_axes().get_siblings(axes)) == 2 for axes in panels)  # loss above accuracy


def test_a_forest_shows_each_row_and_hides_none(drawn):
    axes = drawn["forest"].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["VGG16+CBAM − VGG16", "B", "C"]
    (squares,) = [line for line in axes.lines if line.get_marker() == "s"]
    np.testing.assert_allclose(squares.get_xdata(), [0.02, -0.1])
    np.testing.assert_array_equal(squares.get_ydata(), [2, 1])  # the first row on top
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose([segment[:, 0] for segment in segments], [[-0.01, 0.05], [-0.2, -0.05]])
    right = [text.get_text() for child in axes.child_axes for text in child.get_yticklabels()]
    assert right == ["+0.020 (−0.010 to +0.050)  p = 0.200", "−0.100 (−0.200 to −0.050)  p < 0.001", "not available"]


def test_a_difference_without_an_interval_is_shown_alone():
    row = pd.DataFrame([("A", 0.0, np.nan, np.nan, 1.0)], columns=["label", "difference", "low", "high", "p"])
    figure = figures_curves.forest(row, DATA)
    right = [text.get_text() for child in figure.axes[0].child_axes for text in child.get_yticklabels()]
    assert right == ["+0.000  p = 1.000"]


def test_the_overview_has_a_square_a_seed_and_shows_what_did_not_learn(drawn):
    cbam, patch, longer = drawn["overview"].axes
    labels = [(label.get_text(), label.get_fontstyle()) for label in cbam.get_yticklabels()]
    assert labels[0] == ("patches", "italic")
    assert labels[1:] == [(name, "normal") for name in ("the paper", "VGG16 (small)", "one class only")]
    marks = {sign: [line for line in cbam.lines if line.get_marker() == sign] for sign in "sD"}
    assert [(*line.get_xdata(),) for line in marks["D"]] == [(0.01,), (0.03,)]
    assert [(*line.get_xdata(),) for line in marks["s"]] == [(0.02,), (-0.04,)]
    heights = [line.get_ydata()[0] for line in marks["s"]]
    assert heights[0] > heights[1]  # the first seed on top, both about their line
    assert np.mean(heights) == pytest.approx(cbam.get_yticks()[2])
    intervals = [(*line.get_xdata(),) for line in cbam.lines if line.get_color() == figures.BLUE]
    assert [pair for pair in intervals if len(pair) == 2] == [(-0.01, 0.05), (-0.07, -0.02)]
    assert [line.get_fillstyle() for line in marks["s"]] == ["full", "left"]
    (square,) = [line for line in patch.lines if line.get_marker() == "s"]
    assert (square.get_markerfacecolor(), *square.get_xdata()) == ("white", 0)
    assert not [line for line in patch.lines if line.get_marker() == "D"]
    right = [text.get_text() for child in cbam.child_axes for text in child.get_yticklabels()]
    assert right == ["AUCs of the two", "", "0.70–0.80, 0.74–0.78", "not available"]
    squares = [(*line.get_xdata(),) for line in longer.lines if line.get_marker() == "s"]
    (mean,) = [line for line in longer.lines if line.get_marker() == "o"]
    assert (squares, (*mean.get_xdata(),)) == ([(-0.05,), (0.01,)], (-0.02,))
    assert mean.get_markerfacecolor() == "white", "one of its seeds is at chance"


def test_the_seeds_of_a_line_stay_away_from_the_next_line():
    few = comparisons_table()[2:4]
    many = pd.concat([few.iloc[[0]].assign(line="many", seed=seed) for seed in range(9)])
    table = pd.concat([few, many, few.assign(line="after")], ignore_index=True)
    (axes,) = figures_overview.overview(table, DATA).axes
    heights = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "s"]
    assert len(heights) == 13
    steps = -np.diff(heights)
    assert steps.min() > 0
    assert min(steps[1], steps[10]) > 1.5 * steps[5], "between two lines there is more room than between two seeds"
    assert np.mean(heights[2:11]) == pytest.approx(axes.get_yticks()[2])


def test_a_question_without_a_panel_is_refused():
    with pytest.raises(ValueError, match="no panel shows the question 'why': enter it in PANELS"):
        figures_overview.overview(comparisons_table().replace("CBAM", "why"), DATA)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures_overview.overview(comparisons_table()[:0], DATA),
        lambda: figures.four_views([], DATA),
        lambda: figures.gradcam_samples([], DATA, "n", "r"),
        lambda: figures.contact_sheet({}, DATA),
        lambda: figures.work_flow([], DATA),
        lambda: figures_curves.roc_curves([], DATA),
        lambda: figures_curves.confusion_matrices([], 0.5, DATA),
        lambda: figures_curves.learning_curves({}, DATA),
        lambda: figures_curves.forest(forest_table()[:0], DATA),
    ],
)
def test_nothing_to_show_is_an_error(draw):
    with pytest.raises(ValueError, match="at least one"):
        draw()
