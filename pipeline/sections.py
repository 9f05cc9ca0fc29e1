"""The sections of a project file: what each key means, and what may stand there. Pure."""

from __future__ import annotations

import itertools
import posixpath
import re
from datetime import date
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, field_validator, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Project(Section):
    """Who asks, and under which rules."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{2,39}$")
    title: str                                              # as people read it: in Airflow, on pages, in a release
    data_steward: str                                       # whom researchers turn to
    demo: bool = False      # a demo project may be approved by its own officer, and never holds real data
    linked: bool = True     # people are NHS numbers, through the crosswalk; else (issuer, local id)


class Zones(Section):
    """A URL each, `file:///…` or `s3://bucket/prefix`."""

    landing: str                                            # what arrives; never written to, but by retrieve and listen
    work: str                                               # inventories, the map from source to output: identifiable
    candidate: str                                          # de-identified, not yet approved
    release: str                                            # what researchers see

    @field_validator("*")
    @classmethod
    def _url(cls, value: str) -> str:
        if not re.match(r"^(file:///|s3://[a-z0-9])", value):
            raise ValueError("a zone's URL is file:///absolute/path or s3://bucket/prefix")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _apart(self) -> Zones:
        """Work inside landing would be staged; work inside release would show researchers whose images they are."""
        roots = {name: posixpath.normpath(url) + "/" for name, url in self}
        for one, other in itertools.permutations(roots, 2):
            if roots[one].startswith(roots[other]):
                raise ValueError(f"{one} is the same as {other}, or inside it: each zone has a place of its own")
        return self


class Stage(Section):
    schedule: str = ""                                      # cron of the stage DAG; empty: started by hand
    quiet_seconds: int = Field(default=120, ge=0)           # a study that changed more recently is still arriving
    issuer: str | None = None                               # issuer of Patient IDs where the header names none
    max_object_bytes: int = Field(default=16_000_000_000, gt=0)  # larger objects are rejected
    shard_bytes: int = Field(default=8_000_000_000, gt=0)   # one task de-identifies so much, and
    shard_instances: int = Field(default=20_000, gt=0)      # so many; a study is never divided


class StudyDates(Section):
    earliest: date
    latest: date

    @model_validator(mode="after")
    def _in_order(self) -> StudyDates:
        if self.earliest > self.latest:
            raise ValueError("earliest is after latest: no study would be eligible")
        return self


class People(Section):
    """The permitted people: a CSV with the header `person` (NHS numbers, or `issuer,person` where not linked), a first
    comment line `# as-of: YYYY-MM-DD` and a last one `# end: <count>` so that a truncated file shows."""

    list: Path | None = None                                # the CSV; or give not_required
    max_age_days: int = Field(default=7, ge=0)              # an older list stops a build
    not_required: str | None = Field(default=None, min_length=20)   # the written legal basis

    @model_validator(mode="after")
    def _one(self) -> People:
        if (self.list is None) == (self.not_required is None):
            raise ValueError("give either a list of permitted people or the legal basis in not_required, not both")
        return self


class Eligibility(Section):
    sop_classes: tuple[str, ...] = Field(min_length=1)      # UIDs or PS3.6 names
    study_dates: StudyDates
    people: People


class RecipeUse(Section):
    files: tuple[str, ...] = Field(min_length=1)            # names in deid_recipes/, or paths relative to this file
    sop_classes: tuple[str, ...] = ()                       # left out: those that the files say they are for


class Pixels(Section):
    """How text in pixels is looked for. BurnedInAnnotation NO is never taken for a proof."""

    ocr: bool = False                   # images that need it are read for text (extra `ocr`), else they are quarantined
    devices: Path | None = None         # the approved list: devices whose images pass unread (docs/pixels.md)
    sample: int = Field(default=0, ge=0, le=1_000_000)      # one image in so many of listed devices is read too
    words: tuple[str, ...] = ()         # approved texts that may stand in pixels, such as "L MLO"


class Deidentify(Section):
    recipes: tuple[RecipeUse, ...] = Field(min_length=1)
    crosswalk: Path | None = None                           # a linked project: a CSV of issuer, local id, NHS number
    date_shift_days: int = Field(default=365, ge=30, le=3650)   # N of −(1 + HMAC mod N)
    keep_times: bool = False                                # times stay, moved by a secret number of seconds; else not
    age_band_years: Literal[5, 10, 15, 30] = 5                  # in which an age leaves; 90 and over is one band
    terms: Path | None = None                               # approved terms of free text that is kept: a CSV
    terms_people: int = Field(default=10, ge=5)             # seen with a term before it may be approved
    accept_crosswalk_changes: bool = False                  # for one build: a known local id may become another person
    residual_exceptions: tuple[str, ...] = ()               # approved words that the residual search passes over
    pixels: Pixels = Pixels()
    limit_seconds: float = Field(default=30, ge=1, le=86_400)   # of one object: to stage it, to de-identify it
    limit_bytes: int = Field(default=1 << 30, ge=1 << 26)   # of memory likewise; what goes over either is left out


class Column(Section):
    """How one column of a clinical table is treated."""

    role: Literal["identity", "event_date", "category", "number", "identifier", "drop"]
    values: tuple[str, ...] = ()        # category: all that may appear
    unit: str = ""                                          # of a number
    meaning: str = ""                                       # in the data dictionary
    required: bool = False                                  # a row without it is held back

    @model_validator(mode="after")
    def _values(self) -> Column:
        if (self.role == "category") != bool(self.values):
            raise ValueError("a category, and only a category, lists its values")
        return self


class Clinical(Section):
    table: str = Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")
    file: Path
    columns: dict[str, Column]
    order: tuple[str, ...] = ()         # columns of event dates, as they should follow each other: drafted as a check

    @model_validator(mode="after")
    def _order_of_events(self) -> Clinical:
        if any(name not in self.columns or self.columns[name].role != "event_date" for name in self.order):
            raise ValueError("order lists columns of this table whose role is event_date")
        return self

    @model_validator(mode="after")
    def _one_identity(self) -> Clinical:
        if sum(c.role == "identity" for c in self.columns.values()) != 1:
            raise ValueError("exactly one column has the role identity")
        return self


class Equipment(Section):
    """Local output and half-value layer of the x-ray sets, as the physicist measured them: a CSV."""

    output: Path | None = None                              # the CSV (docs/glandular-dose.md)


class GlandularDose(Section):
    """The physicist's conversion factors, each with its source: a CSV. A name with SYNTHETIC in it marks every dose."""

    factors: Path                                           # the CSV (docs/glandular-dose.md)


class Curate(Section):
    glandular_dose: GlandularDose | None = None


class SmallGroups(Section):
    """People who share what others may know of them with fewer than k persons are withheld. Without this section groups
    are not judged. A band says how finely others may know a date, moved as it is by days that nobody is told; any other
    value counts as it is released (ages: [deidentify] age_band_years)."""

    k: int = Field(ge=2)                                    # the least number of people in a group
    columns: tuple[str, ...] = Field(min_length=1)      # table.column of patients, studies or a clinical table
    bands: dict[str, Literal["year", "quarter", "month"]] = {}  # of a date that is one of columns

    @model_validator(mode="after")
    def _known(self) -> SmallGroups:
        if len(set(self.columns)) != len(self.columns) or any(c.count(".") != 1 for c in self.columns):
            raise ValueError("each column is named once, as table.column")
        if unknown := sorted(set(self.bands) - set(self.columns)):
            raise ValueError(f"a band for a column that is not named: {', '.join(unknown)}")
        return self


class Validate(Section):
    suites: Path | None = None          # a directory of suites: each stands for the product's own of its name
    small_groups: SmallGroups | None = None


class Outcome(Section):
    """Where a clinical table says how an episode ended: a study has the outcome of the person's row nearest in time."""

    table: str = Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")
    date: str
    column: str
    days: int = Field(ge=0)             # at most this far from the study
    after: bool = False                 # on or after the study alone, such as a diagnosis
    absent: str = ""                    # outcome of a study without such a row; empty: it is left out
    labels: dict[str, str] = {}         # words for codes


class Audit(Section):
    publish: tuple[str, ...] = ()       # audits (`tre audit list`) computed with a candidate: part of its release
    minimum: int = Field(default=10, ge=2)      # people: audits of this release do not tell smaller groups apart
    outcome: Outcome | None = None


class Approve(Section):
    officers: tuple[str, ...] = ()      # who of them may answer for a candidate; empty: all. Demo: Airflow users
    timeout_hours: int = Field(default=72, gt=0)    # no answer by then is no
    approvers: int = Field(default=1, ge=1)         # officers to sign each recipe, suite, candidate and this file
    approvals: Path | None = None                   # a directory of such approvals, beside infra/approvals


class RetrieveOnly(Section):
    """What is asked for of the studies found. What PACS does not tell cannot keep anything back before it is retrieved.
    SOP classes and study dates are those of [eligibility] besides."""

    modalities: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()           # UIDs or PS3.6 names
    series_descriptions: tuple[str, ...] = ()   # with * and ?, case ignored
    not_series_descriptions: tuple[str, ...] = ()
    manufacturers: tuple[str, ...] = ()         # likewise
    study_dates: StudyDates | None = None
    held: bool = False                          # ask again for what has been staged before


class Retrieve(Section):
    """The PACS that is asked, how, how much, and when it is left in peace."""

    service: Literal["c-get", "c-move", "dicomweb"] = "c-get"
    host: str = ""
    port: int = Field(default=104, ge=1, le=65535)
    called_ae: str = Field(default="", max_length=16)       # of the PACS
    calling_ae: str = Field(default="TRE_INGEST", min_length=1, max_length=16)     # ours
    receive_address: str = "127.0.0.1"                      # c-move: where this machine listens for what it asked
    receive_port: int = Field(default=11112, ge=1, le=65535)
    senders: tuple[str, ...] = ()                           # c-move: AE titles that may send; empty: called_ae
    url: str = Field(default="", pattern=r"^(https?://\S+)?$")     # dicomweb: its base
    ca: Path | None = None                                  # TLS: who signs the certificate of the PACS
    certificate: Path | None = None                         # TLS: our own, in PEM, and its key
    key: Path | None = None
    timeout_seconds: float = Field(default=60, gt=0, le=3600)
    late_seconds: float = Field(default=5, ge=0, le=600)    # c-move: how long to wait for what is sent late
    issuer: str | None = None                               # of Patient IDs for which PACS names none
    nhs_numbers: Literal["patient_id", "crosswalk"] = "patient_id"      # how PACS knows an NHS number
    nhs_issuers: tuple[str, ...] = ("NHS", "2.16.840.1.113883.2.1.4.1")
    cohort_rows: int = Field(default=10_000, gt=0)
    cohort_studies: int = Field(default=5_000, gt=0)
    cohort_instances: int = Field(default=500_000, gt=0)    # about 1 GB of memory
    row_studies: int = Field(default=100, gt=0)
    range_days: int = Field(default=31, gt=0)               # of a row without another key
    seconds_between_queries: float = Field(default=0.05, ge=0)
    associations: int = Field(default=1, ge=1, le=8)        # tasks at a time; the pool tre_pacs bounds all projects
    studies_an_hour: int = Field(default=240, ge=0)         # 0: as fast as PACS gives them
    quiet_hours: tuple[str, ...] = ()                       # "mon-fri 07:30-19:00": nothing is asked then
    timezone: str = "Europe/London"
    failures_before_pause: int = Field(default=5, ge=1)
    pause_minutes: float = Field(default=15, gt=0)          # doubled each time, six hours at most
    schedule: str = ""                                      # cron of the retrieve DAG; empty: started by hand
    scheduled_modality: str = ""                            # what a scheduled run asks for, of one study date
    lag_days: int = Field(default=1, ge=0)                  # the study date is so many days before the run's
    cohorts: Path = Path("cohorts")                         # folder of the cohort files that the DAG may be given
    only: RetrieveOnly = RetrieveOnly()

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        day = "(mon|tue|wed|thu|fri|sat|sun)"
        hour = "([01][0-9]|2[0-3]):[0-5][0-9]"
        for one in value:
            if not re.fullmatch(rf"{day}(-{day})? {hour}-({hour}|24:00)", one):
                raise ValueError('quiet hours are written "mon-fri 07:30-19:00"')
        return value

    @model_validator(mode="after")
    def _reachable(self) -> Retrieve:
        if self.service == "dicomweb" and not self.url:
            raise ValueError("dicomweb needs the url of the service")
        if self.service == "dicomweb" and self.ca and not self.url.startswith("https://"):
            raise ValueError("with ca the url of the service is https")
        if self.service != "dicomweb" and not (self.host and self.called_ae):
            raise ValueError("give host and called_ae of the PACS")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if self.service == "c-move" and self.ca and not self.certificate:
            raise ValueError("c-move over TLS needs certificate and key: the PACS sends to us")
        if self.schedule and not self.scheduled_modality:
            raise ValueError("a schedule needs scheduled_modality: what is asked for each day")
        return self


class Listen(Section):
    """Being sent images: who may send, over what, how much. Who is not listed is refused; addresses are networks, as
    `10.1.2.0/24` is. TLS needs all three files, and then every sender a certificate."""

    ae_titles: tuple[str, ...] = Field(min_length=1)        # by which we may be called
    callers: tuple[str, ...] = Field(min_length=1)
    addresses: tuple[IPvAnyNetwork, ...] = Field(min_length=1)
    bind: str = "127.0.0.1"
    port: int = Field(default=11112, ge=0, le=65535)
    certificate: Path | None = None     # PEM: ours,
    key: Path | None = None             # its key,
    client_authority: Path | None = None    # and who signs the senders'
    associations: int = Field(default=25, ge=1, le=200)     # at once
    free_bytes: int = Field(default=10_000_000_000, ge=0)   # below this on landing's disk, answer 0xA700
    max_object_bytes: int = Field(default=16_000_000_000, gt=0)
    max_pdu_bytes: int = Field(default=131_072, ge=4_096, le=1 << 20)
    silent_seconds: float = Field(default=30, gt=0)         # without a byte, where one is due
    idle_seconds: float = Field(default=300, gt=0)          # between two images
    object_seconds: float = Field(default=3600, gt=0)       # for the whole of one
    stop_seconds: float = Field(default=30, ge=0)           # to finish in, once told to stop
    health: str = Field(default="127.0.0.1:11113", pattern=r"^([0-9.]+:[0-9]+)?$")      # empty: none

    @field_validator("health")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and int(port) > 65535:
            raise ValueError("a port is 65535 at most")
        if value:
            IPv4Address(host)       # raises ValueError where it is none
        return value

    @field_validator("ae_titles", "callers")
    @classmethod
    def _title(cls, titles: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch(r"(?=.*\S)[ -\[\]-~]{1,16}", title) or title != title.strip() for title in titles):
            raise ValueError("an AE title is 1 to 16 characters of ASCII, no backslash, no space around it")
        return titles

    @model_validator(mode="after")
    def _whole(self) -> Listen:
        if len({self.certificate is None, self.key is None, self.client_authority is None}) != 1:
            raise ValueError("TLS needs certificate, key and client_authority: all of them, or none")
        return self
