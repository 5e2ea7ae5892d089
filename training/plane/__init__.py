"""The training plane: datasets in, fine-tuning jobs that end, artifacts out. No torch and no models in here."""
