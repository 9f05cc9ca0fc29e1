"""The catalogue: its fixed columns. The others are the element paths that the facts have."""

from __future__ import annotations

from pipeline.schemas.base import Table
from pipeline.schemas.base import column as _c

# A column per kept element path follows those below, of type `strings`, as in the facts (zones.py). It is no table of
# the suites: a release carries it as a file of its own, catalogue.parquet.
CATALOGUE = Table("catalogue", "A row per image with every element its file keeps, a column each: values as text, in "
                  "the order they stand, as the de-identified file has them, pseudonyms and moved dates with the rest.",
                  ("sop_instance_uid",), (
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("study_uid", "string", "", null=False),
    _c("series_uid", "string", "", null=False),
    _c("sop_instance_uid", "string", "The image.", null=False),
), (("sop_instance_uid", "instances"), ("series_uid", "series"), ("study_uid", "studies"), ("patient_id", "patients")))
