"""Sentences that a language model writes, asked over HTTP from a service on this machine, and files of sentences."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vlp_gym import chat, cli
from vlp_gym.errors import InstructionError, UnknownNameError
from vlp_gym.tasks.authoring import question, sentences_in, usable
from vlp_gym.tasks.instruction_file import held_out, load_instructions, plain
from vlp_gym.tasks.instructions import LANGUAGES, instructions
from vlp_gym.tasks.metaworld import TASKS

KEY = "sk-a-key-that-nobody-may-see"
DOOR = [
    "pry the metal door wide",
    "haul the door of the cupboard away",
    "drag the panel toward you",
]
PRESS = ["jab at the knob", "poke the knob with the gripper", "thump the knob"]

Answer = str | tuple[int, str] | Callable[[], str]
"""What a model says; or a status and a body; or what takes its time to say it."""


class Service(ThreadingHTTPServer):
    """Speaks chat completions: gives its answers in turn, the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.asked]


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        self.server.paths.append(self.path)
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer()
        status, body = answer if isinstance(answer, tuple) else (200, completion(answer))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        with suppress(BrokenPipeError):  # the client of some tests does not wait that long
            self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


def completion(content: str | None) -> str:
    message = {"role": "assistant", "content": content}
    return json.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message}]})


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(chat, "WAITS_S", (0.0, 0.0))
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "sentences.json"


def command(service: Service, out: Path, *arguments: str) -> list[str]:
    whom = ["--endpoint", service.url, "--model", "scribe"]
    return ["instructions", *arguments, *whom, "--out", str(out)]


def failure(service: Service, out: Path, *arguments: str) -> str:
    """Return the one line that a command ends with."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(command(service, out, *arguments))
    assert isinstance(exit_.value.code, str)
    assert "\n" not in exit_.value.code
    return exit_.value.code


def test_without_an_endpoint_the_built_in_sentences_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.main(["instructions", "door-open"])
    text = capsys.readouterr().out
    assert all(f"'{language}'" in text for language in LANGUAGES)
    assert all(instructions("DoorOpen", language)[-1] in text for language in LANGUAGES)


def test_sentences_of_a_model_are_written_with_where_they_come_from(
    service: Service, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers = [json.dumps(DOOR), json.dumps(PRESS)]
    cli.main(command(service, out, "DoorOpen", "button-press", "--number", "3"))
    assert "'ButtonPress': 3" in capsys.readouterr().out
    assert load_instructions(out) == {"DoorOpen": tuple(DOOR), "ButtonPress": tuple(PRESS)}
    entry = json.loads(out.read_text())["DoorOpen"]
    assert set(entry) == {"sentences", "model", "endpoint", "prompt", "date"}
    assert (entry["model"], entry["endpoint"]) == ("scribe", service.url)
    assert entry["prompt"] == service.questions[0]
    assert service.paths == ["/v1/chat/completions"] * 2
    assert service.asked[0]["model"] == "scribe"
    assert "authorization" not in service.headers[0]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(DOOR),
        f"Sure! Here are 3 sentences [as a list]:\n```json\n{json.dumps(DOOR, indent=1)}\n```\nEnjoy.",
        json.dumps({"sentences": DOOR}),
        json.dumps([{"id": i, "sentence": sentence} for i, sentence in enumerate(DOOR)]),
        json.dumps({str(i): sentence for i, sentence in enumerate(DOOR)}),
        json.dumps(DOOR)[:-1] + ', "yank the do',
        json.dumps(DOOR)[:-1] + ",]",
        f'<think>They want ["some", "list"].</think>\n{json.dumps(DOOR)}',
        "Here are three:\n\n" + "\n".join(f"{i}. {s.capitalize()}." for i, s in enumerate(DOOR, 1)),
        "\n".join(f'- **"{sentence}"**,' for sentence in DOOR),
        "Certainly, three of them:\n" + "\n".join(DOOR) + "\n",
    ],
)
def test_sentences_are_found_in_an_answer(answer: str) -> None:
    assert usable(sentences_in(answer), "DoorOpen") == DOOR


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I'm sorry, but I can't help.",
        "[",
        "[" * 5000,
        "{}",
        "[1, 2]",
        "```json\n[]\n```",
        "<b>",
    ],
)
def test_what_is_no_list_of_sentences_holds_none(answer: str) -> None:
    assert usable(sentences_in(answer), "DoorOpen") == []


def test_only_new_sentences_of_the_task_itself_are_taken() -> None:
    refused = [
        instructions("DoorOpen")[3].upper(),  # built in
        *instructions("DoorClose")[:2],  # of the task that undoes it
        *(instructions("DoorOpen", language)[0] for language in LANGUAGES[1:]),
        instructions("SweepInto", "phrase")[0].capitalize() + "!",
        "open",
        "pry {noun} open",
        "pry the door open " + "very " * 40 + "wide",
    ]
    assert usable([*refused, DOOR[0], *refused, f" {DOOR[0].title()}. "], "DoorOpen") == DOOR[:1]
    assert usable(DOOR, "DoorOpen", have=DOOR[1:]) == DOOR[:1]


@pytest.mark.parametrize("task", TASKS)
def test_a_question_gives_no_sentence_away_that_is_kept_for_testing(task: str) -> None:
    lines = [plain(line) for line in question(task, 40).splitlines()]
    assert held_out().isdisjoint(lines)
    assert set(map(plain, instructions(task))) <= set(lines)


def test_what_is_missing_is_asked_for_again(service: Service, out: Path) -> None:
    kept = instructions("DoorOpen", "phrase")[0]
    service.answers = [json.dumps([DOOR[0], DOOR[0], kept]), "not [json", json.dumps(DOOR)]
    cli.main(command(service, out, "DoorOpen", "--number", "3"))
    assert load_instructions(out) == {"DoorOpen": tuple(DOOR)}
    for asked, number in zip(service.questions, (3, 2, 2), strict=True):
        assert f"Write {number} more" in asked
    assert [DOOR[0] in asked for asked in service.questions] == [False, True, True]


def test_more_than_was_asked_for_is_left_out(service: Service, out: Path) -> None:
    service.answers = [json.dumps(DOOR)]
    cli.main(command(service, out, "DoorOpen", "--number", "2"))
    assert load_instructions(out) == {"DoorOpen": tuple(DOOR[:2])}


def test_too_few_after_all_rounds_is_an_error_and_what_came_is_kept(
    service: Service, out: Path
) -> None:
    service.answers = [json.dumps(DOOR[:2])] * 3 + [json.dumps(PRESS)]
    said = failure(service, out, "DoorOpen", "ButtonPress", "--number", "3", "--rounds", "3")
    assert "fewer than 3 usable sentences in 3 rounds for DoorOpen (2);" in said
    assert len(service.asked) == 4
    assert load_instructions(out) == {"DoorOpen": tuple(DOOR[:2]), "ButtonPress": tuple(PRESS)}
    service.answers = [json.dumps(DOOR)]
    cli.main(command(service, out, "DoorOpen", "ButtonPress", "--number", "3"))
    assert len(service.asked) == 5
    assert load_instructions(out)["DoorOpen"] == tuple(DOOR)


def test_a_model_that_says_nothing_writes_nothing(service: Service, out: Path) -> None:
    service.answers = [(200, completion(None))]
    assert "DoorOpen (0)" in failure(service, out, "DoorOpen", "--rounds", "2")
    assert not out.exists()


def test_a_killed_command_goes_on_where_it_stopped(service: Service, out: Path) -> None:
    asked_again, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        asked_again.set()
        go_on.wait(60)
        return json.dumps(PRESS)

    service.answers = [json.dumps(DOOR), slow]
    arguments = command(service, out, "DoorOpen", "ButtonPress", "--number", "3")
    code = f"from vlp_gym.cli import main; main({arguments!r})"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        assert asked_again.wait(60)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    go_on.set()
    assert load_instructions(out) == {"DoorOpen": tuple(DOOR)}
    first = json.loads(out.read_text())["DoorOpen"]

    service.answers = [json.dumps(PRESS)]
    cli.main(arguments)
    assert len(service.asked) == 3
    assert TASKS["ButtonPress"].instruction in service.questions[-1]
    assert json.loads(out.read_text())["DoorOpen"] == first
    assert load_instructions(out)["ButtonPress"] == tuple(PRESS)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_tasks_that_have_enough_are_kept_whoever_wrote_them(service: Service, out: Path) -> None:
    service.answers = [json.dumps(DOOR)]
    out.parent.mkdir()
    out.write_text(json.dumps({"button-press": PRESS}))
    cli.main(command(service, out, "DoorOpen", "ButtonPress", "--number", "3"))
    assert len(service.asked) == 1
    assert load_instructions(out) == {"ButtonPress": tuple(PRESS), "DoorOpen": tuple(DOOR)}


@pytest.mark.parametrize("entry", [PRESS, {"sentences": PRESS, "model": "another"}])
def test_sentences_of_two_writers_are_not_mixed(service: Service, out: Path, entry: Any) -> None:
    out.parent.mkdir()
    out.write_text(json.dumps({"ButtonPress": entry}))
    said = failure(service, out, "DoorOpen", "ButtonPress", "--number", "4")
    assert "3 sentences of ButtonPress by" in said and "--number 3" in said
    assert not service.asked
    assert json.loads(out.read_text()) == {"ButtonPress": entry}


def test_a_key_is_sent_and_stands_nowhere(
    service: Service,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    service.answers = [json.dumps(DOOR)]
    cli.main(command(service, out, "DoorOpen", "--number", "3", "--api-key-env", "MY_KEY"))
    assert service.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in out.read_text() + "".join(capsys.readouterr())


def test_what_may_be_secret_in_an_endpoint_is_sent_and_stands_nowhere(
    service: Service, out: Path
) -> None:
    service.answers = [(500, "broken"), (500, "broken"), (500, "broken"), json.dumps(DOOR)]
    url = service.url.replace("//", "//me:hidden@") + "?code=hidden"
    arguments = ["instructions", "DoorOpen", "--endpoint", url, "--model", "scribe"]
    with pytest.raises(SystemExit) as exit_:
        cli.main([*arguments, "--out", str(out)])
    assert "hidden" not in str(exit_.value.code)
    cli.main([*arguments, "--out", str(out), "--number", "3"])
    assert service.paths[-1] == "/v1/chat/completions?code=hidden"
    assert service.headers[-1]["authorization"].startswith("Basic ")
    assert json.loads(out.read_text())["DoorOpen"]["endpoint"] == service.url


def test_a_busy_service_is_asked_again(service: Service, out: Path) -> None:
    service.answers = [(503, "starting"), (429, "slowly"), json.dumps(DOOR)]
    cli.main(command(service, out, "DoorOpen", "--number", "3"))
    assert load_instructions(out) == {"DoorOpen": tuple(DOOR)}


@pytest.mark.parametrize(
    ("status", "times", "cure"),
    [
        (500, 3, "run the same command again later"),
        (401, 1, "environment variable that --api-key-env names"),
        (404, 1, "ends in /v1"),
        (400, 1, "--endpoint and --model are right"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    service: Service,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    times: int,
    cure: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    service.answers = [(status, f'{{"error":\n"no {KEY} {"words " * 200}"}}')]
    said = failure(service, out, "DoorOpen")
    assert f"{service.url} answers {status}: " in said and cure in said
    assert KEY not in said and "no ***" in said and len(said) < 700
    assert len(service.asked) == times
    assert not out.exists()


@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": null}]}']
)
def test_another_protocol_is_said_to_be_one(service: Service, out: Path, body: str) -> None:
    service.answers = [(200, body)]
    assert "does not answer in chat completions" in failure(service, out, "DoorOpen")


def test_a_service_that_says_nothing_is_not_waited_for(service: Service, out: Path) -> None:
    go_on = threading.Event()
    service.answers = [lambda: str(go_on.wait(60))]
    said = failure(service, out, "DoorOpen", "--timeout-s", "0.2")
    go_on.set()
    assert "said nothing for 0.2 s; raise --timeout-s" in said


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("http://127.0.0.1:9/v1", "cannot ask http://127.0.0.1:9/v1: .*whether the service runs"),
        ("localhost:8000/v1", "cannot ask localhost:8000/v1: .*protocol"),
        ("http://localhost:port/v1", "--endpoint is no URL; one is http://localhost:8000/v1"),
    ],
)
def test_an_endpoint_that_is_none_is_an_error(
    out: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, says: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    arguments = ["--endpoint", endpoint, "--model", "scribe", "--out", str(out)]
    with pytest.raises(SystemExit, match=f"vlp instructions: {says}"):
        cli.main(["instructions", "DoorOpen", *arguments])


@pytest.mark.parametrize("half", [["--model", "scribe"], ["--endpoint", "http://127.0.0.1:9/v1"]])
def test_a_model_and_an_endpoint_are_named_together(half: list[str]) -> None:
    with pytest.raises(SystemExit, match="name both"):
        cli.main(["instructions", "DoorOpen", *half])


def test_a_key_of_more_than_a_line_is_not_shown(
    service: Service, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    said = failure(service, out, "DoorOpen")
    assert "not one line" in said and KEY not in said
    assert not service.asked


def test_a_file_may_be_written_by_hand(out: Path) -> None:
    out.parent.mkdir()
    out.write_text(json.dumps({"door-open": [" pry  it open", "pry it open", "öffne die Tür"]}))
    assert load_instructions(out) == {"DoorOpen": ("pry it open", "öffne die Tür")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
        ('["open the door"]', "holds no sentences by task"),
        ('{"DoorOpen": []}', "DoorOpen: expected a list"),
        ('{"DoorOpen": "open the door"}', "DoorOpen: expected a list"),
        ('{"DoorOpen": {"model": "scribe"}}', "DoorOpen: expected a list"),
        ('{"DoorOpen": [3]}', "DoorOpen: expected a list"),
        ('{"DoorOpen": ["?"]}', "DoorOpen: .*has no words"),
        ('{"DoorOpen": ["pry it open"], "door-open": ["pry it open"]}', "names DoorOpen twice"),
    ],
)
def test_a_file_that_is_none_is_an_error(out: Path, text: str, says: str) -> None:
    out.parent.mkdir()
    out.write_bytes(text.encode("latin-1"))
    with pytest.raises(InstructionError, match=says):
        load_instructions(out)


def test_the_built_in_sentences_can_be_put_into_a_file(out: Path) -> None:
    out.parent.mkdir()
    out.write_text(json.dumps({task: instructions(task) for task in TASKS}))
    assert load_instructions(out) == {task: instructions(task) for task in TASKS}


def test_a_file_that_is_missing_is_an_error_that_says_who_writes_it(out: Path) -> None:
    with pytest.raises(InstructionError, match="`vlp instructions` writes"):
        load_instructions(out)


def test_a_file_of_unknown_tasks_names_the_closest(out: Path) -> None:
    out.parent.mkdir()
    out.write_text('{"DoorOpn": ["pry it open"]}')
    with pytest.raises(UnknownNameError, match="did you mean 'DoorOpen'"):
        load_instructions(out)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_sentence_that_is_kept_for_testing_is_refused_under_every_task(
    out: Path, language: Any
) -> None:
    out.parent.mkdir()
    for task in TASKS:
        sentence = instructions(task, language)[-1].capitalize() + "."
        out.write_text(json.dumps({"Reach": ["go there", sentence]}))
        with pytest.raises(InstructionError, match="kept for testing"):
            load_instructions(out)
