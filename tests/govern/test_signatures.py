"""An officer's key, and that a signature holds for exactly one statement."""

from __future__ import annotations

import base64
import stat
from dataclasses import fields, replace
from datetime import date, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OfficerKeyRefused
from pipeline.govern import signatures
from pipeline.govern.signatures import Statement, holds, public_of, sign

ONE, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SAID = Statement("recipe", "base.dicom", "0a" * 32, "breast-audit", "a.officer", date(2026, 1, 2), date(2027, 1, 2))
TEXTS = st.text(max_size=20)
STATEMENTS = st.builds(Statement, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, st.dates(), st.dates())


def test_a_signature_holds_for_its_statement_and_its_key_alone():
    signature = sign(ONE, SAID)
    assert holds(public_of(ONE), SAID, signature)
    assert not holds(public_of(OTHER), SAID, signature)
    for field in fields(Statement):
        value = getattr(SAID, field.name)
        other = value + timedelta(1) if isinstance(value, date) else value + "x"
        assert not holds(public_of(ONE), replace(SAID, **{field.name: other}), signature), field.name


@given(STATEMENTS, STATEMENTS)
def test_no_two_statements_are_signed_as_the_same_bytes(one, other):
    assert (one == other) == (one.canonical() == other.canonical())


@given(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8))
def test_no_byte_of_one_field_passes_for_part_of_the_next(one, other):
    moved = replace(SAID, kind=one + other, name="")
    assert moved.canonical() != replace(SAID, kind=one, name=other).canonical()


@given(st.integers(0, 511))
def test_no_flipped_bit_of_a_signature_holds(bit):
    raw = bytearray(base64.b64decode(sign(ONE, SAID)))
    raw[bit // 8] ^= 1 << bit % 8
    assert not holds(public_of(ONE), SAID, base64.b64encode(raw).decode())


@given(st.one_of(st.text(max_size=100), st.binary(max_size=100).map(lambda b: base64.b64encode(b).decode())))
def test_what_is_no_signature_never_holds(text):
    assert not holds(public_of(ONE), SAID, text)


# ---- keys --------------------------------------------------------------------------------------------------------
def test_a_new_key_is_its_owner_s_alone_and_is_never_replaced(tmp_path):
    path = tmp_path / "keys" / "a.officer.key"
    public = signatures.new_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert public_of(signatures.load_key(path, str)) == public
    before = path.read_bytes()
    with pytest.raises(OfficerKeyRefused, match="ever replaced"):
        signatures.new_key(path)
    assert path.read_bytes() == before


def test_a_key_with_a_passphrase_opens_with_it_alone(tmp_path):
    path = tmp_path / "a.officer.key"
    public = signatures.new_key(path, "correct horse")
    assert b"ENCRYPTED" in path.read_bytes()
    assert public_of(signatures.load_key(path, lambda: "correct horse")) == public
    for wrong in ("", "Correct horse"):
        with pytest.raises(OfficerKeyRefused, match="cannot be opened"):
            signatures.load_key(path, lambda wrong=wrong: wrong)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "a.officer.key"
    signatures.new_key(path)
    path.chmod(mode)
    with pytest.raises(OfficerKeyRefused, match="read by others"):
        signatures.load_key(path, str)


def test_no_private_key_is_made_in_a_checkout(tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(OfficerKeyRefused, match="checkout"):
        signatures.new_key(tmp_path / "infra" / "keys" / "a.officer.key")
    assert not list(tmp_path.rglob("*.key"))


def test_what_is_no_key_of_this_kind_is_refused(tmp_path):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

    path = tmp_path / "a.officer.key"
    other = Ed448PrivateKey.generate().private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    for data in (b"", b"not a key", other):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(OfficerKeyRefused):
            signatures.load_key(path, str)
    with pytest.raises(OfficerKeyRefused, match="cannot be read"):
        signatures.load_key(tmp_path / "none.key", str)


@pytest.mark.parametrize("name", ["", "../a", "a/b", "ä", ".a", "a b", "a\n", "x" * 65])
def test_a_name_that_could_be_another_s_or_a_path_is_refused(name):
    with pytest.raises(OfficerKeyRefused):
        signatures.key_path(name)


def test_where_keys_stand_can_be_said(monkeypatch, tmp_path):
    monkeypatch.setenv(signatures.VARIABLE, str(tmp_path))
    assert signatures.key_path("a.officer") == tmp_path / "a.officer.key"
    monkeypatch.delenv(signatures.VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert signatures.key_path("a.officer") == tmp_path / ".config" / "tre" / "officers" / "a.officer.key"
