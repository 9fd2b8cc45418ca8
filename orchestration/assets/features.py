"""Features: rows per entity and event timestamp, the online store, and the training examples."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from expectations.contracts.shop_tables import CONTRACTS
from orchestration.assets import metadata
from orchestration.assets.tables import checked_key
from orchestration.pipeline import data as steps
from orchestration.resources import POOL, WorkspaceResource, translate_errors

if TYPE_CHECKING:
    from features.online.consistency import Consistency

FEATURE_ROWS = {
    "user_behaviour": (
        "One row per user and event timestamp: recency, frequency, amount and dwell of the user's events before it.",
        ("users", "events", "exposures"),
    ),
    "user_history": (
        "One row per user and event timestamp: topics and items of the user's interactions before it, newest first.",
        ("events", "items", "exposures"),
    ),
    "user_outcomes": (
        "One row per user and event timestamp: the outcomes of the user's exposures before it.",
        ("exposures",),
    ),
    "user_attributes": ("One row per user: the columns that the source declares.", ("users",)),
    "item_outcomes": (
        "One row per item and event timestamp: past rates of the item and of its topics, and its popularity before it.",
        ("exposures", "items", "events", "relations"),
    ),
    "item_attributes": (
        "One row per item: type, value, validity and the columns that the source declares.",
        ("items",),
    ),
}


@dg.multi_asset(
    name="feature_rows",
    group_name="features",
    pool=POOL,
    specs=[
        dg.AssetSpec(
            name,
            deps=[checked_key(table) for table in tables],
            description=f"{grain} Strictly before the event timestamp: a row never knows its own outcome.",
            kinds={"duckdb", "parquet"},
            tags={"layer": "features"},
        )
        for name, (grain, tables) in FEATURE_ROWS.items()
    ],
)
def feature_rows(workspace: WorkspaceResource) -> Iterator[dg.MaterializeResult]:
    """Compute the feature rows of all entities and event timestamps."""
    with translate_errors():
        result = steps.build_features(workspace.workspace())
        personal, mask = steps.personal_features(workspace.workspace()), workspace.workspace().mask()
    for name in FEATURE_ROWS:
        path = result.folder / f"{name}.parquet"
        yield dg.MaterializeResult(
            asset_key=name,
            data_version=dg.DataVersion(result.folder.name),
            metadata={
                "dagster/row_count": result.facts["rows"][name],
                "unchanged": not result.created,
                "horizon": result.facts["horizon"],
                "file": dg.MetadataValue.path(path),
                "preview": metadata.preview(path, personal, mask),
            },
        )


@dg.asset(
    group_name="features",
    pool=POOL,
    deps=list(FEATURE_ROWS),
    kinds={"feast", "sqlite"},
    tags={"layer": "features"},
    check_specs=[
        dg.AssetCheckSpec(
            "online_equals_offline",
            asset="online_features",
            blocking=True,
            description="For a sample of users the online store holds what the point-in-time join returns.",
        )
    ],
)
def online_features(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One Feast store per version of the feature rows, with one row per user and per item: the latest of each.

    Compared with the offline store. The one that serves is another one, until the release.
    """
    with translate_errors():
        result = steps.fill_store(workspace.workspace())
        consistency = steps.compare_stores(workspace.workspace())
    return dg.MaterializeResult(
        data_version=dg.DataVersion(result.folder.name),
        metadata={
            "feature_views": ", ".join(result.facts["views"]),
            "feast_repo": dg.MetadataValue.path(result.folder),
            "horizon": result.facts["horizon"],
            "unchanged": not result.created,
        },
        check_results=[
            dg.AssetCheckResult(
                passed=consistency.num_differences == 0,
                check_name="online_equals_offline",
                metadata={
                    "users": consistency.num_users,
                    "values": consistency.num_values,
                    "num_differences": consistency.num_differences,
                    **metadata.broken_rules(_differences(consistency)),
                },
            )
        ],
    )


def _differences(found: "Consistency") -> list[dict[str, Any]]:
    if not found.num_differences:
        return []
    message = (
        f"{found.num_differences:,} of {found.num_values:,} values differ between the online and the offline store; "
        "delete the source's folder in RECOMMENDER_HOME/features and run again"
    )
    rule = "online_equals_offline"
    return [metadata.failed_rule("online_features", rule, found.num_differences, found.differences, message)]


@dg.asset(
    group_name="features",
    pool=POOL,
    deps=["online_features", *(checked_key(name) for name in CONTRACTS)],
    kinds={"feast", "duckdb", "parquet"},
    tags={"layer": "examples"},
)
def training_examples(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One row per exposure whose outcome is known: label, texts and features as of its event timestamp.

    From Feast's point-in-time join. Each distinct text and history is stored once.
    """
    with translate_errors():
        result = steps.build_examples(workspace.workspace())
        personal, mask = steps.personal_features(workspace.workspace()), workspace.workspace().mask()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(result.folder.name),
        metadata={
            "dagster/row_count": result.facts["rows"],
            "positives": result.facts["positives"],
            "distinct_texts": result.facts["texts"],
            "interaction_histories": result.facts["interaction_histories"],
            "unchanged": not result.created,
            "folder": dg.MetadataValue.path(result.folder),
            "preview": metadata.preview(result.folder / "rows.parquet", personal, mask),
        },
    )
