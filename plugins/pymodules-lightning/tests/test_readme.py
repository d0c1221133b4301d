"""What the README and the example show runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from lightning_cases import same_weights, weights_in
from lightning_projects import PLUGINS, train_lightning

PACKAGE = Path(__file__).parents[1]
LIT_SUM = "lightning_projects:LitSum"


def blocks(language):
    text = (PACKAGE / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# The README's Trainer logs and shows its progress, as a person's does.
def test_the_readmes_program_trains(home):
    module, program, afterwards = blocks("python")
    toml, _ = blocks("toml")
    folder = home / "experiments/digits"
    (folder / "pymodules/modules").mkdir(parents=True)
    (folder / "experiment.toml").write_text(toml)
    (folder / "pymodules/modules/student.py").write_text(module)
    (folder / "pymodules/modules/teacher.py").write_text(module.replace("False", "True"))
    namespace = {"__name__": "readme"}

    exec(program, namespace)  # noqa: S102
    exec(afterwards, namespace)  # noqa: S102

    model = namespace["model"]
    found = weights_in(folder / "data/module_ckps")
    assert {name.partition("/")[0] for name in found} == {
        "best",
        "epoch_1",
        "epoch_2",
        "epoch_3",
        "frzn",
        "init",
        "last",
    }
    assert (model.module_pool.student[0].weight == found["best/student"]["0.weight"]).all()


def test_the_readmes_network_is_taken(home, make_experiment, make_pool):
    _, toml = blocks("toml")
    assert '"my_project.models:LitClassifier"' in toml
    model, _ = train_lightning(home, "classifier.ckpt", width=64)
    path = make_experiment(toml=toml.replace("my_project.models:LitClassifier", LIT_SUM))

    pool = make_pool(path, PLUGINS)

    assert same_weights(pool.teacher.state_dict(), model.encoder.state_dict())
    assert pool.is_frozen("teacher")


def test_the_example_distils(tmp_path):
    home = tmp_path / "data"
    shutil.copytree(
        PACKAGE / "examples/data", home, ignore=lambda folder, _: {"data"} & set(_run_of(folder))
    )

    result = subprocess.run(
        [sys.executable, PACKAGE / "examples/digits_distill.py", "2", home],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert result.returncode == 0, result.stderr
    teacher, student = re.findall(r"accuracy (\S+) after epoch", result.stdout)
    assert float(teacher) > 0.9
    assert float(student) > 0.7
    pools = {
        name: weights_in(home / "experiments" / name / "data/module_ckps")
        for name in ("digits_teacher", "digits_student")
    }
    taught, best = (
        pools["digits_student"]["frzn/teacher"],
        pools["digits_teacher"]["best/classifier"],
    )
    assert all((taught[key] == best[key]).all() for key in best)
    assert "epoch_1/student" not in pools["digits_student"]


def _run_of(folder):
    """Name what an earlier call of the example left in an experiment's folder."""
    return {"data"} if (Path(folder) / "experiment.toml").exists() else set()
