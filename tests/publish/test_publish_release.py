import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import layout
from pipeline.errors import LeaseHeld, PublishRefused
from pipeline.publish.release import publish
from pipeline.publish.verify import examine, verify
from pipeline.storage import open_store, tables

OUTSIDE = ("run.json", "/leases/")  # outside every digest


def go(made, release=None, **more):
    return publish(made.candidate, release or made.release, made.project, made.id, approval=made.approval(), **more)


def tree(store):
    return {e.key: store.read(e.key) for e in store.list() if not any(part in e.key for part in OUTSIDE)}


def current(made):
    return json.loads(made.release.read(layout.current(made.project)))


def test_the_release_is_what_was_approved(made):
    made.seal()
    done = go(made, run_id="a-run")
    assert (done.sequence, done.images, done.copied) == (1, 48, 48)
    assert done.release == layout.release_id(1, made.id)
    found = verify(f"{made.base}/release/{made.project}")
    assert (found.release, found.images, found.current, found.extra) == (done.release, 48, True, [])
    folder = layout.in_release(made.project, done.release, "")
    names = {e.key.removeprefix(folder) for e in made.release.list(folder)}
    assert {"README.md", "report.html", "dictionary.json", "run.json", "tables/episodes.parquet"} <= names
    assert not names & {"images.parquet", "withheld.parquet", "plan.json", "candidate.json"}
    run = json.loads(made.release.read(folder + "run.json"))
    assert (run["approver"], run["run_id"]) == ("An Officer", "a-run")


def test_images_come_first_and_current_json_after_the_manifest(small, failing):
    watched = failing(small.release)
    done = go(small, watched)
    folder = layout.in_release(small.project, done.release, "")
    written = watched.written
    images = [key for key in written if key.startswith(layout.image(small.project, ""))]
    assert set(written[: len(images)]) == set(images)
    rest = [key.removeprefix(folder) for key in written[len(images) :]]
    kinds = [name.split("/")[0].split(".")[0] for name in rest]
    assert list(dict.fromkeys(kinds[:-3])) == [
        "tables", "README", "dictionary", "report", "validation", "checks"
    ]
    assert rest[-3:] == ["manifest.json", layout.current(small.project), "run.json"]


def test_publishing_again_changes_nothing(small, failing):
    first = go(small)
    before, watched = tree(small.release), failing(small.release)
    again = go(small, watched)
    assert (again.release, again.copied, again.manifest_sha256) == (first.release, 0, first.manifest_sha256)
    assert watched.written == [layout.in_release(small.project, first.release, "run.json")]  # a create that is refused
    assert tree(small.release) == before


def test_a_kill_at_any_write_leaves_no_half_release_and_the_next_run_the_same_bytes(small, failing, tmp_path):
    expected_store = open_store((tmp_path / "undisturbed").as_uri(), "release")
    watched = failing(expected_store)
    go(small, watched)
    expected, writes = tree(expected_store), len(watched.written)
    assert writes > 15
    for n in range(1, writes + 1):
        release = open_store((tmp_path / f"killed{n}").as_uri(), "release")
        with pytest.raises(KeyboardInterrupt):
            go(small, failing(release, n))
        pointer = release.stat(layout.current(small.project))
        assert pointer is None or n == writes  # visible only when all but run.json is there
        go(small, release)
        assert tree(release) == expected, n


def test_kill_9_while_it_copies(small, tmp_path):
    small.candidate.write(layout.approval(small.project, small.id), json.dumps(small.approval()).encode())
    code = (
        "import os, signal, sys\n"
        "from pipeline.storage.local import LocalStore\n"
        "real, seen = LocalStore.put_file, []\n"
        "def put_file(self, key, path, sha256):\n"
        "    if key.startswith('breast-screening/'):\n"
        "        seen.append(key)\n"
        "    if len(seen) == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(self, key, path, sha256)\n"
        "LocalStore.put_file = put_file\n"
        "from pipeline.publisher import main\n"
        "sys.exit(main())\n"
    )
    zones = ["--candidate", small.candidate.url, "--release", small.release.url]
    ended = subprocess.run([sys.executable, "-c", code, small.project, small.id, *zones], cwd=Path.cwd(), check=False)
    assert ended.returncode == -signal.SIGKILL
    assert small.release.stat(layout.current(small.project)) is None
    assert any(small.release.list(layout.image(small.project, "")))
    go(small)  # at once: the lease of a dead process does not hold
    undisturbed = open_store((tmp_path / "undisturbed").as_uri(), "release")
    go(small, undisturbed)
    assert tree(small.release) == tree(undisturbed)


@pytest.mark.parametrize("name", ["candidate.json", "plan.json", "tables/patients.parquet", "withheld.parquet",
                                  "report.html", "validation/patients.json", "images.parquet"])  # fmt: skip
def test_a_file_that_was_changed_after_approval_is_refused(small, name):
    approval = small.approval()
    key = layout.in_candidate(small.project, small.id, name)
    small.candidate.write(key, small.candidate.read(key) + b" ")
    with pytest.raises(PublishRefused):
        publish(small.candidate, small.release, small.project, small.id, approval=approval)
    assert tree(small.release) == {}


def test_an_image_that_was_changed_after_approval_is_refused_and_never_stored(small):
    row = small.images.to_pylist()[0]
    data = bytearray(small.candidate.read(row["key"]))
    data[-1] ^= 1
    small.candidate.write(row["key"], bytes(data))
    with pytest.raises(PublishRefused, match="image"):
        go(small)
    assert small.release.stat(layout.current(small.project)) is None
    assert small.release.stat(layout.image(small.project, row["path"])) is None


def test_an_image_that_is_gone_is_refused(small):
    small.candidate.delete(small.images.to_pylist()[0]["key"])
    with pytest.raises(PublishRefused, match="not there"):
        go(small)


def test_an_image_that_rotted_in_the_release_zone_is_put_right(small):
    go(small)
    before = tree(small.release)
    key = layout.image(small.project, small.images.to_pylist()[0]["path"])
    small.release.write(key, b"x" * len(before[key]))
    assert go(small).copied == 1
    assert tree(small.release) == before


@pytest.mark.parametrize("change", [{"decision": "reject"}, {"candidate": "c-" + "f" * 24}, {"digest": "0" * 64}])
def test_only_an_approval_of_this_candidate_will_do(small, change):
    with pytest.raises(PublishRefused):
        publish(small.candidate, small.release, small.project, small.id, approval={**small.approval(), **change})
    assert tree(small.release) == {}


def test_a_second_release_follows_the_first_and_shares_its_images(make_candidate, tmp_path):
    first = make_candidate(tmp_path.as_uri(), people=2, images_of=2)
    first.seal()
    one = go(first)
    before = tree(first.release)
    second = make_candidate(tmp_path.as_uri(), people=2, images_of=2, candidate="c-" + "9" * 24)
    second.withheld = {"2.25.9991": "residual_identifier"}
    second.seal()
    two = go(second)
    assert (two.sequence, two.copied, two.release) == (2, 0, "0002-" + "9" * 12)
    assert current(second)["predecessor"] == {"release": one.release, "manifest_sha256": one.manifest_sha256}
    after = tree(first.release)
    assert {key: after[key] for key in before if key != layout.current(first.project)} == {
        key: data for key, data in before.items() if key != layout.current(first.project)}  # fmt: skip
    assert verify(f"{first.base}/release/{first.project}/releases/{one.release}").current is False
    assert verify(f"{first.base}/release/{first.project}").release == two.release


def test_a_publisher_whose_predecessor_has_moved_stops(small, failing):
    class Overtaken(failing):
        def write(self, key, data):
            super().write(key, data)
            if key.endswith("manifest.json"):
                self.store.write(layout.current(small.project), b'{"schema_version": 1, "release": "0001-other"}')

    with pytest.raises(PublishRefused, match="predecessor has moved"):
        go(small, Overtaken(small.release))
    assert current(small)["release"] == "0001-other"


def test_one_publisher_at_a_time(small):
    other = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, time\nfrom pipeline.storage import lease, open_store\n"
         "with lease.hold(open_store(sys.argv[1], 'release'), sys.argv[2]):\n"
         "    print('held', flush=True); time.sleep(60)",
         small.release.url, layout.lease(small.project, "publish")],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())})  # fmt: skip
    try:
        other.stdout.readline()
        with pytest.raises(LeaseHeld):
            go(small)
    finally:
        other.kill()
        other.wait()
    assert go(small).sequence == 1


def test_a_recalled_image_is_not_published_again(small):
    small.release.write(layout.tombstone(small.project, small.images.to_pylist()[0]["instance"]), b"{}")
    with pytest.raises(PublishRefused, match="1 images of this candidate were recalled"):
        go(small)


def test_rows_of_a_recalled_person_are_not_published_again(small):
    """A person may have no image here, and rows in a clinical table."""
    person = tables.read(small.candidate, layout.table(small.project, small.id, "patients"))["patient_id"][0].as_py()
    small.release.write(layout.tombstone(small.project, person), b"{}")
    with pytest.raises(PublishRefused, match="rows of people who were recalled"):
        go(small)


def test_a_dry_run_counts_and_writes_nothing(small):
    told = go(small, dry_run=True)
    assert (told.images, told.copied, told.dry_run) == (4, 4, True)
    assert list(small.release.list()) == []
    done = go(small)
    assert (done.release, done.manifest_sha256, done.bytes) == (told.release, told.manifest_sha256, told.bytes)
    assert go(small, dry_run=True).copied == 0


def test_nothing_of_the_candidate_zone_leaks_into_the_release(small):
    go(small)
    part = small.plan["parts"][0].encode()
    held = [b"2.25.9991", part, small.candidate.url.encode()]
    for key, data in tree(small.release).items():
        assert not [token for token in held if token in data], key


def test_examine_agrees_with_what_was_published(small):
    done = go(small)
    found = examine(f"{small.base}/release/{small.project}")
    assert found.manifest_sha256 == done.manifest_sha256
    assert found.bytes > done.bytes


def test_a_list_of_images_that_changes_after_it_was_compared_copies_nothing(small):
    """Whoever can write to the candidate zone swaps it between two reads: one more image would be copied, unlisted."""
    key = layout.images_table(small.project, small.id)
    other = tables.to_bytes(small.images.slice(0, small.images.num_rows - 1))

    class Swapping:
        def __getattr__(self, name):
            return getattr(small.candidate, name)

        def fetch(self, one):
            if one == key:
                small.candidate.write(key, other)
            return small.candidate.fetch(one)

    with pytest.raises(PublishRefused, match="changed while it was published"):
        publish(Swapping(), small.release, small.project, small.id, approval=small.approval())
    assert not [entry for entry in small.release.list() if entry.key.endswith(".dcm")]
