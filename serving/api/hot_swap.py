"""The model that serves now: a deployment is loaded and tried, and replaced while requests run.

A thread reads the pointer every half second. When it names something else, that is loaded fully beside the
model that serves, and then one reference is replaced: a request that has begun ends with the model it
began with. What cannot be loaded is refused, and the model that served goes on.

By hand: BentoML takes another model by a restart only, and watchfiles cannot watch a folder that the first
deployment has yet to make, nor tries again what failed for a while.
"""

import gc
import logging
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from sqlalchemy.exc import OperationalError

from expectations.contracts.shop_tables import COLD_START_USER
from expectations.contracts.source import Source, read_source
from expectations.errors import BundleError, RecommenderError, SettingError, TransientError
from features.online.reader import DecisionRequest, OnlineFeatures
from features.store.client import StoreSettings, open_store
from serving.ranking.ranker import Ranker
from serving.release.pointer import DeploymentPointer

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RETRY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class LoadedDeployment:
    """A loaded deployment: the two belong together."""

    pointer: DeploymentPointer
    ranker: Ranker


class HotSwap:
    """Holds the model that serves and follows the pointer, the deployment's `current.json`.

    Args:
        pointer: its path.
        load: makes a ranker of a pointer; may take seconds.
        on_load: called after every replacement.

    Attributes:
        loaded: the model that serves, or None. Read it once a request.
        problem: why the pointer's model does not serve; empty if it does.
    """

    def __init__(
        self,
        pointer: Path,
        load: Callable[[DeploymentPointer], Ranker],
        on_load: Callable[[LoadedDeployment], None],
    ) -> None:
        self._path, self._load, self._on_load = pointer, load, on_load
        self.loaded: LoadedDeployment | None = None
        self.problem = f"no model is deployed: {pointer} is not there; run the pipeline (make run)"
        self._seen: bytes | None = None
        self._wait = POLL_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="deployment", daemon=True)

    def start(self) -> None:
        """Load what is deployed, then follow the pointer in a thread."""
        self.poll()
        self._thread.start()

    def stop(self) -> None:
        """Stop following; the model stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _follow(self) -> None:
        while not self._stop.wait(self._wait):
            self.poll()

    def poll(self) -> bool:
        """Look at the pointer once; whether the model was replaced."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            if self.loaded is None:
                self._seen = None
                self.problem = f"{self._path} cannot be read ({error}); correct its permissions"
            return False
        if content == self._seen:
            return False
        self._seen, self._wait = content, POLL_SECONDS
        return self._replace()

    def _replace(self) -> bool:
        try:
            pointer = DeploymentPointer.read(self._path)
            if pointer is None:
                return False
            loaded = LoadedDeployment(pointer=pointer, ranker=self._load(pointer))
        except RecommenderError as error:
            if isinstance(error, TransientError):
                self._seen, self._wait = None, RETRY_SECONDS
            return self._refuse(str(error))
        except Exception as error:
            logger.exception("the deployment cannot be loaded")
            name = type(error).__name__
            return self._refuse(f"the deployment cannot be loaded ({name}); see the log, deploy again")
        self.loaded, self.problem = loaded, ""
        self._on_load(loaded)
        logger.info("bundle %s serves", pointer.bundle[:12])
        return True

    def _refuse(self, problem: str) -> bool:
        if problem != self.problem:
            goes_on = f"; bundle {self.loaded.pointer.bundle[:12]} goes on" if self.loaded else ""
            logger.error("%s%s", problem, goes_on)
        self.problem = problem
        return False


def load_ranker(pointer: DeploymentPointer, registry_url: str) -> Ranker:
    """Load what a pointer names and rank once with it, so that it serves or is refused as a whole.

    `registry_url` is SQLAlchemy's of the Feast registry. It has a password: never log it.

    Raises:
        BundleError: the bundle is altered, incomplete, or wants features that are not there.
        SettingError: the pointer names something that is not there.
        TransientError: the Feast registry does not answer.
    """
    from training.inference.predictor import Predictor

    folder = Path(pointer.model)
    if not folder.is_dir():
        raise BundleError(f"{folder} is not there, but the deployment names it; deploy again")
    predictor = Predictor.load(folder)
    if predictor.hash != pointer.bundle:
        raise BundleError(
            f"{folder} holds bundle {predictor.hash[:12]}, the deployment names {pointer.bundle[:12]}; "
            "deploy again"
        )
    source = read_source(Path(pointer.source))
    ranker = Ranker(predictor, _features(pointer, registry_url, source), source=source)
    ranker.recommend(_smoke_request(ranker.features.catalogue.items, pointer), 1)
    return ranker


def _features(pointer: DeploymentPointer, registry_url: str, source: Source) -> OnlineFeatures:
    online_store, feature_rows = Path(pointer.online_store), Path(pointer.feature_rows)
    for path in (online_store, feature_rows):
        if not path.exists():
            raise SettingError(f"{path} is not there, but the deployment names it; build the features again")
    horizon = datetime.fromisoformat(pointer.horizon)
    settings = StoreSettings(project=pointer.project, registry_url=registry_url, online_path=online_store)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Feast calls its own on-demand views experimental
            return OnlineFeatures(open_store(settings), feature_rows, source, horizon)
    except OperationalError:  # its message has the address
        raise TransientError(
            "the Feast registry's database does not answer; is Postgres up? (make up)"
        ) from None


def _smoke_request(items: pd.DataFrame, pointer: DeploymentPointer) -> DecisionRequest:
    """A request of one candidate: features that the model lacks show up at once, not in a user's request."""
    endless = items["valid_until"].isna() | items["valid_from"].isna()
    shown = items[endless | (items["valid_until"] > items["valid_from"])]
    if shown.empty:
        raise SettingError(
            f"none of the {len(items)} candidates in {pointer.feature_rows} may ever be shown; correct "
            "valid_from and valid_until of the items"
        )
    item, as_of = shown.iloc[0], default_as_of(pointer)
    if not pd.isna(item["valid_from"]):
        as_of = item["valid_from"].to_pydatetime()
    elif not pd.isna(item["valid_until"]):
        as_of = min(as_of, item["valid_until"].to_pydatetime() - timedelta(seconds=1))
    scenario, candidates = str(item["kind"]), [str(shown.index[0])]
    return DecisionRequest(
        user_id=COLD_START_USER, scenario=scenario, as_of=as_of, context={}, candidates=candidates
    )


def default_as_of(pointer: DeploymentPointer) -> datetime:
    """The time of a request that names none, naive UTC."""
    if pointer.clock == "data":
        return datetime.fromisoformat(pointer.horizon)
    return datetime.now(UTC).replace(tzinfo=None)


def freeze_loaded() -> None:
    """Set what is loaded apart from the garbage collector, which else stops a request for 60 ms now and then."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
