"""The lines that load a release in DuckDB and in pandas, ready to paste. No extension, no download."""

from __future__ import annotations

import textwrap
from urllib.parse import unquote

from pipeline import layout
from pipeline.publish.files import read_json
from pipeline.publish.verify import locate
from pipeline.schemas import PUBLISHED

_OURS = {table.name for table in PUBLISHED}


def lines(url: str) -> str:
    """Return Python code that opens the release at `url` (see verify.locate). Raises NotFound, UsageError.

    Its example joins exposures with the first clinical table on patient_id. Credentials stay in the environment.
    """
    store, project, release = locate(url)
    _, manifest = read_json(store, layout.release_manifest(project, release), "The release's manifest")
    names = sorted(manifest["totals"])
    clinical = [name for name in names if name not in _OURS]
    other = clinical[0] if clinical else "patients"
    folder, images = layout.in_release(project, release, "tables"), layout.image(project, "").rstrip("/")
    if store.url.startswith("file://"):
        start = _LOCAL.format(root=unquote(store.url.removeprefix("file://")), folder=folder, images=images)
    else:
        start = _S3.format(root=store.url.removeprefix("s3://"), folder=folder, images=images)
    return start + _COMMON.format(release=release, other=other, names=names)


_LOCAL = textwrap.dedent("""\
    from pyarrow import dataset, fs

    store = fs.LocalFileSystem()
    tables = {root!r} + "/{folder}"
    images = {root!r} + "/{images}"
    """)

_S3 = textwrap.dedent("""\
    import os
    from pyarrow import dataset, fs

    store = fs.S3FileSystem(
        access_key=os.environ.get("TRE_RELEASE_ACCESS_KEY_ID"),
        secret_key=os.environ.get("TRE_RELEASE_SECRET_ACCESS_KEY"),
        session_token=os.environ.get("TRE_RELEASE_SESSION_TOKEN"),
        endpoint_override=os.environ.get("TRE_RELEASE_ENDPOINT_URL"),
        region=os.environ.get("TRE_RELEASE_REGION", "us-east-1"))
    tables = {root!r} + "/{folder}"
    images = {root!r} + "/{images}"
    """)

_COMMON = textwrap.dedent("""
    # DuckDB: release {release}; its tables are {names}
    import duckdb

    exposures = dataset.dataset(tables + "/exposures.parquet", filesystem=store)
    {other} = dataset.dataset(tables + "/{other}.parquet", filesystem=store)
    joined = duckdb.sql("SELECT * FROM exposures JOIN {other} USING (patient_id)")
    print(joined.limit(5))

    # pandas: the same
    import pandas as pd

    df_exposures = pd.read_parquet(tables + "/exposures.parquet", filesystem=store)
    df_{other} = pd.read_parquet(tables + "/{other}.parquet", filesystem=store)
    df = df_exposures.merge(df_{other}, on="patient_id")
    print(df.head())

    # One image: its path stands in the table instances
    df_instances = pd.read_parquet(tables + "/instances.parquet", filesystem=store)
    with store.open_input_file(images + "/" + df_instances["path"][0]) as stream:
        image = stream.read()
    # import io, pydicom; print(pydicom.dcmread(io.BytesIO(image)))
    """)
