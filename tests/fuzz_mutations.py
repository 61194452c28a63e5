"""Ways to damage a file, at random and by someone who knows its format; all of it a function of a generator."""

import json
import os
import shutil

VALUES = (
    None, True, False, -1, 0, 1, 7, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), -0.5, "", "x", "0", "no",
    "\ud800", "../../x", "/dev/zero", "a\nb\0c", [], {}, [[]], [None], {"x": []}, [1, 2, 3, 4],
)  # fmt: skip
NUMBERS = (b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\1\0\0\0")
INSERTS = (b"\0", b'"', b"\xff", b"\xe9", b"\n", b",", b"{", b"[", b"\xef\xbb\xbf", b": ", b"-", b"#", b"9" * 400)


def damage(path, random):
    """Damage a file; returns what was done, in words."""
    kinds = [_bits, _bits, _block, _number, _number, _cut, _longer, _insert, _replace]
    if path.suffix in (".json", ".jsonl"):
        kinds += [_json] * 12
    if path.suffix in (".csv", ".txt", ".yaml", ".jsonl"):
        kinds += [_lines, _lines, _insert, _insert]
    return random.choice(kinds)(path, random)


def _bits(path, random):
    content = bytearray(path.read_bytes())
    count = random.choice((1, 1, 2, 8, 40))
    for _ in range(count if content else 0):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    return f"{count} bits"


def _block(path, random):
    content = path.read_bytes()
    start, size = random.randrange(len(content) + 1), random.choice((1, 3, 8, 64, 1000))
    part = random.choice((b"", b"\0" * size, random.randbytes(size), 2 * content[start : start + size]))
    path.write_bytes(content[:start] + part + content[start + size :])
    return f"{size} bytes at {start} became {len(part)}"


def _number(path, random):
    content, value = bytearray(path.read_bytes()), random.choice(NUMBERS)
    start = random.randrange(max(1, len(content) - len(value)))
    start -= start % random.choice((1, 4, 8))
    content[start : start + len(value)] = value
    path.write_bytes(content)
    return f"{value.hex()} at {start}"


def _cut(path, random):
    content = path.read_bytes()
    left = random.choice((0, 1, len(content) - 1, random.randrange(len(content) + 1)))
    path.write_bytes(content[:left])
    return f"cut to {left}"


def _longer(path, random):
    path.write_bytes(path.read_bytes() + random.choice((b"\0", b"x", b"\n", random.randbytes(100), path.read_bytes())))
    return "longer"


def _insert(path, random):
    content, part = path.read_bytes(), random.choice(INSERTS)
    start = random.randrange(len(content) + 1)
    path.write_bytes(content[:start] + part + content[start:])
    return f"{part[:8]!r} at {start}"


def _replace(path, random):
    """No file, or something else than one."""
    kinds = ["gone", "empty", "folder", "link to itself", "link to nothing"]
    if path.suffix != ".txt":  # which a user names, and may name a pipe
        kinds += ["pipe", "link to zeros"]
    kind = random.choice(kinds)
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind.startswith("link"):
        path.symlink_to({"itself": path.name, "nothing": "nowhere", "zeros": "/dev/zero"}[kind.split()[-1]])
    return kind


def _lines(path, random):
    lines = path.read_bytes().split(b"\n")
    place = random.randrange(len(lines))
    fields = lines[place].split(b",")
    kind = random.choice(("drop", "twice", "first", "field", "empty"))
    if kind == "drop":
        del lines[place]
    elif kind == "twice":
        lines.insert(place, lines[place])
    elif kind == "first":
        del lines[0]
    elif kind == "field":
        fields[random.randrange(len(fields))] = random.choice(
            (b"", b"null", b"nan", b"1e999", b"-1", b"x", b'"', b"9" * 30)
        )
        lines[place] = b",".join(fields)
    else:
        lines[place] = b""
    path.write_bytes(b"\n".join(lines))
    return f"line {place}: {kind}"


def _json(path, random):
    """Another value somewhere in it, a field more or less: what is left is JSON."""
    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    if not lines:
        return "nothing to change"
    place = random.randrange(len(lines))
    holder = {"": json.loads(lines[place])}
    places = list(_places(holder))
    parent, key = random.choice(places)
    kind = random.choice(("change", "change", "change", "remove", "add", "swap"))
    if kind == "remove" and parent is not holder:
        del parent[key]
    elif kind == "add" and isinstance(parent[key], dict):
        parent[key][random.choice(("x", "", "file", "__class__"))] = random.choice(VALUES)
    elif kind == "swap":
        other, name = random.choice(places)
        parent[key] = json.loads(json.dumps(other[name]))
    else:
        kind = f"= {parent.__setitem__(key, random.choice(VALUES)) or parent[key]!r}"
    lines[place] = json.dumps(holder[""])
    path.write_text("\n".join(lines) + "\n")
    return f"{key!r} {kind}"[:80]


def _places(value):
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list) and value[key]:
            yield from _places(value[key])


def remove(folder):
    """A folder of damaged things, and all in it."""
    shutil.rmtree(folder, ignore_errors=True)
