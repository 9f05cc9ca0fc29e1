"""The screening unit: its x-ray sets with their habits and their software over the years, and who works them.

Figures are made up to look right, each set a little different from the next. They are no measurements of any product.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.synthetic.headers import Vendor, vendor_of


@dataclass(frozen=True)
class XRaySet:
    """One mammography set: where it stands, what it is, and how it writes its files."""

    issuer: str
    manufacturer: str
    model: str
    serial: str
    station: str
    institution: str
    syntaxes: tuple[str, ...]
    versions: tuple[tuple[int, str | tuple[str, ...]], ...]    # first year, SoftwareVersions; in order
    output: float = 1.0             # against an ordinary set's
    exposes: float = 1.0            # how far its automatic exposure goes, against an ordinary set's
    reports_dose: bool = False
    reports_cad: bool = False
    sends_raw: bool = False         # unprocessed images beside the processed ones, at a second visit
    sends_slabs: bool = False       # tomosynthesis, at a second visit

    @property
    def vendor(self) -> Vendor:
        return vendor_of(self.manufacturer, self.model)

    def software(self, year: int) -> str | list[str]:
        """Return SoftwareVersions of that year; before the first, the first."""
        found = next((v for first, v in reversed(self.versions) if first <= year), self.versions[0][1])
        return found if isinstance(found, str) else list(found)


@dataclass(frozen=True)
class Operator:
    issuer: str
    names: tuple[str, ...]          # as they are written, not always the same
    force_n: float                  # the compression that is usual with them
    repeats: float                  # of their examinations, how many have a repeat


HOLOGIC = ((2015, ("AWS:1.8.3.63", "PXCM:1.4.0.7", "ARR:1.7.3.10")), (2018, ("AWS:1.9.0.712", "PXCM:1.4.0.7",
           "ARR:1.7.3.12")), (2022, ("AWS:1.11.1.4", "PXCM:1.5.0.2", "ARR:1.8.0.4")))
SETS = (
    XRaySet("HOSP-A", "GE MEDICAL SYSTEMS", "Senographe DS ADS_43.10.1", "SN-660417", "TEASELROOM1",
            "Thistledown Infirmary", ("implicit", "explicit"),
            ((2015, "Ads Application Package VERSION ADS_43.10.1"),
             (2019, "Ads Application Package VERSION ADS_43.20.2")), output=1.02, exposes=1.12),
    XRaySet("HOSP-A", "HOLOGIC, Inc.", "Selenia Dimensions", "SN-81004520719", "TEASELROOM2", "Thistledown Infirmary",
            ("explicit", "jpeg2000"), HOLOGIC, reports_dose=True, reports_cad=True, sends_slabs=True),
    XRaySet("HOSP-A", "HOLOGIC, Inc.", "Selenia Dimensions", "SN-81004520733", "TEASELVAN", "Thistledown Infirmary",
            ("explicit",), HOLOGIC[1:], output=0.93, exposes=1.21, reports_dose=True, reports_cad=True),
    XRaySet("HOSP-B", "SIEMENS", "MAMMOMAT Inspiration", "SN-21557", "BURDOCKVAN", "Burdock Cross Hospital",
            ("explicit", "rle"), ((2015, "VB30P VX11A SL38P15"), (2020, "VB60L VX15B SL53P08")), output=1.06,
            exposes=0.94, reports_dose=True),
    XRaySet("HOSP-B", "GE MEDICAL SYSTEMS", "Senographe Essential", "SN-770233", "BURDOCKROOM",
            "Burdock Cross Hospital", ("explicit", "jpeg"),
            ((2015, "Ads Application Package VERSION ADS_54.11"), (2021, "Ads Application Package VERSION ADS_56.21")),
            exposes=1.04, sends_raw=True),
    XRaySet("HOSP-B", "SIEMENS", "MAMMOMAT Inspiration", "SN-21561", "BURDOCKROOM2", "Burdock Cross Hospital",
            ("explicit",), ((2018, "VB30P VX11A SL38P15"), (2022, "VB60L VX15B SL53P08")), output=0.97, exposes=1.08,
            reports_dose=True),
)
OPERATORS = (
    Operator("HOSP-A", ("WINTERBOTTOM^HESTER", "Winterbottom^Hester "), 96, 0.05),
    Operator("HOSP-A", ("CLUTTERBUCK^ROWENA",), 118, 0.02),
    Operator("HOSP-A", ("PUDDLEFOOT^SIBYL",), 84, 0.14),
    Operator("HOSP-A", ("GOOSEBERRY^TABITHA",), 104, 0.04),
    Operator("HOSP-B", ("WHISTLECRAFT^EDNA",), 109, 0.03),
    Operator("HOSP-B", ("THIMBLEBY^MURIEL",), 91, 0.06),
    Operator("HOSP-B", ("RAINSFORTH^CLARA",), 127, 0.09),
)
