"""What a GGUF file says of itself, and the sentences for who names a wrong one."""

import struct
from pathlib import Path

import pytest

from agent_service.models.local_server import usable_cores
from agent_service.models.local_weights import Weights, free_memory, read_weights, require_memory
from service_kit.settings import ConfigurationError

STRING, UINT32, BOOL, ARRAY = 8, 4, 7, 9


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(*entries: bytes, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries)) + b"".join(entries)


def text_entry(key: str, text: str) -> bytes:
    return string(key) + struct.pack("<I", STRING) + string(text)


OTHERS = (
    string("llama.context_length") + struct.pack("<II", UINT32, 4096),
    string("tokenizer.ggml.add_bos_token") + struct.pack("<I?", BOOL, True),
    string("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, STRING, 2) + string("<s>") + string("</s>"),
    string("tokenizer.ggml.token_type") + struct.pack("<IIQ", ARRAY, UINT32, 2) + bytes(8),
)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model-q4.gguf"
    path.write_bytes(data)
    return path


def test_name_and_chat_template_are_found_behind_other_entries(tmp_path: Path) -> None:
    named = (*OTHERS, text_entry("general.name", "Modelo 4B"), text_entry("tokenizer.chat_template", "{{ messages }}"))
    weights = read_weights(written(tmp_path, gguf(*named)))
    assert (weights.name, weights.has_chat_template) == ("Modelo 4B", True)
    assert weights.bytes == weights.path.stat().st_size


def test_a_base_model_has_no_chat_template_and_may_have_no_name(tmp_path: Path) -> None:
    weights = read_weights(written(tmp_path, gguf(*OTHERS, text_entry("tokenizer.chat_template", " "))))
    assert (weights.name, weights.has_chat_template) == ("model-q4", False)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*nothing\.gguf"):
        read_weights(tmp_path / "nothing.gguf")
    with pytest.raises(ConfigurationError, match="is a directory; name the GGUF file in it"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 a zip file, or whatever else",
        gguf(*OTHERS, version=99),
        gguf(*OTHERS)[:-20],
        gguf(text_entry("general.name", "x"))[:-3],
        gguf(string("general.name") + struct.pack("<IQ", STRING, 1 << 40)),
        gguf(string("new") + struct.pack("<I", 77)),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
    ],
    ids=["empty", "no gguf", "version", "cut entry", "cut string", "huge string", "unknown type", "endless"],
)
def test_what_is_no_whole_gguf_is_refused_before_llama_cpp_sees_it(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="is not a GGUF file, or not a whole one"):
        read_weights(written(tmp_path, data))


def test_weights_that_cannot_fit_are_refused_with_both_numbers() -> None:
    weights = Weights(path=Path("big.gguf"), name="big", bytes=8 << 30, has_chat_template=True)
    with pytest.raises(ConfigurationError, match=r"big\.gguf needs at least 8\.1 GiB of memory and 6\.0 GiB are free"):
        require_memory(weights, 6 << 30)
    require_memory(weights, 9 << 30)
    require_memory(weights, None)


def test_free_memory_is_what_the_system_tells(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:   2048 kB\n")
    assert free_memory(meminfo) == 2 << 20
    meminfo.write_text("MemTotal:  100 kB\n")
    assert free_memory(meminfo) is None
    assert free_memory(tmp_path / "nowhere") is None


def test_a_container_limits_the_cores(tmp_path: Path) -> None:
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text("max 100000\n")
    all_of_them = usable_cores(cpu_max)
    cpu_max.write_text("100000 100000\n")
    assert usable_cores(cpu_max) == 1
    cpu_max.write_text("20000 100000\n")
    assert usable_cores(cpu_max) == 1
    cpu_max.write_text(f"{(all_of_them + 5) * 100000} 100000\n")
    assert usable_cores(cpu_max) == all_of_them
    assert usable_cores(tmp_path / "nowhere") == all_of_them
