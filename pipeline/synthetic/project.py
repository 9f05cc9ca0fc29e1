"""The text of a project file for a synthetic population, as a hospital's engineer would write it."""

from __future__ import annotations

TEMPLATE = '''\
# A synthetic breast-screening project: nobody in it exists.
schema_version = 1

[project]
name = "{name}"
title = "Synthetic breast screening, four-view mammography and episodes"
data_steward = "steward@hosp-a.example"
demo = true
linked = true

[zones]
landing = "{landing}"
work = "{work}"
candidate = "{candidate}"
release = "{release}"

[stage]
quiet_seconds = 60
issuer = "HOSP-A"           # one old set does not say whose Patient IDs it writes

[eligibility]
sop_classes = [
  "Digital Mammography X-Ray Image Storage - For Presentation",
  "Digital Mammography X-Ray Image Storage - For Processing",
  "Breast Tomosynthesis Image Storage",
  "X-Ray Radiation Dose SR Storage",
  "Mammography CAD SR Storage",
  "CT Image Storage",
]
study_dates = {{ earliest = 2000-01-01, latest = 2024-12-31 }}
people = {{ list = "permitted.csv", max_age_days = 7 }}

[deidentify]
crosswalk = "crosswalk.csv"
date_shift_days = 365

[[deidentify.recipes]]
files = ["base.dicom", "mammography.dicom"]
sop_classes = [
  "Digital Mammography X-Ray Image Storage - For Presentation",
  "Digital Mammography X-Ray Image Storage - For Processing",
  "Breast Tomosynthesis Image Storage",
]

[[deidentify.recipes]]
files = ["base.dicom", "report.dicom", "dose_report.toml"]
sop_classes = ["X-Ray Radiation Dose SR Storage"]

[[deidentify.recipes]]
files = ["base.dicom", "report.dicom", "mammography_cad.toml"]
sop_classes = ["Mammography CAD SR Storage"]

[[deidentify.recipes]]
files = ["base.dicom", "ct.dicom"]
sop_classes = ["CT Image Storage"]

[[clinical]]
table = "episodes"
file = "episodes.csv"

[clinical.columns]
nhs_number = {{ role = "identity", required = true }}
episode_id = {{ role = "identifier", meaning = "Episode of the screening service, under a pseudonym." }}
episode_type = {{ role = "category", values = ["C", "R"], meaning = "Call or routine recall." }}
episode_date = {{ role = "event_date", meaning = "The invitation, moved by the person's own number of days." }}
appointment_made = {{ role = "category", values = ["True", "False"], meaning = "An appointment was made." }}
date_of_foa = {{ role = "event_date", meaning = "First offered appointment." }}
date_of_as = {{ role = "event_date", meaning = "Assessment, where there was one." }}
end_code = {{ role = "category", values = ["SC", "DNA"], meaning = "How it ended, in the service's own code." }}
bso_organisation_code = {{ role = "drop" }}
bso_batch_id = {{ role = "drop" }}
final_action_code = {{ role = "category", values = ["RR", "EC"], meaning = "What was decided, in that code." }}
change_db_date_time = {{ role = "drop" }}
'''

# What a population's other tables need: cancers, and the physicist's measurements.
MORE = '''\

[equipment]
output = "SYNTHETIC-output.csv"             # local output and half-value layer of each set, by date

[curate.glandular_dose]
factors = "SYNTHETIC-factors.csv"           # the physicist's own in a real project

[[clinical]]
table = "outcomes"
file = "outcomes.csv"

[clinical.columns]
nhs_number = { role = "identity", required = true }
episode_id = { role = "identifier", meaning = "The episode that found it or that it followed, as in episodes." }
outcome = { role = "category", values = ["screen_detected", "interval"], required = true, meaning = "When found." }
diagnosis_date = { role = "event_date", meaning = "Diagnosis, moved by the person's own number of days." }
laterality = { role = "category", values = ["L", "R"], meaning = "Side of the cancer." }
invasive = { role = "category", values = ["True", "False"], meaning = "Invasive, or in situ." }
size_mm = { role = "number", unit = "mm", meaning = "Greatest extent, as the pathologist measured it." }
grade = { role = "category", values = ["1", "2", "3"], meaning = "Histological grade, of invasive cancers." }
registry_ref = { role = "drop" }
'''


def project_text(landing: str, work: str, candidate: str, release: str, *, name: str = "demo-screening",
                 whole: bool = False) -> str:
    """Return a project file; `landing` and the rest are the zones' URLs. Its tables stand beside it: of people and
    episodes; `whole` adds cancers and dosimetry."""
    text = TEMPLATE.format(name=name, landing=landing, work=work, candidate=candidate, release=release)
    return text + MORE if whole else text
