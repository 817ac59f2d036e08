# Copyright Spack Project Developers. See COPYRIGHT file for details.
#
# SPDX-License-Identifier: (Apache-2.0 OR MIT)
#
# For a repository of the site's own (`spack repo create`), as packages/vscode_shell_proxy/package.py.
# The archive is the release's vscode-shell-proxy-VERSION-source.tar.gz, in the directory of the call
# or in a mirror; the release's copy of this file has its checksum.

import os

from spack_repo.builtin.build_systems.cargo import CargoPackage

from spack.package import *


class VscodeShellProxy(CargoPackage):
    """Runs VS Code Remote-SSH sessions inside scheduler jobs instead of on the login node."""

    manual_download = True
    url = f"file://{os.getcwd()}/vscode-shell-proxy-0.1.0-source.tar.gz"

    license("Apache-2.0 OR MIT")

    version("0.1.0")

    depends_on("c", type="build")  # what rustc links with
    depends_on("rust@1.88:", type="build")

    @property
    def build_args(self):
        return ["--locked"]

    @run_after("install")
    def install_documents(self):
        for section, page in (
            (1, "vscode-shell-proxy.1"),
            (5, "vscode-shell-proxy.conf.5"),
            (8, "vscode-cleanup.8"),
        ):
            directory = join_path(self.prefix.share.man, f"man{section}")
            mkdirp(directory)
            install(f"man/{page}", directory)
        for directory in (
            bash_completion_path(self.prefix),
            zsh_completion_path(self.prefix),
            fish_completion_path(self.prefix),
        ):
            mkdirp(directory)
        for program in ("vscode-shell-proxy", "vscode-cleanup"):
            bash = join_path(bash_completion_path(self.prefix), program)
            install(f"completions/{program}.bash", bash)
            install(f"completions/_{program}", zsh_completion_path(self.prefix))
            install(f"completions/{program}.fish", fish_completion_path(self.prefix))
        install_tree("contrib", self.prefix.share.doc.join("vscode-shell-proxy"))

    def test_version(self):
        """both programs run and know their version"""
        for program in ("vscode-shell-proxy", "vscode-cleanup"):
            with test_part(self, f"test_version_{program}"):
                found = which(join_path(self.prefix.bin, program))("--version", output=str)
                assert f"{program} {self.version}" in found
