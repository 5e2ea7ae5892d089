"""Invented headlines, written for this demo."""

HEADLINES = (
    ("AAPL", "Apple trims component orders as demand for its newest phone cools faster than expected"),
    ("AAPL", "Apple board weighs larger dividend as cash pile passes $137 billion"),
    ("AAPL", "Activist investor sues Apple over preferred share proposal"),
    ("GOOG", "Google shares cross $800 for the first time on strong mobile advertising growth"),
    ("GOOG", "Google to hold annual developer conference in San Francisco in May"),
    ("IBM", "IBM raises full-year earnings outlook after software margins beat estimates"),
    ("IBM", "IBM hardware revenue falls for a sixth straight quarter"),
    ("MSFT", "Microsoft sells 60 million licences of its new operating system, in line with forecasts"),
    ("MSFT", "European regulators fine Microsoft over missing browser choice screen"),
    ("FB", "Facebook mobile revenue more than doubles, easing worries about the shift from desktop"),
    ("FB", "Analysts cut Facebook price targets as costs grow faster than sales"),
    ("FB", "Facebook appoints new head of data centre operations"),
)
