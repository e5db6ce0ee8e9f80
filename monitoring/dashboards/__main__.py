"""``make dashboards``: write every dashboard and docs/panels.md."""

from srp4ctr.monitoring.dashboards.boards import BOARDS, write
from srp4ctr.monitoring.dashboards.panels_page import PAGE, page

if __name__ == "__main__":
    write()
    PAGE.write_text(page(BOARDS), encoding="utf-8")
