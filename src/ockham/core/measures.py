"""What `measure` may name, and the columns of metrics.csv that it adds. Plain Python, so that the command line can ask."""

from collections.abc import Collection

#: Columns by measure, in the order in which they stand, whatever the order in which they are asked for.
MEASURES = {
    "sharpness": ("sharpness",),
    "gradient_norm": ("gradient_norm",),
    "update_norm": ("update_norm",),
    "weight_distance": ("weight_distance",),
    "calibration": ("val/ece", "val/nll"),
}

#: What a measure adds to metrics.json beside the columns, which it has of the selected weights.
FINAL_MEASURES = {"calibration": ("test/ece", "test/nll")}


def measured_columns(measures: Collection[str]) -> tuple[str, ...]:
    """The columns that these measures add to metrics.csv."""
    return tuple(column for name, columns in MEASURES.items() if name in measures for column in columns)


def measured_finally(measures: Collection[str]) -> tuple[str, ...]:
    """The keys that these measures add to metrics.json."""
    final = (key for name, keys in FINAL_MEASURES.items() if name in measures for key in keys)
    return (*measured_columns(measures), *final)
