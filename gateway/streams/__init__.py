"""Stream and Watch: long-lived calls."""
