"""``python -m monitoring.dashboards``: write every dashboard's JSON anew."""

from monitoring.dashboards.boards import write

if __name__ == "__main__":
    write()
