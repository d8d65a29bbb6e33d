"""Options of TA-LoRA: its defaults, and the readings of the abstract that they do not take."""

from dataclasses import dataclass

from methods.config import Config, some_of
from tasks.example import UsageError

PARTS = ("prompt", "a0", "b", "a", "g")
CHOICES = {
    "form": ("additive", "hadamard", "input"),
    "gate": ("per_task", "shared", "none"),
    "gate_fn": ("tanh", "identity"),
    "slow_factor": ("A", "B"),
    "start": ("mean", "zero", "nearest"),
    "gate_start": ("zero", "source"),
}


@dataclass(frozen=True)
class Options(Config):
    """`lr` is that of the fast weights a_t and g_t; `weight_decay` is on A_0 and B alone."""

    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    schedule: str = "cosine"
    prompt_lr: float = 0.3  # of P, in units of the embedding's standard deviation, as in `prompt`
    slow: float = 0.1  # rho: slow weights learn at this share of their rate
    slow_every: int = 1  # K_s: on the sources they step every so often, on the mean of the gradients since
    rest: bool = True  # P stays where it is while the sources' stage warms up
    first: float = 1 / 3  # share of the sources' budget that trains P alone
    length: int = 20  # l0: 20 few-shot, 100 on full data; 0: no shared prompt
    tokens: int = 16  # m
    rank: int = 8  # r; 9 on Qwen2.5-7B
    layers: int = 0  # |S|, from the top; 0: all
    target: str = "prompt a g"  # what learns on the target; on full data all: "prompt a0 b a g"
    start: str = "mean"  # a_t of a target: mean of the sources', zero, or the source's that fits its examples best
    gate_start: str = "zero"  # g_t of a target; source: from where a_t comes
    # other readings
    low_rank: bool = True  # False: Delta_t = D_0 + d_t, free matrices [m, d]
    slow_factor: str = "B"  # A: Delta_t = A_0 (B + b_t), where each task has b_t [r, d] instead of a_t
    form: str = "additive"  # (5), or at the input only, with one gate and m = l0: P (1 + tanh(g_t) Delta_t) elementwise
    # (hadamard), or P + sigma tanh(g_t) Delta_t (input; sigma: the embedding's standard deviation)
    gate: str = "per_task"  # shared: one g for all tasks; none: 1 in place of tanh(g)
    gate_fn: str = "tanh"  # identity: g in place of tanh(g)
    norm: bool = False  # Delta_t passes the layer's frozen RMSNorm before the projections

    def __post_init__(self) -> None:
        super().__post_init__()
        some_of(self.target, PARTS, "ta_lora: target")
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"ta_lora: no {name} {value!r}; there are: {', '.join(known)}")
        if min(self.tokens, self.rank, self.slow_every) < 1 or min(self.length, self.layers, self.slow) < 0:
            found = f"{self.tokens}, {self.rank}, {self.slow_every}, {self.length}, {self.layers}, {self.slow}"
            raise UsageError(f"ta_lora: tokens, rank, slow_every >= 1, length, layers, slow >= 0, found {found}")
        if not 0 <= self.first < 1:
            raise UsageError(f"ta_lora: first is a share of the sources' budget, 0 <= first < 1, found {self.first}")
        if self.form != "additive" and not self.length:
            raise UsageError(f"ta_lora: form {self.form} changes the shared prompt and needs length >= 1")
        if self.start == "nearest" and "a" not in self.target.split():
            raise UsageError("ta_lora: start nearest gives each target an a_t of its own, so target has to name a")
