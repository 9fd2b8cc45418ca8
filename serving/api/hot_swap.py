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
from collections.abc import Callable
from pathlib import Path

from expectations.errors import RecommenderError, TransientError
from serving.api.loading import LoadedRelease
from serving.release.pointer import current_release
from serving.release.release import Release

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RETRY_SECONDS = 10.0


class HotSwap:
    """Holds the model that serves and follows the pointer, the deployment's `current.json`.

    Args:
        pointer: its path.
        load: loads a release; may take seconds.
        on_load: called after every replacement.

    Attributes:
        loaded: the model that serves, or None. Read it once a request.
        problem: why the pointer's model does not serve; empty if it does.
    """

    def __init__(
        self,
        pointer: Path,
        load: Callable[[Release], LoadedRelease],
        on_load: Callable[[LoadedRelease], None],
    ) -> None:
        self._path, self._load, self._on_load = pointer, load, on_load
        self.loaded: LoadedRelease | None = None
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
            release = current_release(self._path.parent)
            if release is None:
                return False
            loaded = self._load(release)
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
        logger.info("bundle %s serves", release.bundle[:12])
        return True

    def _refuse(self, problem: str) -> bool:
        if problem != self.problem:
            goes_on = f"; bundle {self.loaded.release.bundle[:12]} goes on" if self.loaded else ""
            logger.error("%s%s", problem, goes_on)
        self.problem = problem
        return False


def freeze_loaded() -> None:
    """Set what is loaded apart from the garbage collector, which else stops a request for 60 ms now and then."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
