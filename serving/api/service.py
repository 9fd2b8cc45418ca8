"""The HTTP API: `bentoml serve serving.api.service:Recommender`.

POST /recommend and /decide, and what happened: /events, /exposures, /outcomes, /feedback. GET /healthz (the process
lives), /readyz (a model serves), /metrics, /docs.json and the page at /. One worker; requests run in threads, which
share one model. No adaptive batching: a list of candidates is a batch already, and BentoML's batching sheds requests
under load.
"""

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import Any

import bentoml
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from expectations.contracts.ledger import URL_VARIABLE
from expectations.errors import RecommenderError, RequestError, ServiceError, TransientError
from expectations.storage.masking import KEY_FILE
from serving.api.bodies import BodyMiddleware
from serving.api.deciding import ConflictError
from serving.api.errors import ErrorMiddleware
from serving.api.hot_swap import HotSwap, freeze_loaded
from serving.api.keys import FILE, READ, WRITE, KeyFile, KeyMiddleware
from serving.api.loading import LoadedRelease, load_release
from serving.api.metrics import metrics
from serving.api.page import PageMiddleware
from serving.api.recording import RECORDED, RETRY_SECONDS, Recorder, RecordingMiddleware, paths
from serving.api.schema import DecideReply, DecideRequest, RecommendReply, RecommendRequest
from serving.release.pointer import CURRENT

TIMEOUT_SECONDS = 30
THREADS = 4
ABOUT = """\
Which campaign to show this shopper, here and now, and why.

`POST /recommend` ranks what may be shown: `{"user_id": "1", "k": 3}` is enough. A request that cannot be answered gets
status 400 and an `error` that says what to change; without an approved model the status is 503.

`POST /decide` takes the same, decides by the shop's rules, caps, values and exploration, and logs what is shown.

`POST /events`, `/exposures`, `/outcomes` and `/feedback` record what happened: a row, a list of rows, or a row a line.
"""
SCOPES = {
    "/recommend": READ,
    "/decide": WRITE,
    "/metrics": READ,
    **{f"/{table}": WRITE for table in RECORDED},
}
"""What a request needs, where it needs a key."""


_recorder, _keys = Recorder(), KeyFile()


def home_folder(environ: Mapping[str, str]) -> Path:
    """Where everything is kept, by RECOMMENDER_HOME."""
    return Path(environ.get("RECOMMENDER_HOME") or ".recommender").expanduser().absolute()


@bentoml.service(
    name="Recommender",
    description="Which campaign to show this shopper, here and now.",
    workers=1,
    threads=THREADS,
    traffic={"timeout": TIMEOUT_SECONDS},
    http={"host": "127.0.0.1"},
    envs=[{"name": "BENTOML_DO_NOT_TRACK", "value": "true"}],
)
class Recommender:
    """Decides for each shopper and time which campaigns to show, and says why."""

    def __init__(self) -> None:
        import torch

        home = home_folder(os.environ)
        os.umask(0o077)
        _keys.start(home / FILE)
        _recorder.start(os.environ.get(URL_VARIABLE, ""), home / KEY_FILE)
        # a list is small: on a busy machine a second thread makes it 10 times slower
        torch.set_num_threads(1)
        self._metrics = metrics()
        self._swap = HotSwap(home / "deployment" / CURRENT, load_release, self._on_load)
        self._swap.start()

    @bentoml.api(output_spec=RecommendReply)
    def recommend(self, request: RecommendRequest, /) -> Any:
        """Rank what may be shown to a shopper at a time, best first, with the reasons.

        Errors are {"error": "…"}: 400 for a request that names something unknown or not valid at its time,
        503 while no approved model is deployed.
        """
        loaded = self._swap.loaded
        if loaded is None:
            return self._refused(request, 503, self._swap.problem)
        try:
            return JSONResponse(self._reply(loaded, request))
        except RequestError as error:
            return self._refused(request, 400, error)
        except RecommenderError:
            self._metrics.request_refused(request.scenario, 500)
            raise

    def _reply(self, loaded: LoadedRelease, request: RecommendRequest) -> dict[str, Any]:
        begun = time.perf_counter()
        decision_request = request.decision_request(loaded.release.default_as_of())
        ranking = loaded.ranker.recommend(decision_request, request.k)
        self._metrics.request_served(
            request.scenario,
            cold_start=ranking.cold_start,
            seconds=time.perf_counter() - begun,
            shown=len(ranking.items),
        )
        return {
            "decision_id": str(uuid.uuid4()),
            "user_id": request.user_id,
            "scenario": request.scenario,
            "bundle": loaded.release.bundle,
            "as_of": decision_request.as_of.replace(tzinfo=UTC).isoformat(),
            "cold_start": ranking.cold_start,
            "items": [asdict(item) for item in ranking.items],
            "skipped": dict(ranking.skipped),
        }

    @bentoml.api(output_spec=DecideReply)
    def decide(self, request: DecideRequest, /) -> Any:
        """Decide what a shopper is shown, by the shop's rules, caps, values and exploration, and log it.

        What is shown is in the ledger, as exposures with exact propensities, before the reply is sent. Errors are
        {"error": "…"}: 400 as of /recommend, 409 for a request_id that another request of the shopper had, 503 while no
        model or no ledger is there.
        """
        loaded = self._swap.loaded
        if loaded is None:
            return self._refused(request, 503, self._swap.problem)
        begun = time.perf_counter()
        try:
            reply = loaded.decider.decide(request, _recorder)
        except ConflictError as error:
            return self._refused(request, 409, error)
        except RequestError as error:
            return self._refused(request, 400, error)
        except (ServiceError, TransientError) as error:
            return self._refused(request, 503, error, {"retry-after": str(RETRY_SECONDS)})
        except RecommenderError:
            self._metrics.request_refused(request.scenario, 500)
            raise
        self._metrics.decision_made(
            request.scenario, reply.body, repeated=reply.repeated, seconds=time.perf_counter() - begun
        )
        return JSONResponse(reply.body)

    def _refused(
        self,
        request: RecommendRequest,
        status: int,
        error: object,
        headers: Mapping[str, str] | None = None,
    ) -> JSONResponse:
        self._metrics.request_refused(request.scenario, status)
        return JSONResponse({"error": str(error)}, status, headers)

    def _on_load(self, loaded: LoadedRelease) -> None:
        _recorder.follow(loaded.release)
        self._metrics.bundle_loaded(loaded.release.bundle)
        freeze_loaded()

    def __is_ready__(self) -> bool:
        if self._swap.loaded is None:
            raise HTTPException(status_code=503, detail=self._swap.problem)
        return True

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Stop following the deployment, and close the ledger."""
        self._swap.stop()
        _recorder.stop()


_service: Any = Recommender  # the decorator makes a BentoML service of the class


def _specification() -> dict[str, Any]:
    whole = dict(_service.openapi_spec.asdict())
    return {**whole, "paths": {**whole["paths"], **paths()}}


_service.add_asgi_middleware(
    PageMiddleware,
    specification=_specification,
    info={"title": "Campaign recommender", "description": ABOUT, "version": "1"},
)
_service.add_asgi_middleware(
    ErrorMiddleware,
    fields={
        f"/{name}": tuple(request.model_fields)
        for name, request in (("recommend", RecommendRequest), ("decide", DecideRequest))
    },
)
_service.add_asgi_middleware(KeyMiddleware, needed=SCOPES, keys=_keys)
_service.add_asgi_middleware(BodyMiddleware)
_service.add_asgi_middleware(RecordingMiddleware, recorder=_recorder)
