"""The guard against CUDA packages on a machine without a GPU."""

from tools import torch_guard


def test_cuda_packages_are_refused_with_the_count_and_the_remedy():
    text = torch_guard.refusal(["torch", "nvidia-cublas", "nvidia-nccl-cu13", "sympy"], "torch==2.13.0")
    assert text is not None
    assert "fetch 2 CUDA packages with torch==2.13.0" in text
    assert "TORCH_INDEX=" in text


def test_a_cpu_build_passes():
    assert torch_guard.refusal(["torch", "sympy", "filelock"], "torch==2.13.0") is None
    assert torch_guard.refusal([], "torch==2.13.0") is None


def test_an_index_chosen_by_the_user_is_not_questioned(monkeypatch):
    monkeypatch.setattr(torch_guard, "planned_packages", lambda requirement: ["nvidia-cublas"])
    monkeypatch.setattr(torch_guard, "has_gpu", lambda: False)
    assert torch_guard.main("torch==2.13.0", "https://example.org/simple") == 0
    assert torch_guard.main("torch==2.13.0") == 1


def test_a_machine_with_a_gpu_takes_what_pip_takes(monkeypatch):
    monkeypatch.setattr(torch_guard, "planned_packages", lambda requirement: ["nvidia-cublas"])
    monkeypatch.setattr(torch_guard, "has_gpu", lambda: True)
    assert torch_guard.main("torch==2.13.0") == 0


def test_the_device_file_decides(tmp_path):
    device = tmp_path / "nvidiactl"
    assert not torch_guard.has_gpu(device)
    device.touch()
    assert torch_guard.has_gpu(device)
