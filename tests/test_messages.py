"""Facts about messages: plain lines on one stream, from one process, and silence in other
programs."""

import pytest

from bacon import messages


def test_lines_go_to_the_stream_that_the_program_named(capsys):
    for name in ("stdout", "stderr"):
        with messages.speak(name):
            messages.log.info("100 %% of %s", "it")
            messages.log.info("100 % of it")
        heard = capsys.readouterr()
        assert getattr(heard, {"stdout": "out", "stderr": "err"}[name]) == 2 * "100 % of it\n"
        assert heard.out + heard.err == 2 * "100 % of it\n"


def test_a_process_that_does_not_lead_and_another_program_hear_nothing(capsys):
    with messages.speak("stdout", silent=True):
        messages.log.info("a line")
    messages.log.info("a line")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("silent", [False, True])
def test_the_logger_is_afterwards_as_it_was(silent):
    def state():
        return messages.log.level, messages.log.propagate, list(messages.log.handlers)

    before = state()
    with pytest.raises(KeyError), messages.speak("stdout", silent):
        assert state() != before
        raise KeyError
    assert state() == before


def test_a_line_is_heard_once_where_a_program_has_a_log_of_its_own(capsys, caplog):
    messages.log.warning("theirs")
    with messages.speak("stdout"):
        messages.log.info("ours")
    assert caplog.messages == ["theirs"] and capsys.readouterr().out == "ours\n"


def test_a_line_is_in_a_file_as_soon_as_it_is_said(tmp_path, monkeypatch):
    with open(tmp_path / "job.out", "w") as out, messages.speak("stdout"):
        monkeypatch.setattr("sys.stdout", out)
        messages.log.info("a line")
        assert (tmp_path / "job.out").read_text() == "a line\n"
