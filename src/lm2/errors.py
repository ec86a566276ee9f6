"""How an error becomes the one sentence that the command prints.

Errors that a user can cause are plain `ValueError`s and `OSError`s whose text names the rule, the values and the
remedy; there are no classes of our own for them. An `assert` is for our own bugs and is never turned into a sentence.
"""

import errno

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space or choose another folder; no unfinished file was left",
    errno.EDQUOT: "the disk quota is used up: free space or choose another folder; no unfinished file was left",
    errno.EACCES: "permission denied: choose a path you may use",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOENT: "no such file or folder: check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder: check the path",
    errno.EISDIR: "this is a folder, a file was expected: check the path",
}


def sentence(error: BaseException) -> str:
    """One line for the user: the error's text, or for a system error what happened, where, and the remedy.

    >>> sentence(FileNotFoundError(2, "No such file or directory", "books"))
    'books: no such file or folder: check the path'
    """
    if isinstance(error, OSError) and error.errno is not None:
        text = _REMEDIES.get(error.errno, error.strerror or str(error))
        return f"{error.filename}: {text}" if error.filename is not None else text
    return " ".join(str(error).split()) or type(error).__name__
