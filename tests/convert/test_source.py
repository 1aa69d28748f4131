"""Which file is a checkpoint, on this disk and on the Hub, and what a tokenizer keeps of where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.convert.test_convert import case, tokenizer, vq, written
from vqtok.convert import convert
from vqtok.convert.source import chosen, open_source
from vqtok.errors import CheckpointError, ConfigurationError, HubError
from vqtok.hub import Provenance, provenance_of, push, sharing_warning
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

# huggingface_hub 2.4 uploads LFS files in a way that its own HTTP client calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.pt", "notes.txt", "config.json"], ["a.pt"]),
        (["a.bin", "a.safetensors"], ["a.safetensors"]),
        ([*reversed(SHARDS), "model.safetensors.index.json", "pytorch_model.bin"], SHARDS),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"], None),
    ],
)
def test_the_checkpoint_of_a_folder(names: list[str], expected: list[str] | None) -> None:
    assert chosen(names, "here") == (expected or names)


@pytest.mark.parametrize(
    "names", [["a.pt", "b.pt"], ["model.safetensors", "model.fp16.safetensors"], [*SHARDS, "x.safetensors"]]
)
def test_several_checkpoints_are_never_mixed(names: list[str]) -> None:
    first = min(names)
    with pytest.raises(
        CheckpointError, match=rf"here holds several checkpoints, {first}, .*name one, as in here/{first}"
    ):
        chosen(names, "here")


@pytest.mark.parametrize("names", [SHARDS[:1], SHARDS[1:], [*SHARDS[:1], "model-00001-of-00003.safetensors"]])
def test_a_checkpoint_whose_shards_are_missing_is_refused(names: list[str]) -> None:
    """Without that of the decoder it would be a tokenizer that cannot make images."""
    with pytest.raises(
        CheckpointError, match=r"here/ holds (1 of the 2 files of its checkpoint|several).*as in here/m"
    ):
        chosen(names, "here/")


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    _, tensors = case("llamagen")
    names = sorted(tensors)
    for file, half in zip(SHARDS, (names[::2], names[1::2]), strict=True):
        save_file({name: tensors[name].contiguous() for name in half}, tmp_path / file)
    source = open_source(str(tmp_path))
    assert source.tensors.keys() == tensors.keys() and source.public == tmp_path.name


def test_a_damaged_configuration_beside_it_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_source(str(tmp_path / "a.pt"))


def test_a_file_here_has_no_revision(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(ConfigurationError, match="is on this disk, where it has no revision 'v1'"):
        open_source(str(tmp_path / "a.pt"), revision="v1")


@pytest.mark.usefixtures("alice")
def test_a_checkpoint_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made, tensors = case("diffusers")
    (tmp_path / "up" / "vqvae").mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, "up/vqvae/model.safetensors")
    (tmp_path / "up" / "vqvae" / "config.json").write_text(json.dumps({"norm_num_groups": 16}))
    torch.save(tensors, "up/a.pt")
    torch.save({"other": torch.ones(3)}, "up/b.pt")
    api = HfApi(endpoint=None)
    api.create_repo("alice/vq")
    api.upload_folder(repo_id="alice/vq", folder_path="up")
    first = api.model_info("alice/vq").sha
    api.upload_file(path_or_fileobj=b"nothing", path_in_repo="a.pt", repo_id="alice/vq")
    api.upload_file(path_or_fileobj=b"nothing", path_in_repo="b/..\\a.pt", repo_id="alice/vq")
    api.create_repo("alice/empty")

    found = convert("alice/vq/vqvae", image_size=64)
    assert found.family == "diffusers" and found.tokenizer.config.network["norm_groups"] == 16
    found = convert("alice/vq/a.pt", image_size=64, revision=first)
    assert found.tokenizer.config.network == made.config.network
    assert found.provenance.checkpoint == f"alice/vq/a.pt at commit {first}"
    for name, complaint in (
        ("alice/vq", "alice/vq holds several checkpoints, a.pt, b.pt: name one, as in alice/vq/a.pt"),
        ("alice/vq/c.pt", "alice/vq has no file or folder c.pt"),
        ("alice/vq/b", "alice/vq has a file b/..\\a.pt, whose name leads elsewhere"),
        ("alice/empty", "alice/empty holds no checkpoint"),
        ("alice/vq/a.pt", "a.pt is damaged, or no checkpoint"),
        ("alice/other/a.pt", "alice/other does not exist on the Hub, or is private"),
        ("a/b/c/../../d", "a/b does not exist on the Hub"),
        ("none.pt", "there is no file or folder none.pt"),
    ):
        with pytest.raises((CheckpointError, HubError)) as refused:
            convert(name)
        assert complaint in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.usefixtures("alice")
def test_terms_are_said_before_weights_are_pushed(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    origin = Provenance(
        program="Chameleon",
        checkpoint="vqgan.ckpt",
        source="https://github.com/facebookresearch/chameleon",
        paper="a paper",
        code_license="its own",
        weights_license="Research License",
        may_share=False,
    )
    tiny_tokenizer.config.provenance = origin.model_dump()
    fingerprint = tiny_tokenizer.fingerprint
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    again = VQTokenizer.from_pretrained(tmp_path / "tok")
    assert provenance_of(again.config.to_dict(), name="it") == origin and again.fingerprint == fingerprint
    with pytest.warns(UserWarning, match="the weights come from Chameleon and are under the Research License: they"):
        again.push_to_hub("alice/chameleon")
    assert push(tmp_path / "tok", "alice/chameleon")
    again.config.provenance = None
    assert sharing_warning(again.config.to_dict()) is None


def test_a_damaged_provenance_is_refused() -> None:
    with pytest.raises(CheckpointError, match="the entry 'provenance' of config.json is damaged: program is missing"):
        VQTokenizerConfig(provenance={"checkpoint": "a.pt"})
    assert "provenance" not in VQTokenizerConfig().to_json_string()


@pytest.mark.parametrize("entry", [{"notes": ["x"] * 51}, {"notes": ["x" * 2001]}, {"weights_license": "x" * 2001}])
def test_a_provenance_that_would_fill_the_screen_is_refused(entry: dict[str, object]) -> None:
    texts = ("program", "checkpoint", "source", "paper", "code_license", "weights_license")
    origin = {name: "a" for name in texts} | {"may_share": True}
    assert provenance_of({"provenance": origin}, name="it") is not None
    with pytest.raises(
        CheckpointError, match="is damaged: (notes|weights_license).* should have at most (50|2000) "
    ) as error:
        provenance_of({"provenance": origin | entry}, name="it")
    assert len(str(error.value)) < 300


def test_the_chameleon_of_its_authors_is_told_from_taming_by_the_user(tmp_path: Path) -> None:
    """Only its shape, 8,192 codes of 256 dimensions and no attention between levels, hints at it."""
    made = tokenizer("vqgan-f16", vq(codebook_size=8192, code_dim=256), attention_levels=[])
    torch.save({"state_dict": written(made) | {"loss.x": torch.ones(1)}}, tmp_path / "vqgan.ckpt")
    with pytest.raises(CheckpointError, match="may be of chameleon or taming: say which with --from"):
        convert(tmp_path / "vqgan.ckpt")
    found = convert(tmp_path / "vqgan.ckpt", family="chameleon")
    assert (found.tokenizer.config.size, found.dropped) == ((512, 512), ("loss.x",))
    assert found.tokenizer.config.resample == "chameleon" and not found.provenance.may_share
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    codes = made.encode(pixels)
    assert torch.equal(found.tokenizer.encode(pixels), codes)
    assert torch.equal(found.tokenizer.decode(codes), made.decode(codes))
    other = convert(tmp_path / "vqgan.ckpt", family="taming")
    assert "no published tokenizer of taming-transformers" in other.provenance.notes[0]


def test_ibq_without_its_averages_is_told_from_taming_by_the_user(tmp_path: Path) -> None:
    """Its lookup is another; only four blocks a level hint at it."""
    made = tokenizer("ibq-f16", vq(type="ibq", metric="dot"))
    torch.save({"state_dict": written(made)}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="may be of ibq or taming: say which with --from"):
        convert(tmp_path / "a.ckpt")
    assert convert(tmp_path / "a.ckpt", family="ibq").tokenizer.config.quantizer["metric"] == "dot"


class Module(nn.Module):
    """A module of the tensors of a checkpoint, by their names, as TorchScript takes one."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            first, _, rest = name.partition(".")
            if rest:
                parts.setdefault(first, {})[rest] = tensor
            else:
                self.register_buffer(first, tensor)
        for first, inner in parts.items():
            self.add_module(first, Module(inner))

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_cosmos_as_it_is_published(tmp_path: Path) -> None:
    """TorchScript of bfloat16, with the buffers that training never saves."""
    made, tensors = case("cosmos")
    found = {name: value.bfloat16() for name, value in tensors.items()}
    found |= {
        "quantizer._levels": torch.tensor([8, 8, 8, 5, 5, 5], dtype=torch.int32),
        "encoder.p.wavelets": torch.ones(2),
    }
    torch.jit.trace(Module(found), torch.ones(1)).save(tmp_path / "autoencoder.jit")
    ours = convert(tmp_path / "autoencoder.jit", image_size=64)
    assert (ours.family, ours.dropped) == ("cosmos", ("encoder.p.wavelets",))
    state = made.state_dict()
    for name, value in ours.tokenizer.state_dict().items():
        assert torch.equal(value, state[name].bfloat16().float()), name
    found["quantizer._levels"] = torch.tensor([8, 8, 8, 6, 5], dtype=torch.int32)
    torch.jit.trace(Module(found), torch.ones(1)).save(tmp_path / "autoencoder.jit")
    with pytest.raises(CheckpointError, match=r"do not have the 5 dimensions of its levels"):
        convert(tmp_path / "autoencoder.jit")
    found["quantizer.project_in.weight"] = torch.ones(6, 6)
    found["quantizer._levels"] = torch.tensor([8, 8, 8, 5, 5, 5], dtype=torch.int32)
    torch.jit.trace(Module(found), torch.ones(1)).save(tmp_path / "autoencoder.jit")
    with pytest.raises(CheckpointError, match=r"has no place for quantizer\.project_in\.weight"):
        convert(tmp_path / "autoencoder.jit")


@pytest.mark.parametrize(
    ("codes", "dimension", "multipliers", "name"),
    [
        (16384, 256, [1, 1, 2, 2, 4], "vqgan_imagenet_f16_16384"),
        (16384, 8, [1, 1, 2, 2, 4], "vq-f16"),
        (256, 4, [1, 2, 2, 4], "vq-f8-n256"),
    ],
)
def test_published_tokenizers_are_known_by_their_shape(
    tmp_path: Path, codes: int, dimension: int, multipliers: list[int], name: str
) -> None:
    quantizer = vq(codebook_size=codes, code_dim=dimension)
    made = tokenizer("vqgan-f16", quantizer, channel_multipliers=multipliers)
    torch.save({"state_dict": written(made)}, tmp_path / "last.ckpt")
    assert f"{name}, reconstruction FID" in str(convert(tmp_path / "last.ckpt").provenance.published)
