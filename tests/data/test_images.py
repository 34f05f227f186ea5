"""Files by content, refused from their header where they lie about size; the window against its formula."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mammo_lib.data import images

GREY = np.random.default_rng(0).integers(0, 256, (31, 47), dtype=np.uint8)
DEEP = np.random.default_rng(0).integers(0, 4096, (31, 47), dtype=np.uint16)


@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8 bit", "12 bit in 16"])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_lossless_formats_whatever_the_name(suffix, pixels, tmp_path):
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), pixels)
    path = (tmp_path / f"a.{suffix}").rename(tmp_path / "picture.dcm")
    read = images.read_image(path)
    np.testing.assert_array_equal(read, pixels)
    assert read.dtype == pixels.dtype
    assert images.image_size(path) == pixels.shape


@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8 bit", "12 bit in 16"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_whose_zero_is_white_is_inverted(compression, pixels, tmp_path):
    """Written by Pillow with PhotometricInterpretation 0, for which it makes 8 bits a negative itself, and not 16."""
    stored = Image.fromarray(65535 - pixels if pixels.dtype == np.uint16 else pixels)
    stored.save(tmp_path / "a.tif", tiffinfo={262: 0}, compression=compression)
    assert Image.open(tmp_path / "a.tif").tag_v2[262] == 0
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif"), pixels)


def test_jpeg(tmp_path):
    smooth = cv2.GaussianBlur(GREY, (0, 0), 3)
    cv2.imwrite(str(tmp_path / "a.jpg"), smooth)
    assert np.abs(images.read_image(tmp_path / "a.jpg").astype(int) - smooth).max() < 8


def test_dicom_without_its_suffix(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.png", DEEP)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), DEEP)
    assert images.image_size(tmp_path / "a.png") == DEEP.shape


@pytest.mark.parametrize("pixels", [GREY, DEEP])
def test_grey_in_colour_is_accepted_colour_is_not(pixels, tmp_path):
    path = tmp_path / "a.png"
    colour = np.dstack([pixels] * 3)
    cv2.imwrite(str(path), colour)
    np.testing.assert_array_equal(images.read_image(path), pixels)
    cv2.imwrite(str(path), np.dstack([colour, np.full(pixels.shape, np.iinfo(pixels.dtype).max)]).astype(pixels.dtype))
    np.testing.assert_array_equal(images.read_image(path), pixels)
    cv2.imwrite(str(path), np.dstack([colour, pixels]))
    sentence(path, "transparent")
    colour[0, 0, 0] ^= 1
    cv2.imwrite(str(path), colour)
    sentence(path, "colour")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(columns: int, rows: int) -> bytes:
    header = struct.pack(">IIBBBBB", columns, rows, 16, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8 bit", "12 bit in 16"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 6])
def test_a_tiff_that_is_to_be_shown_turned_is_refused(orientation, pixels, tmp_path):
    """OpenCV turns it, and boxes and masks may mean the pixels as they are stored."""
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={274: orientation})
    if orientation < 2:  # 0 is none
        np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif"), pixels)
        return
    with pytest.raises(images.ImageError, match=r"a\.tif: a TIFF that is to be shown turned \(tag 274\)"):
        images.read_image(tmp_path / "a.tif")


def tiff_of(columns: int, rows: int) -> bytes:
    """A TIFF of one deflated strip of zeros that its header stretches to any size."""
    strip = zlib.compress(bytes(10_000_000))
    fields = [(256, columns), (257, rows), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, rows)]
    fields.append((279, len(strip)))
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in fields)
    return b"II*\x00" + struct.pack("<I", 8 + len(strip)) + strip + directory + bytes(4)


@pytest.mark.parametrize("make", [png_of, tiff_of])
@pytest.mark.parametrize("size", [(100_000, 100_000), (19_000, 19_000), (10_000_000, 1), (12_000, 12_000)])
def test_bombs_are_refused_from_the_header(make, size, tmp_path):
    (tmp_path / "bomb").write_bytes(make(*size))
    with pytest.raises(images.ImageError, match="no mammogram"):
        images.image_size(tmp_path / "bomb")
    sentence(tmp_path / "bomb", "no mammogram")


def test_what_refuses_the_bomb_is_its_size(tmp_path):
    (tmp_path / "honest").write_bytes(tiff_of(2500, 4000))
    np.testing.assert_array_equal(images.read_image(tmp_path / "honest"), np.zeros((4000, 2500), np.uint8))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jpg"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_cut_off(suffix, share, tmp_path, capfd):
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), GREY)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    sentence(path, "")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9", b"P5\n", b"II*\x00abcd"])
def test_no_image(content, tmp_path, capfd):
    (tmp_path / "a.png").write_bytes(content)
    sentence(tmp_path / "a.png", "")
    assert capfd.readouterr() == ("", "")


def test_other_values_and_pages(tmp_path):
    cv2.imwrite(str(tmp_path / "float.tif"), GREY.astype(np.float32))
    sentence(tmp_path / "float.tif", "float32")
    page = Image.fromarray(GREY)
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    sentence(tmp_path / "pages.tif", "2 pages")
    with pytest.raises(FileNotFoundError, match="no such file"):
        images.read_image(tmp_path / "nowhere.png")


def sentence(path, field: str) -> None:
    """Reading `path` raises one line that names the file and `field`."""
    with pytest.raises(images.ImageError) as refused:
        images.read_image(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert field in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50), st.sampled_from([np.uint8, np.uint16]))
def test_window_is_the_formula(values, kind):
    pixels = np.array(values).astype(kind).reshape(1, -1)
    window = images.to_8bit(pixels)
    exact = 255 * pixels.astype(float) / max(int(pixels.max()), 1)
    assert window.dtype == np.uint8
    assert np.abs(window - exact).max() <= 0.5 + 1e-9
    assert window.max() == (255 if pixels.max() else 0)


def test_window_refuses_other_types():
    with pytest.raises(images.ImageError, match="float64"):
        images.to_8bit(np.zeros((2, 2)))
