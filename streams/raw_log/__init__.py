"""Every event → Delta Lake tables, partitioned by date: written, compacted, erased."""
