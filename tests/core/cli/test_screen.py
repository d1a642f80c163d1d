"""What commands write to: pipes, terminals, with rich and without."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from dispatchers.cli._bar import LineBar, TerminalBar
from dispatchers.cli._screen import JsonScreen, Screen, screen


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "no room")


class Gone(io.StringIO):
    """A pipe whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_table_for_a_pipe_has_one_line_per_row() -> None:
    """In a pipe each row is one line, however long, so that grep works."""
    out = io.StringIO()

    Screen(out, io.StringIO()).table(("a", "b"), [("x", "y" * 500), ("long", "line\nbreak")])

    assert out.getvalue().splitlines() == ["A     B", "x     " + "y" * 500, "long  line; break"]


def test_a_table_on_a_terminal_wraps_its_last_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a long last cell is wrapped under itself."""
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()

    Screen(out, io.StringIO()).table(("a", "b"), [("x", "word " * 20)])

    lines = out.getvalue().splitlines()
    assert len(lines) > 3
    assert all(len(line) < 40 for line in lines)
    assert all(line.startswith("   word") for line in lines[2:])


def test_control_characters_do_not_reach_a_terminal() -> None:
    """A task's or a queue's name cannot move the cursor."""
    out = io.StringIO()

    Screen(out, io.StringIO()).table(("a",), [("\x1b[2Jgone",)])

    assert "\x1b" not in out.getvalue()


def test_a_reader_that_went_away_is_noticed_once() -> None:
    """After the reader went away everything goes to nowhere, without an error."""
    shown = Screen(Gone(), io.StringIO())

    shown.line("one")
    shown.line("two")
    shown.flush()


def test_json_screens_print_json_only() -> None:
    """A screen for programs leaves out what people would read."""
    out = io.StringIO()
    shown = JsonScreen(out, io.StringIO())

    shown.line("for people")
    shown.table(("a",), [("b",)])
    shown.json({"for": "programs"})

    assert out.getvalue() == '{\n  "for": "programs"\n}\n'


@pytest.mark.parametrize(("term", "plain"), [("dumb", False), ("xterm", True)])
def test_rich_is_not_used_where_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, term: str, plain: bool
) -> None:
    """`--plain` and a dumb terminal get plain text."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", Terminal())

    assert type(screen(plain=plain)) is Screen


def test_without_a_terminal_the_text_is_plain() -> None:
    """A pipe gets plain text, rich or not."""
    assert type(screen()) is Screen


def test_a_missing_rich_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `cli` a terminal gets plain text."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "dispatchers.cli._rich", raising=False)
    for name in [name for name in sys.modules if name.startswith("rich.")]:
        monkeypatch.delitem(sys.modules, name)

    assert type(screen()) is Screen


def rich_screen(out: Terminal) -> Screen:
    pytest.importorskip("rich", reason="the extra `cli` is not installed")
    from dispatchers.cli._rich import RichScreen

    return RichScreen(out, Terminal())


def test_rich_does_not_read_our_texts_as_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install 'dispatchers[rq]'` stays whole: brackets are no styles."""
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    shown = rich_screen(out)

    shown.line("pip install 'dispatchers[rq]'")
    shown.table(("a",), [("install 'dispatchers[red]'",)])
    shown.fields({"cure": "'dispatchers[bold]'"})

    assert all(f"[{word}]'" in out.getvalue() for word in ("rq", "red", "bold"))


@pytest.mark.parametrize("width", ["20", "50", "80"])
def test_no_column_is_left_out_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    """A long first column leaves the figures beside it their room."""
    monkeypatch.setenv("COLUMNS", width)
    out = Terminal()
    shown = rich_screen(out)

    shown.table(("steps", "count"), [("again, as they were under way when it was killed", "1787")])
    shown.fields({"a name that is longer than the terminal is wide": "4711"})

    assert "1787" in out.getvalue()
    assert "4711" in out.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR takes the colours away and leaves the tables."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()

    rich_screen(out).table(("state",), [("broken",)])

    assert "broken" in out.getvalue()
    assert "\x1b[31m" not in out.getvalue()
    assert "\x1b[1;31m" not in out.getvalue()


def test_states_have_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal with colours a broken backend is red."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()

    rich_screen(out).table(("state",), [("broken",)])

    assert "\x1b[1;31mbroken" in out.getvalue()


def test_a_bar_in_a_log_is_a_line_now_and_then() -> None:
    """A log gets the first state and the last, not every one."""
    said: list[str] = []
    bar = LineBar("work", 100, said.append)

    for done in range(101):
        bar.show(done)
    bar.end()

    assert said == ["work 0/100\n", "work 100/100\n"]


def test_a_bar_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal's bar is written over itself, never wider than the terminal."""
    monkeypatch.setenv("COLUMNS", "60")
    said: list[str] = []
    bar = TerminalBar("work", 10, said.append)

    bar.show(5, "x" * 200)
    bar.show(10)
    bar.end()

    assert said[0].startswith("\rwork [############............] 5/10")
    assert all(len(each) <= 60 for each in said)
    assert said[-1] == "\n"


def test_a_full_disk_is_one_line_and_an_exit_code() -> None:
    """Output that could not be written is told in a line, and the exit code is 1."""
    shown = Screen(Full(), io.StringIO())

    with pytest.raises(SystemExit, match="cannot be written: no room"):
        shown.line("text")
