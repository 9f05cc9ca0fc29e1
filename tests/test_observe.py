"""No library, warning or exception may print what it read. Each test plants a value and looks for it in all output."""

import os
import subprocess
import sys
import textwrap

import pytest

from pipeline import observe
from pipeline.errors import RecipeRefused
from pipeline.model import Reason

PLANTED = "Zebedee^Quartermain"


def run(body: str, **env: str) -> str:
    """Run the lines in a process of their own, after quiet(); return all it printed."""
    script = f"PLANTED = {PLANTED!r}\nfrom pipeline import observe\nobserve.quiet()\n" + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )
    assert "SyntaxError" not in done.stderr and "ImportError" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("logger", ["pydicom", "pydicom.dataelem", "botocore.hooks", "great_expectations.x", "", "a.b"])
def test_a_library_log_record_is_withheld(logger):
    out = run(f"""
        import logging
        logging.basicConfig(level=1)
        log = logging.getLogger({logger!r})
        log.setLevel(1)
        log.warning("name %s", PLANTED)
        log.error(PLANTED, stack_info=True)
        try:
            raise ValueError(PLANTED)
        except ValueError:
            log.exception("oh " + PLANTED)
        print("reached the end")
    """)
    assert PLANTED not in out and "Zebedee" not in out
    assert "reached the end" in out and "text withheld" in out


def test_airflow_still_speaks():
    out = run("""
        import logging
        logging.basicConfig(level=1)
        logging.getLogger("airflow.task").warning("task 7 was told to stop")
    """)
    assert "task 7 was told to stop" in out


def test_pydicom_warnings_are_withheld():
    body = """
        from pydicom.dataset import Dataset
        import pydicom.config
        ds = Dataset()
        ds.PatientBirthDate = PLANTED              # warns, quoting the value
        ds.SOPInstanceUID = PLANTED
        print("reached the end")
    """
    out = run("import warnings; warnings.simplefilter('always')\n" + textwrap.dedent(body))
    assert "reached the end" in out and "UserWarning (text withheld" in out
    assert PLANTED not in out


def test_warnings_sent_to_the_log_are_withheld():
    out = run("""
        import logging, warnings
        logging.basicConfig(level=1)
        logging.captureWarnings(True)
        warnings.simplefilter("always")
        warnings.warn(PLANTED)
        print("reached the end")
    """)
    assert "reached the end" in out and PLANTED not in out


@pytest.mark.parametrize("first", [True, False], ids=["deid imported after", "deid imported before"])
def test_deid_prints_nothing(first):
    body = """
        from deid.logger import bot
        for say in (bot.warning, bot.error, bot.info, bot.debug):
            say("blanked " + PLANTED)
        print("reached the end")
    """
    body = textwrap.dedent(body)
    out = run(body if first else "import deid.logger\nobserve.quiet()\n" + body, MESSAGELEVEL="DEBUG")
    assert "reached the end" in out and PLANTED not in out


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError(PLANTED)",
        "import threading\nt = threading.Thread(target=lambda: {}[PLANTED])\nt.start()\nt.join()",
        "class A:\n    def __del__(self): raise OSError(PLANTED)\na = A()\ndel a",
    ],
    ids=["main", "thread", "destructor"],
)
def test_an_uncaught_exception_shows_its_type_only(body):
    out = run(body)
    assert "Error" in out and PLANTED not in out


def test_debug_is_asked_for_by_name():
    assert PLANTED in run("raise ValueError(PLANTED)", TRE_DEBUG="1")


def test_describe_names_the_place_and_quotes_nothing():
    try:
        observe.safe(object())
        from pipeline.layout import encode

        encode([PLANTED]).decode("ascii")[PLANTED]  # type: ignore[call-overload]
    except TypeError as error:
        said = observe.describe(error)
    assert said.startswith("TypeError") and PLANTED not in said
    assert observe.describe(RecipeRefused("base.dicom:3: no.", hint="Mend it.")) == "base.dicom:3: no. Mend it."


@pytest.mark.parametrize(
    "value", ["smith", "19600102", "9434765919", "b-xyz", "1.2.3", b"smith", ["smith"], "SMITH^JO", "", "a" * 30]
)
def test_an_event_prints_no_text_that_it_does_not_know(value):
    assert observe.safe(value) == "<redacted>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"), (True, "True"), (None, "None"), (Reason.TRUNCATED, "truncated"), ("pending", "pending"),
        ("b-" + "0" * 24, "b-" + "0" * 24), ("0001-" + "a" * 12, "0001-" + "a" * 12), ("(0010,0010)", "(0010,0010)"),
    ],
)
def test_an_event_prints_counts_codes_and_ids(value, text):
    assert observe.safe(value) == text
