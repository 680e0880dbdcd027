"""Phases: every part of a run that is no step says what it is and how far."""

from derain_cli.training import phases
from derain_cli.training.phases import Phase
from derain_cli.training.trainer import train


def test_a_run_says_what_it_does_between_its_steps(tiny_config, tmp_path):
    heard: list[Phase | str] = []
    with phases.listening(heard.append):
        train(
            tiny_config(steps=2, validate_every=2),
            tmp_path / "run",
            report=lambda p: heard.append("step"),
        )
    names = [phase if isinstance(phase, str) else phase.name for phase in heard]
    assert names[0] == names[-1] == "saving"
    order = list(dict.fromkeys(names[1:]))
    assert order == ["reading data", "step", "gathering statistics", "validating", "saving"]
    held_out = [phase for phase in heard if phase != "step" and phase.name == "validating"]
    assert [phase.done for phase in held_out] == list(range(1, held_out[0].total + 1))
    assert str(held_out[0]) == f"validating 1 of {held_out[0].total}"


def test_nobody_hears_after_the_context():
    heard: list[Phase] = []
    with phases.listening(heard.append):
        phases.say("saving")
    phases.say("saving")
    assert heard == [Phase("saving")]
