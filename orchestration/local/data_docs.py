"""Great Expectations' Data Docs over HTTP: `python -m orchestration.local.data_docs FOLDER PORT`.

Their pages show rows as they are, so they are for this machine alone: a request that names another host is refused, or
a page elsewhere could have a browser here read them by a name that it points to 127.0.0.1.
"""

import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

HOSTS = ["127.0.0.1", "localhost"]


def application(folder: Path) -> Starlette:
    """The pages of a folder, which is made where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = StaticFiles(directory=folder, html=True)
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    return Starlette(routes=[Mount("/", pages)], middleware=[guard])


if __name__ == "__main__":
    uvicorn.run(
        application(Path(sys.argv[1])),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
        workers=1,
    )
