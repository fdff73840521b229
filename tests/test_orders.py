"""Order files: what is read out of them, and what is refused without costing the others."""

import pytest
from hypothesis import given, strategies

from jetson_cluster import orders
from jetson_cluster.orders import Action, parse

EVERY = """\
- {id: 41, ack: "pass:12"}
- {id: 42, pin: [a1b2c3d4, sol0343_mr_001395.jpg]}
- {id: 43, weight: {7: 3, 8: default}}
- {id: 44, label: {7: layered rock}}
- {id: 45, more_like: {a1b2c3d4: 1.0}}
- {id: 46, pass: 4MB}
- id: sol-400/a
  hold:
    - /inbox/sol 343, left.jpg
"""


def read(text, name="o.csv"):
    return parse(text if isinstance(text, bytes) else text.encode("utf-8") + b"\n", name)


def only_refusal(text, name="o.csv"):
    parsed = read(text, name)
    assert not parsed.actions
    refused, = parsed.refused
    assert refused.why and "\n" not in refused.why and len(refused.why) < 400
    return refused


def without_place(actions):
    return [action._replace(line=0, source="") for action in actions]


def test_yaml_may_hold_any_mix_of_actions():
    parsed = read(EVERY, "sol.yaml")
    assert not parsed.refused
    assert parsed.actions == [
        Action("41", "ack", ("pass:12",), None, 1, "sol.yaml"),
        Action("42", "pin", ("a1b2c3d4", "sol0343_mr_001395.jpg"), None, 2, "sol.yaml"),
        Action("43", "weight", ("7", "8"), (3.0, None), 3, "sol.yaml"),
        Action("44", "label", ("7",), ("layered rock",), 4, "sol.yaml"),
        Action("45", "more_like", ("a1b2c3d4",), (1.0,), 5, "sol.yaml"),
        Action("46", "pass", (), 4000000, 6, "sol.yaml"),
        Action("sol-400/a", "hold", ("/inbox/sol 343, left.jpg",), None, 7, "sol.yaml")]


def test_csv_says_the_same_with_and_without_a_header():
    lines = ["41,ack,pass:12", "43,weight,7,3", "44,label,7,layered rock",
             "45,more_like,a1b2c3d4,1.0", "46,pass,4MB", "47,pass,,4MB",
             "48,hold,\"/inbox/sol 343, left.jpg\"", "49,label,3,default"]
    plain = read("\n".join(lines))
    assert not plain.refused
    assert [(action.order_id, action.name, action.targets, action.value)
            for action in plain.actions] == [
        ("41", "ack", ("pass:12",), None), ("43", "weight", ("7",), (3.0,)),
        ("44", "label", ("7",), ("layered rock",)), ("45", "more_like", ("a1b2c3d4",), (1.0,)),
        ("46", "pass", (), 4000000), ("47", "pass", (), 4000000),
        ("48", "hold", ("/inbox/sol 343, left.jpg",), None), ("49", "label", ("3",), (None,))]
    with_header = read("\n".join(["id,action,target,value"] + lines))
    assert without_place(with_header.actions) == without_place(plain.actions)
    assert [action.line for action in with_header.actions] == list(range(2, 10))


@pytest.mark.parametrize("name, text, last", [
    ("o.csv", "301,hold,a.jpg\n302,weight,7,30\n", ("302", "weight", ("7",), (30.0,))),
    ("o.yaml", "- id: 301\n  hold: a.jpg\n- id: 302\n  pass: 40MB\n", ("302", "pass", (), 40000000)),
    ("o.yaml", "- {id: 301, hold: a.jpg}\n- {id: 302, pass: 4MB}\n", ("302", "pass", (), 4000000))])
def test_wherever_a_file_is_cut_off_no_order_is_read_as_another(name, text, last):
    whole = read(text.encode("ascii"), name)
    assert whole.actions[-1][:4] == last and len(whole.actions) == 2 and not whole.refused
    for cut in range(len(text)):
        part = read(text[:cut].encode("ascii"), name)
        if text[cut - 1:cut] != "\n":  # nobody can see that more lines were to come
            assert [action[:4] for action in part.actions] == [
                action[:4] for action in whole.actions[:len(part.actions)]], cut
            assert len(part.actions) < 2


def test_an_order_that_was_cut_off_is_refused_alone_and_told():
    parsed = read(b"301,hold,a.jpg\n302,weight,7,3")
    assert len(parsed.actions) == 1
    refused, = parsed.refused
    assert (refused.line, refused.order_id) == (2, "302")
    assert refused.why.startswith("the file ends in the middle of it")
    assert not read(b"301,hold,a.jpg\n# done").refused


def test_csv_of_a_spreadsheet_is_read_like_any_other():
    parsed = read(b"\xef\xbb\xbfID,Action,Target,Value\r\n\r\n# to come down first\r\n"
                  b"1, pin , \"a1b2c3d4\",\r\n2,pin,b1b2c3d4,,,\r\n\r\n")
    assert not parsed.refused
    assert [(action.order_id, action.targets, action.line) for action in parsed.actions] == [
        ("1", ("a1b2c3d4",), 4), ("2", ("b1b2c3d4",), 5)]


@pytest.mark.parametrize("name", ["o.yaml", "o.YML", "o.csv", "o.CSV"])
@pytest.mark.parametrize("content", ["", "\n\n", "# nothing today\n", "\ufeff"])
def test_a_file_without_orders_holds_none(content, name):
    assert read(content, name) == orders.Parsed([], [])


def test_hashes_that_yaml_takes_for_numbers_stay_what_they_are():
    parsed = read("- {id: 007, ack: [00112233, 1234567, 12_34567, 1e567890, 0x123456]}\n"
                  "- {id: 0o7, pin: 2024-10-10}", "o.yaml")
    assert parsed.actions[0].targets == ("00112233", "1234567", "12_34567", "1e567890", "0x123456")
    assert [action.order_id for action in parsed.actions] == ["007", "0o7"]


@pytest.mark.parametrize("line, why", [
    ("1,pin", "it needs an id, an action and a target"),
    ("1;pin;a1b2c3d4", "separated by commas"),
    ("1,pn,a1b2c3d4", "no action is called 'pn'; did you mean 'pin'?"),
    ("1,obey,a1b2c3d4", "there are ack, nack,"),
    (",pin,a1b2c3d4", "an id is 1 to 64 printable characters without spaces, not ''"),
    ("sol 4,pin,a1b2c3d4", "not 'sol 4'"),
    ("x" * 65 + ",pin,a1b2c3d4", "an id is 1 to 64"),
    ("1\x07,pin,a1b2c3d4", "an id is 1 to 64"),
    ("1,pin,a1b2c3d4,3", "pin takes no value, and here is '3'"),
    ("1,pin,a,b,c", "text with a comma in it stands in quotes"),
    ("1,pin,\"a1b2c3d4", "its quotes or commas are wrong"),
    ("1,pin,\"a\"b", "its quotes or commas are wrong"),
    ("1,pin,a\x1b[2J", "control character"),
    ("1,pin,a\0b", "NUL|control character"),
    ("1,pin," + "a" * 4097, "more than 4096 characters"),
    ("1,pin," + "a" * 200000, "field larger than field limit"),
    ("1,ack,pass:", "a pass is named like pass:12, not 'pass:'"),
    ("1,ack,pass:-1", "a pass is named like pass:12"),
    ("1,ack,pass:" + "9" * 400, "a pass is named like pass:12"),
    ("1,more_like,pass:12,1", "more_like needs an image, not a pass"),
    ("1,weight,7,nan", "weight must be a number from 0 to 1000, or default, not 'nan'"),
    ("1,weight,7,inf", "weight must be"), ("1,weight,7,-1", "weight must be"),
    ("1,weight,7,1000.1", "weight must be"), ("1,weight,7,9e99", "weight must be"),
    ("1,weight,7," + "9" * 4000, "weight must be"), ("1,weight,7", "weight must be"),
    ("1,weight,rock,1", "a cluster is a whole number from 0 to 65535, not 'rock'"),
    ("1,weight,-1,1", "a cluster is"), ("1,weight,65536,1", "a cluster is"),
    ("1,weight,\u0667,1", "a cluster is"), ("1,weight,,1", "a cluster is"),
    ("1,label,7," + "x" * 81, "label must be 1 to 80 printable characters"),
    ("1,label,7", "label must be"), ("1,label,7,a\x1bb", "label must be"),
    ("1,more_like,a1b2c3d4,much", "more_like must be a number"),
    ("1,pass,4Mb", "pass '4Mb': not an amount of bytes"),
    ("1,pass,4MB,4MB", "a pass takes one amount of bytes"),
    ("1,pass,-4", "not an amount of bytes"),
    (b"1,pin,caf\xe9.jpg", "it is no UTF-8 text"),
])
def test_a_bad_csv_line_is_refused_alone_and_says_why(line, why):
    line = line if isinstance(line, bytes) else line.encode("utf-8")
    parsed = read(b"a,pin,a1b2c3d4\n" + line + b"\nb,pin,b1b2c3d4\n")
    assert [action.order_id for action in parsed.actions] == ["a", "b"]
    refused, = parsed.refused
    assert refused.line == 2
    assert any(part in refused.why for part in why.split("|")), refused.why
    assert refused.order_id in ("", "1") and len(refused.why) < 300


@pytest.mark.parametrize("entry, why", [
    ("pin", "it must be like {id: 42, pin: a1b2c3d4}"),
    ("[1, pin]", "it must be like {id: 42"),
    ("", "it must be like {id: 42"),
    ("{}", "it needs an id and one action, like {id: 42, pin: a1b2c3d4}; it has nothing"),
    ("{id: 1}", "it has 'id'"), ("{pin: a1b2c3d4}", "it has 'pin'"),
    ("{id: 1, pin: a1b2c3d4, hold: b1b2c3d4}", "one action"),
    ("{id: 1, pinn: a1b2c3d4}", "no action is called 'pinn'; did you mean 'pin'?"),
    ("{id: 1, id: 2, pin: a1b2c3d4}", "in the order 'id' stands twice"),
    ("{id: [1], pin: a1b2c3d4}", "id must be plain text"),
    ("{id: 1, [pin]: a1b2c3d4}", "a key of the order must be plain text"),
    ("{id: 1, pin: []}", "pin names nothing"), ("{id: 1, pin: }", "pin: a target is empty"),
    ("{id: 1, pin: [a1b2c3d4, [b1b2c3d4]]}", "pin must be plain text"),
    ("{id: 1, pin: {a1b2c3d4: 1}}", "pin must be plain text"),
    ("{id: 1, weight: 3}", "weight must be like {7: 3}"),
    ("{id: 1, label: [7, rock]}", "label must be like {7: layered rock}"),
    ("{id: 1, more_like: a1b2c3d4}", "more_like must be like {a1b2c3d4: 1.0}"),
    ("{id: 1, weight: {}}", "weight names nothing"),
    ("{id: 1, weight: {7: 1, 7: 2}}", "in weight '7' stands twice"),
    ("{id: 1, weight: {7: .nan}}", "weight must be a number"),
    ("{id: 1, weight: {7: .inf}}", "weight must be a number"),
    ("{id: 1, weight: {7: [1]}}", "weight '7' must be plain text"),
    ("{id: 1, label: {7: \"a\\eb\"}}", "label must be 1 to 80 printable"),
    ("{id: \"1\\n2\", pin: a1b2c3d4}", "an id is 1 to 64"),
    ("{id: \"1\\u202e\", pin: a1b2c3d4}", "an id is 1 to 64"),
    ("{id: 1, pin: \"a\\u2028b\"}", "control character"),
    ("{id: 1, pass: [4MB]}", "pass must be plain text"),
    ("{id: 1, pass: 4 megabytes}", "not an amount of bytes"),
    ("{id: 1, ack: pass:1e3}", "a pass is named like pass:12"),
    ("{id: 1, pin: !!python/object/apply:os.system [x y]}", None),
])
def test_a_bad_yaml_order_is_refused_alone_and_says_why(entry, why):
    parsed = read("- {id: a, pin: a1b2c3d4}\n- %s\n- {id: b, pin: b1b2c3d4}\n" % entry, "o.yaml")
    if why is None:  # a tag means nothing here: what it stands before is text
        assert [action.targets for action in parsed.actions] == [
            ("a1b2c3d4",), ("x y",), ("b1b2c3d4",)]
        return
    assert [action.order_id for action in parsed.actions] == ["a", "b"]
    refused, = parsed.refused
    assert refused.line == 2 and why in refused.why and refused.order_id in ("", "1")


@pytest.mark.parametrize("content, line, why", [
    ("- {id: 1, pin: a1b2c3d4}\n- {id: 2, pin: [b}\n", 2, "its YAML is broken: "),
    ("- {id: 1, pin: a1b2c3d4}\n\t- x\n", 2, "its YAML is broken"),
    ("- {id: 1, pin: a1b2c3d4}\n---\n- {id: 2, pin: a1b2c3d4}\n", 2, "its YAML is broken"),
    ("- {id: 1, pin: a1b2c3d4}\n- {id: 2, pin: \"a\x00b\"}\n", 0, "its YAML is broken"),
    ("- &a {id: 1, pin: a1b2c3d4}\n- *a\n", 2, "orders cannot refer to each other with '*'"),
    ("id: 1\npin: a1b2c3d4\n", 1, "each of which begins with '- '"),
    ("\n\npin a1b2c3d4", 3, "each of which begins with '- '"),
    (b"- {id: 1, pin: a1b2c3d4}\n- {id: 2, pin: caf\xe9.jpg}\n", 2, "it is no UTF-8 text"),
    ("[" * 30000, 0, "nested too deeply"), ("- " * 20000, 0, "nested too deeply"),
    ("- {id: 1, pin: a1b2c3d4}\n" * 3000, 0, "as YAML it is too large"),
    ("{" * 1000001, 0, "it is larger than 1000000 bytes"),
])
def test_yaml_whose_syntax_is_broken_is_refused_whole_with_its_line(content, line, why):
    refused = only_refusal(content, "o.yaml")
    assert refused.line == line and why in refused.why


def test_a_file_of_unknown_kind_is_refused():
    assert "must end in .yaml or .csv" in only_refusal("1,pin,a1b2c3d4", "orders.txt").why


def test_lines_that_reference_each_other_a_billion_times_are_refused_at_once():
    bomb = "- &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        "- &%s [%s]\n" % (name, ", ".join(["*" + before] * 9))
        for before, name in zip("abcdefgh", "bcdefghi"))
    assert "refer to each other" in only_refusal(bomb, "o.yaml").why


def test_a_file_of_ten_thousand_bad_lines_costs_one_refusal_each_and_no_more():
    parsed = read("nonsense\n" * 10005)
    assert len(parsed.refused) == 10001 and not parsed.actions
    assert parsed.refused[-1].line == 10001 and "at most 10000" in parsed.refused[-1].why


def test_the_same_order_has_the_same_content_however_it_is_written():
    yaml = read("- {id: 1, weight: {07: 3.0}}\n- {id: 2, pin: [a1b2c3d4]}\n- {id: 3, pass: 4MB}\n"
                "- {id: 4, label: {7: layered rock}}\n- {id: 5, weight: {7: default}}", "o.yaml")
    csv = read("1,weight,7,3\n2,pin,a1b2c3d4\n3,pass,4000000\n4,label,7,layered rock\n"
               "5,weight,7,default")
    assert [action.content for action in yaml.actions] == [
        action.content for action in csv.actions] == [
            "7=3", "a1b2c3d4", "4000000", "'7=layered rock'", "7=default"]


def test_two_orders_that_differ_never_have_the_same_content():
    one = Action("1", "pin", ("a b", "c"), None, 1, "")
    assert one.content != one._replace(targets=("a", "b c")).content
    assert one.content != one._replace(targets=("a", "b", "c")).content


LINES = strategies.sampled_from([
    "{0},ack,pass:{1}", "{0},pin,a1b2c{1:03d}", "{0},hold,name {1}.jpg", "{0},weight,{1},2.5",
    "{0},label,{1},rock", "{0},more_like,a1b2c{1:03d},1", "{0},pass,{1}kB"])
VALID = strategies.lists(strategies.tuples(LINES, strategies.integers(0, 200)), max_size=12).map(
    lambda made: [line.format(number, value) for number, (line, value) in enumerate(made)])
JUNK = strategies.one_of(
    strategies.binary(max_size=30), strategies.sampled_from([
        b"\"", b"1,pin,\"", b"'", b",,,", b"\xff", b"\xef\xbb\xbf", b"[", b"{", b"\0",
        b"id,action"]))


def line_of(junk):
    """The junk as one line that surely is no order and no comment."""
    return b"x" + junk.replace(b"\n", b" ").replace(b"\r", b" ").replace(b",", b";")


@given(VALID, strategies.lists(strategies.tuples(strategies.integers(0, 12), JUNK), max_size=5))
def test_bad_lines_never_affect_the_others(lines, junk):
    mixed = [line.encode("ascii") for line in lines]
    for place, bad in junk:
        mixed.insert(place, line_of(bad))
    parsed = read(b"\n".join(mixed) + b"\n")
    assert len(parsed.refused) == len(junk)
    assert without_place(parsed.actions) == without_place(read("\n".join(lines)).actions)


@given(VALID, strategies.integers(0, 12))
def test_a_file_split_in_two_holds_the_same_orders(lines, place):
    first, second = read("\n".join(lines[:place])), read("\n".join(lines[place:]))
    assert without_place(first.actions + second.actions) == without_place(
        read("\n".join(lines)).actions)


@given(strategies.one_of(strategies.binary(max_size=300), strategies.text(max_size=200).map(
    lambda text: text.encode("utf-8", "surrogatepass"))),
    strategies.sampled_from(["o.yaml", "o.csv", "o"]))
def test_whatever_a_file_holds_it_is_read_without_an_exception(content, name):
    parsed = read(content, name)
    for refused in parsed.refused:
        assert refused.why and "\n" not in refused.why and len(refused.why) < 500
    for action in parsed.actions:
        assert action.name in orders.ACTIONS and action.order_id
