"""The model that serves now, replaced while requests run.

A thread reads the pointer every half second. When it names something else, that is loaded fully beside the
model that serves, and then one reference is replaced: a request that has begun ends with the model it
began with. What cannot be loaded is refused, and the model that served goes on.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from expectations.errors import RecommenderError, TransientError
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
    """Holds the served model and follows the pointer.

    Args:
        pointer: path of the deployment's `current.json`.
        load: makes a ranker of a pointer; may take seconds.
        on_load: called after every replacement.
    """

    def __init__(
        self,
        pointer: Path,
        load: Callable[[DeploymentPointer], Ranker],
        on_load: Callable[[LoadedDeployment], None],
    ) -> None:
        self._path, self._load, self._on_load = pointer, load, on_load
        self._current: LoadedDeployment | None = None
        self._seen: bytes | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._wait = 0.0
        self._problem = f"no model is deployed: {pointer} is not there; run the pipeline (make run)"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_stopped, name="deployment", daemon=True)

    @property
    def loaded(self) -> LoadedDeployment | None:
        """The model that serves, or None. Read it once a request."""
        return self._current

    @property
    def problem(self) -> str:
        """Why the pointer's model does not serve; empty if it does."""
        return self._problem

    def start(self) -> None:
        """Load what is deployed, then follow the pointer in a thread."""
        self.poll()
        self._thread.start()

    def stop(self) -> None:
        """Stop following; the model stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def poll(self) -> bool:
        """Look at the pointer once; whether the model was replaced."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp == self._stamp:
                return False
            content = self._path.read_bytes()
        except OSError as error:
            self._absent(error)
            return False
        replaced = content != self._seen and self._replace()
        if not self._wait:
            self._stamp, self._seen = stamp, content
        return replaced

    def _absent(self, error: OSError) -> None:
        self._stamp = None
        if self._current is None and not isinstance(error, FileNotFoundError):
            self._problem = f"{self._path} cannot be read ({error}); correct its permissions"

    def _replace(self) -> bool:
        self._wait = 0.0
        try:
            pointer = DeploymentPointer.read(self._path)
            if pointer is None:
                return False
            loaded = LoadedDeployment(pointer=pointer, ranker=self._load(pointer))
        except RecommenderError as error:
            self._refuse(str(error), again=isinstance(error, TransientError))
            return False
        except Exception as error:
            logger.exception("the deployment cannot be loaded")
            self._refuse(
                f"the deployment cannot be loaded ({type(error).__name__}); see the log, deploy again"
            )
            return False
        self._current, self._problem = loaded, ""
        self._on_load(loaded)
        logger.info("bundle %s serves", pointer.bundle[:12])
        return True

    def _refuse(self, problem: str, *, again: bool = False) -> None:
        if problem != self._problem:
            goes_on = f"; bundle {self._current.pointer.bundle[:12]} goes on" if self._current else ""
            logger.error("%s%s", problem, goes_on)
        self._problem = problem
        self._wait = RETRY_SECONDS if again else 0.0

    def _poll_until_stopped(self) -> None:
        while not self._stop.wait(self._wait or POLL_SECONDS):
            self.poll()
