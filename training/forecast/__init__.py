"""Fitting the constants of forecasters; nothing here runs in a service."""
