"""Follows the Spack recipe as Spack does, for want of a Spack in any registry that tests may use.

    spack.py RECIPE SOURCE PREFIX      builds SOURCE and installs it below PREFIX; then the recipe's own test

The names that a recipe sees are those of Spack's packaging guide; each does here what is said of it there.
"""

import contextlib
import inspect
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

recipe, source, prefix = (Path(argument).resolve() for argument in sys.argv[1:])


class Prefix(str):
    """A directory below which every name is one, too."""

    def __getattr__(self, name):
        return self.join(name)

    def join(self, name):
        return Prefix(os.path.join(self, name))


class CargoPackage:
    """The build system: one phase, `cargo install`."""

    versions, after_install = {}, []
    build_args = []

    def __init__(self):
        self.prefix = Prefix(prefix)
        (self.version,) = self.versions

    def install(self):
        args = ["cargo", "install", "--root", self.prefix, "--path", ".", *self.build_args]
        os.chdir(source)
        subprocess.run(args, check=True)
        for step in self.after_install:
            step(self)


def run_after(phase):
    assert phase == "install", phase

    def remember(step):
        CargoPackage.after_install.append(step)
        return step

    return remember


def version(number, **checksums):
    CargoPackage.versions[number] = checksums


def depends_on(spec, **when):
    assert spec and set(when) <= {"type", "when"}, (spec, when)


def which(path):
    assert os.access(path, os.X_OK), path

    def run(*args, output):
        assert output is str
        return subprocess.run([path, *args], check=True, capture_output=True, text=True).stdout

    return run


@contextlib.contextmanager
def test_part(package, name):
    assert name.startswith("test_"), name
    yield


def installed(what, where):
    shutil.copy2(what, where)


names = {
    "CargoPackage": CargoPackage,
    "bash_completion_path": lambda at: Path(at, "share/bash-completion/completions"),
    "depends_on": depends_on,
    "fish_completion_path": lambda at: Path(at, "share/fish/vendor_completions.d"),
    "install": installed,
    "install_tree": lambda what, where: shutil.copytree(what, where, dirs_exist_ok=True),
    "join_path": os.path.join,
    "license": lambda spdx: None,
    "mkdirp": lambda path: os.makedirs(path, exist_ok=True),
    "run_after": run_after,
    "test_part": test_part,
    "version": version,
    "which": which,
    "zsh_completion_path": lambda at: Path(at, "share/zsh/site-functions"),
}
for module in (
    "spack",
    "spack.package",
    "spack_repo",
    "spack_repo.builtin",
    "spack_repo.builtin.build_systems",
    "spack_repo.builtin.build_systems.cargo",
):
    sys.modules[module] = types.ModuleType(module)
    vars(sys.modules[module]).update(names, __all__=list(names))
scope = {}
exec(compile(recipe.read_text(), recipe, "exec"), scope)
(package,) = (
    it for it in scope.values() if inspect.isclass(it) and issubclass(it, CargoPackage) and it is not CargoPackage
)
package = package()
(checksums,) = package.versions.values()
print("spack:", package.version, checksums.get("sha256"))
package.install()
package.test_version()
