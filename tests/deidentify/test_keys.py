import os
import secrets
from pathlib import Path

import pytest

from pipeline.deidentify.keys import create_key, load_key
from pipeline.errors import KeyRefused


@pytest.fixture
def key_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TRE_KEY_DIR", str(tmp_path))
    path = tmp_path / "breast-audit.key"
    path.write_text(secrets.token_hex(32) + "\n")
    path.chmod(0o600)
    return path


def test_a_key_loads_and_does_not_show_itself(key_file):
    key = load_key("breast-audit")
    text = key_file.read_text().strip()
    assert key.secret == bytes.fromhex(text)
    assert text not in repr(key) and repr(key.secret) not in repr(key)
    assert key.id not in text and len(key.id) == 16


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_mode_of_its_owner_alone_is_accepted(key_file, mode):
    key_file.chmod(mode)
    load_key("breast-audit")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o700, 0o606])
def test_any_other_mode_is_refused(key_file, mode):
    key_file.chmod(mode)
    with pytest.raises(KeyRefused, match="by others"):
        load_key("breast-audit")


@pytest.mark.parametrize("text", [
    "", "\n", "ab" * 31, "ab" * 32 + "a", "zz" * 32, "00" * 32, "ab" * 64, "0123456789abcdef" * 4 + "\n" + "ff" * 32,
    "\ufeff" + "0123456789abcdef" * 4,
])
def test_a_malformed_or_poor_key_is_refused_without_its_text(key_file, text):
    key_file.write_text(text)
    with pytest.raises(KeyRefused) as caught:
        load_key("breast-audit")
    assert len(text) < 8 or text[:8] not in str(caught.value)


def test_a_missing_key_stops_the_run_and_none_is_made(key_file):
    key_file.unlink()
    with pytest.raises(KeyRefused):
        load_key("breast-audit")
    assert not key_file.exists()


def test_without_a_directory_there_is_no_key(key_file, monkeypatch):
    monkeypatch.delenv("TRE_KEY_DIR")
    with pytest.raises(KeyRefused, match="TRE_KEY_DIR"):
        load_key("breast-audit")


def test_a_pipe_or_a_directory_is_not_a_key(key_file):
    key_file.unlink()
    os.mkfifo(key_file, 0o600)
    with pytest.raises(KeyRefused):
        load_key("breast-audit")
    key_file.unlink()
    key_file.mkdir(0o700)
    with pytest.raises(KeyRefused):
        load_key("breast-audit")


def test_a_demo_key_is_made_once(tmp_path, monkeypatch):
    directory = tmp_path / "keys"
    monkeypatch.setenv("TRE_KEY_DIR", str(directory))
    path = create_key(directory, "breast-demo")
    first = load_key("breast-demo")
    assert create_key(directory, "breast-demo") == path
    assert load_key("breast-demo") == first
    assert create_key(directory, "other-demo") != path and load_key("other-demo").id != first.id
    assert sorted(p.name for p in directory.iterdir()) == ["breast-demo.key", "other-demo.key"]
