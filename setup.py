# SPDX-License-Identifier: GPL-2.0-or-later
"""What pyproject.toml cannot say: the extension of C and C++, and the sources inside the wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
C_FLAGS = ["-std=c11", "-O2", "-g", "-UNDEBUG", "-fvisibility=hidden", *WARNINGS]
# The bindings hand everything on to the core. With -O2 -g they take four fifths of the time that a build takes.
CXX_FLAGS = ["-std=c++17", "-O1", "-g1", "-fvisibility=hidden", *WARNINGS]
# What the tools compile on the user's machine: QEMU's patches and module, and the programs for the root partition.
SOURCES = ["patches", "csrc", "tests/guests/runtime", "tests/guests/lib", "examples"]
INCLUDES = ["csrc", "csrc/hv", "csrc/python"]


def find(pattern: str) -> list[str]:
    """Return the files that match a pattern, sorted, as setuptools wants them."""
    return sorted(str(path) for path in Path().glob(pattern))


class BuildExtension(build_ext):
    """Compiles C sources as C11 and C++ sources as C++17; setuptools has one set of flags."""

    def build_extension(self, ext: Extension) -> None:
        """Build the extension."""
        import pybind11

        include_dirs = [*ext.include_dirs, pybind11.get_include()]
        c_sources = [str(source) for source in ext.sources if str(source).endswith(".c")]
        ext.sources = [str(source) for source in ext.sources if str(source) not in c_sources]
        ext.include_dirs = include_dirs
        ext.extra_objects = self.compiler.compile(
            c_sources,
            output_dir=self.build_temp,
            include_dirs=include_dirs,
            extra_postargs=C_FLAGS,
            depends=ext.depends,
        )
        ext.depends = [*ext.depends, *c_sources]  # so that it is linked anew when only they have changed
        super().build_extension(ext)


class BuildPython(build_py):
    """Puts the patches and the C sources into the wheel, where qemu_hv.resources finds them."""

    def run(self) -> None:
        """Copy the Python files, then the sources."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "qemu_hv", "_source")
        shutil.rmtree(target, ignore_errors=True)
        for name in SOURCES:
            shutil.copytree(name, target / name)


ParallelCompile(default=0).install()
setup(
    ext_modules=[
        Extension(
            "qemu_hv._core",
            sources=find("csrc/hv/*.c") + find("csrc/python/*.cpp"),
            depends=find("csrc/**/*.h") + find("csrc/**/*.hpp") + find("csrc/**/*.def"),
            include_dirs=INCLUDES,
            extra_compile_args=CXX_FLAGS,
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPython},
)
