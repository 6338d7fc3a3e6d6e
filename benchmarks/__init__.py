"""Programs that measure: every number of the README comes from here, as JSON in `results/`."""
