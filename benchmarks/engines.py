"""The throughput of the three engines on one core, in one table of ratios to the obvious implementations.

Owns the table. The measurements are in engines_forecast.py, engines_sentiment.py and engines_indicators.py.
"""

from benchmarks import engines_forecast, engines_indicators, engines_sentiment

ENGINES = (engines_forecast, engines_sentiment, engines_indicators)


def main() -> None:
    """Run one engine after another, then print every ratio; above 1 is faster than the obvious implementation."""
    found: dict[str, float] = {}
    for engine in ENGINES:
        print(f"{engine.__name__.removeprefix('benchmarks.engines_')}\n")
        found |= engine.main()
        print()
    print(f"{'one core, times the obvious implementation':62}ratio")
    for what, ratio in found.items():
        print(f"{what:60}{ratio:6.2f}x")


if __name__ == "__main__":
    main()
