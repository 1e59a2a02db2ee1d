"""Files and locks, safely.

Never half a .pt file, never code from one, one clear line for a bad one.
"""

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
from bacon.messages import log

try:
    import fcntl
except ImportError:  # Windows: no locks
    fcntl = None


class HoldsCode(DamagedError):
    """A file that holds, beside tensors and plain containers, what only code can make."""


def save_torch(obj, path, previous=None):
    """Write `obj` with torch.save: `path` is at every moment either the old file or the new one.

    previous: where the old file goes once the new one is complete. OSError, naming `path`, if the
    disk is full or the folder is gone or read-only.
    """
    path = Path(path)
    temporary = None
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
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        # torch reports a failed write as a RuntimeError raised while the OSError was handled
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def _sync_folder(folder):
    """Bring the names of a folder's files to the disk, too, where the file system can do that."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        handle = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, handle)
        os.fsync(handle)


def load_torch(path, advice="; copy it again, or move it elsewhere"):
    """Content of a .pt file of tensors and plain containers; code in it is refused, never run.

    UserError, naming the file, if it cannot be read: DamagedError if that is because of what it
    holds, HoldsCode if that is code. advice: what to do about a damaged file, the end of the
    message.
    """
    checksums_fit = False
    try:
        if Path(path).is_fifo() or Path(path).is_char_device():
            raise ValueError("reading it might never end")
        if zipfile.is_zipfile(path):
            _check_sums(path)
            checksums_fit = True
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damage lets zipfile seek to nowhere (EINVAL), and an old file without checksums ask for
        # any memory.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UserError(f"{path}: {error.strerror}") from error
        if checksums_fit and is_lack_of_memory(error):
            raise
        # torch names what it refuses; the rest of its text advises to load without weights_only.
        refused = re.search(r"GLOBAL (\S+) (was not an allowed|whose module)", str(error))
        if refused:
            held = f"it holds {refused[1]}, whose code is not run"
            raise HoldsCode(f"{path}: not a .pt file of plain tensors: {held}") from error
        kind = type(error).__name__
        found = f"damaged or not a .pt file of plain tensors ({kind})"
        raise DamagedError(f"{path}: {found}{advice}") from error


def _check_sums(path):
    """BadZipFile if an archive does not fit its checksums, at which torch.load does not look."""
    with zipfile.ZipFile(path) as z:
        damaged = z.testzip()
    if damaged:
        raise zipfile.BadZipFile(damaged)


def unreadable(path, error):
    """The UserError of an OSError about `path`.

    It names the folder above that may not be entered, if that is why.
    """
    place = Path(path)
    if isinstance(error, PermissionError):
        # The deepest place that can be seen at all is the one that keeps us out.
        place = next((above for above in (place, *place.parents) if os.path.exists(above)), place)
    return UserError(f"{place}: cannot be read ({error.strerror or short(error)})")


def there(path):
    """Whether a file or folder exists.

    UserError where nobody can tell, and for a link to something that is gone: neither means that it
    has to be fetched.
    """
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


def lock(stack, path, refusal, patience=0, while_waiting=None):
    """Hold a lock file until `stack`, a contextlib.ExitStack, closes.

    patience: seconds to wait for another process that holds it, which is told; then UserError with
    `refusal`. while_waiting: called again and again until then; it may raise. A dead process's lock
    is freed by the system; that it is taken over is told too, and where the file system has no
    locks. Written here because the package filelock, in the versions that come with older PyTorch,
    takes a file system without locks for a lock that is held.
    """
    if fcntl is None:
        return
    until = time.monotonic() + patience
    file = None
    waiting = False
    while file is None:
        try:
            file = _locked(stack, path)
        except _Held as held:
            if time.monotonic() >= until:
                raise UserError(f"{path}: held by {held}: {refusal}") from None
            if not waiting:
                log.info(f"waiting for {held}, which holds {path}")
            waiting = True
            if while_waiting is not None:
                while_waiting()
            time.sleep(0.05)
        except _NoLocks as reason:
            without = f"this file system has no locks ({reason})"
            log.info(f"{path}: {without}; do not start the same run twice")
            return
    file.seek(0)
    before = file.read().strip()
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    stack.callback(path.unlink, missing_ok=True)
    if before:
        log.info(f"{path.name}: {before} ended without finishing; taking over")


class _Held(Exception):
    """A lock is another process's, which it names."""


class _NoLocks(Exception):
    """A file system has no locks."""


def _locked(stack, path):
    """The open and locked file at `path`, or None if it is no longer the file of that name.

    _Held if another process has it, _NoLocks where there are none.
    """
    file = stack.enter_context(open(path, "a+", encoding="utf-8"))  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_NB | fcntl.LOCK_EX)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _Held(holder) from None
        raise _NoLocks(error.strerror) from error
    # Whoever held it may have removed the file since it was opened here: then there may be a new
    # one.
    if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return file
    return None
