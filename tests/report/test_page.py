"""The page: its numbers are those of the files, and it stands alone."""

import html
import json
import re
from html.parser import HTMLParser

from report_runs import COMMAND, PIXELS, measured, report, write_finetuning, write_run


def test_numbers_on_the_page_are_those_of_the_files(demo):
    text = report(demo).text
    assert "18.8 dB PSNR; they use 31 of 37 codes" in text
    assert "On 23 images held out" in text
    assert "2.87 nats per hidden token" in text
    assert "3.50 (token frequencies) and 3.25 (token frequencies at each position)" in text
    assert "the right code for 31.2 % of the hidden tokens" in text
    assert "with 60 % of the patches hidden" in text
    assert "60.0 ± 2.0" in text
    assert "52.0 ± 2.0" in text
    assert "+8.0 ± 2.8 points, 2.83 times its standard deviation over 3 seeds" in text  # sqrt(2² + 2²) = 2.83
    assert "40 / 50" in text
    assert "With 50 test images, one standard error of an accuracy of 60.0 % is 6.9 points" in text  # sqrt(.6 .4 / 50)


def test_the_summary_names_the_key_figures(demo):
    lead = re.search(r'<div class="lead">(.*?)</div>', report(demo).source, re.DOTALL).group(1)
    lead = re.sub("</?p>", "", lead)
    lead = " ".join(html.unescape(lead).split())
    assert lead.startswith(
        "12 images of 16 \u00d7 24 pixels became 4 \u00d7 6 tokens each, once: 24 bytes per image, packed, against "
    )
    assert "Accuracy on pets rises from 52.0 ± 2.0 % (from scratch) to 60.0 ± 2.0 % (from MTM)" in lead
    assert "(from MTM), on 50 test images; the best simple" in lead
    assert f"the best simple baseline ({PIXELS}) reaches 55.0 %." in lead


def test_an_accuracy_of_one_seed_has_the_interval_of_its_test_images(demo):
    source = report(demo).source
    table = source[source.index('id="table-results-pets"') :]
    assert re.findall(r">([\d.]+)<br><span class=\"muted\">\((.*?)\)", table[: table.index("</table>")]) == [
        ("55.0", "41.3 to 67.9"), ("16.0", "8.3 to 28.5")  # Wilson, 50 images
    ]  # fmt: skip


def test_the_best_way_on_tokens_alone_is_bold_in_each_row(demo):
    source = report(demo).source
    table = source[source.index("Agreement with the tokens") : source.index("PSNR of the decoded tokens")]
    assert re.findall(r"<b>(.*?)</b>", table) == ["34.0", "43.0"]  # not the references' 56.0 and 57.0


def test_a_way_that_is_no_better_than_a_naive_one_is_said_to_be_so(demo):
    assert "the better of the two naive ways 43.0 %: TokenAdapt is no better here." in report(demo).text


def test_commands_come_with_their_seconds_and_the_total(demo):
    text = report(demo).text
    assert "Together 3 min 5 s (184.9 s)" in text
    assert "123.4 s, 1,234 MB at most" in text
    assert COMMAND in text


def test_without_a_log_the_commands_are_those_that_the_runs_recorded(tmp_path):
    run = write_run(tmp_path / "mtm", "mtm.pretrain", summary={})
    (run / "env.json").write_text(json.dumps({"command": "pretrain.py --store tokens"}))
    text = report(run).text
    assert "Run times and quotes were not recorded" in text
    assert "python -m seitpp.mtm.pretrain --store tokens" in text


def test_all_sections_of_a_whole_demo_are_there_and_a_missing_stage_has_none(demo):
    own = ["Pipeline", "Your own images"]
    assert len(report(demo).headings) == 12
    assert report(demo / "probe").headings == [own[0], "Results", own[1], "Environment"]
    assert report(demo / "store" / "train").headings == [own[0], "Storage", own[1]]
    page = report(demo / "scratch", demo / "tokenizer")
    assert page.headings == [own[0], "Images and their reconstructions", "Results", own[1], "Environment"]
    assert "MTM" not in page.section("results")


def test_a_run_that_is_not_finished_has_its_curve_and_no_numbers(tmp_path):
    run = write_run(tmp_path / "mtm", "mtm.pretrain", metrics=[{"step": 9, "loss": 6.1}, {"step": 19, "loss": 5.9}])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 29, "lo')  # cut off by a kill
    page = report(run)
    assert "This pre-training is not finished" in page.text
    assert "training 5.90" in page.text
    assert "None" not in page.text


def test_names_and_texts_of_a_run_are_never_html(demo):
    evil = '<img src=x onerror="alert(1)">'
    fields = {"dataset": evil + "</table>", "protocol": evil, "augmentation": evil}
    write_run(
        demo / "evil", "finetune.probe", summary={},
        results=measured(evil, [0.3], **fields) + measured(evil, [0.3], shift=evil, severity=1, **fields),
    )  # fmt: skip
    (demo / "commands.jsonl").write_text(json.dumps({"stage": evil, "command": f"seitpp --x {evil}</pre>"}) + "\n")
    write_finetuning(demo / "evil-finetune", "mtm", (0.1, 0.2), unused=evil)
    page = report(demo)
    assert evil not in page.source
    assert page.text.count(evil) >= 4
    assert not [attributes for tag, attributes in page.tags if "onerror" in attributes or attributes.get("src") == "x"]
    assert "Drawn by <Ann & Bob>" in page.text


def test_the_page_loads_nothing_and_runs_nothing(demo):
    page = report(demo)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio", "image", "use"}
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href", "xlink:href", "data", "poster", "background", "style"):
            value = attributes.get(name)
            places = ("#", "https://", "tables/")  # the last are files beside the page
            is_link = tag == "a" and name == "href" and value is not None and value.startswith(places)
            is_plain_style = (
                name == "style" and value is not None and re.fullmatch(r"(?:(?!url)[a-z0-9:;.,()#% -])*", value)
            )
            is_inside = value is None or value.startswith("data:image/png;base64,")
            assert is_inside or is_link or is_plain_style, (tag, name, value)
    style = "".join(re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page.source


def test_every_picture_has_a_text_and_every_link_a_target(demo):
    page = report(demo)
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    assert all(
        attributes.get("aria-label") or "aria-hidden" in attributes for tag, attributes in page.tags if tag == "svg"
    )
    places = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a" and attributes["href"][0] == "#"}
    assert links <= places


def test_the_page_is_in_order_of_its_questions_and_its_contents_name_each_section(demo):
    page = report(demo)
    questions = re.findall(r'<h2 class="question">(.*?)</h2>', page.source)
    assert questions == [
        "How few bytes?", "How good are the features?", "How robust?", "Which ingredient?", "How was it made?",
    ]  # fmt: skip
    lists = '<nav class="contents side".*?</nav>|<details class="contents.*?</details>'
    contents = re.findall(lists, page.source, re.DOTALL)
    assert len(contents) == 2
    side, folded = (re.findall(r'<a href="#([^"]+)">([^<]+)</a>', each) for each in contents)
    assert side == folded
    assert [title for _, title in side if title in questions] == questions
    anchors = [anchor for anchor, _ in side]
    assert len(set(anchors)) == len(anchors) > 15
    places = [page.source.index(f' id="{anchor}"') for anchor in anchors]
    assert places == sorted(places)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)


VOID = {"meta", "img", "br", "hr", "input", "col", "wbr"}
LONE = {"path", "rect", "line", "circle", "polyline"}


class Balance(HTMLParser):
    """Whatever is opened is closed, in the right order."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            self.wrong.append((self.getpos(), f"an attribute of {tag} twice"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append((self.getpos(), tag))

    def handle_startendtag(self, tag, attrs):
        if tag not in VOID | LONE:
            self.wrong.append((self.getpos(), tag))


def test_whatever_the_page_opens_it_closes(demo):
    parser = Balance()
    parser.feed(report(demo).source)
    parser.close()
    assert (parser.open, parser.wrong) == ([], [])


def test_no_paragraph_holds_a_block_and_every_row_of_a_table_has_as_many_cells(demo):
    source = report(demo).source
    for paragraph in re.findall(r"<p[ >].*?</p>", source, re.DOTALL):
        assert not re.search(r"<(div|table|ul|ol|figure|section|p)[ >]", paragraph[2:]), paragraph
    for table in re.findall(r"<table.*?</table>", source, re.DOTALL):
        (body,) = re.findall(r"<tbody>(.*?)</tbody>", table, re.DOTALL)
        heading = re.findall(r"<tr>.*?</tr>", table[: table.index("</thead>")], re.DOTALL)[-1]
        columns = len(re.findall(r"<th[ >]", heading))
        rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
        assert rows
        assert {len(re.findall(r"<t[hd][ >]", row)) for row in rows} == {columns}
