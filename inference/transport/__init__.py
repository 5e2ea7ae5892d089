"""Where the gateway's frames enter and replies leave."""
