"""Parquet files: zstd, and a checksum for each page, without which a flipped byte would be read as good data."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class ParquetWriter:
    """Writes Parquet; types, nesting and nulls are kept as they are."""

    suffix: str = ".parquet"

    def to_bytes(self, table: pa.Table) -> bytes:
        """The whole file."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        return buffer.getvalue()
