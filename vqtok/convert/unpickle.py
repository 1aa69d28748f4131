"""Pickles read without running them: tensors, numbers, texts, lists and dicts come out, and nothing is called.

A pickle is a program for a small stack machine, and Python's own imports and calls whatever it names. This one builds
plain containers, descriptions of tensors, and for every other name an inert `Opaque`, which remembers what it was
given. Nothing is imported or called, and it stops after half a million steps.
"""

from __future__ import annotations

import pickletools
from typing import Any, Protocol

from vqtok.convert.pickled import DTYPES, REBUILT, Opaque, StorageRef, dict_of
from vqtok.errors import CheckpointError

__all__ = ["Readable", "unpickle"]

MOST_STEPS = 500_000  # each builds one object of 100 bytes or so; a large checkpoint with its optimizer needs 100,000
MOST_BYTES = 64 << 20  # of texts and numbers in the pickle itself, and again of what calls make of them
MOST_PARTS = MOST_STEPS  # of all containers that calls are given, as one can be given again and again
MOST_PLACES = 1 << 32  # that things are remembered at; larger numbers can be chosen so that all of them collide


class Readable(Protocol):
    """What a pickle is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


def unpickle(file: Readable, *, name: str) -> Any:
    """What the next pickle of a file describes.

    Returns:
        Numbers, texts, bytes, None, lists, tuples and dicts of such, `TensorRef`, `StorageRef` and `Opaque` objects,
        nested as deeply as the file says; they may hold each other, and stand in several places.

    Args:
        file: at the first byte of a pickle; afterwards behind its last.
        name: what an error calls the file.

    Raises:
        CheckpointError: no pickle, one that is cut short, or one that would build too much.
    """
    try:
        return _Machine(name).run(_Bounded(file, name))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a made-up program leads to, such as a stack with nothing on it
        raise CheckpointError(
            f"{name} is damaged, or no checkpoint: its pickle cannot be read ({type(error).__name__})"
        ) from None


class _Machine:
    """The stack machine; operations and what they do are those of `pickletools`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.parts = self.letters = 0  # given to calls so far

    def run(self, file: Any) -> Any:
        for step, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if step == MOST_STEPS:
                raise CheckpointError(f"{self.name} is no checkpoint: its pickle has more than {MOST_STEPS:,} steps")
            if operation.name == "STOP":
                break
            self.do(operation.name, argument)
        (result,) = self.stack
        return result

    def do(self, operation: str, argument: Any) -> None:
        match operation:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "POP":
                self.stack.pop()
            case "POP_MARK":
                self.since_mark()
            case "DUP":
                self.stack.append(self.stack[-1])
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                if argument >= MOST_PLACES:
                    raise CheckpointError(f"{self.name} is no checkpoint: its pickle remembers too much")
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "APPEND" | "APPENDS" | "ADDITEMS":
                self.add([self.stack.pop()] if operation == "APPEND" else self.since_mark())
            case "SETITEM" | "SETITEMS":
                self.set_items(self.last(2) if operation == "SETITEM" else self.since_mark())
            case "BUILD":
                state = self.stack.pop()
                if isinstance(self.stack[-1], Opaque):  # notes on anything else, such as a dict, are left out
                    self.stack[-1].state = state
            case _:
                self.stack.append(self.made(operation, argument))

    def made(self, operation: str, argument: Any) -> Any:
        """What an operation puts on the stack."""
        match operation:
            case "NONE":
                return None
            case "NEWTRUE" | "NEWFALSE":
                return operation == "NEWTRUE"
            case "EMPTY_LIST" | "LIST":
                return self.since_mark() if operation == "LIST" else []
            case "EMPTY_DICT":
                return {}
            case "DICT":
                return dict_of(self.since_mark())
            case "EMPTY_SET" | "FROZENSET":
                return Opaque("builtins.set", (), None, self.since_mark() if operation == "FROZENSET" else [])
            case "EMPTY_TUPLE":
                return ()
            case "TUPLE":
                return tuple(self.since_mark())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(self.last(int(operation[-1])))
            case "GLOBAL":
                return Opaque(argument.replace(" ", "."))
            case "STACK_GLOBAL":
                return Opaque(".".join(self.last(2)))
            case "REDUCE" | "NEWOBJ":
                return self.called(*self.last(2))
            case "NEWOBJ_EX":
                return self.called(*self.last(3)[:2])
            case "OBJ":
                kind, *args = self.since_mark()
                return self.called(kind, tuple(args))
            case "INST":
                return self.called(Opaque(argument.replace(" ", ".")), tuple(self.since_mark()))
            case "PERSID" | "BINPERSID":
                return self.storage(self.stack.pop() if operation == "BINPERSID" else argument)
        if operation not in CONSTANTS:
            raise CheckpointError(f"{self.name} is no checkpoint: its pickle has the operation {operation}")
        return argument

    def last(self, number: int) -> list[Any]:
        """The last objects of the stack, taken from it."""
        if len(self.stack) < number:
            raise IndexError
        taken = self.stack[-number:]
        del self.stack[-number:]
        return taken

    def since_mark(self) -> list[Any]:
        """The objects above the last mark, taken from the stack with it."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def called(self, function: Any, args: Any) -> Any:
        """What a call is taken for: rebuilt tensors and plain containers, else an `Opaque`."""
        args = args if isinstance(args, tuple) else (args,)
        name = function.name if isinstance(function, Opaque) and function.args is None else ""
        self.parts += len(args) + sum(len(each) for each in args[:8] if isinstance(each, list | tuple | dict))
        self.letters += sum(len(each) for each in args[:8] if isinstance(each, str | bytes | bytearray))
        if self.parts > MOST_PARTS or self.letters > MOST_BYTES:
            raise CheckpointError(f"{self.name} is no checkpoint: the calls of its pickle are given too much")
        return REBUILT[name](*args) if name in REBUILT else Opaque(name or "something without a name", args)

    def storage(self, given: Any) -> Any:
        """What the file calls ("storage", type, key, device, elements[, view])."""
        match given:
            case ("module", kind, *_):  # of old files, which say where its source is
                return kind
            case ("storage", Opaque(name=name), str(key), _, int(elements), *view):
                dtype = DTYPES.get(name.rpartition(".")[2])
                if dtype is None:
                    raise CheckpointError(f"{self.name} holds numbers of the type {name[:60]!r}, which is not read")
                if any(part is not None for part in view):
                    raise CheckpointError(f"{self.name} is of a torch before 0.4: save it anew with a newer one")
                return StorageRef(key, dtype, elements)
        raise CheckpointError(f"{self.name} is damaged, or no checkpoint: a storage is not described")

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Opaque) else target).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.items += zip(items[::2], items[1::2], strict=True)
        else:
            target.update(dict_of(items))


class _Bounded:
    """A file of which no more is read than a pickle may have."""

    def __init__(self, file: Readable, name: str) -> None:
        self._file, self._name, self._left = file, name, MOST_BYTES

    def read(self, size: int) -> bytes:
        return self._bounded(self._file.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._bounded(self._file.readline(self._left + 1))

    def _bounded(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise CheckpointError(f"{self._name} is no checkpoint: its pickle has more than {MOST_BYTES >> 20} MiB")
        return data


CONSTANTS = (
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
"""Operations that put their argument on the stack; LONG4, for numbers of more than 600 digits, is not among them."""
