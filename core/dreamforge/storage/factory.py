"""From settings to a store. A process's ``wiring`` calls this once; nothing else names the concrete classes."""

from dreamforge.errors import ConfigurationError
from dreamforge.storage.base import Storage
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.storage.s3 import S3Location, S3Store
from dreamforge.storage.settings import StorageSettings


def open_storage(settings: StorageSettings, *, signs: bool = False) -> Storage:
    """The store that ``settings`` choose. Touches nothing yet: ``Storage.check`` proves that it works.

    ``signs`` says that this process hands out links. Raises
    :class:`~dreamforge.errors.ConfigurationError` when the settings can't do that.
    """
    if settings.store == "s3":
        return S3Store(_location(settings))
    key = settings.signing_key
    if signs and key is None:
        raise ConfigurationError("DF_SIGNING_KEY: is required (16 characters or more) when DF_STORE is filesystem")
    return FilesystemStore(settings.store_root, key.get_secret_value() if key else None)


def _location(settings: StorageSettings) -> S3Location:
    access, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    return S3Location(
        bucket=settings.s3_bucket,
        region=settings.s3_region,
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        access_key_id=access.get_secret_value() if access else None,
        secret_access_key=secret.get_secret_value() if secret else None,
    )
