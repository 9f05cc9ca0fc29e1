"""Which of pydicom's plugins decode which transfer syntax: always the same, so that what else is installed changes no
sample.

Left alone, pydicom takes GDCM first where it is there, which reads some JPEG-LS and colour JPEG differently. GDCM is to
decode only what nothing else here does: JPEG Lossless and JPEG of 12 bits (`gdcm_frames`). All other plugins are taken
out of pydicom's decoders in this process, before the first frame is decoded.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pipeline.dicom.gdcm_frames import EXTENDED, LOSSLESS, LOSSLESS_SV1

_OWN = "tre-gdcm"
_PLUGINS = {        # tried in this order
    "1.2.840.10008.1.2.4.50": ("pillow",), EXTENDED: ("pillow", _OWN), LOSSLESS: (_OWN,), LOSSLESS_SV1: (_OWN,),
    "1.2.840.10008.1.2.4.80": ("pyjpegls",), "1.2.840.10008.1.2.4.81": ("pyjpegls",),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "pillow"), "1.2.840.10008.1.2.4.91": ("pylibjpeg", "pillow"),    # openjpeg
    "1.2.840.10008.1.2.5": ("pylibjpeg", "pydicom"),
}


def options(syntax: str) -> dict[str, Any]:
    """Return what to pass on to pydicom when it is to decode: that colours stand by pixel, whatever the header says.
    Plugins where they do not (RLE) say so themselves. Nothing for a syntax that is not compressed."""
    _settle()
    return {"planar_configuration": 0} if syntax in _PLUGINS else {}


def can_decode(syntax: str, bits_stored: int) -> bool:
    """Whether a plugin for compressed frames of this kind is installed."""
    from pydicom.pixels import get_decoder

    _settle()
    found = get_decoder(syntax).available_plugins if syntax in _PLUGINS else ()
    return _OWN in found if syntax == EXTENDED and bits_stored > 8 else bool(found)


@cache
def _settle() -> None:
    from pydicom.pixels import get_decoder

    for syntax, names in _PLUGINS.items():
        decoder = get_decoder(syntax)
        if _OWN in names:
            decoder.add_plugin(_OWN, ("pipeline.dicom.gdcm_frames", "decode_frame"))
        for other in set(decoder.available_plugins).difference(names):
            decoder.remove_plugin(other)
