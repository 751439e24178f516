"""Informer: forecasts of long horizons in one step, by an encoder that halves the series and sparse attention."""
