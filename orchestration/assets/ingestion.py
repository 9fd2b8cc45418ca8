"""Ingestion: a shop's tables land in the contract's types."""

from collections.abc import Iterator

import dagster as dg

from expectations.contracts.shop_tables import CONTRACTS
from orchestration.assets import metadata
from orchestration.assets.failures import translate_errors
from orchestration.resources import WorkspaceResource


@dg.multi_asset(
    name="ingestion",
    group_name="ingestion",
    specs=[
        dg.AssetSpec(
            name,
            description=f"{contract.grain[0].upper()}{contract.grain[1:]}, as the shop brings it, in the "
            f"contract's types{'' if contract.required else '; optional'}. Rows that cannot be read are in quarantine.",
            kinds={"parquet", "duckdb"},
            owners=metadata.OWNERS,
            tags={"layer": "landed"},
        )
        for name, contract in CONTRACTS.items()
    ],
)
def landed_tables(workspace: WorkspaceResource) -> Iterator[dg.MaterializeResult]:
    """Land the six tables of the source."""
    from orchestration.pipeline import data as steps

    with translate_errors():
        landed = steps.ingest(workspace.workspace())
    for name in CONTRACTS:
        if name not in landed:
            yield dg.MaterializeResult(
                asset_key=name, metadata={"rows": 0, "note": "not brought by this source"}
            )
            continue
        table = landed[name]
        yield dg.MaterializeResult(
            asset_key=name,
            data_version=dg.DataVersion(table.version),
            metadata={
                "dagster/row_count": table.num_rows,
                "rejected_rows": table.num_rejected,
                "unchanged": not table.written,
                "folder": dg.MetadataValue.path(table.folder),
                "preview": metadata.preview(table.folder),
            },
        )
