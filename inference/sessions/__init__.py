"""Live sessions: state, bars and updates."""
