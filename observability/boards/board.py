"""A dashboard: rows of panels under a title.

Owns the look of dashboards in Grafana and the links between dashboards. The queries are in the other files of boards/.
"""

from itertools import count

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from observability.panel import DATASOURCE, Panel


class Row:
    def __init__(self, title: str, *panels: Panel) -> None:
        self.title = title
        self.panels = panels


class Dashboard:
    """`name` is the name of the JSON file and the end of the URL."""

    def __init__(self, name: str, title: str, description: str, *rows: Row) -> None:
        self.name = name
        self.title = title
        self.description = description
        self.rows = rows

    def build(self) -> models.Dashboard:
        """The dashboard as Grafana's model."""
        board = (
            builders.Dashboard(self.title)
            .uid(f"market-inference-{self.name}")
            .description(self.description)
            .tags(["market-inference"])
            .readonly()
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .refresh("10s")
            .time("now-1h", "now")
            .timezone("utc")
            .link(_to_the_others())
            .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
            .with_variable(_namespaces())
        )
        ids = count(1)
        for row in self.rows:
            board = board.with_row(builders.Row(row.title).id(next(ids)))
            for panel in row.panels:
                board = board.with_panel(panel.builder().id(next(ids)))
        return board.build()


def _to_the_others() -> builders.DashboardLink:
    link = builders.DashboardLink("market-inference").type(models.DashboardLinkType.DASHBOARDS)
    return link.tags(["market-inference"]).as_dropdown(True).include_vars(True).keep_time(True)


def _namespaces() -> builders.QueryVariable:
    return (
        builders.QueryVariable("namespace")
        .label("Namespace")
        .datasource(DATASOURCE)
        .query("label_values(market_gateway_ready_replicas, namespace)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )
