"""Images of any geometry, the plans that paint them over, and what pydicom reads from both."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from test_engine import SUBJECT

from pipeline.deidentify import pixel_rules
from pipeline.deidentify.engine import Rewritten, rewrite
from pipeline.deidentify.linter import read
from pipeline.deidentify.pixel_policy import Policy
from pipeline.deidentify.plan import Plan, compile_rules
from pipeline.dicom.codecs import options

ULTRASOUND, CAPTURE = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7"
READS = Policy(ocr=True, installed=True)
KEPT = """SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated
BitsStored HighBit PixelRepresentation BurnedInAnnotation SmallestImagePixelValue LossyImageCompression PixelData
RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData"""
SYNTAXES = {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "big": ExplicitVRBigEndian}


def plan(folder: Path, *rules: str, policy: Policy = READS) -> Plan:
    """Return the plan of a recipe that keeps the image pixel module; `rules` are the lines of its %filter section."""
    path = folder / "pixels.dicom"
    kept = KEPT.split() if not rules or rules[0] != "bare" else []
    lines = ["FORMAT dicom", "%filter graylist", *rules] if rules else ["FORMAT dicom"]
    lines += ["%header", "REMOVE ALL", "REPLACE StudyInstanceUID func:uid", "REPLACE SeriesInstanceUID func:uid",
              "REPLACE SOPInstanceUID func:uid", "# weaker: tests", "KEEP SOPClassUID"]
    path.write_text("\n".join([*lines, *(f"# weaker: tests\nKEEP {word}" for word in kept)]) + "\n")
    return compile_rules(read([path]), keep_times=False, pixels=pixel_rules.read([path]), policy=policy)


def dataset(rows: int, columns: int, *, samples: int = 1, bits: int = 8, stored: int | None = None,
            signed: bool = False, planar: int = 0, photometric: str = "MONOCHROME2", frames: int = 1,
            **elements: Any) -> Dataset:
    """Return a data set without pixel data."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = ULTRASOUND, "1.2.1", "1.2.2", "1.2.3"
    ds.Modality, ds.ImageType = "US", ["ORIGINAL", "PRIMARY"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = samples, photometric
    if samples > 1:
        ds.PlanarConfiguration = planar
    ds.Rows, ds.Columns, ds.BitsAllocated = rows, columns, bits
    ds.BitsStored = stored or bits
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(signed)
    if frames != 1:
        ds.NumberOfFrames = frames
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def native(ds: Dataset, pixels: bytes, syntax: str = "explicit") -> bytes:
    """Return a file with native pixel data; `pixels` little endian, swapped here where they must be."""
    if syntax == "big" and ds.BitsAllocated > 8:
        pixels = np.frombuffer(pixels, f"<u{ds.BitsAllocated // 8}").astype(f">u{ds.BitsAllocated // 8}").tobytes()
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    return written(ds, SYNTAXES[syntax])


def encapsulated(ds: Dataset, streams: list[bytes], syntax: str) -> bytes:
    ds.PixelData = encapsulate(streams)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return written(ds, UID(syntax))


def written(ds: Dataset, syntax: UID) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian,
                     little_endian=syntax != ExplicitVRBigEndian)
    return buffer.getvalue()


def run(data: bytes, folder: Path, with_plan: Plan) -> tuple[Dataset, Rewritten]:
    """Return the output, and what the engine says of it."""
    (folder / "in.dcm").write_bytes(data)
    (folder / "out.dcm").unlink(missing_ok=True)
    result = rewrite(folder / "in.dcm", folder / "out.dcm", with_plan, SUBJECT)
    assert (folder / "out.dcm").stat().st_size == result.size
    return pydicom.dcmread(folder / "out.dcm"), result


def decoded(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return (frames, rows, columns[, 3]) as pydicom decodes it, colours as they stand, and what it says of them."""
    from pydicom.pixels import pixel_array

    ds = pydicom.dcmread(path, stop_before_pixels=True)
    whole = pixel_array(path, raw=True, **options(ds.file_meta.TransferSyntaxUID))
    return whole.reshape(-1, ds.Rows, ds.Columns, *((3,) if ds.SamplesPerPixel == 3 else ())), {
        "photometric": ds.PhotometricInterpretation}
