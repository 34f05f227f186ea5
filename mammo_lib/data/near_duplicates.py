"""Images of different patients that look alike, by perceptual hash: a leak that no id shows. Knows prepared images."""

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import cdist

# Ours, bits of 255 that may differ. Measured on the global views of CBIS-DDSM: a view saved again as JPEG of quality 50
# differs in at most 4, under a gamma of 1.4 in 20 (median); the closest views of two patients differ in 30.
HASH_THRESHOLD = 24
_HASH_IMAGE, _HASH_SIDE = 64, 16  # pixels of the reduced view; lowest frequencies kept in each direction
_SHOWN = 10  # ours: pairs listed at least, so that the margin is seen
PAIR_COLUMNS = ("image_a", "image_b", "split_a", "split_b", "distance", "mirrored", "near_duplicate")


def near_duplicates(globals_: pd.DataFrame, images: npt.NDArray[np.uint8]) -> pd.DataFrame:
    """Pairs of images of different patients, by how alike they are to a perceptual hash; the closest first.

    `images` uint8 (N, S, S), row i that of `globals_`. Every pair up to HASH_THRESHOLD is listed (`near_duplicate`),
    and the closest ten in any case. `distance`, in bits of 255, is to the image or its mirror image, the smaller.
    """
    straight = np.array([_hash(image) for image in images])
    flipped = np.array([_hash(image[:, ::-1]) for image in images])
    distances = np.stack([cdist(straight, other, "cityblock") for other in (straight, flipped)]).astype(np.int64)
    patients = globals_["patient_id"].to_numpy()
    first, second = np.nonzero(np.triu(patients[:, None] != patients[None, :]))
    distance = distances[:, first, second].min(axis=0)
    order = np.argsort(distance, kind="stable")
    order = order[: max(_SHOWN, int((distance <= HASH_THRESHOLD).sum()))]
    first, second, distance = first[order], second[order], distance[order]
    ids, splits = globals_["image_id"].to_numpy(), globals_["official_split"].astype(object).fillna("").to_numpy()
    mirrored = distances[1, first, second] < distances[0, first, second]
    columns = (ids[first], ids[second], splits[first], splits[second], distance, mirrored, distance <= HASH_THRESHOLD)
    return pd.DataFrame(dict(zip(PAIR_COLUMNS, columns, strict=True)))


def _hash(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """255 bits: which low frequencies of the view, the mean left out, are above their median."""
    small = cv2.resize(image, (_HASH_IMAGE, _HASH_IMAGE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:_HASH_SIDE, :_HASH_SIDE].ravel()[1:]
    return np.asarray(low > np.median(low))
