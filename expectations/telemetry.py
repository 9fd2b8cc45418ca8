"""What the packages that we use would report to their makers: nothing, by the environment of every process.

Great Expectations and Hugging Face read these when they are imported, so a process sets them first thing.
"""

from collections.abc import MutableMapping

OFF = {
    "BENTOML_DO_NOT_TRACK": "true",  # literally: `1` is not understood
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def switch_off(environ: MutableMapping[str, str]) -> None:
    """Let nothing in a process with this environment, or started by it, report to anybody."""
    environ.update(OFF)
