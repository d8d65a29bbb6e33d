"""Loading of frozen causal language models, and the operations with which a method changes them.

`Backbone` is deliberately not an `nn.Module`: a method that holds one then saves, moves and counts only its own
parameters, and Lightning, which moves a module to the CPU after every fit, does not move the backbone's weights.
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

# "mixed": fp32 weights, bf16 matrix products
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "mixed": torch.float32}
# scoring uses arbitrary attention patterns, which the flash-attention kernels do not support
ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager")
# attention module -> the function that computes its additional term (`Backbone.add_attention_term`)
ATTENTION_TERMS: WeakKeyDictionary = WeakKeyDictionary()


class Backbone:
    """A frozen model and its tokenizer.

    `hidden_size` is d, `embedding_std` the standard deviation of the embedding's entries.
    """

    is_sharded = False  # True under FSDP: each process holds a shard of every layer

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
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint
        self.config = model.config
        install_sparse_forward(model.model.layers[-1])
        self.hidden_size: int = model.config.hidden_size
        self.site_modules = SITES_BY_MODEL_TYPE[model.config.model_type]
        embedding = model.get_input_embeddings().weight
        # rows beyond the tokenizer's vocabulary were never trained
        self.embedding_std = embedding[: len(tokenizer)].float().std().item()
        self.autocast_dtype = torch.bfloat16 if is_mixed_precision or embedding.dtype == torch.bfloat16 else None
        self.checkpointed_layers: CheckpointedLayers | None = None  # set under activation checkpointing
        # identifies the method attached at present: a method that holds an older token has been detached
        self.attachment_token = object()
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
        """Load the bundled tiny model (`tiny`), a local folder, or a hub id.

        Reads safetensors only and never runs code from the hub. Raises UsageError for an unknown option value, missing
        or invalid files, and if the hub cannot be reached.
        """
        if dtype not in TORCH_DTYPES:
            raise UsageError(f"no dtype {dtype!r}; there are: {', '.join(TORCH_DTYPES)}")
        if attention not in ATTENTION_IMPLEMENTATIONS:
            raise UsageError(f"no attention {attention!r}; there are: {', '.join(ATTENTION_IMPLEMENTATIONS)}")
        target_device = _parse_device(device)
        folder = find_or_download_backbone(name, revision)
        disable_progress_bar()  # the benchmark displays its own progress
        validate_backbone_files(folder, name)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=TORCH_DTYPES[dtype],
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
        tokenizer = load_tokenizer(folder, name)
        if not sharded:
            model = model.to(target_device)
        fingerprint = compute_fingerprint(folder)
        backbone = cls(model, tokenizer, name, fingerprint=fingerprint, is_mixed_precision=dtype == "mixed")
        if checkpointing:
            backbone.checkpointed_layers = CheckpointedLayers(model.model.layers)
        return backbone.shard(target_device) if sharded else backbone

    def shard(self, target_device: torch.device) -> "Backbone":
        """Shard every layer over the processes (FSDP); a forward pass gathers one layer at a time.

        Modules that methods attach are replicated in each process, and so are embeddings tied to the output head.
        """
        mesh = init_device_mesh(target_device.type, (get_world_size(),))
        model = self.model
        embedding = model.get_input_embeddings()
        modules = [*model.model.layers, model.model.norm]
        if embedding.weight is not model.lm_head.weight:
            modules += [embedding, model.lm_head]
        for module in modules:
            # every module is an FSDP root; by default a root would stay gathered after its forward pass
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        self.model = model.to(target_device)
        self.is_sharded = True
        return self

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return self.model.get_input_embeddings().weight.device

    # ---------------------------------------------------------------- forward pass

    def autocast(self) -> torch.autocast | nullcontext:
        """bf16 autocast if the weights are bf16 or the precision is mixed (adapters stay fp32), otherwise no-op."""
        return torch.autocast(self.device.type, self.autocast_dtype) if self.autocast_dtype else nullcontext()

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embeddings [..., d] of token ids [...]."""
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
        """Last hidden states [b, s, d], or [b, n, d] at the `query_positions` [b, n].

        `attention_mask` is a padding mask [b, past + s] or an attention pattern, bool [b, s, past + s].
        """
        if attention_mask.dim() == 3:
            attention_mask = attention_mask[:, None]
            if self.config._attn_implementation == "eager":  # needs an additive mask; sdpa accepts a bool mask
                attention_mask = (~attention_mask).to(self.model.dtype) * torch.finfo(self.model.dtype).min
        kwargs = {}
        if query_positions is not None:  # transformers passes it through to every layer; the last layer reads it
            kwargs["query_positions"] = query_positions
        with self.autocast():
            return self.model.model(
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=cache is not None,
                **kwargs,
            ).last_hidden_state

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        """fp32 logits [n, v] of hidden states [n, d]. Expensive: only for positions whose next token matters."""
        with self.autocast():
            return self.model.lm_head(hidden_states).float()

    def create_cache(self) -> DynamicCache:
        """An empty key/value cache."""
        return DynamicCache(config=self.config)

    # ---------------------------------------------------------------- changes by a method

    def get_linears(self, sites: str) -> dict[str, nn.Linear]:
        """Linear layers by site key: `"q v"` gives {"0_q": the q projection of layer 0, "0_v": ..., "1_q": ...}.

        Raises UsageError for an unknown site.
        """
        for site in sites.split():
            if site not in self.site_modules:
                raise UsageError(f"no site {site!r}; there are: {' '.join(self.site_modules)}")
        layers = self.model.model.layers
        return {
            f"{i}_{s}": layers[i].get_submodule(self.site_modules[s]) for i in range(len(layers)) for s in sites.split()
        }

    def get_module_path(self, site_key: str) -> str:
        """Module path in the model, as in its checkpoint, of a site key such as `"0_q"`."""
        layer, site = site_key.split("_")
        return f"model.layers.{layer}.{self.site_modules[site]}"

    def attach(self, sites: str, build_module: Callable[[nn.Linear], nn.Module]) -> nn.ModuleDict:
        """Attach a module to every linear of the sites: it replaces the output y = W x + b by module(x, y).

        The method registers the returned modules as its own. A module must not pool over the positions of x: in the
        last layer's MLP, x has only the requested query positions.
        """
        modules = nn.ModuleDict()
        for key, linear in self.get_linears(sites).items():
            module = modules[key] = build_module(linear)
            hook = lambda _linear, inputs, y, module=module: module(inputs[0], y)  # noqa: E731
            self.register_undo(linear.register_forward_hook(hook).remove)
        return modules

    def register_undo(self, callback: Callable[[], object]) -> None:
        """Register a callback that `detach` calls, to undo a change that the method made itself."""
        self._undo_callbacks.append(callback)

    def add_attention_term(self, compute_term: Callable[[nn.Module, Tensor], Tensor | None]) -> None:
        """Add a term [b, s, H, d_h] to every attention's output, before the `o` projection.

        `compute_term(attention, q [b, H, s, d_h])` returns the term, or None for no change. q includes its
        rotary position embedding. The stock kernel runs unchanged, so a term of zeros changes no bit. Raises
        UsageError for an attention implementation that transformers does not register (eager).
        """
        stock = self.config._attn_implementation
        if stock not in ALL_ATTENTION_FUNCTIONS:
            raise UsageError(f"this method adds a term to the attention and needs attention: sdpa, found {stock}")
        for layer in self.model.model.layers:
            ATTENTION_TERMS[layer.self_attn] = compute_term
        AttentionInterface.register(f"{stock}+term", _with_term(ALL_ATTENTION_FUNCTIONS[stock]))
        # masks are registered under the same name; without a registered mask function there would be no mask at all
        AttentionMaskInterface.register(f"{stock}+term", ALL_MASK_ATTENTION_FUNCTIONS[stock])
        self.model.set_attn_implementation(f"{stock}+term")

    def unfreeze(self, should_train: Callable[[str], bool] = lambda name: True) -> dict[str, nn.Parameter]:
        """Make the parameters trainable whose name `should_train` accepts; `detach` restores their values."""
        trainable = {name: p for name, p in self.model.named_parameters() if should_train(name)}
        for name, parameter in trainable.items():
            self._pretrained_values.setdefault(name, parameter.detach().clone())
            parameter.requires_grad_(True)
        return trainable

    @torch.no_grad()
    def restore_pretrained(self) -> None:
        """Restore the pretrained values of all parameters that `unfreeze` made trainable."""
        for name, value in self._pretrained_values.items():
            self.model.get_parameter(name).copy_(value)

    def detach(self) -> None:
        """Undo all changes by a method: the weights are bit-identical to those loaded."""
        for undo in reversed(self._undo_callbacks):
            undo()
        for layer in self.model.model.layers:
            ATTENTION_TERMS.pop(layer.self_attn, None)
        self.model.set_attn_implementation(self.config._attn_implementation.removesuffix("+term"))
        self.restore_pretrained()
        self._undo_callbacks = []
        self._pretrained_values = {}
        self.attachment_token = object()
        self.model.requires_grad_(False)
        self.model.zero_grad()


def _with_term(attention_function: Callable) -> Callable:
    """The stock attention function plus the module's additional term, if it has one."""

    def attention(module: nn.Module, query: Tensor, *args: object, **kwargs: object) -> tuple:
        output, weights = attention_function(module, query, *args, **kwargs)  # output [b, s, H, d_h]
        term = ATTENTION_TERMS[module](module, query) if module in ATTENTION_TERMS else None
        if term is not None:
            output = output + term.to(output.dtype)
        return output, weights

    return attention


def _parse_device(device_name: str) -> torch.device:
    """The torch device of this name. Raises UsageError if it does not exist on this machine."""
    try:
        device = torch.device(device_name)
    except RuntimeError:
        raise UsageError(f"no device {device_name!r}; for instance: cpu, cuda, cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"no device {device_name!r}: torch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def load_tokenizer(folder: Path, backbone_name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer unchanged from its file; the end token pads if there is no padding token.

    With a qwen2 config, `AutoTokenizer` silently replaces the pre-tokenizer of any tokenizer.json by Qwen2's, so a
    custom tokenizer would give other ids; `PreTrainedTokenizerFast` reads the file as it is. Raises UsageError if no
    tokenizer can be read or it has no end token.
    """
    tokenizer_class = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        tokenizer = tokenizer_class.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"backbone {backbone_name!r}: no tokenizer can be read from {folder}") from error
    if tokenizer.eos_token_id is None:
        raise UsageError(f"backbone {backbone_name!r}: its tokenizer has no eos_token, so answers would never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
