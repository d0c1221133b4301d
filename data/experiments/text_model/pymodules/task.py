"""How the language model is trained: on the help texts that every Python brings, byte by byte.

The texts are `pydoc_data.topics`, what `help("topics")` shows, under Python's own licence.
"""

import math
from pydoc_data.topics import topics

import attrs
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset

from pymodules_core import ModulePool, Run

EVAL_EVERY = 10  # each tenth topic is for evaluation
PROMPTS = ("The ", "If the ", "A class ")


@attrs.define
class Config:
    """The `[task]` table of experiment.toml.

    Attributes:
        lr: Highest learning rate; it rises to this in the first tenth of the run and then falls.
        weight_decay: How much weights shrink towards 0.
        length: Bytes of one text, also of those that the model writes at the end: it has learnt to
            look back no further.
        temperature: Of what it writes; below 1 it takes likely bytes even more often.
    """

    lr: float = 1e-2
    weight_decay: float = 0.1
    length: int = 128
    temperature: float = 0.7


def train_data(config: Config) -> TensorDataset:
    """Return nine topics of ten."""
    return to_windows(load_split()[0], config.length)


def eval_data(config: Config) -> TensorDataset:
    """Return the tenth, of which no paragraph is in the others."""
    return to_windows(load_split()[1], config.length)


def optimizers(module_pool: ModulePool, config: Config) -> AdamW:
    """Train the model with one optimizer, which is then called `main`."""
    parameters = module_pool.lm.parameters()
    return AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)


def schedulers(
    optimizers: dict[str, AdamW], config: Config, epochs: int, steps_per_epoch: int
) -> OneCycleLR:
    """Warm up, then fall to zero; `schedule = "step"` in experiment.toml moves it at each step."""
    steps = max(1, epochs * steps_per_epoch)
    return OneCycleLR(optimizers["main"], max_lr=config.lr, total_steps=steps, pct_start=0.1)


def train_step(module_pool: ModulePool, batch: list[Tensor]) -> Tensor:
    """Return the loss of guessing each byte from those before it."""
    (tokens,) = batch
    # The model itself shifts the labels by one.
    return module_pool.lm(input_ids=tokens, labels=tokens).loss


def eval_step(module_pool: ModulePool, batch: list[Tensor]) -> dict[str, Tensor]:
    """Return the metrics of one batch; the trainer averages them over all batches."""
    (tokens,) = batch
    loss = module_pool.lm(input_ids=tokens, labels=tokens).loss
    return {"loss": loss, "bits_per_byte": loss / math.log(2)}


def run_finished(run: Run) -> None:
    """Let the model write, and save what it wrote beside the metrics."""
    run.module_pool.lm.eval()
    texts = [write_on(run, prompt) for prompt in PROMPTS]
    if run.rank == 0:  # of several processes one writes
        sample = "\n\n----\n\n".join(texts) + "\n"
        (run.data_dir / "sample.txt").write_text(sample, "utf-8")


@torch.no_grad()
def write_on(run: Run, prompt: str) -> str:
    """Let the model continue with a text."""
    tokens = torch.tensor([list(prompt.encode())], device=run.device)
    written = run.module_pool.lm.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_length=run.config.length,
        do_sample=True,
        temperature=run.config.temperature,
    )
    return bytes(written[0].tolist()).decode(errors="replace")


def load_split() -> tuple[str, str]:
    """Split the topics into train and eval.

    Some paragraphs stand in several topics: each is taken once, and those of eval topics are in
    no train text.

    Returns:
        Two texts; about a tenth is eval.
    """
    names = sorted(topics)
    seen: set[str] = set()
    texts = []
    # Eval first: what it has seen, train does not get.
    for part in (names[::EVAL_EVERY], [n for i, n in enumerate(names) if i % EVAL_EVERY]):
        paragraphs = []
        for paragraph in "\n\n".join(topics[name] for name in part).split("\n\n"):
            key = " ".join(paragraph.split())
            if key and key not in seen:
                seen.add(key)
                paragraphs.append(paragraph.strip("\n"))
        texts.append("\n\n".join(paragraphs))
    return texts[1], texts[0]


def to_windows(text: str, length: int) -> TensorDataset:
    """Cut a text into pieces.

    Returns:
        A dataset of tokens ``(length,)`` int64 in 0..255, one a byte; what is left over is dropped.
    """
    tokens = torch.tensor(list(text.encode()), dtype=torch.int64)
    count = len(tokens) // length
    return TensorDataset(tokens[: count * length].reshape(count, length))
