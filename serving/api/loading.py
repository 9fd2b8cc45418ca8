"""Loading a release with all that answers by it: model, features, rules and policy, tried before they serve."""

from dataclasses import dataclass

from expectations.contracts.source import read_source
from serving.api.deciding import Decider
from serving.ranking.loading import load_ranker
from serving.ranking.ranker import Ranker
from serving.release.release import Release


@dataclass(frozen=True, kw_only=True)
class LoadedRelease:
    """A loaded release: its parts belong together."""

    release: Release
    ranker: Ranker
    decider: Decider


def load_release(release: Release) -> LoadedRelease:
    """Load what a release holds, so that it serves or is refused as a whole.

    Raises:
        BundleError, SchemaError: as `load_ranker`.
        SettingError: so, or a rule or a cap of the shop's declaration is wrong.
    """
    source = read_source(release.source)
    ranker = load_ranker(release, source)
    return LoadedRelease(release=release, ranker=ranker, decider=Decider(release, ranker, source))


def check(release: Release) -> None:
    """Try a release that does not serve yet; raises as `load_release` does."""
    load_release(release)
