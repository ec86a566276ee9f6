"""What `import lm2` and the command's help may load."""

import subprocess
import sys

import pytest

OPTIONAL = ("accelerate", "datasets", "matplotlib", "fastapi", "lm_eval")


def loaded_by(code: str) -> set[str]:
    """Top-level modules in `sys.modules` after `code` ran in a new process."""
    program = f"{code}\nimport sys\nprint('\\nMODULES', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


def test_our_modules_import_no_optional_package_themselves():
    """With the optional packages made unimportable, every module reached by `import lm2` still loads."""
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in OPTIONAL)
    assert "torch" in loaded_by(f"import sys\n{blocked}\nimport lm2\nlm2.LM2ForCausalLM")


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["convrt"], ["study"]])
def test_help_and_typos_answer_without_loading_torch(argv):
    loaded = loaded_by(f"from lm2_command import main\nmain({argv!r})")
    assert not loaded & {"torch", "transformers", "numpy", *OPTIONAL}
