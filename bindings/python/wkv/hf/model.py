# SPDX-License-Identifier: Apache-2.0
"""The model as transformers sees it."""
from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Union

import numpy
import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

import wkv

from .cache import RWKV7Cache
from .tokenizer import RWKV7Tokenizer
from .turn import Turn

# the name of the cache among arguments and outputs; both are understood as an argument
CACHE = next(field.name for field in dataclasses.fields(CausalLMOutputWithPast)
             if field.name in ("cache", "past_key_values"))
END_OF_TEXT = 0


class RWKV7Config(PreTrainedConfig):  # type: ignore[misc]
    """Shapes of a wkv.Model in the words of transformers."""

    model_type = "rwkv7"

    @classmethod
    def of(cls, model: wkv.Model) -> RWKV7Config:
        """The configuration of a loaded model."""
        i = model.info
        made = cls(vocab_size=i.vocab_size, hidden_size=i.width, num_hidden_layers=i.layers, num_heads=i.heads,
                   head_dim=i.head_size, intermediate_size=i.ffn_width, tie_word_embeddings=False,
                   bos_token_id=None, eos_token_id=END_OF_TEXT, pad_token_id=END_OF_TEXT,
                   architectures=["RWKV7ForCausalLM"])
        made.name_or_path = model.path
        return made


class RWKV7ForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """RWKV-7 for generate(): libwkv has the weights and computes, tensors are on the CPU.

    It infers only, and reads ids only: inputs_embeds, hidden states, attentions, training and other number formats or
    devices than those of loading are refused. `wkv` is the wkv.Model.

    A second turn with the same cache passes the whole history, or new ids alone with an attention_mask of past and new
    columns (see wkv/hf/turn.py); a history that does not begin with what the cache has read is an error. Rows of a
    batch that have ended read no padding. pad_token_id should be an end token, as it is by default.
    """

    config_class = RWKV7Config
    main_input_name = "input_ids"
    _is_stateful = True
    _skip_keys_device_placement = ["cache", "past_key_values"]
    supports_gradient_checkpointing = False

    def __init__(self, model: wkv.Model) -> None:
        super().__init__(RWKV7Config.of(model))
        self.wkv = model
        self.generation_config = GenerationConfig(eos_token_id=END_OF_TEXT, pad_token_id=END_OF_TEXT)
        self.post_init()
        self.eval()

    @classmethod
    def from_wkv(cls, model: Union[wkv.Model, Any], **options: Any) -> RWKV7ForCausalLM:
        """Around a wkv.Model, or a path with the options of wkv.Model: device, threads, weight_type and so on."""
        if isinstance(model, wkv.Model):
            if options:
                raise TypeError(f"a loaded model takes no option {next(iter(options))!r}")
            return cls(model)
        return cls(wkv.Model(model, **options))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> RWKV7ForCausalLM:
        """From a file (.pth, .gguf, .safetensors and so on) or the folder of a transformers checkpoint; options are those
        of wkv.Model. Nothing is downloaded."""
        return cls.from_wkv(pretrained_model_name_or_path, **options)

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Refused."""
        raise NotImplementedError(f"the weights stay in {self.wkv.path}: copy it, or write another format with wkv.convert")

    def tokenizer(self) -> RWKV7Tokenizer:
        """The vocabulary that came with the model, for text of batches, streamers and stop_strings."""
        return RWKV7Tokenizer(self.wkv.tokenizer)

    # --- reading

    def forward(self, input_ids: Optional[torch.Tensor] = None, attention_mask: Optional[torch.Tensor] = None,
                past_key_values: Optional[Any] = None, inputs_embeds: Optional[torch.Tensor] = None,
                labels: Optional[torch.Tensor] = None, use_cache: Optional[bool] = None,
                output_attentions: Optional[bool] = None, output_hidden_states: Optional[bool] = None,
                return_dict: Optional[bool] = None, logits_to_keep: Union[int, torch.Tensor] = 0,
                cache: Optional[Any] = None) -> Any:
        """Read input_ids [batch, columns], which are new, behind what the cache has read.

        attention_mask: zeros where nothing is to be read; [batch, columns], or [batch, past + columns]. Scores of a column
        that is not read are those of the last one before it, zeros if there is none. labels give a loss to look at.
        """
        for name, value in (("inputs_embeds", inputs_embeds), ("output_attentions", output_attentions),
                            ("output_hidden_states", output_hidden_states)):
            if value is not None and value is not False:
                raise NotImplementedError(f"{name}: libwkv reads token ids and gives scores, and nothing between")
        _check_shape(input_ids)
        given = the_cache(cache, past_key_values)
        used = RWKV7Cache() if given is None else given
        with used._alone(), torch.no_grad():
            logits = self._read(used, input_ids, attention_mask, logits_to_keep if labels is None else 0)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels.to(logits.device), vocab_size=self.config.vocab_size)
        is_kept = given is not None or use_cache is not False
        output = CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: used if is_kept else None})
        return output.to_tuple() if return_dict is False else output

    def _read(self, cache: RWKV7Cache, input_ids: torch.Tensor, mask: Optional[torch.Tensor],
              keep: Union[int, torch.Tensor]) -> torch.Tensor:
        turn = cache._turn
        is_prompt = turn is not None and not turn.has_begun
        ids = input_ids.detach().cpu().numpy()
        batch, columns = ids.shape
        readable = None if mask is None else self._mask_of(cache, ids, mask)
        fed = list(ids) if readable is None else [row[is_read] for row, is_read in zip(ids, readable)]
        vocabulary = self.config.vocab_size
        read = numpy.concatenate(fed)
        wrong = read[(read < 0) | (read >= vocabulary)]
        if len(wrong):
            raise ValueError(f"token {wrong[0]} is outside vocabulary {vocabulary}")
        is_last_enough = isinstance(keep, int) and keep == 1
        rows = 1 if is_last_enough else columns
        make = torch.empty if all(len(tokens) >= rows for tokens in fed) else torch.zeros
        logits = make((batch, rows, vocabulary), dtype=torch.float32)
        room = logits.numpy()
        outs: List[Any] = []
        for i, tokens in enumerate(fed):
            begin = columns - len(tokens)
            if is_last_enough:
                outs.append(room[i, 0])
            elif readable is None or readable[i, begin:].all():
                outs.append(room[i, begin:])  # in its place at once
            else:
                outs.append(numpy.empty((len(tokens), vocabulary), numpy.float32))
        after = turn.columns if is_prompt else cache._columns + columns
        cache._feed(self.wkv, [tokens.astype(numpy.int32) for tokens in fed], outs, after, not is_last_enough)
        for i, out in enumerate(outs):
            if out.base is None and len(out):  # not in its place: padding on the right, or between
                assert readable is not None
                source = readable[i].cumsum() - 1
                room[i, source >= 0] = out[source[source >= 0]]
        if is_prompt:
            turn.has_begun = True
            if turn.repeats > 1:
                cache.batch_repeat_interleave(turn.repeats)
                logits = logits.repeat_interleave(turn.repeats, 0)
        if isinstance(keep, torch.Tensor):
            return logits[:, keep]
        return logits if is_last_enough or not keep else logits[:, -keep:]

    @staticmethod
    def _mask_of(cache: RWKV7Cache, ids: numpy.ndarray, mask: torch.Tensor) -> numpy.ndarray:
        batch, columns = ids.shape
        if mask.dim() != 2 or len(mask) != batch or mask.shape[1] not in (columns, cache._columns + columns):
            raise ValueError(f"attention_mask of the shape {list(mask.shape)}: [{batch}, {columns}] is needed, or "
                             f"[{batch}, {cache._columns + columns}] with the columns in the cache")
        values = mask[:, mask.shape[1] - columns:].detach().cpu().numpy()
        if not ((values == 0) | (values == 1)).all():
            raise ValueError("attention_mask has other values than 0 and 1")
        return numpy.asarray(values, bool)

    # --- generate()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def generate(self, inputs: Optional[torch.Tensor] = None, generation_config: Optional[GenerationConfig] = None,
                 *arguments: Any, **options: Any) -> Any:
        """As everywhere in transformers. `past_key_values` (or `cache`): an RWKV7Cache; a wkv.Cache, which is one row; an
        empty DynamicCache, in whose place a new one is made. A prompt is read in chunks of the library's own,
        whatever prefill_chunk_size says. After a beam search the cache holds the beams, not the answer."""
        cache = the_cache(options.pop("cache", None), options.pop("past_key_values", None))

        def option(name: str) -> Any:
            if name in options:
                return options[name]
            value = getattr(generation_config, name, None)
            return getattr(self.generation_config, name, None) if value is None else value

        if options.get("inputs_embeds") is not None:
            raise NotImplementedError("inputs_embeds: libwkv reads token ids")
        if option("cache_implementation") is not None:
            raise ValueError(f"cache_implementation={option('cache_implementation')!r}: RWKV7Cache is the only kind")
        if option("prefill_chunk_size") is not None:
            options["prefill_chunk_size"] = None
        if option("use_cache") is False:
            if cache is not None:
                raise ValueError("a cache and use_cache=False")
            return super().generate(inputs, generation_config, *arguments, **options)
        ids = inputs if inputs is not None else options.get("input_ids")
        if ids is None:
            begin = option("bos_token_id")
            if begin is None:
                raise ValueError("no input_ids, and no bos_token_id to begin with")
            inputs = ids = torch.tensor([[begin]])
        _check_shape(ids)
        if cache is None:
            cache = RWKV7Cache(self.wkv)
        # only greedy search and sampling are known to put padding behind an end, and to answer row by row
        is_plain = (option("num_beams") or 1) == 1 and options.get("custom_generate") is None
        ends = option("eos_token_id") if is_plain else None
        mask = options.get("attention_mask")
        turn = Turn(ids.shape[0], ids.shape[1], None if mask is None else mask.shape[-1],
                    [] if ends is None else torch.as_tensor(ends).flatten().tolist())
        with cache._taking_turn(turn):
            result = super().generate(inputs, generation_config, *arguments, **{CACHE: cache}, **options)
            if is_plain:
                turn.end(cache, result if isinstance(result, torch.Tensor) else result.sequences)
        return result

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, next_sequence_length: Optional[int] = None,
                                      past_key_values: Optional[Any] = None, attention_mask: Optional[torch.Tensor] = None,
                                      inputs_embeds: Optional[torch.Tensor] = None, is_first_iteration: bool = False,
                                      cache: Optional[Any] = None, **kwargs: Any) -> Dict[str, Any]:
        """What forward gets: of a cache in generate(), ids that it has not read."""
        used = the_cache(cache, past_key_values)
        turn = None if used is None else used._turn
        if turn is not None:
            read = turn.next(used, input_ids) if turn.has_begun else turn.first(used, input_ids, attention_mask)
            input_ids, attention_mask = read
        elif next_sequence_length is not None:
            if next_sequence_length < 1:
                raise ValueError("the ids are no more than what the cache has read")
            input_ids = input_ids[:, -next_sequence_length:]
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds, CACHE: used}
        for name in ("use_cache", "logits_to_keep", "output_attentions", "output_hidden_states"):
            if name in kwargs:
                inputs[name] = kwargs[name]
        return inputs

    # --- what torch asks a module

    @property
    def device(self) -> torch.device:
        """Where ids and scores are; the weights: self.wkv.info.device."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """That of scores; the weights: self.wkv.info.compute_types."""
        return torch.float32

    def num_parameters(self, *_: Any, **__: Any) -> int:
        """Those of the wkv.Model: torch has none."""
        return self.wkv.info.parameters

    def _apply(self, fn: Any, recurse: bool = True) -> RWKV7ForCausalLM:
        """Where to(), half(), cuda() and the like end up."""
        probe = fn(torch.empty(1))
        if probe.device.type != "cpu" or probe.dtype != torch.float32:
            raise NotImplementedError("device and number format are chosen at loading: device= and weight_type=")
        return self

    def train(self, mode: bool = True) -> RWKV7ForCausalLM:
        """Refused, but for train(False)."""
        if mode:
            raise NotImplementedError("libwkv infers and does not train")
        super().train(False)
        return self

    def get_input_embeddings(self) -> Any:
        """Refused."""
        raise NotImplementedError("the weights are libwkv's")

    set_input_embeddings = get_output_embeddings = get_input_embeddings

    def extra_repr(self) -> str:
        return repr(self.wkv)


def _check_shape(ids: Any) -> None:
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.is_floating_point() or not ids.numel():
        raise ValueError("input_ids: integers of the shape [batch, columns] are needed")


def the_cache(*given: Any) -> Optional[RWKV7Cache]:
    """The cache of an argument that has two names, in any form that is taken."""
    present = [cache for cache in given if cache is not None]
    if len(present) > 1:
        raise ValueError("cache and past_key_values are two names of one argument")
    if not present:
        return None
    cache = present[0]
    if isinstance(cache, RWKV7Cache):
        return cache
    if isinstance(cache, wkv.Cache):
        return RWKV7Cache.from_caches([cache])
    if isinstance(cache, DynamicCache):
        if any(getattr(layer, "is_initialized", False) for layer in cache.layers):
            raise TypeError("this DynamicCache holds attention states, which are not a state of RWKV-7: pass an RWKV7Cache")
        return None
    hint = ": RWKV7Cache.from_fla makes one of it" if type(cache).__module__.startswith("fla.") else ""
    raise TypeError(f"past_key_values: an RWKV7Cache is needed, not {type(cache).__name__}{hint}")
