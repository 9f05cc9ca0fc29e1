"""The main way against an S3 server: seal, publish, publish again, verify, open."""

import pytest

from pipeline import layout
from pipeline.errors import PublishRefused, VerifyFailed
from pipeline.publish import open as opening
from pipeline.publish.release import publish
from pipeline.publish.verify import verify
from tests.helpers.s3 import bucket, moto, point_zones


@pytest.fixture
def on_s3(monkeypatch, make_candidate):
    with moto() as server:
        point_zones(monkeypatch, server)
        made = make_candidate(f"s3://{bucket(server)}/zones", people=2, images_of=2)
        made.seal()
        yield made


def test_the_main_way_on_s3(on_s3):
    made, url = on_s3, f"{on_s3.base}/release/{on_s3.project}"
    first = publish(made.candidate, made.release, made.project, made.id, approval=made.approval())
    again = publish(made.candidate, made.release, made.project, made.id, approval=made.approval())
    assert (first.copied, again.copied, again.manifest_sha256) == (4, 0, first.manifest_sha256)
    assert verify(url).images == 4
    space = {}
    exec(compile(opening.lines(url), "lines", "exec"), space)
    assert len(space["df"]) == 4
    assert len(space["image"]) == space["df_instances"]["bytes"][0]

    key = layout.image(made.project, made.images.to_pylist()[0]["path"])
    made.release.write(key, b"other bytes")
    with pytest.raises(VerifyFailed, match="changed"):
        verify(url)


def test_an_image_that_was_changed_is_refused_on_s3(on_s3):
    made = on_s3
    row = made.images.to_pylist()[0]
    made.candidate.write(row["key"], b"x" * row["bytes"])
    with pytest.raises(PublishRefused, match="image"):
        publish(made.candidate, made.release, made.project, made.id, approval=made.approval())
    assert made.release.stat(layout.current(made.project)) is None
