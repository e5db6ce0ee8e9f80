"""``make dashboards``: write every dashboard and docs/panels.md."""

from srp4ctr.monitoring.dashboards.boards import write

if __name__ == "__main__":
    write()
