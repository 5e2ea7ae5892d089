"""What the commands `market-inference train ...` are made of."""
