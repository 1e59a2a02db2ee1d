"""Reading and writing .pt files safely: never half a file, never code from one, and one clear line for a bad one."""

import contextlib
import errno
import os
import tempfile
import zipfile
from pathlib import Path

import torch

from bacon.errors import DamagedError, UserError, is_lack_of_memory


def save_torch(obj, path, previous=None):
    """Write `obj` with torch.save so that `path` is at every moment either the old file or the complete new one.

    previous: where the old file goes once the new one is complete. Raises OSError, naming `path`, if the disk is full
    or the folder is gone or read-only.
    """
    path, temporary = Path(path), None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
        with os.fdopen(handle, "wb") as f:
            torch.save(obj, f)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        # torch reports a failed write as a RuntimeError raised while the OSError was handled
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def sync_folder(folder):
    """Bring the names of files that were created, renamed or removed in `folder` to the disk."""
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_torch(path):
    """Content of a .pt file of tensors and plain containers; code in it is refused, never run.

    Raises UserError, naming the file, if it cannot be read: DamagedError if that is because of what it holds.
    """
    sound = False
    try:
        if Path(path).is_fifo() or Path(path).is_char_device():
            raise ValueError("reading it might never end")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as z:
                if damaged := z.testzip():  # torch.load does not look at the checksums
                    raise zipfile.BadZipFile(damaged)
            sound = True
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damage lets zipfile seek to nowhere (EINVAL), and lets an old file without checksums ask for any memory.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UserError(f"{path}: {error.strerror}") from error
        if sound and is_lack_of_memory(error):
            raise
        kind = type(error).__name__  # without torch's text, which advises to load without weights_only
        raise DamagedError(
            f"{path}: damaged or not a .pt file of plain tensors ({kind}); replace or delete it"
        ) from error


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
