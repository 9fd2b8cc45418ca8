"""The errors of the whole system, in one tree.

    RecommenderError
    ├── SettingError          a setting, recipe or source.toml is wrong
    ├── SchemaError           a table lacks a column, has a wrong type, is empty or unreadable
    ├── DataError             rows break a contract's rule
    ├── BundleError           a model bundle is incomplete, altered or unfit for this data
    ├── RejectedError         the gate has not approved this bundle
    ├── RequestError          a served request names something that is not there or not valid
    ├── ServiceError          a service of ours did not start or stop (port in use, no binary)
    ├── ImplementationError   our own mistake: an expectation that raises, a broken invariant
    └── TransientError        worth a retry: a lost connection, a lock held by another process

Every message names the thing (table, column, row count, file) and the remedy.
"""


class RecommenderError(Exception):
    """Base of all errors that this system raises on purpose."""


class SettingError(RecommenderError):
    """A setting, recipe or `source.toml` is wrong."""


class SchemaError(RecommenderError):
    """A table lacks a column, has a wrong type, is empty or cannot be read."""


class DataError(RecommenderError):
    """Rows break a rule of their contract."""


class BundleError(RecommenderError):
    """A model bundle is incomplete, altered, or does not fit the data at hand."""


class RejectedError(RecommenderError):
    """The gate has not approved this very bundle."""


class RequestError(RecommenderError):
    """A request names something that does not exist or is not valid at its time."""


class ServiceError(RecommenderError):
    """A service of ours did not start or stop."""


class ImplementationError(RecommenderError):
    """A mistake of ours, never of the data."""


class TransientError(RecommenderError):
    """A failure that a retry may cure."""
