"""Features: rows per entity and moment, the online store, and the training examples."""

from collections.abc import Iterator

import dagster as dg

from expectations.contracts.shop_tables import CONTRACTS
from orchestration.assets import metadata
from orchestration.assets.data import OWNERS, checked_key
from orchestration.assets.failures import told_apart
from orchestration.resources import WorkspaceResource

FEATURE_ROWS = {
    "user_behaviour": (
        "One row per shopper and moment: recency, frequency, amount and dwell of what the shopper did before it.",
        ("users", "events", "exposures"),
    ),
    "user_history": (
        "One row per shopper and moment: topics and items the shopper turned to before it, newest first.",
        ("events", "items", "exposures"),
    ),
    "user_outcomes": (
        "One row per shopper and moment: how the shopper answered to exposures before it.",
        ("exposures",),
    ),
    "user_attributes": ("One row per shopper: the columns that the source declares.", ("users",)),
    "item_outcomes": (
        "One row per item and moment: past rates of the item and of its topics, and its popularity before it.",
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
    specs=[
        dg.AssetSpec(
            name,
            deps=[checked_key(table) for table in tables],
            description=f"{grain} Strictly before the moment: a row never knows its own outcome.",
            kinds={"duckdb", "parquet"},
            owners=OWNERS,
            tags={"layer": "features"},
        )
        for name, (grain, tables) in FEATURE_ROWS.items()
    ],
)
def feature_rows(workspace: WorkspaceResource) -> Iterator[dg.MaterializeResult]:
    """Compute the feature rows of all entities and moments."""
    from orchestration.pipeline import data as steps

    with told_apart():
        made = steps.build_features(workspace.workspace())
    for name in FEATURE_ROWS:
        path = made.folder / f"{name}.parquet"
        yield dg.MaterializeResult(
            asset_key=name,
            data_version=dg.DataVersion(made.folder.name),
            metadata={
                "dagster/row_count": made.facts["rows"][name],
                "unchanged": not made.made,
                "horizon": made.facts["horizon"],
                "file": dg.MetadataValue.path(path),
                "preview": metadata.preview(path),
            },
        )


@dg.asset(
    group_name="features",
    deps=list(FEATURE_ROWS),
    description="One row per shopper and per item in Feast's online store: the latest feature row of each.",
    kinds={"feast", "sqlite"},
    owners=OWNERS,
    tags={"layer": "features"},
    check_specs=[
        dg.AssetCheckSpec(
            "online_equals_offline",
            asset="online_features",
            blocking=True,
            description="For a sample of shoppers the online store holds what the point-in-time join returns.",
        )
    ],
)
def online_features(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Apply the Feast repo, fill the online store, compare it with the offline store."""
    from orchestration.pipeline import data as steps

    with told_apart():
        made = steps.fill_online_store(workspace.workspace())
        consistency = steps.compare_stores(workspace.workspace())
    return dg.MaterializeResult(
        data_version=dg.DataVersion(made.folder.name),
        metadata={
            "feature_views": ", ".join(made.facts["views"]),
            "horizon": made.facts["horizon"],
            "unchanged": not made.made,
        },
        check_results=[
            dg.AssetCheckResult(
                passed=consistency.num_differences == 0,
                check_name="online_equals_offline",
                metadata={
                    "users": consistency.num_users,
                    "values": consistency.num_values,
                    "num_differences": consistency.num_differences,
                    "differences": list(consistency.differences),
                },
            )
        ],
    )


@dg.asset(
    group_name="features",
    deps=["online_features", *(checked_key(name) for name in CONTRACTS)],
    description="One row per exposure whose outcome is known: label, texts and every feature as it was at that "
    "moment, from Feast's point-in-time join. Each distinct text and history is stored once.",
    kinds={"feast", "duckdb", "parquet"},
    owners=OWNERS,
    tags={"layer": "examples"},
)
def training_examples(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Join exposures and features into the examples folder."""
    from orchestration.pipeline import data as steps

    with told_apart():
        made = steps.build_examples(workspace.workspace())
    return dg.MaterializeResult(
        data_version=dg.DataVersion(made.folder.name),
        metadata={
            "dagster/row_count": made.facts["rows"],
            "positives": made.facts["positives"],
            "distinct_texts": made.facts["texts"],
            "interaction_histories": made.facts["interaction_histories"],
            "unchanged": not made.made,
            "folder": dg.MetadataValue.path(made.folder),
            "preview": metadata.preview(made.folder / "rows.parquet"),
        },
    )
