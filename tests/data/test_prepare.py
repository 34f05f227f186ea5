"""Preparation of a small archive of drawn films: what is written, what is set aside, and what a broken run leaves."""

import errno
import json
import multiprocessing
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo_lib import paths
from mammo_lib.config import get_profile
from mammo_lib.data import cases, extraction, prepare
from mammo_lib.data.cropping import Box, patch_window

TINY = get_profile("tiny")
CENTRES = TINY.patches.centres
NO_PROBLEMS = cases.problem_table([])
VIEWS = [(patient, side) for patient in ("A1", "B2", "C3") for side in ("LEFT", "RIGHT")]


def draw(seed, height=300, width=220):
    """A breast at the left edge with two masses, an oval and a round one: uint8 image, and the masks of the masses."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    image = np.where(((y - 150) / 110) ** 2 + (x / 140) ** 2 < 1, 90, 1) + rng.normal(0, 3, (height, width))
    masks = [((y - 120 - seed) / 18) ** 2 + ((x - 50) / 12) ** 2 < 1, (y - 190) ** 2 + (x - 70 - seed) ** 2 < 12**2]
    for mask in masks:
        image[mask] += 100
    return np.clip(image, 0, 255).astype(np.uint8), masks


@pytest.fixture
def archive(tmp_path):
    """(root, case table): six images, two masses each; boxes from masks, but for the last image's."""
    root = tmp_path / "archive"
    root.mkdir()
    rows = []
    for index, (patient, side) in enumerate(VIEWS):
        image, masks = draw(index)
        image_id = f"{patient}_{side}_CC"
        cv2.imwrite(str(root / f"{image_id}.png"), image)
        for number, mask in enumerate(masks, start=1):
            name = f"{image_id}_{number}.png"
            cv2.imwrite(str(root / name), mask.astype(np.uint8) * 255)
            row = dict.fromkeys(cases.COLUMNS, "")
            row |= {"mass_id": f"{image_id}_{number}", "image_id": image_id, "patient_id": patient, "side": side}
            row |= {"view": "CC", "label": int(patient == "B2" and number == 2), "image_path": f"{image_id}.png"}
            row |= {"mask_path": name, "source": "drawn", "official_split": "test" if patient == "C3" else "train"}
            if index == len(VIEWS) - 1:
                row |= dict(zip(cases.BOX_COLUMNS, cv2.boundingRect(mask.astype(np.uint8)), strict=True))
                row["mask_path"] = ""
            rows.append(row)
    return root, cases.table(rows, "drawn")


def run(archive, destination, executor=None, **changes):
    root, table = archive
    return prepare.prepare(
        changes.pop("cases", table), NO_PROBLEMS, root, destination, TINY, changes.pop("seed", 7), executor, **changes
    )


def read(destination):
    arrays = {name: np.load(destination / f"{name}.npy") for name in ("patches", "globals")}
    tables = {name: pd.read_csv(destination / f"{name}.csv", keep_default_na=False) for name in ("patches", "globals")}
    return arrays, tables


def test_tables_and_arrays_agree_row_by_row(archive, tmp_path):
    summary = run(archive, tmp_path / "out")
    arrays, tables = read(tmp_path / "out")
    assert (summary.images, summary.masses, summary.patches, summary.set_aside) == (6, 12, 12 * CENTRES, 0)
    assert list(tables["patches"].columns) == [
        *("patch_id", "mass_id", "image_id", "patient_id", "side", "view", "label", "official_split"),
        *("centre_x", "centre_y", "window"),
    ]
    assert list(tables["globals"].columns) == [
        *("image_id", "patient_id", "side", "view", "label", "official_split", "crop_x", "crop_y", "crop_w", "crop_h"),
        "boxes",
    ]
    assert arrays["patches"].shape == (12 * CENTRES, TINY.patches.size, TINY.patches.size)
    assert arrays["globals"].shape == (6, TINY.globals.size, TINY.globals.size)
    assert arrays["patches"].dtype == arrays["globals"].dtype == np.uint8
    assert list(tables["patches"]["patch_id"])[:2] == ["A1_LEFT_CC_1#0", "A1_LEFT_CC_1#1"]
    assert list(tables["globals"]["label"]) == [0, 0, 1, 1, 0, 0], "malignant if any mass is"
    assert tables["patches"].groupby("mass_id", sort=False)["label"].first().sum() == 2


def test_a_column_of_the_users_own_does_not_name_the_patches(archive, tmp_path):
    run(archive, tmp_path / "out", cases=archive[1].assign(patch_id="mine", window="mine"))
    patches = read(tmp_path / "out")[1]["patches"]
    assert patches["patch_id"].is_unique
    assert "mine" not in patches["window"].astype(str).tolist()


def test_patches_are_windows_of_the_image_around_points_of_the_mass(archive, tmp_path):
    root, table = archive
    run(archive, tmp_path / "out")
    arrays, tables = read(tmp_path / "out")
    boxes, places = cases.read(tmp_path / "out" / "cases.csv").set_index("mass_id"), {}
    for row, pixels in zip(tables["patches"].itertuples(), arrays["patches"], strict=True):
        mask = draw(VIEWS.index((row.patient_id, row.side)))[1][int(row.mass_id[-1]) - 1]
        x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
        assert list(boxes.loc[row.mass_id, list(cases.BOX_COLUMNS)]) == [x, y, w, h]
        assert x <= row.centre_x < x + w
        assert y <= row.centre_y < y + h
        places.setdefault(row.mass_id, []).append((row.centre_x - x, row.centre_y - y))
        assert row.window == round(TINY.patches.context * max(w, h))
        image = cv2.imread(str(root / table.set_index("mass_id").loc[row.mass_id, "image_path"]), 0)
        window = patch_window(image.shape, (row.centre_x, row.centre_y), row.window).of(image)
        way = cv2.INTER_AREA if row.window > TINY.patches.size else cv2.INTER_LINEAR
        expected = cv2.resize(window, (TINY.patches.size,) * 2, interpolation=way) * (255 / image.max())
        assert np.abs(pixels - expected).max() <= 1.01
    assert len({tuple(places[mass_id]) for mass_id in places if mass_id.endswith("_1")}) == len(VIEWS), "drawn anew"


def test_boxes_of_the_global_view_frame_the_bright_masses(archive, tmp_path):
    run(archive, tmp_path / "out")
    arrays, tables = read(tmp_path / "out")
    for row, pixels in zip(tables["globals"].itertuples(), arrays["globals"], strict=True):
        boxes = json.loads(row.boxes)
        assert len(boxes) == 2
        outside = pixels.copy()
        for x, y, w, h in boxes:
            assert pixels[int(y + h / 2), int(x + w / 2)] > 200
            outside[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = 0
        assert outside.max() < 160


@pytest.mark.parametrize("stretched", [False, True])
def test_the_masks_of_an_image_lie_on_the_bright_masses_of_its_global_view(archive, tmp_path, stretched):
    root, table = archive
    if stretched:
        table = table.assign(aspect=f"{300 / 220:.6f}")[table["box_w"].isna()]
        for name in {*table["image_path"], *table["mask_path"]}:
            picture = cv2.imread(str(root / name), 0)
            cv2.imwrite(str(root / name), cv2.resize(picture, (300, 300), interpolation=cv2.INTER_NEAREST))
    run((root, table), tmp_path / "out")
    arrays, tables = read(tmp_path / "out")
    written = cases.read(tmp_path / "out" / "cases.csv")
    jobs = prepare.jobs_of(written, root, TINY, 7, tmp_path)
    for row, pixels, job in zip(tables["globals"].itertuples(), arrays["globals"], jobs, strict=True):
        found = extraction.lesion_view(job, Box(row.crop_x, row.crop_y, row.crop_w, row.crop_h))
        if row.image_id == "C3_RIGHT_CC":
            assert found is None, "it has boxes and no mask"
            continue
        bright = pixels > 160
        assert (found & bright).sum() / (found | bright).sum() > 0.9
    (root / jobs[0].image_path).unlink()
    assert extraction.lesion_view(jobs[0], Box(0, 0, 50, 50)) is None, "the archive is gone"


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_any_executor_and_any_order_give_the_same_bytes(archive, tmp_path, kind):
    run(archive, tmp_path / "one")
    context = multiprocessing.get_context("spawn")
    pool = ThreadPoolExecutor(2) if kind == "threads" else ProcessPoolExecutor(2, context)
    with pool:
        run(archive, tmp_path / "two", pool)
    for name in prepare.FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    root, table = archive
    run((root, table.iloc[::-1].reset_index(drop=True)), tmp_path / "reversed")
    arrays, tables = read(tmp_path / "one")
    other_arrays, other_tables = read(tmp_path / "reversed")
    order = [list(other_tables["patches"]["patch_id"]).index(name) for name in tables["patches"]["patch_id"]]
    assert (other_arrays["patches"][order] == arrays["patches"]).all()


def test_a_second_run_changes_nothing_and_other_settings_are_refused(archive, tmp_path):
    first = run(archive, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != ".lock"}
    second = run(archive, tmp_path / "out")
    assert (second.images, second.masses, second.patches) == (first.images, first.masses, first.patches)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != ".lock"}
    with pytest.raises(paths.StageMismatch, match="seed"):
        run(archive, tmp_path / "out", seed=8)
    fewer = archive[1].iloc[2:].reset_index(drop=True)
    with pytest.raises(paths.StageMismatch, match="archive"):
        run(archive, tmp_path / "out", cases=fewer)


def test_a_file_changed_afterwards_is_found_by_its_checksum(archive, tmp_path):
    run(archive, tmp_path / "out")
    with open(tmp_path / "out" / "globals.npy", "r+b") as file:
        file.seek(500)
        file.write(b"\x99")
    with pytest.raises(prepare.PrepareError, match=r"globals\.npy is not the file that was prepared"):
        run(archive, tmp_path / "out")


def test_a_file_that_is_gone_is_named(archive, tmp_path):
    run(archive, tmp_path / "out")
    (tmp_path / "out" / "patches.npy").unlink()
    with pytest.raises(prepare.PrepareError, match=r"patches\.npy, which was prepared, is not there: delete"):
        run(archive, tmp_path / "out")


def test_a_killed_run_goes_on_where_it_stopped(archive, tmp_path, monkeypatch):
    run(archive, tmp_path / "whole")
    done = []

    def killed_at_the_third(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        extraction.run_job(job)

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "run_job", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            run(archive, tmp_path / "out")
    assert not (tmp_path / "out" / prepare.RECORD).exists()
    assert not (tmp_path / "out" / "patches.npy").exists()
    summary = run(archive, tmp_path / "out")
    assert summary.resumed == 2
    assert not (tmp_path / "out" / ".work").exists()
    for name in prepare.FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def damage(root, table):
    """One kind of damage an image or mass; {mass_id: words its reason must hold}."""
    image = (root / "A1_LEFT_CC.png").read_bytes()
    (root / "A1_LEFT_CC.png").write_bytes(image[: len(image) // 2])
    cv2.imwrite(str(root / "A1_RIGHT_CC.png"), np.zeros((300, 220), np.uint8))
    (root / "B2_LEFT_CC_1.png").unlink()
    cv2.imwrite(str(root / "B2_RIGHT_CC_2.png"), np.zeros((300, 220), np.uint8))
    table.loc[table["mass_id"] == "C3_RIGHT_CC_1", ["box_x", "box_w"]] = [200, 21]
    return {
        "A1_LEFT_CC_1": "cut off",
        "A1_LEFT_CC_2": "cut off",
        "A1_RIGHT_CC_1": "no breast",
        "A1_RIGHT_CC_2": "no breast",
        "B2_LEFT_CC_1": "no such file",
        "B2_RIGHT_CC_2": "empty",
        "B2_RIGHT_CC_1": "a malignant mass of its image is missing",
        "C3_RIGHT_CC_1": "box_x 200",
    }


def test_what_cannot_be_used_is_a_row_with_its_reason(archive, tmp_path):
    root, table = archive
    reasons = damage(root, table)
    before = cases.problem_table([cases.problem("Z9", "read", "z.png", "set aside by the source")])
    summary = prepare.prepare(table, before, root, tmp_path / "out", TINY, 7, max_loss=0.7)
    assert (summary.masses, summary.set_aside, summary.images) == (4, 8 + 1, 3)
    problems = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert problems["id"].iloc[0] == "Z9"
    found = problems.iloc[1:].set_index("id")["reason"]
    assert set(found.index) == set(reasons)
    for mass_id, words in reasons.items():
        assert words in found[mass_id]
    kept = cases.read(tmp_path / "out" / "cases.csv")
    assert set(kept["mass_id"]) == set(table["mass_id"]) - set(reasons)
    arrays, tables = read(tmp_path / "out")
    assert set(tables["patches"]["mass_id"]) == set(kept["mass_id"])
    assert len(arrays["patches"]) == len(tables["patches"]) == 4 * CENTRES
    assert "B2_RIGHT_CC" not in set(tables["globals"]["image_id"])


def test_a_lost_mass_counts_once_whatever_was_noted_of_it(archive, tmp_path):
    """Two of twelve: a malignant mass without its mask, and the one beside it, whose mask lies in the background."""
    root, table = archive
    mask = np.zeros((300, 220), np.uint8)
    cv2.imwrite(str(root / "B2_RIGHT_CC_2.png"), mask)
    mask[100:120, 185:205] = 255
    cv2.imwrite(str(root / "B2_RIGHT_CC_1.png"), mask)
    summary = prepare.prepare(table, NO_PROBLEMS, root, tmp_path / "out", TINY, 7, max_loss=2 / 12)
    assert (summary.masses, summary.set_aside, summary.images) == (10, 2, 5)
    told = pd.read_csv(tmp_path / "out" / "problems.csv").query("id == 'B2_RIGHT_CC_1'")
    assert sorted(told["stage"]) == ["label", "note"]


def test_a_lesion_outside_of_the_breast_is_kept_with_a_note(archive, tmp_path):
    """The box of the last mass is moved into the background, which begins at column 140."""
    root, table = archive
    moved = table.assign(box_x=table["box_x"].mask(table["mass_id"] == "C3_RIGHT_CC_2", 180))
    summary = prepare.prepare(moved, NO_PROBLEMS, root, tmp_path / "out", TINY, 7)
    assert (summary.masses, summary.set_aside) == (12, 0)
    told = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert told[["id", "stage"]].to_numpy().tolist() == [["C3_RIGHT_CC_2", cases.NOTE]]
    assert "lies in the breast" in told["reason"][0]


def test_a_mask_in_parts_is_told(archive, tmp_path):
    root, _ = archive
    mask = cv2.imread(str(root / "B2_LEFT_CC_1.png"), 0)
    mask[10:20, 5:15] = 255  # a stray speck, 100 pixels beside some thousand
    cv2.imwrite(str(root / "B2_LEFT_CC_1.png"), mask)
    run(archive, tmp_path / "out")
    told = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert told.loc[told["reason"].str.contains("in parts"), ["id", "stage"]].to_numpy().tolist() == [
        ["B2_LEFT_CC_1", cases.NOTE]
    ]


def test_a_mask_beside_its_box_is_set_aside_and_a_useless_one_is_told(archive, tmp_path):
    """The last image's masses have boxes; now masks too: the other mass's, and a file that is no image."""
    root, table = archive
    (root / "broken.png").write_bytes(b"not an image")
    last = [f"C3_RIGHT_CC_{number}" for number in (1, 2)]
    own, other = (
        table.assign(mask_path=table["mask_path"].mask(table["mass_id"] == last[0], f"{name}.png")) for name in last
    )
    summary = run((root, own), tmp_path / "own")
    assert (summary.masses, summary.set_aside) == (12, 0)
    assert pd.read_csv(tmp_path / "own" / "problems.csv").empty
    useless = other.assign(mask_path=other["mask_path"].mask(other["mass_id"] == last[1], "broken.png"))
    summary = run((root, useless), tmp_path / "other", max_loss=0.1)
    assert (summary.masses, summary.set_aside) == (11, 1)
    told = pd.read_csv(tmp_path / "other" / "problems.csv").set_index("id")
    assert told["stage"].to_dict() == {last[0]: "prepare", last[1]: cases.NOTE}
    assert "no pixel of its mask lies in its box" in told.loc[last[0], "reason"]
    assert "box of the table counts" in told.loc[last[1], "reason"]


def test_a_run_that_loses_too_much_stops_and_goes_on_once_mended(archive, tmp_path):
    root, _ = archive
    good = (root / "A1_LEFT_CC.png").read_bytes()
    (root / "A1_LEFT_CC.png").write_bytes(b"")
    with pytest.raises(
        prepare.PrepareError, match=r"2 of 12 masses .* 1% .* first: A1_LEFT_CC_1: .* empty.*problems\.csv"
    ):
        run(archive, tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "problems.csv")) == 2
    assert not (tmp_path / "out" / prepare.RECORD).exists()
    (root / "A1_LEFT_CC.png").write_bytes(good)
    summary = run(archive, tmp_path / "out")
    assert (summary.resumed, summary.set_aside) == (5, 0)
    assert pd.read_csv(tmp_path / "out" / "problems.csv").empty


def test_an_archive_of_nothing_usable_is_one_sentence(archive, tmp_path):
    root, _ = archive
    for path in root.iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(prepare.PrepareError, match="none of the 12 masses can be used"):
        run(archive, tmp_path / "out", max_loss=1.0)


def test_a_link_out_of_the_archive_is_a_problem(archive, tmp_path):
    root, _ = archive
    (root / "A1_LEFT_CC.png").rename(tmp_path / "elsewhere.png")
    (root / "A1_LEFT_CC.png").symlink_to(tmp_path / "elsewhere.png")
    run(archive, tmp_path / "out", max_loss=0.5)
    told = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert told["id"].tolist() == ["A1_LEFT_CC_1", "A1_LEFT_CC_2"]
    assert told["reason"].str.contains("leads out of the archive").all()


def write_half(destination, ready):
    with prepare.locked(destination), paths.atomic_write(destination / "patches.npy") as part:
        part.write_bytes(b"half")
        ready.set()
        time.sleep(60)


def test_what_a_killed_preparation_left_half_written_is_deleted_by_the_next(archive, tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    killed = context.Process(target=write_half, args=(tmp_path / "out", ready))
    killed.start()
    assert ready.wait(20)
    killed.kill()
    killed.join()
    assert list((tmp_path / "out").glob(".patches.npy*.part"))
    run(archive, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.part"))


def hold(destination, ready, leave):
    with prepare.locked(destination):
        ready.set()
        leave.wait(20)


def test_a_second_process_is_refused_while_the_first_is_at_work(archive, tmp_path):
    context = multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    first = context.Process(target=hold, args=(tmp_path / "out", ready, leave))
    first.start()
    assert ready.wait(20)
    try:
        with pytest.raises(prepare.PrepareError, match="being prepared by another process"):
            run(archive, tmp_path / "out")
    finally:
        leave.set()
        first.join()
    assert run(archive, tmp_path / "out").masses == 12, "the lock went with its process"


def test_a_full_disk_is_a_sentence_and_leaves_nothing_for_done(archive, tmp_path, monkeypatch):
    run(archive, tmp_path / "whole")
    usage = prepare.shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(prepare.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(prepare.PrepareError, match=r"GB are needed, 0\.0 GB are free"):
            run(archive, tmp_path / "out")

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(extraction.np, "savez", full)
        with pytest.raises(prepare.PrepareError, match=r"No space left .*make room"):
            run(archive, tmp_path / "out")
    assert not list((tmp_path / "out" / ".work").rglob("*.npz"))
    assert not list((tmp_path / "out").rglob("*.part"))
    assert run(archive, tmp_path / "out").resumed == 0
    assert (tmp_path / "out" / "patches.npy").read_bytes() == (tmp_path / "whole" / "patches.npy").read_bytes()


def test_a_worker_that_dies_is_a_sentence(archive, tmp_path):
    class Broken(ThreadPoolExecutor):
        def submit(self, *_, **__):
            raise BrokenExecutor("a process in the process pool was terminated abruptly")

    with Broken(1) as pool, pytest.raises(prepare.PrepareError, match="a worker died"):
        run(archive, tmp_path / "out", pool)


def test_a_destination_that_cannot_be_written_is_a_sentence(archive, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(prepare.PrepareError, match="Not a directory"):
        run(archive, tmp_path / "file" / "out")


def test_a_stretched_image_gets_its_proportions_back(archive, tmp_path):
    """An image stored as a square, with its aspect, gives the boxes and crop of the original one."""
    root, table = archive
    run(archive, tmp_path / "straight")
    squares = table.assign(aspect=f"{300 / 220:.6f}")
    for name in {*table["image_path"], *table["mask_path"]} - {""}:
        picture = cv2.imread(str(root / name), 0)
        cv2.imwrite(str(root / name), cv2.resize(picture, (300, 300), interpolation=cv2.INTER_NEAREST))
    squares.loc[squares["box_w"].notna(), ["box_x", "box_w"]] = [(53, 32), (91, 34)]
    run((root, squares), tmp_path / "squares")
    wide, narrow = (read(tmp_path / name)[1]["globals"] for name in ("squares", "straight"))
    for one, other in zip(wide.itertuples(), narrow.itertuples(), strict=True):
        assert one.crop_h / one.crop_w == pytest.approx(other.crop_h / other.crop_w, rel=0.04)
        assert np.allclose(json.loads(one.boxes), json.loads(other.boxes), atol=2.5)


def test_restored_box_holds_the_stored_box():
    image = np.zeros((80, 80), np.uint8)
    image[30:41, 20:27] = 255
    whole, boxes = extraction.restore(image, {"m": Box(20, 30, 7, 11)}, 1.6)
    assert whole.shape == (128, 80)
    assert boxes["m"] == Box(20, 48, 7, 18)
    whole, boxes = extraction.restore(image, {"m": Box(20, 30, 7, 11)}, 0.5)
    assert whole.shape == (80, 160)
    assert boxes["m"] == Box(40, 30, 14, 11)
    assert extraction.restore(image, {}, None)[0] is image


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("patches.centres", 3), ("patches.size", 40), ("patches.context", 2.5)),
        *(("globals.size", 72), ("globals.margin", 0.07)),
    ],
)
def test_data_prepared_with_other_settings_is_refused_by_name(archive, tmp_path, field, value):
    root, table = archive
    paths.write_json(tmp_path / prepare.RECORD, {"settings": prepare.settings(table, root, TINY, 7), "hashes": {}})
    part, name = field.split(".")
    before = getattr(TINY, part)
    other = replace(TINY, **{part: replace(before, **{name: value})})
    with pytest.raises(paths.StageMismatch, match=rf"settings \({field}: was {getattr(before, name)}, is {value}\)"):
        prepare.prepare(table, NO_PROBLEMS, root, tmp_path, other, 7)


def test_settings_tell_all_that_the_arrays_depend_on(archive, monkeypatch):
    root, table = archive
    base = prepare.settings(table, root, TINY, 7)
    assert json.loads(json.dumps(base)) == base
    other = replace(TINY, patches=replace(TINY.patches, context=3.0))
    changed = table.assign(label=1 - table["label"])
    monkeypatch.setattr(prepare, "VERSION", prepare.VERSION + 1)
    assert prepare.settings(table, root, TINY, 7) != base
    monkeypatch.undo()
    for different in (
        prepare.settings(table, root, TINY, 8),
        prepare.settings(table, root, other, 7),
        prepare.settings(changed, root, TINY, 7),
    ):
        assert different != base


@pytest.mark.parametrize("source", ["table", "a new one"])
def test_files_of_a_users_own_table_that_change_are_noticed(archive, tmp_path, source):
    root, table = archive
    own = replace(TINY, source=source)
    prepare.prepare(table, NO_PROBLEMS, root, tmp_path / "out", own, 7)
    image = cv2.imread(str(root / "A1_LEFT_CC.png"), 0)
    cv2.imwrite(str(root / "A1_LEFT_CC.png"), image[:, ::-1])
    with pytest.raises(paths.StageMismatch, match="files: has changed"):
        prepare.prepare(table, NO_PROBLEMS, root, tmp_path / "out", own, 7)
