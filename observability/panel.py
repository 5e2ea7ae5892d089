"""A panel of a dashboard: title, description, queries and unit.

Owns the look of panels in Grafana. The panels themselves are in boards/.
"""

from dataclasses import dataclass, replace
from typing import Literal

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Grafana lays panels out on 24 columns.
FULL, HALF, THIRD, QUARTER = 24, 12, 8, 6

Builder = timeseries.Panel | stat.Panel | heatmap.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression; `legend` is the name of each series, with labels in double braces."""

    expr: str
    legend: str = ""

    def __str__(self) -> str:
        return self.expr

    def named(self, legend: str) -> "Query":
        """The same expression with other names of the series."""
        return replace(self, legend=legend)


@dataclass(frozen=True, slots=True)
class Panel:
    """`unit` is a unit id of Grafana: s, reqps, percentunit, bytes, short, ..."""

    title: str
    description: str
    unit: str
    query: Query | tuple[Query, ...]
    width: int = HALF
    kind: Literal["lines", "stack", "figure", "heatmap"] = "lines"

    @property
    def queries(self) -> tuple[Query, ...]:
        return (self.query,) if isinstance(self.query, Query) else self.query

    def builder(self) -> Builder:
        """The panel as a builder of the Grafana SDK."""
        panel = self._visual().title(self.title).description(self.description).datasource(DATASOURCE)
        panel = panel.span(self.width).height(4 if self.kind == "figure" else 8)
        for query, ref in zip(self.queries, "ABCDEFGH", strict=False):
            panel = panel.with_target(self._target(query, ref))
        return panel

    def _target(self, query: Query, ref: str) -> prometheus.Dataquery:
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref).datasource(DATASOURCE)
        if self.kind == "figure":
            return target.instant()
        return target.range().format(PromQueryFormat.HEATMAP) if self.kind == "heatmap" else target.range()

    def _visual(self) -> Builder:
        if self.kind == "figure":
            return stat.Panel().unit(self.unit).graph_mode(common.BigValueGraphMode.NONE)
        if self.kind == "heatmap":
            axis = heatmap.YAxisConfig().unit(self.unit)
            return (
                heatmap.Panel()
                .calculate(False)
                .y_axis(axis)
                .color(
                    heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
                )
            )
        legend = (
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(["mean", "max"])
            .show_legend(True)
        )
        tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
        lines = timeseries.Panel().unit(self.unit).min(0).legend(legend).tooltip(tooltip)
        if self.kind == "stack":
            stacked = common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
            return lines.stacking(stacked).fill_opacity(40)
        return lines
