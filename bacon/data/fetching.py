"""Around a download: what a failed one says, and that it leaves nothing behind."""

import contextlib

from bacon.errors import UserError, short


@contextlib.contextmanager
def tidied(folders):
    """Folders that are not there before are removed afterwards if they are empty then."""
    missing = sorted(folder for folder in folders if not folder.exists())
    try:
        yield
    finally:
        for folder in reversed(missing):  # a folder before the one that holds it
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def fetching(name, root, paths):
    """A download of `paths` below `root` for the dataset `name`.

    If it fails, that is a UserError in one line, and no folder that it made is left empty.
    """
    folders = {folder for path in paths for folder in (root / path).parents}
    with tidied(folders):
        try:
            yield
        except Exception as error:  # whatever a dead network provokes
            wanted = f"{name.lower()}.pt or {', '.join(paths)}"
            failed = f"not under {root}/ and could not be fetched; put {wanted} there"
            raise UserError(f"{name}: {failed} ({short(error)})") from error
