"""Set G in cells of 16 pixels, for what reads an image cell by cell: the probe and the mass map."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mammo_lib.config import CELL
from mammo_lib.stages.archive import load
from mammo_lib.stages.experiment import Experiment, read_table


@dataclass(frozen=True)
class Grid:
    """Of image i (its row in G): which cells hold breast, its masses' boxes in cells, and their labels."""

    images: np.ndarray  # uint8 (N, S, S), memory-mapped
    inside: np.ndarray  # bool (N, S / 16, S / 16)
    boxes: list[list[list[float]]]  # x, y, w, h
    labels: list[list[int]]
    views: pd.DataFrame  # globals.csv

    @classmethod
    def of(cls, experiment: Experiment) -> "Grid":
        images, views = load(experiment, "G")
        cases = read_table(experiment.places.prepared / "cases.csv")
        labels = cases.groupby("image_id")["label"].agg(list)
        cells = images.shape[1] // CELL
        return cls(
            images,
            images.reshape(len(images), cells, CELL, cells, CELL).max(axis=(2, 4)) > 0,
            [[[value / CELL for value in box] for box in json.loads(text)] for text in views["boxes"]],
            [labels[name] for name in views["image_id"]],
            views,
        )

    def rows_of(self, cases: pd.DataFrame) -> np.ndarray:
        """The row in G, int (n,), of each case's image, by column image_id."""
        of_image = pd.Series(range(len(self.views)), index=self.views["image_id"])
        rows: np.ndarray = of_image[cases["image_id"]].to_numpy()
        return rows

    def windows(self, patches: pd.DataFrame) -> np.ndarray:
        """x, y, w, h, float (n, 4), of each patch in cells of its image's view; at an image's edge cut, not shifted."""
        size = self.images.shape[1]
        placed = patches[["image_id", "centre_x", "centre_y", "window"]].merge(
            self.views[["image_id", "crop_x", "crop_y", "crop_w", "crop_h"]], on="image_id", validate="many_to_one"
        )
        ratio = size / placed[["crop_w", "crop_h"]].max(axis=1)
        boxes = [placed["window"] * ratio] * 2
        for centre, start, length in (("centre_y", "crop_y", "crop_h"), ("centre_x", "crop_x", "crop_w")):
            margin = (size - placed[length] * ratio) / 2
            boxes.insert(0, (placed[centre] - placed["window"] / 2 - placed[start]) * ratio + margin)
        return np.stack(boxes, axis=1) / CELL
