"""The progress of loading models.

Owns the display while a pair starts; without a terminal there is no display.
"""

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from market_inference.cli.pair import Pair
from market_inference.client.status import ModelInfo


def wait_loaded(pair: Pair, console: Console) -> list[ModelInfo]:
    """Pair.wait_loaded with one line of progress per model."""
    columns = (SpinnerColumn(finished_text=" "), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def show(models: list[ModelInfo]) -> None:
            for model in models:
                if model.engine not in tasks:
                    tasks[model.engine] = progress.add_task("", total=1)
                done = model.state in {"ready", "failed"}
                progress.update(
                    tasks[model.engine],
                    description=f"{model.engine} model {model.name}: {model.state}",
                    completed=int(done),
                )

        return pair.wait_loaded(show)
