"""Hydra's own tests of launchers, run on ours."""

import pytest
from hydra import version
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import LauncherTestSuite

#: Hydra's suite leaves version_base out, and Hydra's basic launcher then announces a change.
pytestmark = pytest.mark.filterwarnings("ignore:.*Future Hydra versions will no longer change working directory.*")


@pytest.fixture(autouse=True)
def _version_base() -> None:
    """The suite expects Hydra without a version_base; other tests of this process set one."""
    version.VersionBase.instance().version_base = version._UNSPECIFIED_


def test_hydra_finds_the_plugins() -> None:
    for kind, name in ((Launcher, "OckhamLauncher"), (Sweeper, "OckhamSweeper")):
        assert name in {plugin.__name__ for plugin in Plugins.instance().discover(kind)}


@pytest.mark.parametrize("launcher_name", ["ockham"])
@pytest.mark.parametrize("overrides", [[]], ids=["hydras-sweeper"])
class TestLauncherWithHydrasSweeper(LauncherTestSuite):
    pass


@pytest.mark.parametrize("launcher_name", ["basic", "ockham"])
@pytest.mark.parametrize("overrides", [["hydra/sweeper=ockham"]], ids=["our-sweeper"])
class TestSweeper(LauncherTestSuite):
    pass
