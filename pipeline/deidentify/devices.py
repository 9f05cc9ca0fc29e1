"""The approved list of devices whose images pass unread, and what a project asks of its pixels.

    [[device]]
    manufacturer = "GE MEDICAL SYSTEMS"
    model = "Senographe Essential"
    software = "ADS_56.10.3"            # as in SoftwareVersions, several joined with a backslash
    looked_at = 200                     # images that somebody, or the reader, looked at
    after_rules = false                 # true: clean only where a rule for pixels applies

The list is data: an approved file beside the project file. No serial number stands in it.
"""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.config import ProjectConfig
from pipeline.deidentify.pixel_policy import Device, Policy
from pipeline.errors import ProjectFileError

LEAST = 30      # images looked at before a device may be called clean
READER = "2"    # raise when reader.py would find other text


class Listed(BaseModel):
    """One entry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    manufacturer: str = Field(min_length=1)
    model: str = Field(min_length=1)
    software: str = Field(min_length=1)
    looked_at: int = Field(ge=LEAST)
    after_rules: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    device: tuple[Listed, ...] = ()


def read(path: Path) -> tuple[tuple[Device, bool], ...]:
    """Return the devices of a list, in order, each with whether a rule must apply. Raises ProjectFileError."""
    try:
        found = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ProjectFileError(f"{path}: cannot be read ({error.strerror}).",
                               hint="Name the list of devices in [deidentify.pixels] devices, or take the line out.") \
            from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ProjectFileError(f"{path}: not TOML.", hint="See docs/pixels.md for its form.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProjectFileError(f"{path}: {where}: {first['msg']}", hint="See docs/pixels.md for its form.") from None
    entries = {Device.of(one.manufacturer, one.model, one.software): one.after_rules for one in found.device}
    if len(entries) < len(found.device):
        raise ProjectFileError(f"{path}: a device stands twice.", hint="Keep one entry of it.")
    return tuple(sorted(entries.items()))


def policy(config: ProjectConfig) -> Policy:
    """Return what the project asks of pixels, on this machine. Raises ProjectFileError."""
    asked = config.deidentify.pixels
    installed, reader = asked.ocr and find_spec("rapidocr_onnxruntime") is not None, ""
    if installed:
        try:
            reader = " ".join([READER, *(f"{of} {version(of)}" for of in ("rapidocr-onnxruntime", "onnxruntime"))])
        except PackageNotFoundError:
            installed = False
    devices = read(config.beside(asked.devices)) if asked.devices else None
    words = tuple(sorted({" ".join(word.upper().split()) for word in asked.words}))
    return Policy(asked.ocr, installed, devices, asked.sample, words, reader)


def entry(manufacturer: str, model: str, software: str, looked_at: int) -> str:
    """Return one device as an entry of a list, TOML."""
    words = {"manufacturer": manufacturer, "model": model, "software": software}
    lines = [f"{name} = {json.dumps(word)}" for name, word in words.items()]    # JSON's strings are TOML's
    return "\n".join(["[[device]]", *lines, f"looked_at = {looked_at}", ""])
