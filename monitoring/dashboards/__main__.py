"""``python -m monitoring.dashboards``: write every dashboard and docs/panels.md anew."""

from monitoring.dashboards.boards import BOARDS, write
from monitoring.dashboards.panels_page import PAGE, page

if __name__ == "__main__":
    write()
    PAGE.write_text(page(BOARDS), encoding="utf-8")
