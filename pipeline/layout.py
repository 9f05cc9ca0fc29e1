"""The only place that builds ids and zone paths.

Ids are digests over a canonical encoding (each field length-prefixed, so no two lists of fields encode alike). Ids that
leave the identifiable zone are keyed with the project's key. Keys below are relative to a zone's URL.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable
from itertools import chain

SCHEMA_VERSION = 1
CATALOGUE = "catalogue.parquet"     # of a candidate, and of the release that publishes it
NHS_ISSUER = "2.16.840.1.113883.2.1.4.1"     # the OID of the NHS number: the issuer of a linked person's id
ID = re.compile(r"[bpcqrstx]-[0-9a-f]{24}")


def encode(fields: Iterable[bytes | str | int]) -> bytes:
    """Return the fields as length-prefixed bytes; text as UTF-8, numbers in decimal."""
    out = bytearray()
    for field in fields:
        raw = field if isinstance(field, bytes) else str(field).encode()
        out += len(raw).to_bytes(8, "big") + raw
    return bytes(out)


def hashed(kind: str, fields: Iterable[bytes | str | int]) -> str:
    """Return `<kind>-<24 hex>`: SHA-256 over the canonical encoding. For ids that stay in the identifiable zone."""
    digest = hashlib.sha256(encode([kind]))
    for field in fields:        # one by one: a batch has a million objects
        digest.update(encode([field]))
    return f"{kind}-{digest.hexdigest()[:24]}"


def keyed(kind: str, key: bytes, fields: Iterable[bytes | str | int]) -> str:
    """Return `<kind>-<24 hex>`: HMAC-SHA-256 over the canonical encoding. For ids that leave the identifiable zone."""
    return f"{kind}-{hmac.digest(key, encode(['id', kind, *fields]), 'sha256').hex()[:24]}"


def normalise(text: str | None) -> str | None:
    """Return an issuer or local id as ids are made of it, or None: NFC, outer spaces and NULs off, inner spaces as one.

    Not NFKC, and no case-folding: two ids that a hospital tells apart must stay two people.
    """
    return " ".join(unicodedata.normalize("NFC", text.replace("\0", " ")).split()) or None if text else None


def person(issuer: str, local_id: str) -> str:
    """Return one text for the person behind an issuer's id (both normalised). It never leaves the identifiable zone."""
    return f"{issuer}\x1f{local_id}"


def uid_digest(uid: str) -> str:
    """Return by what an original UID is known in a recall order: SHA-256, hex."""
    return hashlib.sha256(uid.strip(" \0").encode()).hexdigest()


def batch_id(project: str, objects: Iterable[tuple[str, int, bytes]]) -> str:
    """Return H(project, (source_uri, bytes, source_sha256) …); the objects come in order of their source_uri."""
    return hashed("b", chain([project], chain.from_iterable(objects)))


# ---- identifiable zone: landing ----------------------------------------------------------------------------------
def received(sha256: str) -> str:
    """An object that we were sent, by the SHA-256 (hex) of the file's bytes."""
    return f"received/{sha256[:2]}/{sha256}.dcm"


# ---- identifiable zone: work -------------------------------------------------------------------------------------
def batches(project: str) -> str:
    return f"{project}/batches/"


def inventory(project: str, batch: str) -> str:
    """The batch's commit marker: a row per landed object."""
    return f"{project}/batches/{batch}/inventory.parquet"


def listing(project: str, batch: str) -> str:
    """What the store said of each object when it was listed (version, time): never part of an id."""
    return f"{project}/batches/{batch}/listing.parquet"


def shards(project: str, batch: str) -> str:
    return f"{project}/batches/{batch}/shards/"


def shard(project: str, batch: str, number: int) -> str:
    return f"{project}/batches/{batch}/shards/{number:05d}.parquet"


def all_seen(project: str) -> str:
    return f"{project}/seen/"


def seen(project: str, first_byte: int) -> str:
    """Digests of what has been admitted, by their first byte."""
    return f"{project}/seen/{first_byte:02x}.parquet"


def parts(project: str) -> str:
    return f"{project}/parts/"


def outcomes(project: str, part: str) -> str:
    """The part's commit marker: a row per instance of the shard."""
    return f"{project}/parts/{part}/outcomes.parquet"


def looks(project: str, part: str) -> str:
    """What came of looking for text in a part's pixels; absent where none were read."""
    return f"{project}/parts/{part}/looks.parquet"


def known_people(project: str) -> str:
    """Digest of each (issuer, local id) → person that a build has used: a crosswalk may not change them unasked."""
    return f"{project}/people/known.parquet"


def clinical_outcomes(project: str, clinical: str) -> str:
    return f"{project}/clinical/{clinical}/outcomes.parquet"


def candidate_inputs(project: str, candidate: str) -> str:
    """Identifiable side of a candidate: its parts, and why any instance of them is held back."""
    return f"{project}/candidates/{candidate}/inputs.json"


def recalls(project: str) -> str:
    return f"{project}/recalls/"


def recall(project: str, recall: str) -> str:
    """A recall order: what may never pass again. From its first byte on, no build lets it."""
    return f"{project}/recalls/{recall}.json"


def recall_found(project: str, recall: str) -> str:
    """What a recall found to remove, written before it is removed, so that a killed run's certificate is whole."""
    return f"{project}/recalls-found/{recall}.json"


def retrievals(project: str) -> str:
    return f"{project}/retrievals/"


def retrieval_rows(project: str, retrieval: str) -> str:
    """A row per line of the cohort: what PACS answered."""
    return f"{project}/retrievals/{retrieval}/rows.parquet"


def retrieval_expected(project: str, retrieval: str) -> str:
    """The instances that PACS owes: written before the first is asked for."""
    return f"{project}/retrievals/{retrieval}/expected.parquet"


def retrieval_study(project: str, retrieval: str, study: str) -> str:
    """How a study ended, in counts and the PACS's own status."""
    return f"{project}/retrievals/{retrieval}/studies/{study}.json"


def retrieval_missing(project: str, retrieval: str, study: str = "") -> str:
    """The instances of a study that were asked for and did not come; without a study, where those of all stand."""
    return f"{project}/retrievals/{retrieval}/missing/" + (f"{study}.parquet" if study else "")


def retrieval_again(project: str, retrieval: str) -> str:
    """What did not come whole, as a cohort file for another run."""
    return f"{project}/retrievals/{retrieval}/again.csv"


def retrieval_result(project: str, retrieval: str) -> str:
    return f"{project}/retrievals/{retrieval}/result.json"


def pacs_state(project: str) -> str:
    """How many studies may be asked for now, and how long the PACS is left in peace."""
    return f"{project}/pacs.json"


def study_digest(project: str, study_uid: str) -> str:
    """By what a study is known in logs and tasks: s-<24 hex>."""
    return hashed("s", [project, study_uid])


def retrieved(retrieval: str, study: str, sha256: str = "") -> str:
    """Where an instance that was asked for stands in landing; without its digest, where those of the study do."""
    return f"retrieved/{retrieval}/{study}/" + (f"{sha256}.dcm" if sha256 else "")


def lease(project: str, step: str) -> str:
    return f"{project}/leases/{step}.json"


def all_quarantine_closed(project: str) -> str:
    return f"{project}/quarantine/closed/"


def all_retries(project: str) -> str:
    return f"{project}/quarantine/retries/"


def retries(project: str, source_sha256: str) -> str:
    """How often an object is to be tried again under the same plan: part of its part's id."""
    return f"{project}/quarantine/retries/{source_sha256}.json"


def quarantine_closed(project: str, source_sha256: str) -> str:
    return f"{project}/quarantine/closed/{source_sha256}.json"


def assurance(project: str, release: str, verdicts_sha256: str) -> str:
    """Where a review of a release is recorded: what reviewers saw is told nobody who reads the release."""
    return f"{project}/assurances/{release}/{verdicts_sha256[:24]}"


def audit_log(project: str) -> str:
    return f"{project}/audit/"


def audit_entry(project: str, number: int) -> str:
    """One entry of the audit log, from 1; it names the digest of the one before."""
    return f"{project}/audit/{number:08d}.json"


# ---- work and release zone ---------------------------------------------------------------------------------------
def certificate(project: str, recall: str, form: str) -> str:
    """What a recall removed and what remains; `form`: json or txt. In the release zone without who ordered it."""
    return f"{project}/certificates/{recall}.{form}"


# ---- candidate zone ----------------------------------------------------------------------------------------------
def dicom(project: str, part: str, path: str) -> str:
    """`path` is `image_path(...)`."""
    return f"{project}/parts/{part}/dicom/{path}"


def candidate_parts(project: str) -> str:
    return f"{project}/parts/"


def candidate_part(project: str, part: str) -> str:
    """All that the candidate zone holds of a part."""
    return f"{project}/parts/{part}/"


def facts(project: str, part: str) -> str:
    return f"{project}/parts/{part}/facts.parquet"


def content(project: str, part: str) -> str:
    """The content items of a part's structured reports; absent where it has none."""
    return f"{project}/parts/{part}/content.parquet"


def clinical(project: str, clinical: str, table: str) -> str:
    return f"{project}/clinical/{clinical}/{table}.parquet"


def clinical_snapshots(project: str) -> str:
    return f"{project}/clinical/"


def candidates(project: str) -> str:
    return f"{project}/candidates/"


def plan(project: str, candidate: str) -> str:
    """What curate starts from: part ids, the clinical snapshot, instances held back. No identity in it."""
    return f"{project}/candidates/{candidate}/plan.json"


def curated(project: str, candidate: str, table: str) -> str:
    """A table before validation has withheld anything."""
    return f"{project}/candidates/{candidate}/curated/{table}.parquet"


def table(project: str, candidate: str, table: str) -> str:
    return f"{project}/candidates/{candidate}/tables/{table}.parquet"


def validation(project: str, candidate: str, name: str) -> str:
    return f"{project}/candidates/{candidate}/validation/{name}.json"


def images_table(project: str, candidate: str) -> str:
    """A row per image that would be released: instance, key in this zone, path in the release, sha256, bytes."""
    return f"{project}/candidates/{candidate}/images.parquet"


def catalogue(project: str, candidate: str) -> str:
    """A row per image that would be released, with every element that is kept."""
    return f"{project}/candidates/{candidate}/{CATALOGUE}"


def withheld(project: str, candidate: str) -> str:
    return f"{project}/candidates/{candidate}/withheld.parquet"


def equipment(project: str, candidate: str, table: str) -> str:
    """What is known of the candidate's x-ray sets before it is curated; plan.json names each with its digest."""
    return f"{project}/candidates/{candidate}/equipment/{table}.parquet"


def candidate_rows(project: str, candidate: str) -> list[str]:
    """Where a candidate holds rows of people and keys of images: what goes when a published one is recalled from."""
    base = f"{project}/candidates/{candidate}"
    return [f"{base}/curated/", f"{base}/tables/", f"{base}/images.parquet", f"{base}/{CATALOGUE}",
            f"{base}/equipment/"]


def in_candidate(project: str, candidate: str, name: str) -> str:
    return f"{project}/candidates/{candidate}/{name}"


def candidate_manifest(project: str, candidate: str) -> str:
    """The candidate's commit marker: every object of it with size and SHA-256. Its own digest is what is approved."""
    return f"{project}/candidates/{candidate}/candidate.json"


def candidate_page(project: str, candidate: str) -> str:
    """The officer's page: outside every digest."""
    return f"{project}/candidates/{candidate}/candidate.html"


def candidate_run(project: str, candidate: str) -> str:
    """Times, hosts and run ids: outside every digest."""
    return f"{project}/candidates/{candidate}/run.json"


def latest_candidate(project: str) -> str:
    return f"{project}/latest.json"


def approval(project: str, candidate: str) -> str:
    return f"{project}/approvals/{candidate}.json"


# ---- release zone ------------------------------------------------------------------------------------------------
def release_id(sequence: int, candidate: str) -> str:
    return f"{sequence:04d}-{candidate[2:14]}"


def releases(project: str) -> str:
    return f"{project}/releases/"


def image_path(patient: str, study: str, series: str, instance: str, sha256: str) -> str:
    """Where an image stands below the project's `images/`: the `path` of the instances table."""
    return f"{patient}/{study}/{series}/{instance}.{sha256[:12]}.dcm"


def image(project: str, path: str) -> str:
    """An image, shared by releases and never overwritten."""
    return f"{project}/images/{path}"


def in_release(project: str, release: str, name: str) -> str:
    return f"{project}/releases/{release}/{name}"


def release_manifest(project: str, release: str) -> str:
    """The release's commit marker, written after everything it lists."""
    return f"{project}/releases/{release}/manifest.json"


def current(project: str) -> str:
    return f"{project}/current.json"


def tombstones(project: str) -> str:
    return f"{project}/tombstones/"


def tombstone(project: str, instance: str) -> str:
    return f"{project}/tombstones/{instance}.json"
