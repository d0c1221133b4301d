"""Several processes train what one process trains, whatever shares the modules out."""

import pytest
from rank_cases import KINDS, assert_close, case, exact_example, train_alone, train_cases

STEPS = 50
TOLERANCE = 1e-8


def sharing(kind: str, *modules: str, synced: str) -> dict[str, object]:
    """Return the settings of modules of one kind; those of ``synced`` have batch norm."""
    return {
        f"modules__settings__{name}__parallel": {"kind": kind, "sync_batch_norm": name in synced}
        for name in modules
    }


def classifier(kind: str) -> dict[str, object]:
    return sharing(kind, "encoder", "head", synced="encoder")


def distill(kind: str) -> dict[str, object]:
    # Its loss is a mean over the labelled samples: in each process of a batch over others.
    return {**sharing(kind, "student", synced="student"), "task__labelled_fraction": 1.0}


def gan(kind: str) -> dict[str, object]:
    return {
        **sharing(kind, "generator", "discriminator", synced="generator"),
        "modules__args__discriminator__dropout": 0.0,
        "optimizers__d__accumulate": 2,
        "optimizers__g__accumulate": 3,
        "optimizers__g__clip_norm": 0.5,
        "optimizers__d__clip_value": 0.01,
    }


EXAMPLES = {"digits_classifier": classifier, "digits_distill": distill, "digits_gan": gan}


# What is told apart in seconds; all of it takes minutes.
QUICK = [("digits_classifier", "fsdp"), ("digits_gan", "ddp"), ("digits_gan", "fsdp")]
ALL = [(example, kind) for example in EXAMPLES for kind in (*KINDS, "off")]


def train_all(home, count, wanted):
    """Train examples in ``count`` processes, the same 50 steps as alone."""
    cases = [
        case(
            exact_example(home, example, f"{example}_{kind}_{count}"),
            train__max_steps=STEPS,
            **EXAMPLES[example](kind),
        )
        for example, kind in wanted
    ]
    train_cases(count, cases, home)


def train_each_alone(home):
    """Train each example in this process."""
    # What the student's teachers are loaded from.
    teacher = exact_example(home, "digits_classifier", "digits_classifier")
    train_alone(case(teacher, train__epochs=1))
    for example, settings in EXAMPLES.items():
        path = exact_example(home, example, f"{example}_alone")
        train_alone(case(path, train__max_steps=STEPS, **settings("ddp")))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data home where one process has trained each example."""
    home = tmp_path_factory.mktemp("ranks")
    train_each_alone(home)
    return home


@pytest.fixture(scope="module")
def quick(home):
    train_all(home, 2, QUICK)
    return home / "experiments"


@pytest.mark.parametrize(("example", "kind"), QUICK)
def test_two_processes_train_what_one_trains(quick, example, kind):
    assert_close(quick / f"{example}_{kind}_2", quick / f"{example}_alone", tolerance=TOLERANCE)


@pytest.fixture(scope="module")
def two(home):
    train_all(home, 2, [one for one in ALL if one not in QUICK])
    return home / "experiments"


@pytest.mark.long
@pytest.mark.parametrize(("example", "kind"), [one for one in ALL if one not in QUICK])
def test_two_processes_train_all_that_one_trains(two, example, kind):
    assert_close(two / f"{example}_{kind}_2", two / f"{example}_alone", tolerance=TOLERANCE)


@pytest.fixture(scope="module")
def four(home):
    train_all(home, 4, ALL)
    return home / "experiments"


@pytest.mark.long
@pytest.mark.parametrize(("example", "kind"), ALL)
def test_four_processes_train_what_one_trains(four, example, kind):
    assert_close(four / f"{example}_{kind}_4", four / f"{example}_alone", tolerance=TOLERANCE)
