"""The dashboards in the repository are up to date, and the panels have unique ids."""

import json
from collections import Counter

import pytest

from observability import generate, settings
from observability.boards import DASHBOARDS


def test_generated_files_are_up_to_date():
    assert not generate.stale(), "run: python -m observability.generate"


def test_a_changed_file_would_be_found(monkeypatch):
    path, text = next(iter(generate.files().items()))
    monkeypatch.setattr(generate, "files", lambda: {path: text + " "})
    assert generate.stale() == [path]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_panels_have_unique_ids_and_do_not_overlap(dashboard):
    panels = json.loads(generate.files()[generate.HERE / "dashboards" / f"{dashboard.name}.json"])["panels"]
    assert {panel["id"] for panel in panels} == set(range(1, len(panels) + 1))
    cells = Counter(
        (column, row)
        for place in (panel["gridPos"] for panel in panels)
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    )
    assert max(cells.values()) == 1
    assert max(column for column, _ in cells) < 24


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_every_panel_has_a_description(dashboard):
    for row in dashboard.rows:
        for panel in row.panels:
            assert panel.title
            assert panel.description.endswith(".")
            assert panel.queries
            assert all(query.legend for query in panel.queries) or panel.kind == "figure"


def test_the_cluster_gets_every_dashboard():
    listed = (generate.HERE / "kustomization.yaml").read_text()
    assert all(f"dashboards/{dashboard.name}.json" in listed for dashboard in DASHBOARDS)


def test_a_page_without_a_place_for_the_settings_is_an_error():
    with pytest.raises(ValueError, match="no single place for the settings of"):
        settings.filled("# Operations\n")
