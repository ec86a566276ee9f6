"""The command's front door: help, version, typos, exit codes and one-line errors."""

import errno
import importlib
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import lm2_command as cli
from lm2.errors import sentence


def fake_command(monkeypatch: pytest.MonkeyPatch, run) -> None:
    """Make `lm2 info x` call `run`."""
    module = ModuleType("fake")
    module.run, module.STOPPED = run, "Half of it is kept."
    monkeypatch.setattr(cli, "parse", lambda name, argv: (module, SimpleNamespace()))


def raising(error: BaseException):
    def run(options):
        raise error

    return run


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_names_every_command_and_an_example_of_each(argv, capsys):
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name}" in text
        assert command.help in text
        assert command.example in text


def test_version_is_the_installed_one(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.split()[0] == "lm2"


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_each_command_has_help_with_all_its_examples(name, capsys):
    assert cli.main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: lm2 {name}" in text
    examples = importlib.import_module(cli.COMMANDS[name].module).EXAMPLES
    assert examples[0] == cli.COMMANDS[name].example
    assert all(example in text for example in examples)


@pytest.mark.parametrize(
    ("argv", "typed", "meant"),
    [
        (["convrt", "a", "b"], "convrt", "convert"),
        (["dmeo"], "dmeo", "demo"),
        (["study", "write-rule"], "study write-rule", "study write-rules"),
        (["train", "retrofti"], "train retrofti", "train retrofit"),
        (["trian"], "trian", "train"),
        (["trian", "books", "--books", "a"], "trian", "train books"),
        (["evla", "babilnog"], "evla", "eval babilong"),
    ],
)
def test_a_typo_in_a_command_gets_a_suggestion(argv, typed, meant, capsys):
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err == f"lm2: error: there is no command '{typed}': perhaps you meant '{meant}'\n"
    assert captured.out == ""


@pytest.mark.parametrize(("argv", "typed"), [(["zzz"], "zzz"), (["train", "zzz"], "train zzz")])
def test_what_is_like_no_command_gets_the_list(argv, typed, capsys):
    assert cli.main(argv) == 2
    known = ", ".join(name for name in cli.COMMANDS if name.startswith("train ") or argv[0] != "train")
    assert capsys.readouterr().err == f"lm2: error: there is no command '{typed}': choose one of {known}\n"


def test_a_group_alone_lists_its_commands(capsys):
    assert cli.main(["train"]) == 2
    recipes = ", ".join(name for name in cli.COMMANDS if name.startswith("train "))
    assert capsys.readouterr().err == f"lm2: error: 'train' alone is no command: choose one of {recipes}\n"


def test_a_word_like_no_command_lists_them_all(capsys):
    assert cli.main(["zzzzzz"]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in cli.COMMANDS)


def test_a_typo_in_a_flag_gets_a_suggestion(capsys):
    assert cli.main(["convert", "a", "b", "--memory-slts", "3"]) == 2
    captured = capsys.readouterr()
    assert "--memory-slots" in captured.err + captured.out


def test_a_value_of_the_wrong_type_is_an_error(capsys):
    assert cli.main(["convert", "a", "b", "--memory-slots", "many"]) == 2
    captured = capsys.readouterr()
    assert "many" in captured.err + captured.out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ValueError("hidden_size 30 is not\n a multiple of memory_heads 4"),
            "hidden_size 30 is not a multiple of memory_heads 4",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "books"),
            "books: no such file or folder: check the path",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "out/model"), "out/model: the disk is full: free space"),
        (FileExistsError(errno.EEXIST, "File exists", "out"), "out: a file of this name is there already: choose"),
        (FloatingPointError("not finite: lower the rate"), "not finite: lower the rate"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: permission denied: choose a path you may use"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(error, line, monkeypatch, capsys):
    fake_command(monkeypatch, raising(error))
    assert cli.main(["info", "x"]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"lm2: error: {line}")
    assert text.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch):
    fake_command(monkeypatch, raising(ValueError("seven")))
    monkeypatch.setenv("LM2_DEBUG", "1")
    with pytest.raises(ValueError, match="seven"):
        cli.main(["info", "x"])


def test_a_bug_of_ours_is_not_hidden(monkeypatch):
    fake_command(monkeypatch, raising(AssertionError("ours")))
    with pytest.raises(AssertionError, match="ours"):
        cli.main(["info", "x"])


def test_ctrl_c_says_what_is_kept(monkeypatch, capsys):
    fake_command(monkeypatch, raising(KeyboardInterrupt()))
    assert cli.main(["info", "x"]) == 130
    assert "stopped. Half of it is kept." in capsys.readouterr().err


def test_an_error_without_text_still_has_a_sentence():
    assert sentence(ValueError()) == "ValueError"
    assert sentence(OSError(errno.EXDEV, "Invalid cross-device link")) == "Invalid cross-device link"


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "lm2_command", "convrt"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("lm2: error: there is no command 'convrt'")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["info", "--help"]])
def test_output_that_nobody_reads_is_no_error(argv):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lm2_command", *argv]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.UNREAD, "")


def test_a_group_has_help_of_its_own(capsys):
    assert cli.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: lm2 train COMMAND" in text
    recipes = [name for name in cli.COMMANDS if name.startswith("train ")]
    assert len(recipes) == 6
    assert all(f"  {name}" in text for name in recipes)
    assert "convert" not in text.split("examples:")[0].split("commands:")[1]
