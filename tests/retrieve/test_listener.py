"""What `tre listen` takes, refuses and says: real sockets, a real landing."""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import listen_kit as kit
import pytest
from listen_kit import Ended, Sender, apart, here
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset

from pipeline.errors import EnvironmentUnfit, ProjectFileError
from pipeline.retrieve import spool as spool_module
from pipeline.retrieve.listener import listening
from pipeline.stage.run import stage
from pipeline.storage import open_store


def test_an_image_is_landed_byte_for_byte_and_named_by_digest(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        assert sender.accepted
        assert [sender.store(n) for n in (1, 2, 1)] == [0, 0, 0]
        sender.release()
        landed = run.landed()
        assert sorted(landed.values()) == sorted([kit.file_of(1), kit.file_of(2)])
        assert all(kit.is_whole(key, data) for key, data in landed.items())
        paths = [path for path in (tmp_path / "landing").rglob("*") if ".tre-" not in str(path)]
        assert len(paths) == 5 and not any(path.stat().st_mode & 0o007 for path in paths)      # nobody else reads them
        assert kit.counted(run.listener, "stores_total", "received") == 2
        assert kit.counted(run.listener, "stores_total", "seen_again") == 1
    ds = dcmread(run.folder / "landing" / sorted(landed)[0])
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert ds.file_meta.TransferSyntaxUID == kit.EXPLICIT


def test_the_yes_comes_after_file_and_directory_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []

    def noting(flush: Any) -> Any:
        def noted(descriptor: int) -> None:
            flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            flush(descriptor)
        return noted

    with here(tmp_path) as run:
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(spool_module.os, name, noting(getattr(spool_module.os, name)))
        sender = Sender(run.port)
        for _ in range(2):      # also where it is seen again: whoever named it may not have flushed the directory yet
            flushed.clear()
            assert sender.store(1) == 0
            name = next(iter(run.landed()))
            assert ".tre-" in flushed[0] and flushed[-1].endswith("/" + name.rpartition("/")[0])


@pytest.mark.parametrize("flush", ["fdatasync", "fsync"])
def test_a_disk_that_fails_to_flush_is_no_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: str) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(5, "the disk")

    with here(tmp_path) as run:
        sender = Sender(run.port)
        with monkeypatch.context() as fault:
            fault.setattr(spool_module.os, flush, failing)
            assert sender.store(1) == 0xA700 and b"written" in sender.comment
        assert flush == "fsync" or run.landed() == {}
        assert sender.store(1) == 0 and len(run.landed()) == 1


@pytest.mark.parametrize(("options", "sending", "expected"), [
    ({}, {"calling": "CT2"}, (1, 1, 3)),
    ({}, {"called": "PACS"}, (1, 1, 7)),
    ({}, {"source": "127.0.0.9"}, (1, 1, 1)),
    ({"callers": ["CT2"]}, {}, (1, 1, 3)),
    ({"addresses": ["10.0.0.0/8"]}, {}, (1, 1, 1)),
])
def test_who_is_not_listed_is_told_no(tmp_path: Path, options: Any, sending: Any, expected: Any) -> None:
    with here(tmp_path, **options) as run:
        assert Sender(run.port, **sending).rejected == expected
        assert run.landed() == {}


@pytest.mark.parametrize("sop_class", [
    "1.2.840.10008.5.1.4.1.1.88.67",                # a dose report
    "1.2.840.113619.4.30",                          # a vendor's own
    "1.2.840.10008.5.1.4.1.1.999.1",                # of a standard yet to come
])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.70", "1.2.840.113619.5.2"])
def test_storage_classes_and_transfer_syntaxes_are_taken_as_sent(tmp_path: Path, sop_class: str, syntax: str) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port, sop_class=sop_class, syntaxes=(syntax, "1.2.840.10008.1.2"))
        assert sender.store(data=b"\x08\0\x05\0whatever it is ", sop_class=sop_class) == 0
        (data,) = run.landed().values()
    assert data.endswith(b"whatever it is ") and syntax.encode() in data and sop_class.encode() in data


@pytest.mark.parametrize("service", ["1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.1.2.2.1"])
def test_storage_commitment_and_queries_are_not_offered(tmp_path: Path, service: str) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port, sop_class=service)
        assert sender.accepted
        item = sender.answer[sender.answer.index(b"\x21\0"):]
        assert item[4] == 1 and item[6] == 3        # context 1: abstract syntax not supported


def test_c_echo_is_answered(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        elements = b"".join(kit._element(n, v) for n, v in (
            (0x0002, kit.ECHO.encode()), (0x0100, b"\x30\0"), (0x0110, b"\7\0"), (0x0800, b"\1\1")))
        sender.socket.sendall(kit.values(3, 3, kit._element(0, struct.pack("<L", len(elements))) + elements))
        assert sender.status() == 0
        sender.release()


@pytest.mark.parametrize(("sending", "status", "comment"), [
    ({"instance": "../../x"}, 0xC000, b"not a UID"),
    ({"instance": ""}, 0xC000, b"not a UID"),
    ({"instance": "1." + "2" * 70}, 0xC000, b"not a UID"),
    ({"sop_class": "1.2.840.10008.5.1.4.1.1.2"}, 0xA900, b"presentation context"),
    ({"no_data_set": True}, 0xC000, b"no data set"),
    ({"data": b"\0" * 300_000}, 0xC000, b"larger than"),
])
def test_a_store_that_is_not_what_it_should_be_is_refused_with_its_reason(
        tmp_path: Path, sending: Any, status: int, comment: bytes) -> None:
    with here(tmp_path, max_object_bytes=200_000) as run:
        sender = Sender(run.port)
        assert sender.store(**sending) == status
        assert comment in sender.comment
        assert run.landed() == {}
        assert sender.store(1) == 0         # and the association goes on
        assert len(run.landed()) == 1


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        sender.store(1, data=b"x", upto=0)          # the command alone
        sender.socket.sendall(kit.values(1, 2, b""))
        assert sender.status() == 0xC000 and b"empty" in sender.comment and run.landed() == {}


def test_a_name_is_never_made_of_what_was_sent(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        Sender(run.port).store(instance="../../x")
        Sender(run.port).store(instance="1.2.3")
        names = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")]
    assert not any(name.rsplit("/", 1)[-1].startswith(("x", "1.2")) for name in names)
    assert [name for name in names if name.endswith(".dcm")] == [f"landing/{key}" for key in run.landed()]


def test_a_full_disk_is_0xA700_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [10]
    with here(tmp_path) as run:
        spool = run.listener._spool
        monkeypatch.setattr(type(spool), "free", lambda self: room[0])
        sender = Sender(run.port)
        assert sender.store(1) == 0
        room[0] = -1
        assert sender.store(2) == 0xA700 and b"disk" in sender.comment
        assert run.listener.state() == "disk nearly full"
        assert len(run.landed()) == 1
        room[0] = 10
        assert sender.store(2) == 0 and len(run.landed()) == 2


def test_a_disk_that_fills_in_mid_object_keeps_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "EACH", 50_000)
    with here(tmp_path) as run:
        looks = iter([10, 10, -1])
        with monkeypatch.context() as fault:
            fault.setattr(type(run.listener._spool), "free", lambda self: next(looks, -1))
            assert Sender(run.port).store(1, data=kit.data_set(1, 400_000), chunk=20_000) == 0xA700
        assert run.landed() == {}


def test_the_limit_is_the_file_systems_own_room(tmp_path: Path) -> None:
    with here(tmp_path, free_bytes=shutil.disk_usage(tmp_path).free * 2) as run:
        assert Sender(run.port).store(1) == 0xA700


@pytest.mark.parametrize("call", ["write", "fdatasync", "rename"])
def test_a_disk_that_is_full_before_its_limit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      call: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with here(tmp_path) as run:
        sender = Sender(run.port)
        with monkeypatch.context() as fault:
            fault.setattr(spool_module.os, call, full)
            assert sender.store(1) == 0xA700 and b"nearly full" in sender.comment
        assert run.landed() == {}
        assert sender.store(1) == 0


def test_a_small_disk_really_fills_and_is_given_room_again(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    landing.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(landing)], capture_output=True,
                      check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        with here(tmp_path) as run:
            sender = Sender(run.port)
            statuses = [sender.store(n, data=kit.data_set(n, 300_000)) for n in range(10)]
            there = statuses.index(0xA700)
            assert 4 <= there < 10 and set(statuses[there:]) == {0xA700}
            assert sorted(run.landed().values()) == sorted(kit.file_of(n, 300_000) for n in range(there))
            subprocess.run(["mount", "-o", "remount,size=20m", str(landing)], check=True)
            assert sender.store(there, data=kit.data_set(there, 300_000)) == 0
    finally:
        subprocess.run(["umount", "-l", str(landing)], check=True)


def test_without_threads_to_be_had_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with here(tmp_path, associations=1) as run:
        with monkeypatch.context() as fault:
            fault.setattr(threading.Thread, "start", none)
            with pytest.raises(Ended):
                Sender(run.port)
        assert Sender(run.port).store(1) == 0


def test_half_an_object_is_nothing(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        assert sender.store(1, data=kit.data_set(1, 300_000), chunk=50_000, upto=200_000) == -1
        sender.close()
        cut = Sender(run.port)
        cut.socket.sendall(kit.values(1, 0, b"x" * 100)[:40])       # a P-DATA that is shorter than it says
        cut.close()
        _until(lambda: run.listener.active() == 0)
        assert run.landed() == {}
        assert not [p for p in (tmp_path / "landing").rglob("*") if p.is_file()]
        assert Sender(run.port).store(1) == 0


@pytest.mark.parametrize("said", [
    b"\x04\0\xff\xff\xff\xff" + b"x" * 64,                          # a PDU of four gigabytes
    struct.pack(">BBLLBB", 4, 0, 20, 4_000_000, 1, 0) + b"x" * 14,  # a value longer than its PDU
    struct.pack(">BBLLBB", 4, 0, 6, 0, 1, 0),                       # a value of no length
    kit.values(9, 3, b"x" * 20),                                    # a context that was not agreed
    kit.values(1, 0, b"x" * 20),                                    # a data set without a command
    kit.values(1, 3, b"\0\0\0\0\xff\xff\xff\xff"),                  # an element longer than its command
    kit.values(1, 1, b"\0" * 5000),                                 # a command without end
    b"\x09\0\0\0\0\4abcd",                                          # no PDU that there is
    kit.request(),                                                  # asked twice
])
def test_what_is_not_dicom_is_aborted_and_told(tmp_path: Path, said: bytes) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        sender.socket.sendall(said)
        with pytest.raises(Ended) as ended:
            sender.pdu()
        assert ended.value.pdu[:1] == b"\x07"
        assert Sender(run.port).store(1) == 0


def test_a_silent_peer_times_out_and_gives_its_place_back(tmp_path: Path) -> None:
    with here(tmp_path, silent_seconds=0.4, idle_seconds=0.6, associations=1) as run:
        Sender(run.port, ask=False)                                 # says nothing at all
        _until(lambda: run.listener.active() == 0)
        sender = Sender(run.port)                                   # says nothing more
        with pytest.raises(Ended):
            sender.pdu()
        _until(lambda: run.listener.active() == 0)
        stuck = Sender(run.port)                                    # stops in mid-object
        stuck.store(1, data=kit.data_set(1, 300_000), chunk=50_000, upto=100_000)
        with pytest.raises(Ended):
            stuck.pdu()
        _until(lambda: run.listener.active() == 0)
        assert run.landed() == {}
        assert Sender(run.port).store(1) == 0


def test_a_slow_peer_times_out(tmp_path: Path) -> None:
    with here(tmp_path, silent_seconds=5, object_seconds=0.5) as run:
        sender = Sender(run.port)
        sender.store(1, data=b"x" * 9, upto=0)
        with pytest.raises(OSError):        # it never falls silent, and is cut off all the same
            for _ in range(100):
                sender.socket.sendall(kit.values(1, 0, b"x"))
                time.sleep(0.05)
        _until(lambda: run.listener.active() == 0)
        assert kit.counted(run.listener, "connections_ended_total", "timed_out") == 1


def test_stopping_finishes_the_image_on_its_way_and_refuses_the_rest(tmp_path: Path) -> None:
    with here(tmp_path, stop_seconds=10) as run:
        busy, idle = Sender(run.port), Sender(run.port)
        whole = kit.data_set(1, 300_000)
        assert busy.store(1, data=whole, chunk=50_000, upto=200_000) == -1
        _until(lambda: sum(p.stat().st_size for p in (tmp_path / "landing").rglob(".tre-*/*")) > 200_000)
        run.listener.stop()
        with pytest.raises(Ended):
            idle.pdu()
        assert Sender(run.port).rejected == (2, 3, 1)
        assert run.listener.state() == "stopping"
        busy.socket.sendall(kit.values(1, 2, whole[200_000:]))
        assert busy.status() == 0
        with pytest.raises(Ended):
            busy.pdu()
        assert list(run.landed().values()) == [kit.file_of(1, 300_000)]


def test_health_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with here(tmp_path, health="127.0.0.1:0") as run:
        assert Sender(run.port).store(1) == 0
        url = f"http://127.0.0.1:{run.listener.health_port}"
        assert urllib.request.urlopen(f"{url}/healthz").read() == b"ok\n"
        text = urllib.request.urlopen(f"{url}/metrics").read().decode()
        assert 'tre_listen_stores_total{result="received"} 1\n' in text and "tre_listen_up 1\n" in text
        assert "2.25." not in text and "CT1" not in text
        monkeypatch.setattr(type(run.listener._spool), "free", lambda self: -1)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{url}/healthz")
        assert error.value.code == 503 and error.value.read() == b"disk nearly full\n"


def test_the_same_image_on_many_associations_at_once_is_there_once(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        statuses: list[int] = []

        def send() -> None:
            sender = Sender(run.port)
            statuses.extend(sender.store(n) for n in range(20))
            sender.release()

        threads = [threading.Thread(target=send) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 120 and len(run.landed()) == 20
        assert kit.counted(run.listener, "stores_total", "received") == 20
        assert kit.counted(run.listener, "stores_total", "seen_again") == 100


def test_a_damaged_file_is_mended_by_the_same_image(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        assert Sender(run.port).store(1) == 0
        path = tmp_path / "landing" / next(iter(run.landed()))
        path.write_bytes(b"cut")
        assert Sender(run.port).store(1) == 0
        assert path.read_bytes() == kit.file_of(1)


def test_stage_takes_what_landed(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        assert [sender.store(n) for n in range(5)] == [0] * 5
        sender.store(9, data=kit.data_set(9, 300_000), chunk=50_000, upto=100_000)
        config = run.config
        zones = [open_store(getattr(config.zones, zone), zone) for zone in ("landing", "work")]
        staged = stage(config, *zones, eligible=lambda row: None, workers=0)
        assert staged.counts == {"pending": 5} and staged.instances == 5


def test_pynetdicom_sends_to_it(tmp_path: Path) -> None:
    from pynetdicom import AE

    with here(tmp_path) as run:
        ae = AE("CT1")
        ae.add_requested_context(kit.MG, kit.EXPLICIT)
        ae.add_requested_context(kit.ECHO)
        association = ae.associate("127.0.0.1", run.port, ae_title="TRE")
        assert association.is_established and association.send_c_echo().Status == 0
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.PatientName = kit.MG, kit.uid(1), "Nobody"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = kit.EXPLICIT
        assert association.send_c_store(ds).Status == 0
        association.release()
        assert association.is_released and len(run.landed()) == 1


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("storescu"), reason="DCMTK's storescu is not at hand (apt install dcmtk)")
def test_dcmtk_sends_to_it(tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.mkdir()
    for n in range(20):
        (sent / f"{n}.dcm").write_bytes(kit.file_of(n, 200_000))
    with apart(tmp_path / "site") as run:
        to = ["-aet", "CT1", "-aec", "TRE", "127.0.0.1", str(run.port)]
        subprocess.run(["echoscu", *to], check=True)
        subprocess.run(["storescu", *to, "+sd", str(sent)], check=True)
        refused = subprocess.run(["storescu", "-aet", "CT2", *to[2:], "+sd", str(sent)], capture_output=True,
                                 check=False, text=True)
        assert refused.returncode and "Calling AE Title Not Recognized" in refused.stderr
        landed = run.landed()
        assert len(landed) == 20 and all(kit.is_whole(key, data) for key, data in landed.items())
        found = {dcmread(tmp_path / "site" / "landing" / key).SOPInstanceUID for key in landed}
        assert found == {kit.uid(n) for n in range(20)}
    log = (tmp_path / "site" / "log").read_text()
    assert "CT1 released received=20" in log and "2.25." not in log


def test_without_its_section_or_a_directory_it_does_not_start(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        config = run.config
    with pytest.raises(ProjectFileError), listening(config.model_copy(update={"listen": None})):
        pass
    zones = config.zones.model_copy(update={"landing": "s3://bucket/landing"})
    with pytest.raises(EnvironmentUnfit), listening(config.model_copy(update={"zones": zones})):
        pass


def test_the_section_says_who_may_send(tmp_path: Path) -> None:
    from pipeline import config

    for wrong in ({"callers": []}, {"addresses": ["all"]}, {"ae_titles": ["A" * 17]}, {"certificate": "a.pem"}):
        with pytest.raises(ProjectFileError):
            config.load(kit.project(tmp_path, **wrong))


def test_what_is_sent_where_does_not_change_a_dataset(tmp_path: Path) -> None:
    from pipeline import config

    with_it = config.load(kit.project(tmp_path))
    assert with_it.meaning() == with_it.model_copy(update={"listen": None}).meaning()


def _until(what: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    assert what()
