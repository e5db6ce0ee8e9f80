"""Every event → date-partitioned Parquet files: written, compacted, erased."""
