"""Panels → a dashboard: headings, lines of panels, links to the others, the variable.

In: panels with their widths, line by line. Out: the SDK's dashboard.
"""

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    Panel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from srp4ctr.monitoring.dashboards.builders.queries import SOURCE

TAG = "srp4ctr"  # dashboards that have it are linked with each other
COLUMNS = 24
# Without it Grafana migrates the options as if they were of its first release.
GRAFANA = "11.4.0"
_VERSIONS = (
    'label_values(srp4ctr_matured_impressions{model_version!="unranked"}, model_version)'
)


def new_board(name: str, title: str, why: str) -> Dashboard:
    """Return an empty dashboard with links to the others."""
    others = (
        DashboardLink("Dashboards")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )
    return (
        Dashboard(title)
        .uid(f"{TAG}-{name.replace('_', '-')}")
        .description(why)
        .tags([TAG])
        .link(others)
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-30m", "now")
        .refresh("10s")
    )


def choose_versions(board: Dashboard) -> Dashboard:
    """Give ``board`` the variable ``$model_version``: some versions, or all."""
    chosen = (
        QueryVariable("model_version")
        .label("Version")
        .description("The versions whose figures are shown.")
        .datasource(SOURCE)
        .query(_VERSIONS)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_DESC)
        .multi(True)
        .include_all(True)
        .all_value("(v[0-9]|[^u]).*")  # includes versions without a matured label
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return board.with_variable(chosen)


def section(board: Dashboard, title: str) -> None:
    """Add a heading to ``board``."""
    board.with_row(Row(title))


def line(board: Dashboard, height: int, *panels: tuple[int, Builder[Panel]]) -> None:
    """Add ``panels`` side by side, each with its width; their widths fill the line.

    Raises ``ValueError`` if they do not.
    """
    if (width := sum(each for each, _ in panels)) != COLUMNS:
        raise ValueError(f"panels of {width} columns do not fill a line of {COLUMNS}")
    for width, panel in panels:
        board.with_panel(_Placed(panel, width, height))


class _Placed(Builder[Panel]):
    """A panel with its size; the dashboard places it."""

    def __init__(self, panel: Builder[Panel], width: int, height: int) -> None:
        self._panel, self._width, self._height = panel, width, height

    def build(self) -> Panel:
        panel = self._panel.build()
        panel.grid_pos = GridPos(h=self._height, w=self._width)
        panel.plugin_version = GRAFANA
        return panel
