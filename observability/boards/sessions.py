"""The dashboard of live sessions and of the coverage of forecasts."""

from observability.boards.board import Dashboard, Row
from observability.boards.promql import HERE, gauge, legend, rate
from observability.panel import HALF, THIRD, Panel, Query

CHECKS = "market_inference_watch_interval_checks_total"
HITS = "market_inference_watch_interval_hits_total"


def _over_hours(counter: str) -> Query:
    return Query(f"sum by (model) (increase({counter}{{{HERE}}}[6h]))", legend("model"))


SESSIONS = Dashboard(
    "sessions",
    "market-inference: live sessions",
    "Watch: how many sessions live, where, and what they hold.",
    Row(
        "Live sessions",
        Panel(
            "Sessions",
            "By the replica that holds them.",
            "short",
            gauge("market_inference_sessions", "instance"),
            THIRD,
            "stack",
        ),
        Panel(
            "Bytes of bars held",
            "Each replica refuses new sessions at MARKET_INFERENCE_MAX_SESSION_BYTES.",
            "bytes",
            gauge("market_inference_session_bytes", "instance"),
            THIRD,
            "stack",
        ),
        Panel(
            "Spread over replicas",
            "Sessions of the fullest replica over the mean: 1 is even.",
            "short",
            Query(
                f"max(market_inference_sessions{{{HERE}}}) / clamp_min(avg(market_inference_sessions{{{HERE}}}), 1)",
                "fullest over mean",
            ),
            THIRD,
        ),
        Panel(
            "Open calls",
            "Streams and sessions at the gateways.",
            "short",
            Query(f"sum by (method) (market_gateway_open_streams{{{HERE}}})", "{{method}}"),
            THIRD,
        ),
        Panel(
            "Sessions that begin and end",
            "Asked for, refused ones included; and over, by the reason. CLOSED is the caller's own end.",
            "short",
            (
                Query(f"sum({rate('market_inference_sessions_opened_total', 'instance')})", "opened/s"),
                rate("market_inference_sessions_ended_total", "reason").named("{{reason}}/s"),
            ),
            THIRD,
        ),
        Panel(
            "Bars",
            "Taken, and refused for their place in the session or their values.",
            "short",
            rate("market_inference_session_bars_total", "outcome").named("{{outcome}}/s"),
            THIRD,
            "stack",
        ),
    ),
    Row(
        "Forecasts that came true",
        Panel(
            "Coverage of the 80% interval, 6 hours",
            "Share of bars whose close fell where the forecast one bar before said. Well below 80%: too sure; "
            "well above: too timid.",
            "percentunit",
            Query(f"{_over_hours(HITS)} / {_over_hours(CHECKS)}", "{{model}}"),
            HALF,
        ),
        Panel(
            "Closes compared, 6 hours",
            "On how many bars the coverage stands. The alert wants 500.",
            "short",
            _over_hours(CHECKS),
            HALF,
        ),
    ),
)
