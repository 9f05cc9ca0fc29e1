"""Landing on S3: the same rows, read by processes that open the store from the environment."""

from __future__ import annotations

from stage_kit import config_of, image, inventories

from pipeline.stage.run import stage
from pipeline.storage import open_store
from tests.helpers.s3 import bucket, client, moto, point_zones


def test_landing_on_s3(tmp_path, monkeypatch):
    with moto() as server:
        point_zones(monkeypatch, server, "landing")
        name = bucket(server)
        objects = {"a b/ü.dcm": image(1), "a b/twin.dcm": image(1), "bad.dcm": b"not DICOM", "c.dcm": image(2)}
        for key, data in objects.items():
            client(server).put_object(Bucket=name, Key=f"in/{key}", Body=data)
        landing = open_store(f"s3://{name}/in", "landing")
        work = open_store((tmp_path / "work").as_uri(), "work")

        def run(**options):
            return stage(config_of(**options), landing, work, eligible=lambda row: None, workers=2)

        held = run(quiet_seconds=3600)
        assert (held.batch, held.arriving) == (None, 4)
        assert run().counts == {"duplicate/same_bytes": 1, "pending": 2, "rejected/not_dicom": 1}
        assert {r["source_uri"] for r in inventories(work)} == {f"s3://{name}/in/{key}" for key in objects}
        assert run().batch is None
