"""Which pixels pass as they are, which are read for text, which go no further. Pure: one decision, `decide`.

BurnedInAnnotation NO is never a proof; what vouches for an image is where it comes from (a detector or a
reconstruction), a device somebody has looked at, a rule with a second look behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from pipeline.model import Reason, Refusal

# SOP classes whose pixels come straight from a detector or a reconstruction. All others are read or cleaned first.
ACQUIRED = frozenset({
    "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1",     # Digital Mammography, presentation, processing
    "1.2.840.10008.5.1.4.1.1.13.1.3",                                   # Breast Tomosynthesis
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",     # CT, multi-frame
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",     # MR, multi-frame
})
SOP_CLASS, IMAGE_TYPE, CONVERSION, BURNED_IN, RECOGNIZABLE = 0x00080016, 0x00080008, 0x00080064, 0x00280301, 0x00280302


class Care(IntEnum):
    """What an image needs beside the rules that apply to it."""

    NONE = 0        # it passes
    READ = 1        # what comes out is read for text, and passes where there is none


class Device(NamedTuple):
    """What made an image, as its header says: in small letters, spaces joined."""

    manufacturer: str
    model: str
    software: str

    @classmethod
    def of(cls, manufacturer: str, model: str, software: str) -> Device:
        return cls(*(" ".join(word.lower().split()) for word in (manufacturer, model, software)))


@dataclass(frozen=True, slots=True)
class Image:
    """What the decision is made from. Texts in capitals, "" where the header does not say."""

    sop_class: str
    image_type: tuple[str, ...] = ()
    conversion: str = ""            # how it was digitised or captured (PS3.3 C.8.6.1)
    burned_in: str = ""
    recognizable: str = ""
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a project asks for. `devices`: the approved list, None where there is none; of each, whether its images are
    clean only where a rule applies. `installed`: whether this machine can read text."""

    ocr: bool = False
    installed: bool = False
    devices: tuple[tuple[Device, bool], ...] | None = None
    sample: int = 0                 # one image in so many of approved devices is read all the same
    words: tuple[str, ...] = ()     # texts that may stand in pixels, in capitals: view markers
    reader: str = ""                # what reads, and its version

    def canonical(self) -> list[str | int]:
        """Return what the policy means, for ids; nothing where it is what it always was."""
        if self == DEFAULT:
            return []
        words: list[str | int] = ["pixel_policy", int(self.ocr), int(self.installed), self.reader, self.sample,
                                  "words", *self.words, "devices", "all" if self.devices is None else "listed"]
        for device, ruled in self.devices or ():
            words += [*device, int(ruled)]
        return words


DEFAULT = Policy()


def suspect(image: Image) -> int | None:
    """Return the tag for which an image is not simply one from a detector or a reconstruction; None where it is."""
    if image.burned_in not in ("", "NO"):
        return BURNED_IN
    if "SECONDARY" in image.image_type[1:2] or "SCREEN SAVE" in image.image_type:
        return IMAGE_TYPE
    if image.conversion:
        return CONVERSION
    return None if image.sop_class in ACQUIRED else SOP_CLASS


def decide(image: Image, policy: Policy, *, ruled: bool, drawn: bool = False) -> Care:
    """Say what an image needs. `ruled`: a rule paints over a part of it; `drawn`: it is in the sample.

    Raises Refusal: a face may be seen; the header speaks of text and no rule does; it must be read and nothing reads.
    """
    if image.recognizable not in ("", "NO"):
        raise Refusal(Reason.PIXELS_NEED_CLEANING, RECOGNIZABLE)
    why = suspect(image)
    if why == BURNED_IN and not ruled:      # that nothing is found is no answer to a header that says there is
        raise Refusal(Reason.PIXELS_NEED_CLEANING, BURNED_IN)
    listed = dict(policy.devices or ())
    known = image.device in listed and (ruled or not listed[image.device])
    passes = why is None and (policy.devices is None or known)
    passes = passes or (why == SOP_CLASS and known)
    if passes:
        return Care.READ if drawn and policy.ocr and policy.installed else Care.NONE
    if policy.ocr and policy.installed:
        return Care.READ
    plain = why is not None and not ruled and not policy.ocr
    raise Refusal(Reason.PIXELS_NEED_CLEANING if plain else Reason.PIXELS_NOT_READ, why)
