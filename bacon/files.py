"""Files and locks, safely: never half a .pt file, never code from one, one clear line for a bad one."""

import contextlib
import errno
import os
import re
import socket
import tempfile
import time
import zipfile
from pathlib import Path

import torch

from bacon.errors import DamagedError, UserError, is_lack_of_memory, short

try:
    import fcntl
except ImportError:  # Windows: no locks
    fcntl = None


class HoldsCode(DamagedError):
    """A file that holds, beside tensors and plain containers, what only code can make."""


def save_torch(obj, path, previous=None):
    """Write `obj` with torch.save so that `path` is at every moment either the old file or the complete new one.
    previous: where the old file goes once the new one is complete. Raises OSError, naming `path`, if the disk is full
    or the folder is gone or read-only."""
    path, temporary = Path(path), None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
        with os.fdopen(handle, "wb") as f:
            torch.save(obj, f)
            f.flush()
            os.fsync(f.fileno())
        umask = os.umask(0)  # which is read by setting it
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        # The new names have to reach the disk, too, where the file system can do that.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            folder = os.open(path.parent, os.O_RDONLY)
            stack.callback(os.close, folder)
            os.fsync(folder)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        # torch reports a failed write as a RuntimeError raised while the OSError was handled
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def load_torch(path, advice="; copy it again, or move it elsewhere"):
    """Content of a .pt file of tensors and plain containers; code in it is refused, never run. Raises UserError, naming
    the file, if it cannot be read: DamagedError if that is because of what it holds; advice: what to do about that."""
    sound = False  # an archive whose checksums fit
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
        # torch names what it refuses; the rest of its text advises to load without weights_only.
        if refused := re.search(r"GLOBAL (\S+) (was not an allowed|whose module)", str(error)):
            held = f"it holds {refused[1]}, whose code is not run"
            raise HoldsCode(f"{path}: not a .pt file of plain tensors: {held}") from error
        kind = type(error).__name__
        found = f"damaged or not a .pt file of plain tensors ({kind})"
        raise DamagedError(f"{path}: {found}{advice}") from error


def unreadable(path, error):
    """The UserError of an OSError about `path`. It names the folder above that may not be entered,
    if that is why."""
    place = Path(path)
    if isinstance(error, PermissionError):
        # The deepest place that can be seen at all is the one that keeps us out.
        place = next((above for above in (place, *place.parents) if os.path.exists(above)), place)
    return UserError(f"{place}: cannot be read ({error.strerror or short(error)})")


def there(path):
    """Whether a file or folder exists. UserError where nobody can tell, and for a link to something
    that is gone: neither means that it has to be fetched."""
    path = Path(path)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        for place in (path, *path.parents):
            if os.path.islink(place) and not os.path.exists(place):
                gone = f"{place}: a link to {os.readlink(place)}, which is not there"
                raise UserError(gone) from None
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def lock(stack, path, refusal, patience=0, say=None):
    """Hold a lock file until `stack` closes; returns lines for the user. The system frees a dead process's lock.

    patience: seconds to wait for another process that holds it, about which `say` gets a line; then UserError with
    `refusal`. Its own few lines, because the package filelock, in the versions that come with older PyTorch, takes a
    file system without locks for a lock that is held.
    """
    if fcntl is None:
        return []
    until = time.monotonic() + patience
    while True:
        file = stack.enter_context(open(path, "a+", encoding="utf-8"))  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_NB | fcntl.LOCK_EX)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return [
                    f"{path}: this file system has no locks ({error.strerror}); do not start the same run twice"
                ]
            if time.monotonic() >= until:
                raise UserError(f"{path}: held by {holder}: {refusal}") from None
            if say:
                say(f"waiting for {holder}, which holds {path}")
            say = None  # once is enough
            time.sleep(0.05)
            continue
        # Whoever held it may have removed the file since we opened it: then there may be a new one, to be locked.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
    file.seek(0)
    before = file.read().strip()
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    stack.callback(path.unlink, missing_ok=True)
    return [f"{path.name}: {before} ended without finishing; taking over"] if before else []
