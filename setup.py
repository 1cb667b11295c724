"""Packaging: the repository root *is* the package ``relume`` (``relume.archs`` lives in ``./archs``)."""

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

ROOMS = ("core", "archs", "losses", "datasets", "schedulers", "options")


class BuildPy(build_py):
    """Ship only ``__init__.py`` and ``__main__.py`` of the root's own files: not setup.py, train.py, test.py."""

    def find_package_modules(self, package: str, package_dir: str) -> list:
        modules = super().find_package_modules(package, package_dir)
        return modules if package != "relume" else [m for m in modules if m[1] in ("__init__", "__main__")]


setup(
    cmdclass={"build_py": BuildPy},
    package_dir={"relume": "."},
    packages=["relume"]
    + [f"relume.{p}" for p in find_namespace_packages(include=[f"{r}{s}" for r in ROOMS for s in ("", ".*")])],
    package_data={
        "relume": ["py.typed"],
        "relume.options": ["**/*.yml", "**/*.json", "README.md"],
        "relume.core.hub": ["*.yml"],
        "relume.core.metrics": ["*.npz"],
        "relume.core.reports": ["*.html"],
    },
)
