"""The one loader of frozen causal language models, and the places at which a method may change them.

A backbone is a plain object and no `nn.Module` on purpose: a method that holds one then saves, moves and counts only
what it learned, and Lightning, which moves a module to the CPU after every fit, leaves the big weights alone.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed import get_world_size
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    Cache,
    DynamicCache,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.logging import disable_progress_bar

from methods.core.activation_checkpointing import CheckpointedLayers
from methods.core.backbone_files import (
    SITES_BY_MODEL_TYPE,
    compute_fingerprint,
    find_or_download_backbone,
    validate_backbone_files,
)
from methods.core.sparse_last_layer import install_sparse_forward
from tasks.core.types import UsageError

# "mixed": fp32 weights, bf16 sums
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "mixed": torch.float32}
ATTENTION_IMPLEMENTATIONS = (
    "sdpa",
    "eager",
)  # scoring draws its own masks, which flash-attention's own kernels do not take
ATTENTION_TERMS: WeakKeyDictionary = WeakKeyDictionary()  # attention module -> what `attend` adds to it


class Backbone:
    """A frozen model and its tokenizer. `width` is d, `sigma` the standard deviation of the embedding's entries."""

    is_sharded = False  # each of several processes holds a share of every layer (FSDP)

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        fingerprint: str = "",
        is_mixed_precision: bool = False,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.name, self.fingerprint = tokenizer, name, fingerprint
        self.config = model.config
        install_sparse_forward(model.model.layers[-1])
        self.hidden_size: int = model.config.hidden_size
        self.site_modules = SITES_BY_MODEL_TYPE[model.config.model_type]
        table = model.get_input_embeddings().weight
        self.embedding_std = table[: len(tokenizer)].float().std().item()  # rows past the tokenizer were never trained
        self.autocast_dtype = torch.bfloat16 if is_mixed_precision or table.dtype == torch.bfloat16 else None
        self.checkpointed_layers: CheckpointedLayers | None = None  # under activation checkpointing
        self.attachment_token = object()  # whose turn it is: a method that kept an older one has been closed
        self._undo_callbacks: list[Callable[[], object]] = []
        self._pretrained_values: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls,
        name: str = "tiny",
        *,
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        attention: str = "sdpa",
        sharded: bool = False,
        checkpointing: bool = False,
    ) -> "Backbone":
        """The embedded backbone (`tiny`), a local folder, or a hub id. Only safetensors, never code from the hub."""
        for value, known, what in ((dtype, TORCH_DTYPES, "dtype"), (attention, ATTENTION_IMPLEMENTATIONS, "attention")):
            if value not in known:
                raise UsageError(f"no {what} {value!r}; there are: {', '.join(known)}")
        place, folder = _parse_device(device), find_or_download_backbone(name, revision)
        disable_progress_bar()  # the harness has its own
        validate_backbone_files(folder, name)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=TORCH_DTYPES[dtype],
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
        tokenizer = load_tokenizer(folder, name)
        mixed, mark = dtype == "mixed", compute_fingerprint(folder)
        found = cls(model if sharded else model.to(place), tokenizer, name, fingerprint=mark, is_mixed_precision=mixed)
        if checkpointing:
            found.checkpointed_layers = CheckpointedLayers(model.model.layers)
        return found.shard(place) if sharded else found

    def shard(self, target_device: torch.device) -> "Backbone":
        """Leave this process its share of every layer on its device (FSDP); a pass gathers a layer when it comes to it.

        What methods put at a layer is theirs, and whole in each process; so are embeddings that are also the head.
        """
        mesh, model = init_device_mesh(target_device.type, (get_world_size(),)), self.model
        ends = [model.get_input_embeddings(), model.lm_head]
        tied = ends[0].weight is ends[1].weight
        for part in (*model.model.layers, model.model.norm, *(() if tied else ends)):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)  # each is a root, which would stay gathered
        self.model, self.is_sharded = model.to(target_device), True
        return self

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    # ---------------------------------------------------------------- what a forward pass consists of

    def autocast(self) -> torch.autocast | nullcontext:
        """bf16 sums where the weights are bf16 (adapters stay fp32 and are cast inside), else nothing."""
        return torch.autocast(self.device.type, self.autocast_dtype) if self.autocast_dtype else nullcontext()

    def embed(self, input_ids: Tensor) -> Tensor:
        """ids [...] -> [..., d]"""
        return self.model.get_input_embeddings()(input_ids)

    def compute_hidden_states(
        self,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor,
        position_ids: Tensor,
        cache: Cache | None = None,
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [b, s, d], or of the places `asked` for [b, n] only: [b, n, d].

        `attention_mask` [b, past + s], or who sees whom as bool [b, s, past + s].
        """
        if attention_mask.dim() == 3:
            attention_mask = attention_mask[:, None]
            if self.config._attn_implementation == "eager":  # it adds its mask, sdpa also takes a boolean one
                attention_mask = (~attention_mask).to(self.model.dtype) * torch.finfo(self.model.dtype).min
        given = (
            {} if query_positions is None else {"query_positions": query_positions}
        )  # transformers hands it on; the last layer reads it
        with self.autocast():
            return self.model.model(
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=cache is not None,
                **given,
            ).last_hidden_state

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        """hidden [n, d] -> logits [n, v] in fp32; the dearest layer, so only for positions whose next token matters."""
        with self.autocast():
            return self.model.lm_head(hidden_states).float()

    def create_cache(self) -> DynamicCache:
        """An empty key/value cache."""
        return DynamicCache(config=self.config)

    # ---------------------------------------------------------------- where a method may change it

    def get_linears(self, sites: str) -> dict[str, nn.Linear]:
        """`"q v"` -> {"0_q": the linear of layer 0, "0_v": ..., "1_q": ...}"""
        for site in sites.split():
            if site not in self.site_modules:
                raise UsageError(f"no site {site!r}; there are: {' '.join(self.site_modules)}")
        layers = self.model.model.layers
        return {
            f"{i}_{s}": layers[i].get_submodule(self.site_modules[s]) for i in range(len(layers)) for s in sites.split()
        }

    def get_module_path(self, site_key: str) -> str:
        """`"0_q"` -> the linear's name in the model, as its checkpoint has it."""
        layer, site = site_key.split("_")
        return f"model.layers.{layer}.{self.site_modules[site]}"

    def attach(self, sites: str, build_module: Callable[[nn.Linear], nn.Module]) -> nn.ModuleDict:
        """At every named linear y = W x + b, pass on module(x, y) in place of y. The method registers the result.

        Do not pool over the places of x: in the last layer's MLP they are those only whose state is asked for.
        """
        modules = nn.ModuleDict()
        for key, linear in self.get_linears(sites).items():
            module = modules[key] = build_module(linear)
            hook = lambda _linear, inputs, y, module=module: module(inputs[0], y)  # noqa: E731
            self.register_undo(linear.register_forward_hook(hook).remove)
        return modules

    def register_undo(self, callback: Callable[[], object]) -> None:
        """Have `detach` call this: for a change that a method makes itself."""
        self._undo_callbacks.append(callback)

    def add_attention_term(self, compute_term: Callable[[nn.Module, Tensor], Tensor | None]) -> None:
        """Add term(attention, q [b, H, s, d_h]) -> [b, s, H, d_h] (or None) to every attention's output, before `o`.

        q carries its position rotation. The stock kernel runs untouched, so a term of zeros changes no bit.
        """
        stock = self.config._attn_implementation
        if stock not in ALL_ATTENTION_FUNCTIONS:
            raise UsageError(f"this method adds to the attention and needs attention: sdpa, found {stock}")
        for layer in self.model.model.layers:
            ATTENTION_TERMS[layer.self_attn] = compute_term
        AttentionInterface.register(f"{stock}+term", _with_term(ALL_ATTENTION_FUNCTIONS[stock]))
        # the mask goes by the same name; where none is registered there would be no mask at all
        AttentionMaskInterface.register(f"{stock}+term", ALL_MASK_ATTENTION_FUNCTIONS[stock])
        self.model.set_attn_implementation(f"{stock}+term")

    def unfreeze(self, should_train: Callable[[str], bool] = lambda name: True) -> dict[str, nn.Parameter]:
        """Let the backbone's own parameters with a wanted name learn; `detach` puts back what they were."""
        found = {name: p for name, p in self.model.named_parameters() if should_train(name)}
        for name, parameter in found.items():
            self._pretrained_values.setdefault(name, parameter.detach().clone())
            parameter.requires_grad_(True)
        return found

    @torch.no_grad()
    def restore_pretrained(self) -> None:
        """Put the pretrained values back into whatever `train` let learn."""
        for name, value in self._pretrained_values.items():
            self.model.get_parameter(name).copy_(value)

    def detach(self) -> None:
        """Undo all of the above: bit by bit what was loaded, ready for the next method."""
        for step in reversed(self._undo_callbacks):
            step()
        for layer in self.model.model.layers:
            ATTENTION_TERMS.pop(layer.self_attn, None)
        self.model.set_attn_implementation(self.config._attn_implementation.removesuffix("+term"))
        self.restore_pretrained()
        self._undo_callbacks, self._pretrained_values, self.attachment_token = [], {}, object()
        self.model.requires_grad_(False)
        self.model.zero_grad()


def _with_term(attention_function: Callable) -> Callable:
    """An attention function: the stock one, plus what `attend` was given for this module."""

    def attention(module: nn.Module, query: Tensor, *args: object, **kwargs: object) -> tuple:
        out, weights = attention_function(module, query, *args, **kwargs)  # [b, s, H, d_h]
        extra = ATTENTION_TERMS[module](module, query) if module in ATTENTION_TERMS else None
        return (out if extra is None else out + extra.to(out.dtype)), weights

    return attention


def _parse_device(device_name: str) -> torch.device:
    try:
        device = torch.device(device_name)
    except RuntimeError:
        raise UsageError(f"no device {device_name!r}; for instance: cpu, cuda, cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"no device {device_name!r}: torch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def load_tokenizer(folder: Path, backbone_name: str) -> PreTrainedTokenizerBase:
    """The tokenizer exactly as its file has it, with a token for padding.

    `AutoTokenizer` lays Qwen2's own splitting over any tokenizer.json beside a qwen2 config, silently, and so gives a
    home-made tokenizer other ids; the plain class reads the file as it is.
    """
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"backbone {backbone_name!r}: no tokenizer can be read from {folder}") from error
    if tokenizer.eos_token_id is None:
        raise UsageError(f"backbone {backbone_name!r}: its tokenizer names no eos_token, so no answer could ever end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
