"""The one place that ties the stages together."""
