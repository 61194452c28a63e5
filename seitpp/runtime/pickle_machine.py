"""The stack machine of pickle, without its ways to import, to call or to change anything.

A pickle is a program. Python's own machine imports and calls what the program names. This one knows containers, numbers
and strings, keeps every name as a mere name, and calls nothing but the few functions that it is given.
"""

import pickletools
from dataclasses import dataclass, field


class Refused(Exception):
    """The program asks for something that plain data has no need of; nothing of it was done."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function that a pickle mentions. It is never looked up.

    Attributes:
        module: dotted name of its module.
        name: its name there.
    """

    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Placeholder:
    """Stands for an object that was not made.

    Attributes:
        cls: the Global that it would have been made of.
        args: what it would have been made with.
        state: what would have become its attributes, usually a dict.
    """

    cls: Global
    args: tuple = ()
    state: object = field(default=None, repr=False)


class PickleMachine:
    """Runs one pickle.

    Args:
        calls: dotted name to the function of ours that stands for it.
        kept: dotted names whose calls are not made but kept, as a Placeholder.
        constants: dotted name to the value that it means.
        persistent: function of a persistent id (a tuple) to the value it means.
    """

    def __init__(self, *, calls, kept, constants, persistent):
        self.calls = {**_CONTAINERS, **calls}
        self.kept = kept
        self.constants = constants
        self.persistent = persistent
        self.stack, self.marks, self.memo = [], [], {}

    def run(self, program):
        """The object that a pickle describes.

        Args:
            program: bytes.
        Raises: Refused for what is not plain data; ValueError, IndexError, KeyError or TypeError for a broken pickle.
        """
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name in _PUSHES:
                self.stack.append(argument)
            elif opcode.name == "STOP":
                return self.pop(1)[0]
            elif opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, argument)
            else:
                raise Refused(f"uses the pickle operation {opcode.name}")
        raise ValueError("it has no end")

    def push(self, value):
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self, count):
        """Take the topmost values, the lowest first."""
        bottom = len(self.stack) - count
        if bottom < (self.marks[-1] if self.marks else 0):
            raise IndexError("its stack is empty")
        items = self.stack[bottom:]
        del self.stack[bottom:]
        return items

    def pop_to_mark(self):
        """Take all values above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def add(self, kind, items):
        """Add items to the topmost value, which must be a container that this machine made."""
        target = self.stack[-1]
        if type(target) is not kind:
            raise Refused(f"adds items to {_described(target)}")
        if kind is dict:
            target.update(_pairs(items[::2], items[1::2]))
        elif kind is set:
            target.update(map(_key, items))
        else:
            target.extend(items)

    def name(self, module, name):
        """Push what a name means to us."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name in it is no text")
        named = Global(module, name)
        self.push(self.constants.get(str(named), named))

    def call(self, function, arguments):
        """Push the result of a call, if it is one of ours."""
        named = str(function) if isinstance(function, Global) and isinstance(arguments, tuple) else None
        if named in self.kept:
            self.push(Placeholder(function, arguments))
        elif named in self.calls:
            self.push(self.calls[named](*arguments))
        else:
            raise Refused(f"asks for {_described(function)} to be called")

    def make(self, cls, *arguments):
        """Push an object that nobody makes."""
        if not isinstance(cls, Global):
            raise Refused(f"asks for an object of {_described(cls)}")
        self.push(Placeholder(cls, arguments))

    def build(self, target, state):
        """Give an object its state. What a dict has beside its items (a state dict's _metadata) is of no use."""
        if isinstance(target, Placeholder):
            target.state = state
        elif type(target) is not dict:
            raise Refused(f"sets attributes of {_described(target)}")
        self.push(target)


def _described(value):
    if isinstance(value, Global):
        return str(value)
    return f"an object of {value.cls}" if isinstance(value, Placeholder) else f"a {type(value).__name__}"


def _key(value):
    """What may be a key of a dict or in a set: the hash of tuples of tuples of tuples can take for ever."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, tuple | list | dict | set):
            raise ValueError(f"a key in it is a {type(part).__name__}")
    return value


def _pairs(keys, values):
    return {_key(key): value for key, value in zip(keys, values, strict=True)}


def _dictionary(items=()):
    return _pairs(*zip(*items, strict=True)) if items else {}


def _keys(items=()):
    return set(map(_key, items))


def _frozen_keys(items=()):
    return frozenset(_keys(items))


_CONTAINERS = {
    f"{module}.{kind}": function
    for module in ("builtins", "__builtin__")
    for kind, function in (
        ("dict", _dictionary),
        ("list", list),
        ("tuple", tuple),
        ("set", _keys),
        ("frozenset", _frozen_keys),
    )
} | {"collections.OrderedDict": _dictionary}

_PUSHES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
}  # fmt: skip
_OPERATIONS = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop(1),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(_key, machine.pop_to_mark()))),
    "APPEND": lambda machine, _: machine.add(list, machine.pop(1)),
    "APPENDS": lambda machine, _: machine.add(list, machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.add(dict, machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.add(dict, machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.add(set, machine.pop_to_mark()),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "LONG_BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.pop(2)),
    "INST": lambda machine, names: machine.call(Global(*names.split(" ", 1)), None),
    "OBJ": lambda machine, _: machine.call(machine.pop_to_mark()[0], None),
    "REDUCE": lambda machine, _: machine.call(*machine.pop(2)),
    "NEWOBJ": lambda machine, _: machine.make(*machine.pop(2)),
    "NEWOBJ_EX": lambda machine, _: machine.make(*machine.pop(3)),
    "BUILD": lambda machine, _: machine.build(*machine.pop(2)),
    "BINPERSID": lambda machine, _: machine.push(machine.persistent(machine.pop(1)[0])),
}
