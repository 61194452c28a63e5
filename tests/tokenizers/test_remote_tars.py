"""Tars behind URLs: the images of the same tars here, read in parts, whatever the server does meanwhile."""

import io
import itertools
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import tiny
from bucket_servers import Web, tar_bytes
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import tokenize as stage
from seitpp.tokenizers.sources.listing.patterns import expand_braces
from seitpp.tokenizers.sources.remote.addresses import addresses_of, shown_url
from seitpp.tokenizers.sources.remote.listing import read_listing, write_listing
from seitpp.tokenizers.sources.remote.open_images import open_remote
from seitpp.tokenizers.sources.remote.ranged_file import LARGE, SMALL, RangedFile
from seitpp.tokenizers.sources.remote.read_ahead import AHEAD, KEPT, ReadAhead
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokenizers.sources.tars.index import index_tar
from seitpp.tokens import redirects, transfer
from seitpp.tokens.redirects import check_redirect

SIZE = tiny.IMAGE_SIZE


def png(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(256, size=(*SIZE, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def samples(first, count):
    """A tar's members by the WebDataset convention, image and class number, with a folder of captions beside."""
    members = {}
    for number in range(first, first + count):
        members |= {f"{number:04d}.png": png(number), f"{number:04d}.cls": str(number % 3).encode()}
    return {**members, "notes.xyz": b"words"}


@pytest.fixture
def folder(tmp_path):
    """Three tars of 5, 4 and 3 images."""
    (tmp_path / "served").mkdir()
    for tar, (first, count) in enumerate([(0, 5), (5, 4), (9, 3)]):
        (tmp_path / "served" / f"{tar:02d}.tar").write_bytes(tar_bytes(samples(first, count)))
    return tmp_path / "served"


@pytest.fixture
def web(folder, monkeypatch):
    for name in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(transfer, name, 0.01)
    server = Web(folder)
    yield server
    server.close()


def same_images(remote, local):
    assert remote.keys == local.keys
    assert remote.classes == local.classes
    assert remote.labels.tolist() == local.labels.tolist()
    assert remote.sizes(range(len(local))).tolist() == local.sizes(range(len(local))).tolist()
    assert remote.left_out == local.left_out
    with ThreadPoolExecutor(4) as threads:
        pixels = list(threads.map(lambda row: remote.read(row, SIZE), range(len(local))))
    assert all(np.array_equal(each, local.read(row, SIZE)) for row, each in enumerate(pixels))


# Addresses


def test_braces_count_and_choose_and_commas_separate_urls():
    assert expand_braces("a{08..10}{x,y}.tar", "") == [f"a{n}{s}.tar" for n in ("08", "09", "10") for s in "xy"]
    assert addresses_of("https://h/{0..1}.tar,s3://b/c,d.tar") == [
        "https://h/0.tar",
        "https://h/1.tar",
        "s3://b/c,d.tar",
    ]


def test_what_may_be_secret_in_a_url_is_not_shown():
    assert shown_url("https://me:word@host:8/a.tar?X-Signature=abc") == "https://host:8/a.tar"
    assert shown_url("s3://bucket/what?.tar") == "s3://bucket/what?.tar"


# A web server


@pytest.mark.parametrize(
    "spec", ["{url}/{{00..02}}.tar", "{url}/{{00,01,02}}.tar", "{url}/00.tar,{url}/01.tar,{url}/02.tar"]
)
def test_tars_of_a_web_server_are_those_tars(web, folder, spec):
    same_images(open_source(spec.format(url=web.url)), open_source(f"{folder}/{{00..02}}.tar"))


def test_one_tar_has_the_keys_of_its_members(web, folder):
    remote = open_source(f"{web.url}/01.tar?signature=abc")
    same_images(remote, open_source(folder / "01.tar"))
    assert remote.where(0) == f"{web.url}/01.tar, 0005.png"


def test_a_server_without_ranges_is_refused_before_a_tar_is_read(folder):
    server = Web(folder, ranges=False)
    try:
        with pytest.raises(
            UserError, match=r"00\.tar: the server gives no parts of files .* download the tar"
        ) as raised:
            open_source(f"{server.url}/00.tar")
        tiny.one_line(str(raised.value))
        assert len(server.asked) == 1
    finally:
        server.close()


@pytest.mark.parametrize("trouble", [503, 500, 429, "reset", "cut off"])
def test_a_trouble_that_passes_changes_nothing(web, folder, trouble):
    web.troubles = [trouble, None, trouble, trouble, None, trouble]
    same_images(open_source(f"{web.url}/00.tar"), open_source(folder / "00.tar"))
    assert web.troubles == []


def test_a_server_that_stalls_is_asked_again(web, folder, monkeypatch):
    monkeypatch.setattr(transfer, "_SILENCE", 0.2)
    web.troubles = ["stall", None, "stall"]
    same_images(open_source(f"{web.url}/02.tar"), open_source(folder / "02.tar"))


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (404, r"00\.tar is not there: check --images"),
        (403, r"00\.tar: the server refuses access \(403"),
        (503, r"00\.tar can't be fetched \(503 .*tried 8 times"),
    ],
)
def test_a_trouble_that_stays_is_one_line(web, trouble, words):
    web.troubles = [trouble] * 20
    with pytest.raises(UserError, match=words) as raised:
        open_source(f"{web.url}/00.tar?secret=1")
    assert "secret" not in tiny.one_line(str(raised.value))


def test_a_tar_that_is_replaced_meanwhile_ends_the_job(web, folder):
    remote = open_source(f"{web.url}/00.tar")
    (folder / "00.tar").write_bytes(tar_bytes(samples(20, 5)))
    with pytest.raises(UserError, match=r"00\.tar has changed since it was listed"):
        remote.read(0, SIZE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b" + bytes(600), "is compressed, so it can't be read in any order: gunzip it first"),
        (b"no tar" * 200, "is no tar, or cut off"),
        (tar_bytes({"notes.txt": b"x"}), "no images, but 1 of unknown format .txt"),
    ],
)
def test_what_is_no_tar_of_images_is_said(web, folder, content, words):
    (folder / "00.tar").write_bytes(content)
    with pytest.raises(UserError, match=f"{web.url}/00.tar:? {words}"):
        open_source(f"{web.url}/00.tar")


def test_a_tar_that_was_cut_off_gives_the_images_before_the_cut(web, folder):
    whole = (folder / "00.tar").read_bytes()
    with tarfile.open(folder / "00.tar") as tar:
        last = tar.getmember("0004.png")
    (folder / "00.tar").write_bytes(whole[: last.offset_data + 100])
    for spec in (f"{web.url}/00.tar", folder / "00.tar"):
        try:
            source = open_source(spec)
        except UserError as error:
            assert "cut off" in str(error)  # noqa: PT017 - either way, both alike
        else:
            with pytest.raises(Exception, match="cut off"):
                source.read(4, SIZE)


# Redirects


@pytest.mark.parametrize(
    ("origin", "target", "problem"),
    [
        ("http://host/a", "http://host:81/b", None),
        ("http://host/a", "https://host/a", None),
        ("https://host/a", "https://93.184.215.14/b", None),
        ("https://host/a", "http://host/a", "from https to http"),
        ("http://host/a", "http://other/a", "to another host without https"),
        ("https://host/a", "https://169.254.169.254/latest", "into the network of this machine"),
        ("https://host/a", "https://127.0.0.1/", "into the network of this machine"),
        ("https://host/a", "https://[::1]/", "into the network of this machine"),
        ("https://host/a", "https://10.0.0.7/", "into the network of this machine"),
        ("https://host/a", "file:///etc/passwd", "to file://, which is no web server"),
    ],
)
def test_a_redirect_is_followed_to_its_own_host_or_by_https_to_the_public_internet(origin, target, problem):
    if problem is None:
        check_redirect(origin, target)
    else:
        with pytest.raises(UserError, match=f"the server redirects {problem}"):
            check_redirect(origin, target)


def test_a_server_that_redirects_elsewhere_is_not_followed(web, folder):
    other = Web(folder)
    try:
        web.redirect = f"http://localhost:{other.server_address[1]}/00.tar"
        with pytest.raises(UserError, match=r"redirects to another host without https \(localhost\)") as raised:
            open_source(f"{web.url}/00.tar")
        tiny.one_line(str(raised.value))
        web.redirect = "file:///etc/passwd"
        with pytest.raises(UserError, match=r"redirects to file://"):
            open_source(f"{web.url}/00.tar")
        assert other.asked == []
        web.redirect = f"{other.url}/00.tar"
        same_images(open_source(f"{web.url}/00.tar"), open_source(folder / "00.tar"))
    finally:
        other.close()


def test_a_host_whose_name_leads_into_this_network_is_not_followed(monkeypatch):
    monkeypatch.setattr(redirects.socket, "getaddrinfo", lambda *words, **named: [(2, 1, 6, "", ("192.168.1.1", 443))])
    with pytest.raises(UserError, match=r"into the network of this machine \(innocent\.example\)"):
        check_redirect("https://host/a", "https://innocent.example/a")


# Stores


def test_a_store_of_tars_behind_a_url_is_that_of_the_tars_and_the_list_is_made_once(
    web, folder, tokenizer_folder, tmp_path
):
    def made(images, name):
        output = tmp_path / name
        stage.main(
            stage.TokenizeConfig(
                images=images, tokenizer=str(tokenizer_folder), output_dir=str(output), rows_per_shard=5, workers=3
            )
        )
        kept = ("job.json", "listing.arrow", ".seitpp-lock")
        return {path.name: path.read_bytes() for path in output.iterdir() if path.name not in kept}

    local = made(f"{folder}/{{00..02}}.tar", "local")
    assert made(f"{web.url}/{{00..02}}.tar", "remote") == local
    web.asked.clear()
    made(f"{web.url}/{{00..02}}.tar", "remote")
    assert len(web.asked) == 3  # each tar's size and version
    (folder / "01.tar").write_bytes(tar_bytes(samples(30, 4)))
    with pytest.raises(UserError, match=r"holds a store of other input \(images listed differs\)|\(keys differs\)"):
        made(f"{web.url}/{{00..02}}.tar", "remote")


def test_a_kept_list_gives_the_same_images_without_a_question(web, folder, tmp_path):
    spec = f"{web.url}/{{00..02}}.tar?signature=abc"
    images, listing = open_remote(spec)
    write_listing(tmp_path / "listing.arrow", spec, listing)
    kept = (tmp_path / "listing.arrow").read_bytes()
    assert b"abc" not in kept
    web.asked.clear()
    again, same = open_remote(spec, kept=kept, check=False)
    assert web.asked == []
    assert same == listing
    same_images(again, images)
    for bad in (b"", b"no Arrow", kept[:-40], kept[: len(kept) // 2]):
        assert read_listing(bad, spec) is None
    assert read_listing(kept, "another") is None


# Parts


def test_headers_alone_are_read_where_members_are_large():
    content = tar_bytes({f"{number}.png": bytes(300_000) for number in range(8)})
    asked = []

    def fetch(start, length):
        asked.append(length)
        return content[start : start + length]

    index = index_tar("x.tar", RangedFile(fetch, len(content)))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert index.members == {member.name: (member.offset_data, member.size) for member in tar}
    assert sum(asked) < len(content) / 8
    assert max(asked) <= SMALL


def test_small_members_are_read_many_at_a_time():
    content = tar_bytes({f"{number}.png": bytes(700) for number in range(2000)})
    asked = []

    def fetch(start, length):
        asked.append(length)
        return content[start : start + length]

    assert len(index_tar("x.tar", RangedFile(fetch, len(content))).members) == 2000
    assert len(asked) < 12
    assert max(asked) <= LARGE


def test_parts_that_follow_each_other_are_fetched_in_blocks_ahead_and_within_a_bound():
    content = np.random.default_rng(0).integers(256, size=100_000, dtype=np.uint8).tobytes()
    asked, lock = [], threading.Lock()

    def fetch(file, start, length):
        with lock:
            asked.append((file, start, length))
        return content[start : start + length]

    ahead = ReadAhead(fetch, [len(content)] * 2, block=1000)
    places = [(file, start, min(130, len(content) - start)) for file in (0, 1) for start in range(0, len(content), 130)]
    with ThreadPoolExecutor(6) as threads:
        for (_, start, length), part in zip(places, threads.map(lambda place: ahead.read(*place), places), strict=True):
            assert part == content[start : start + length]
        assert len(ahead._blocks) <= KEPT
    blocks = [each for each in asked if each[2] == 1000]
    assert len(blocks) <= 200 + 2 * KEPT
    assert len(asked) < 400 < len(places)
    assert AHEAD >= 1


def test_parts_in_any_order_cost_their_own_bytes_alone():
    asked = []

    def fetch(file, start, length):
        asked.append(length)
        return bytes(length)

    ahead = ReadAhead(fetch, [10**9], block=1000)
    for number in np.random.default_rng(0).permutation(500):
        ahead.read(0, int(number) * 1_000_000, 90)
    assert asked == [90] * 500


def test_a_block_that_failed_is_asked_for_again():
    failures = itertools.count()

    def fetch(file, start, length):
        if length == 100 and next(failures) < 1:
            raise UserError("busy")
        return bytes(length)

    ahead = ReadAhead(fetch, [150], block=100)
    ahead.read(0, 0, 10)
    with pytest.raises(UserError, match="busy"):
        ahead.read(0, 20, 10)
    assert ahead.read(0, 20, 10) == bytes(10)
