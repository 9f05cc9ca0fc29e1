import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import layout
from pipeline.errors import NotFound, SchemaTooNew, UsageError, VerifyFailed
from pipeline.publish.files import canonical
from pipeline.publish.release import publish
from pipeline.publish.verify import examine, verify


@pytest.fixture
def published(small):
    made = small
    made.done = publish(made.candidate, made.release, made.project, made.id, approval=made.approval())
    made.url = f"{made.base}/release/{made.project}"
    made.rows = made.images.to_pylist()
    made.keys = [layout.image(made.project, row["path"]) for row in made.rows]
    return made


def flip(store, key):
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.write(key, bytes(data))


def test_a_whole_release_verifies_by_either_url(published):
    by_project, by_folder = verify(published.url), verify(f"{published.url}/releases/{published.done.release}/")
    assert by_project == by_folder
    assert (by_project.images, by_project.recalled) == (4, 0)


def test_the_release_says_how_to_verify_it_without_the_product(published):
    """The lines in its README, run as they stand, in an interpreter that cannot import the product."""
    folder = Path(published.url.removeprefix("file://"), "releases", published.done.release)
    code = (folder / "README.md").read_text().split("```python\n")[2].split("```")[0]

    def said():
        words = [sys.executable, "-c", "import sys; sys.modules['pipeline'] = None\n" + code]
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    manifest = json.loads((folder / "manifest.json").read_text())
    whole = f"manifest {published.done.manifest_sha256} checked {len(manifest['files']) + 4} wrong "
    assert said() == whole + "[]"
    flip(published.release, published.keys[2])
    published.release.delete(layout.in_release(published.project, published.done.release, "dictionary.html"))
    assert said() == whole + str(["dictionary.html", "../../images/" + published.rows[2]["path"]])


@pytest.mark.parametrize("name", ["README.md", "report.html", "tables/patients.parquet", "dictionary.json"])
def test_a_flipped_bit_in_a_file_is_named(published, name):
    key = layout.in_release(published.project, published.done.release, name)
    flip(published.release, key)
    with pytest.raises(VerifyFailed, match="changed: .*" + name):
        verify(published.url)
    assert examine(published.url).changed == [key]


def test_a_flipped_bit_in_an_image_is_named(published):
    flip(published.release, published.keys[2])
    with pytest.raises(VerifyFailed, match="changed"):
        verify(published.url)
    found = examine(published.url)
    assert (found.changed, found.images) == ([published.keys[2]], 3)


def test_a_table_of_images_that_changed_is_not_trusted(published):
    key = layout.in_release(published.project, published.done.release, "tables/instances.parquet")
    published.release.write(key, b"PAR1")
    found = examine(published.url)
    assert (found.changed, found.images) == ([key], 0)


def test_a_recalled_image_is_told_from_a_missing_one(published):
    published.release.write(layout.tombstone(published.project, published.rows[0]["instance"]), b"{}")
    assert examine(published.url).not_removed == [published.keys[0]]
    with pytest.raises(VerifyFailed, match="recalled but still there"):
        verify(published.url)
    published.release.delete(published.keys[0])
    found = verify(published.url)
    assert (found.recalled, found.images) == (1, 3)
    published.release.delete(published.keys[1])
    with pytest.raises(VerifyFailed, match="missing"):
        verify(published.url)
    found = examine(published.url)
    assert (found.recalled, found.missing) == (1, [published.keys[1]])


def test_a_manifest_that_current_json_does_not_name_is_found(published):
    key = layout.release_manifest(published.project, published.done.release)
    published.release.write(key, published.release.read(key).replace(b"trial", b"trick"))
    with pytest.raises(VerifyFailed, match="manifest"):
        verify(published.url)


def test_a_flipped_bit_anywhere_in_current_json_is_named(published):
    """Whichever way the release is asked for: each field of it follows from the manifest that it names."""
    key = layout.current(published.project)
    whole = published.release.read(key)
    folder = f"{published.url}/releases/{published.done.release}"
    named = whole.index(published.done.release.encode())
    for at in sorted({named, named + 6, *range(0, len(whole), 23)}):
        for bit in (1, 16):
            published.release.write(key, whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1:])
            for url in (published.url, folder):
                with pytest.raises((VerifyFailed, SchemaTooNew), match=r"current\.json|newer version"):
                    verify(url)
    published.release.write(key, whole)
    assert verify(published.url).current


def test_a_current_json_whose_fields_do_not_follow_from_the_manifest_is_found(published):
    key = layout.current(published.project)
    doc = json.loads(published.release.read(key))
    for field, value in (("sequence", 2), ("candidate", "c-" + "0" * 24), ("candidate_sha256", "0" * 64),
                         ("manifest_sha256", "0" * 64), ("predecessor", {"release": "0000-x", "manifest_sha256": "0"})):
        published.release.write(key, canonical({**doc, field: value}))
        assert key in examine(published.url).changed


def test_unlisted_files_are_reported(published):
    key = layout.in_release(published.project, published.done.release, "tables/more.parquet")
    published.release.write(key, b"x")
    assert verify(published.url).extra == [key]


def test_a_long_list_is_cut_short(published):
    for key in published.keys:
        published.release.delete(key)
    with pytest.raises(VerifyFailed) as caught:
        verify(published.url)
    assert caught.value.message.count("missing") == 4
    assert caught.value.exit_code == 60


@pytest.mark.parametrize("url", ["file:///x", "http://a/b/c", "s3://bucket", "nonsense", "file:///a/b/releases/c/d"])
def test_what_is_not_the_url_of_a_release_is_refused(url):
    with pytest.raises((UsageError, NotFound)):
        verify(url)


def test_a_project_without_a_release_is_not_found(published):
    with pytest.raises(NotFound, match="current release"):
        verify(f"{published.base}/release/nothing-here")
